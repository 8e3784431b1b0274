"""The scout's main loop: `python -m gpudaemon.processes.process CHANNEL TIER PERIOD`.

CHANNEL is the descriptor of its end of a SOCK_SEQPACKET pair, TIER a key of `model.rights.TIERS`, PERIOD the
seconds between cycles. It keeps no more capabilities than looking at other users' processes and hearing of new
ones takes, and ends when the other end is closed.

Packets from the server are JSON: {"settings": {"procfs", "sysfs", "period", "walk", "drivers", "rings",
"cgroups", "events", "kubelet", "log", "after"}}, {"ask": [pid, ...]}. Packets to the server, each cycle, as far
as there is anything to tell:

    {"users": [[pid, started, {node: [descriptor, ...]}], ...]}    parts of the table, if it changed
    {"kfd": [[pid, {device: [path, ...]}, [[device, type, count], ...], started], ...]}    the same
    {"rings": [...]}                                               parts, at their own period
    {"capacity": [[device, region, bytes], ...]}                   where there is dmem
    {"memory": [[owner, [[kind, device, region, bytes], ...]], ...]}    the same, by cgroup
    {"cgroups": [[owner, path, events, bytes by kind and node, pressure], ...]}    parts, at the rings' period
    {"pods": [[id, resource, namespace, pod, container, claim], ...]}    where the kubelet is asked
    {"cycle": number, "changed", "rings", "cgroups", "pods", ...}  the cycle is complete

and, when the kernel's log (`settings.log`, its path; from the record after `settings.after`) says so:

    {"trouble": [`parsers.kmsg.Said`, ...]}
    {"log": {"sequence", "records", "lost", "why"}}    how far it was read; with each cycle too
"""

import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import astuple
from typing import Any

from gpudaemon.model.rights import TIERS
from gpudaemon.parsers.kmsg import said
from gpudaemon.processes.cgroup_memory import CgroupMemory
from gpudaemon.processes.files import read
from gpudaemon.processes.kfd import KfdProcess, KfdProcesses
from gpudaemon.processes.memory import DeviceMemory
from gpudaemon.processes.pods import Kubelet, KubeletError
from gpudaemon.processes.rings import ring_owners
from gpudaemon.processes.table import Process, Table
from gpudaemon.reader.child import begin_child, run_until_left
from gpudaemon.sources.kernel_log import KernelLog
from gpudaemon.sources.process_events import ProcessEvents

__all__ = ["CAPABILITIES", "Scout"]

CAPABILITIES = frozenset({"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN", "CAP_SYSLOG"})
"""What it keeps of its tier's."""
_PACKET = 1 << 16
_RINGS_EVERY = 15.0
_PODS_EVERY = 30.0
_LOG_EVERY = 0.5
"""Seconds between readings of a log that does not end."""


