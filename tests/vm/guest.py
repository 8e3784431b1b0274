"""A virtual machine with a stock kernel and this host's root, read-only, below an overlay of its own.

    with Guest(Store(), "7.x", "all") as guest:
        guest.modprobe("nvme")
        guest.run("ls", "/sys/class/nvme").stdout
        guest.read("/sys/class/nvme/nvme0/model")
        guest.call(count_cards)                     # a Python function of the test, run in the guest
        guest.qmp.command("device_del", id="nvme_plain")

What is written in the guest stays in its memory, but for `/mnt/out`, which is `guest.out` here. Programs,
Python and the virtual environment are this host's, at their paths; modprobe, cxl, daxctl, ndctl, ip and rdma
are the lane's. Nothing is loaded and no udev runs until a test asks. The console is in `guest.console()`;
`guest.faults()` are the kernel's complaints in it, and any fails the test.

By hand: `python -m tests.vm.guest [-k KERNEL] [-d DEVICES] [COMMAND...]` runs a command, or lines from a
terminal.
"""

import argparse
import contextlib
import inspect
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.vm.devices import Machine, arguments
from tests.vm.kernels import initramfs
from tests.vm.qmp import Qmp
from tests.vm.store import ROOT, Store

__all__ = ["Done", "Guest", "GuestError", "GuestLate"]

_COMMAND_LINE = (
    "console=ttyS0 loglevel=5 panic=-1 reboot=t tsc=reliable no_timer_check random.trust_cpu=on "
    "mitigations=off nokaslr selinux=0 apparmor=0 audit=0 iomem=relaxed "
    # Emulation on a busy host is slow, not stuck: what measures by wall time would complain of the host.
    "nowatchdog rcupdate.rcu_cpu_stall_suppress=1 workqueue.watchdog_thresh=0 "
    "sysctl.kernel.hung_task_timeout_secs=0"
)
_FAULTS = re.compile(
    r"WARNING: |BUG: |BUG at|Oops|Kernel panic|general protection fault|refcount_t: |UBSAN|KASAN|KFENCE"
    r"|kmemleak: \d|list_(add|del) corruption|unregister_netdevice: waiting|cannot create duplicate"
    r"|DEBUG_LOCKS|Bad page|possible (circular|recursive) locking|inconsistent lock state"
    r"|suspicious RCU usage|kobject_add_internal failed"
)
_TOOLS = {
    "modprobe": ("usr/bin/kmod", "modprobe"),
    "insmod": ("usr/bin/kmod", "insmod"),
    "rmmod": ("usr/bin/kmod", "rmmod"),
    "lsmod": ("usr/bin/kmod", "lsmod"),
    "cxl": ("usr/bin/cxl", "cxl"),
    "daxctl": ("usr/bin/daxctl", "daxctl"),
    "ndctl": ("usr/bin/ndctl", "ndctl"),
    "ip": ("usr/bin/ip", "ip"),
    "rdma": ("usr/bin/rdma", "rdma"),
}
_INIT = """\
export PATH=/mnt/out/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /usr/lib/modules /root /dev/virtio-ports
mount --bind /mnt/modules /usr/lib/modules
echo /mnt/out/bin/modprobe >/proc/sys/kernel/modprobe
ip link set lo up
for p in /sys/class/virtio-ports/vport*; do
    ln -sf "../${{p##*/}}" "/dev/virtio-ports/$(cat "$p/name")"
done
cd /root
{python} -I -S /mnt/out/agent.py /dev/virtio-ports/agent </dev/null
echo "gpudaemon-vm: the agent ended" >/dev/kmsg
poweroff -f
"""


class GuestError(Exception):
    """A request failed in the guest. errno: of the OSError there, if it was one."""

    def __init__(self, text: str, errno: int | None = None) -> None:
        super().__init__(text)
        self.errno = errno


class GuestLate(GuestError):
    """A request was not answered in time; what it ran was killed, or is stuck."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    status: int
    stdout: str
    stderr: str


class Guest:
    """Context manager. key: one of `store.KERNELS`. devices: a set of `devices.SETS`.

    boot_seconds: from QEMU's start to the agent's first word. uptime: of the guest then, in seconds.
    """

    def __init__(self, store: Store, key: str, devices: str = "all", *, processors: int = 2) -> None:
        self._store = store
        self.kernel = store.kernel(key)
        self.devices = devices
        self._processors = processors
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: dict[int, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self._arrived = threading.Condition()
        self._hung_up = False
        self._seen = 0
        self.boot_seconds = 0.0
        self.uptime = 0.0

    def __enter__(self) -> "Guest":
        self.boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Life

    def boot(self, seconds: float = 180.0) -> None:
        """Start it and wait until it takes requests. Raises GuestError with its console where it does not."""
        began = time.monotonic()
        self.out = Path(tempfile.mkdtemp(prefix="gpudaemon-guest-"))
        self._prepare()
        with open(self.out / "qemu.log", "wb") as log:
            self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._port = self._connect(self.out / "agent.sock", seconds)
            self._listener = threading.Thread(target=self._listen, name="guest", daemon=True)
            self._listener.start()
            self.uptime = self._wait(0, seconds)["uptime"]
            self.qmp = Qmp(self.out / "qmp.sock")
        except BaseException as error:
            said = f"{error}\n{self.console()[-4000:]}\n{(self.out / 'qemu.log').read_text()}"
            self.close()
            raise GuestError(f"{self.kernel.release} did not boot: {said}") from error
        self.boot_seconds = time.monotonic() - began

    def close(self) -> None:
        """End it, without ceremony. May be called again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
            with contextlib.suppress(AttributeError):
                self.qmp.close()
            shutil.rmtree(self.out, ignore_errors=True)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._process is None

    def is_well(self) -> bool:
        """Whether it still takes requests."""
        try:
            return bool(self._process is not None and self.request("read", path="/proc/uptime", seconds=20.0))
        except GuestError:
            return False

    def _prepare(self) -> None:
        tools = self.out / "bin"
        tools.mkdir()
        lines = {name: self._store.program(path, name=called) for name, (path, called) in _TOOLS.items()}
        busybox = str(self._store.debian / "usr/bin/busybox")
        lines["poweroff"] = [busybox, "poweroff"]
        for name, words in lines.items():
            (tools / name).write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
            (tools / name).chmod(0o755)
        shutil.copy(Path(__file__).parent / "agent.py", self.out)
        (self.out / "initramfs").write_bytes(initramfs(self._store, self.kernel))
        # The interpreter itself, not the environment's link to it: the agent needs no packages.
        (self.out / "init").write_text(_INIT.format(python=Path(sys.executable).resolve()))

    def _command(self) -> list[str]:
        words = self._store.program("usr/bin/qemu-system-x86_64", "-nodefaults", "-no-user-config")
        share = self._store.debian / "usr/share"
        words += ["-L", str(share / "qemu"), "-L", str(share / "seabios"), "-display", "none", "-no-reboot"]
        words += ["-kernel", str(self.kernel.image), "-initrd", f"{self.out}/initramfs"]
        words += ["-append", _COMMAND_LINE]
        words += ["-chardev", f"file,id=console,path={self.out}/console.log", "-serial", "chardev:console"]
        words += ["-chardev", f"socket,id=qmp,path={self.out}/qmp.sock,server=on,wait=off"]
        words += ["-mon", "chardev=qmp,mode=control", "-device", "virtio-serial-pci"]
        words += ["-chardev", f"socket,id=agent,path={self.out}/agent.sock,server=on,wait=off"]
        words += ["-device", "virtserialport,chardev=agent,name=agent"]
        for tag, path, read_only in (
            ("root", "/", ",readonly=on"),
            ("out", str(self.out), ""),
            ("modules", str(self.kernel.modules), ",readonly=on"),
        ):
            words += ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{read_only}"]
            words += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        machine = Machine(self.out, self._processors)
        # /proc/self/exe is the linker that starts QEMU: it would look for its modules beside that.
        modules = self._store.debian / "usr/lib/x86_64-linux-gnu/qemu"
        return ["env", f"QEMU_MODULE_DIR={modules}", *words, *arguments(self.devices, machine)]

    # Requests

    def request(self, do: str, *, seconds: float = 60.0, **what: Any) -> dict[str, Any]:
        """Send a request to the agent (see `agent.py`); its answer. Raises GuestError, GuestLate."""
        number = next(self._numbers)
        line = json.dumps({"id": number, "do": do, "seconds": seconds, **what}).encode() + b"\n"
        try:
            self._port.sendall(line)
        except OSError as error:
            raise GuestError(f"the guest is gone: {error}\n{self.console()[-2000:]}") from error
        answer = self._wait(number, seconds + 15.0)
        if answer.get("late"):
            raise GuestLate(
                f"{do} {what.get('words') or what.get('path') or what.get('name')}: not in {seconds} s"
            )
        if "error" in answer:
            raise GuestError(answer.get("trace") or answer["error"], answer.get("errno"))
        return answer

    def run(
        self,
        *words: str,
        check: bool = True,
        seconds: float = 60.0,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command to its end; with check another status than 0 is an AssertionError."""
        answer = self.request(
            "run", words=words, input=stdin, environment=dict(environment or {}), seconds=seconds
        )
        done = Done(answer["status"], answer["stdout"], answer["stderr"])
        assert not check or done.status == 0, f"{words}: status {done.status}\n{done.stdout}{done.stderr}"
        return done

    def shell(self, text: str, *, check: bool = True, seconds: float = 60.0) -> str:
        """Standard output of lines for /bin/sh."""
        return self.run("sh", "-c", text, check=check, seconds=seconds).stdout

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> Any:
        """Run a Python function in the guest; what it returns. Arguments and value are JSON's.

        Its source text is sent, so it must stand by itself: what it needs it imports, constants it takes as
        arguments. The checkout and the packages of this environment can be imported.
        """
        source = textwrap.dedent(inspect.getsource(function))
        paths = [str(ROOT), sysconfig.get_path("purelib")]
        name = function.__name__
        asked = {"source": source, "name": name, "arguments": arguments, "paths": paths}
        return self.request("call", seconds=seconds, **asked)["value"]

    def read(self, path: str, *, seconds: float = 60.0) -> str:
        """A file of the guest. Raises GuestError with the errno."""
        return str(self.request("read", path=path, seconds=seconds)["text"])

    def write(self, path: str, text: str, *, seconds: float = 60.0) -> None:
        """Write a text into a file of the guest by one write(2). Raises GuestError with the errno."""
        self.request("write", path=path, text=text, seconds=seconds)

    def exists(self, path: str) -> bool:
        """Whether a path exists in the guest."""
        return self.run("test", "-e", path, check=False).status == 0

    def glob(self, pattern: str) -> list[str]:
        """Paths in the guest that match, sorted."""

        def look(pattern: str) -> list[str]:
            import glob

            return sorted(glob.glob(pattern))

        return list(self.call(look, pattern))

    def start(self, *words: str, log: str, environment: Mapping[str, str] | None = None) -> int:
        """Start a command that goes on; its process id. log: file of the guest for what it says."""
        return int(self.request("start", words=words, log=log, environment=dict(environment or {}))["pid"])

    def ended(self, pid: int) -> int | None:
        """Exit status of what `start` started, negative where a signal ended it; None while it runs."""
        status = self.request("ended", pid=pid)["status"]
        return None if status is None else int(status)

    def running(self, text: str) -> list[int]:
        """Process ids of those with `text` in their command line, zombies and the kernel's own left out."""

        def look(text: str) -> list[int]:
            import glob

            found = []
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                try:
                    with open(path, "rb") as stream:
                        words = stream.read()
                except OSError:
                    continue
                if text.encode() in words:
                    found.append(int(path.split("/")[2]))
            return found

        return list(self.call(look, text))

    def fetch(self, port: int, path: str, *, seconds: float = 20.0) -> tuple[int, str]:
        """Status and body of an HTTP request from within the guest."""
        answer = self.request("fetch", port=port, path=path, seconds=seconds)
        return int(answer["status"]), str(answer["text"])

    def modprobe(self, *names: str, seconds: float = 120.0) -> None:
        """Load modules, with what they need; one that is loaded stays."""
        self.run("modprobe", "-a", *names, seconds=seconds)

    def until(self, done: Callable[[], Any], seconds: float = 30.0, what: str = "") -> float:
        """Wait for `done`, asked by requests from here; returns after how many seconds."""
        began = time.monotonic()
        while not done():
            gone = time.monotonic() - began
            assert gone < seconds, f"not within {seconds} s {what}"
            # Asking costs the guest time of its own: seldom where it takes long.
            time.sleep(min(0.5, 0.05 + gone / 20))
        return time.monotonic() - began

    @contextlib.contextmanager
    def udevd(self) -> Iterator[None]:
        """udev runs in the guest; at the end it does not, and no trace of it is left in /run."""
        self.run("/lib/systemd/systemd-udevd", "--daemon")
        try:
            self.run("udevadm", "settle", "--timeout=60")
            yield
        finally:
            self.run("udevadm", "control", "--exit", check=False)
            self.until(lambda: not self.running("systemd-udevd"))
            self.run("rm", "-rf", "/run/udev")

    # The kernel's own word

    def console(self) -> str:
        """All the kernel has printed at warning level and above."""
        try:
            return (self.out / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    def faults(self) -> str:
        """What the kernel complained about since this was asked last; empty if nothing. Raises GuestError."""
        mark = f"gpudaemon-vm: mark {next(self._numbers)}"
        # Priority 1, alert: printed at any console level. Lines before it are in the file when it is.
        self.write("/dev/kmsg", f"<1>{mark}\n")
        self.until(lambda: mark in self.console(), 30.0, "for the console")
        text = self.console()
        new, self._seen = text[self._seen :], len(text)
        if _FAULTS.search(new) is None:
            return ""
        lines = new.splitlines()
        first = next(number for number, line in enumerate(lines) if _FAULTS.search(line))
        return "\n".join(lines[max(0, first - 2) : first + 60])

    # The port

    def _connect(self, path: Path, seconds: float) -> socket.socket:
        assert self._process is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise GuestError(f"QEMU ended with {self._process.returncode}")
            port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with contextlib.suppress(OSError):
                port.connect(str(path))
                return port
            port.close()
            time.sleep(0.02)
        raise GuestError("QEMU did not open its socket")

    def _listen(self) -> None:
        kept = b""
        with contextlib.suppress(OSError):
            while data := self._port.recv(1 << 20):
                *lines, kept = (kept + data).split(b"\n")
                with self._arrived:
                    for line in lines:
                        message = json.loads(line)
                        self._answers[message["id"]] = message["answer"]
                    self._arrived.notify_all()
        with self._arrived:
            self._hung_up = True
            self._arrived.notify_all()

    def _wait(self, number: int, seconds: float) -> dict[str, Any]:
        with self._arrived:
            there = self._arrived.wait_for(lambda: number in self._answers or self._hung_up, seconds)
            if number in self._answers:
                return self._answers.pop(number)
        raise GuestError("the guest is gone" if there else f"no answer from the guest in {seconds} s")


def main() -> None:
    """Boot a guest and run a command in it, or each line of standard input."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest")
    parser.add_argument("-k", "--kernel", default="7.x")
    parser.add_argument("-d", "--devices", default="all")
    parser.add_argument("command", nargs="*")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with Guest(Store(), given.kernel, given.devices) as guest:
        print(f"{guest.kernel.release}: {guest.boot_seconds:.1f} s, {guest.out}", file=sys.stderr)
        lines = [" ".join(given.command)] if given.command else sys.stdin
        for line in lines:
            done = guest.run("sh", "-c", line, check=False, seconds=600.0)
            print(done.stdout + done.stderr, end="", flush=True)
        print(guest.faults(), end="", file=sys.stderr)


if __name__ == "__main__":
    main()