class Scout:
    """Owns the table and tells the server of it."""

    def __init__(self, channel: socket.socket, period: float) -> None:
        self._channel = channel
        self._period = period
        self._cycle = 0
        self._ready = False
        self._rings_due = 0.0
        self._rings = True
        self._pods_due = 0.0
        self._kubelet_path = ""
        self._kubelet: Kubelet | None = None
        self._told_kubelet = ""
        self._kfd_before: list[Any] | None = None
        self._table: Table | None = None
        self._kfd = KfdProcesses("/sys")
        self._memory = DeviceMemory("/proc", "/sys")
        self._cgroups: CgroupMemory | None = None
        self._procfs = "/proc"
        self._events: ProcessEvents | None = None
        self._why = "not asked for"
        self._walk = True
        self._log: KernelLog | None = None
        self._log_path = ""
        self._log_why = "not asked for"
        self._log_read = (-1, 0, 0)
        self._log_due = 0.0

    def run(self) -> None:
        """Look each period until the server closes its end."""
        due = time.monotonic()
        while True:
            packet = self._packet(due)
            if packet is None:
                self._look()
                now = time.monotonic()
                due = (now // self._period + 1) * self._period
                continue
            if not packet:
                return
            if self._take(json.loads(packet)):
                due = time.monotonic()

    def _packet(self, due: float) -> bytes | None:
        """The server's next packet, None when a cycle is due before one. Meanwhile the kernel's log is read."""
        while True:
            now = time.monotonic()
            wait = max(0.0, due - now) if self._ready else None
            watched: list[Any] = [self._channel]
            if self._log is not None and now >= self._log_due:
                watched.append(self._log)
            elif self._log is not None:
                wait = min(self._log_due - now, now if wait is None else wait)
            readable, _, _ = select.select(watched, [], [], wait)
            if self._log is not None and self._log in readable:
                self._read_log(self._log)
            if self._channel in readable:
                return self._channel.recv(_PACKET)
            if self._ready and time.monotonic() >= due:
                return None

    def _take(self, message: dict[str, Any]) -> bool:
        """A message of the server; True where a cycle is due at once."""
        if "settings" in message:
            self._settle(message["settings"])
            return True
        if "ask" in message and self._table is not None:
            self._table.ask(message["ask"])
        return False

    def _settle(self, settings: dict[str, Any]) -> None:
        procfs, sysfs = settings["procfs"], settings["sysfs"]
        self._period = settings["period"]
        self._rings = settings["rings"]
        self._kubelet_path, self._kubelet, self._pods_due = settings["kubelet"], None, 0.0
        self._listen(settings["events"], procfs)
        self._walk = settings["walk"]
        self._follow_log(settings["log"], settings.get("after", -1))
        self._procfs = procfs
        self._kfd = KfdProcesses(sysfs)
        self._kfd_before = None
        self._memory = DeviceMemory(procfs, sysfs)
        self._cgroups = CgroupMemory(procfs, sysfs) if settings["cgroups"] else None
        self._table = Table(
            procfs,
            sysfs,
            self._period,
            clock=time.monotonic,
            cpu=time.process_time,
            news=self._events.take if self._events is not None else None,
            rings=self._rings,
        )
        self._table.drivers = tuple(settings["drivers"])
        self._ready = True
        self._cycle = 0
        self._rings_due = 0.0

    def _listen(self, wanted: bool, procfs: str) -> None:
        """Have the kernel tell of processes where that is wanted and its numbers are those of `procfs`."""
        own = os.path.basename(os.path.realpath(f"{procfs}/self"))
        why = "" if own == str(os.getpid()) else f"{procfs} numbers processes otherwise"
        why = why if wanted else "not asked for"
        if why and self._events is not None:
            self._events.close()
            self._events = None
        if not why and self._events is None:
            try:
                self._events = ProcessEvents()
            except OSError as error:
                why = error.strerror or str(error)
        self._why = why

    def _follow_log(self, path: str, after: int) -> None:
        """Read the kernel's log from now on, an empty path: no more. One that is read goes on being read."""
        if path == self._log_path and self._log is not None:
            return
        if self._log is not None:
            self._log.close()
        self._log, self._log_path, self._log_why = None, path, "" if path else "not asked for"
        if path:
            try:
                self._log = KernelLog(path, after)
            except OSError as error:
                self._log_why = error.strerror or str(error)

    def _read_log(self, log: KernelLog) -> None:
        self._log_due = time.monotonic() + _LOG_EVERY
        try:
            found = [one for one in (said(record.text) for record in log.take()) if one is not None]
        except OSError as error:
            self._log_state()
            log.close()
            self._log, self._log_why = None, error.strerror or str(error)
            found = []
        if found:
            self._tell_parts("trouble", [one.packed() for one in found])
            self._send({"log": self._log_state()})

    def _log_state(self) -> dict[str, Any]:
        if self._log is not None:
            self._log_read = (self._log.sequence, self._log.records, self._log.lost)
        sequence, records, lost = self._log_read
        return {"sequence": sequence, "records": records, "lost": lost, "why": self._log_why}

    def _look(self) -> None:
        assert self._table is not None
        self._cycle += 1
        table = self._table
        changed = (self._walk and table.look()) or self._cycle == 1
        compute = self._kfd.look() if self._walk else []
        told = [_kfd_message(one) for one in compute]
        if changed or told != self._kfd_before:
            changed = True
            self._kfd_before = told
            self._tell_users(table.users, compute, told)
        seldom = time.monotonic() >= self._rings_due
        if seldom:
            self._rings_due = time.monotonic() + max(_RINGS_EVERY, self._period) - 0.5
        rings = self._rings and seldom
        if rings:
            self._tell_parts(
                "rings", [[astuple(o), astuple(w)] for o, w in ring_owners(self._procfs, table.ring_owners)]
            )
        pods, wrong = self._look_at_pods()
        clients = {*table.users, *(one.pid for one in compute)}
        self._tell_memory(clients)
        if self._cgroups is not None and seldom:
            self._tell_parts("cgroups", self._cgroups.look(sorted(clients)))
        self._send(
            {
                "cycle": self._cycle,
                "changed": changed,
                "rings": rings,
                "cgroups": self._cgroups is not None and seldom,
                "pods": pods,
                "kubelet": wrong,
                "processes": len(table.processes),
                "denied": table.denied,
                "events": self._why if self._events is None else "netlink",
                "lists": table.lists,
                "sweeps": table.sweeps,
                "looks": table.looks,
                "cpu": time.process_time(),
                "log": self._log_state(),
                "io_uring_disabled": _number(read(f"{self._procfs}/sys/kernel/io_uring_disabled", 64)),
            }
        )

    def _look_at_pods(self) -> tuple[bool, str]:
        """(whether the kubelet was asked, what was wrong)."""
        if not self._kubelet_path or time.monotonic() < self._pods_due:
            return False, ""
        self._pods_due = time.monotonic() + _PODS_EVERY - 0.5
        try:
            self._kubelet = self._kubelet or Kubelet(self._kubelet_path)
            self._tell_parts("pods", [list(use) for use in self._kubelet.look()])
        except KubeletError as error:
            if str(error) != self._told_kubelet:
                print(f"scout: kubelet: {error}", file=sys.stderr, flush=True)
            self._told_kubelet = str(error)
            return True, str(error)
        self._told_kubelet = ""
        return True, ""

    def _tell_users(self, users: dict[int, Process], compute: list[KfdProcess], told: list[Any]) -> None:
        lines: list[Any] = []
        for pid, process in users.items():
            nodes: dict[str, list[int]] = {}
            for descriptor, node in sorted(process.nodes.items()):
                nodes.setdefault(node, []).append(descriptor)
            lines.append([pid, process.started, nodes])
        self._tell_parts("users", lines)
        assert self._table is not None
        starts = {one.pid: self._table.start_of(one.pid) for one in compute}
        self._tell_parts("kfd", [[*line, starts[line[0]]] for line in told])

    def _tell_memory(self, pids: Iterable[int]) -> None:
        capacity, cgroups = self._memory.look(sorted(pids))
        self._tell_parts("capacity", list(capacity))
        self._tell_parts("memory", [[astuple(owner), sizes] for owner, sizes in cgroups])

    def _tell_parts(self, key: str, lines: list[Any]) -> None:
        size = 0
        part: list[Any] = []
        for line in lines:
            text = len(json.dumps(line))
            if size + text > _PACKET // 2 and part:
                self._send({key: part})
                size, part = 0, []
            part.append(line)
            size += text
        if part:
            self._send({key: part})

    def _send(self, message: dict[str, Any]) -> None:
        # Waits for a server that is behind: nothing depends on this process being in time.
        self._channel.settimeout(None)
        self._channel.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)


def _kfd_message(one: KfdProcess) -> list[Any]:
    queues = [[device, kind, count] for (device, kind), count in sorted(one.queues.items())]
    return [one.pid, one.files, queues]


def _number(content: bytes | None) -> int | None:
    digits = (content or b"").strip()
    return int(digits) if digits.isdigit() and len(digits) < 10 else None


def _main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    begin_child(CAPABILITIES & set(TIERS[sys.argv[2]]))
    run_until_left(lambda: Scout(channel, float(sys.argv[-1])))


if __name__ == "__main__":
    _main()
