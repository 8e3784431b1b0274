"""A daemon of its own for tests and benchmarks, as an operator would start it.

with HostProcess("mi300x8") as host, RunningDaemon(host) as daemon:
    daemon.metrics()['gpudaemon_device_state{device="0000:03:00.0",state="ok"}'] == 1.0
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

__all__ = ["Page", "RunningDaemon", "children", "is_running", "until"]

_PACKAGES = str(Path(__file__).resolve().parents[2])
_LATE = re.compile(r"^gpudaemon_gpu_\w+_(window_\w+|sensor_update_seconds)\b")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{.*\})?) (\S+)(?: \S+)?")


class Host(Protocol):
    """What `HostProcess` and `Demo` have in common."""

    sysfs: str
    procfs: str


class Page(dict[str, float]):
    """A /metrics page: series as it stands in the text -> value."""

    @classmethod
    def of(cls, text: str) -> "Page":
        found = cls()
        for line in text.splitlines():
            if line and not line.startswith("#"):
                sample = _SAMPLE.fullmatch(line)
                assert sample is not None, line
                found[sample.group(1)] = float(sample.group(2))
        return found

    def of_device(self, device: str) -> "Page":
        """The series of one device, the daemon's own about it included."""
        return Page({series: value for series, value in self.items() if f'device="{device}"' in series})

    def family(self, name: str) -> "Page":
        """The series of one metric."""
        return Page({series: value for series, value in self.items() if series.split("{", 1)[0] == name})

    def states(self, device: str) -> list[str]:
        """The states of a device that are 1: exactly one, if all is well."""
        found = []
        for series, value in self.family("gpudaemon_device_state").of_device(device).items():
            if value == 1:
                found += re.findall(r'state="(\w+)"', series)
        return found

    def data(self, device: str) -> "Page":
        """The device's own series: what its files say at once, nothing of what the daemon says about it.

        Windows and update periods take their time to be known and are left out.
        """
        own = (
            "gpudaemon_daemon_",
            "gpudaemon_device_health{",
            "gpudaemon_device_state{",
            "gpudaemon_device_missing{",
            "gpudaemon_trouble_",
        )
        own += ("gpudaemon_device_data_age", "gpudaemon_device_left_suspended")
        return Page(
            {
                name: value
                for name, value in self.of_device(device).items()
                if not name.startswith(own) and not _LATE.search(name)
            }
        )


class RunningDaemon:
    """Context manager: `python -P -m gpudaemon.cli run` with this interpreter, ready when entered.

    module: what to run instead of `gpudaemon.cli`.

    host: whose sysfs and procfs to read; or give `sysfs` and `procfs`. flags: further arguments.
    port: 0 lets the kernel choose; `port` then is the one it chose. environment: added to this process's.
    wait: seconds to wait for /-/ready; 0 does not wait. prefix: words before the command (`taskset -c 0`).
    """

    def __init__(
        self,
        host: Host | None = None,
        *flags: str,
        sysfs: str = "",
        procfs: str = "",
        port: int = 0,
        runtime: str = "",
        uevents: str = "none",
        environment: Mapping[str, str] | None = None,
        wait: float = 30.0,
        prefix: tuple[str, ...] = (),
        module: str = "gpudaemon.cli",
    ) -> None:
        self._sysfs = sysfs or (host.sysfs if host is not None else "")
        self._procfs = procfs or (host.procfs if host is not None else "/proc")
        self._flags = flags
        self._runtime = runtime
        self._uevents = uevents
        self._environment = environment or {}
        self._wait = wait
        self._prefix = prefix
        self._module = module
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        self._listener: threading.Thread | None = None
        self.port = port

    def __enter__(self) -> "RunningDaemon":
        if not self._runtime:
            self._own = tempfile.TemporaryDirectory(prefix="gpudaemon-run-")
            self._runtime = self._own.name
        command = [*self._prefix, sys.executable, "-P", "-m", self._module, "run"]
        command += ["--path.sysfs", self._sysfs, "--path.procfs", self._procfs, "--path.runtime", self._runtime]
        command += ["--web.listen-address", f"127.0.0.1:{self.port}", "--uevent.source", self._uevents]
        # -P keeps the working directory out of the path; the package may be a checkout that is not installed.
        search = os.pathsep.join(
            filter(None, (self._environment.get("PYTHONPATH"), _PACKAGES, os.environ.get("PYTHONPATH")))
        )
        self._process = subprocess.Popen(
            [*command, *self._flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **self._environment, "PYTHONPATH": search},
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        try:
            self._read_address(self._process)
            if self._wait:
                self.wait_ready(self._wait)
        except BaseException:
            self.stop(force=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(force=kind is not None)

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The server."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Process id of the server (of `prefix`'s program, if that does not exec)."""
        return self.process.pid

    @property
    def launcher(self) -> int:
        """Process id of the launcher that keeps the readers' rights."""
        return _one(self.pid, "gpudaemon.reader.launcher")

    @property
    def reader(self) -> int:
        """Process id of the newest reader; raises LookupError while there is none."""
        return _one(self.launcher, "gpudaemon.reader.process")

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return "".join(self._log)

    def get(self, path: str, *, timeout: float = 10.0) -> tuple[int, str]:
        """Status and body of a request."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self, *, timeout: float = 10.0) -> Page:
        """/metrics, taken apart."""
        status, text = self.get("/metrics", timeout=timeout)
        assert status == 200, text
        return Page.of(text)

    def devices(self) -> dict[str, dict[str, Any]]:
        """/api/v1/devices by id."""
        status, text = self.get("/api/v1/devices")
        assert status == 200, text
        found = json.loads(text)
        return {device["id"]: device for device in (found["devices"] if isinstance(found, dict) else found)}

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Return when /-/ready says so."""
        self.until(lambda: self.get("/-/ready")[0] == 200, seconds)

    def until(self, done: Callable[[], bool], seconds: float = 15.0) -> float:
        """Wait for `done`; returns after how many seconds. The log is shown where it does not come."""
        try:
            return until(done, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the daemon said:\n{self.log[-4000:]}") from None

    def stop(self, *, force: bool = False, seconds: float = 10.0) -> int | None:
        """SIGTERM (force: SIGKILL), then wait; returns the exit status. May be called again."""
        status = None
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if force else signal.SIGTERM)
            try:
                status = self._process.wait(seconds)
            finally:
                if self._process.poll() is None:
                    self._process.kill()
                    self._process.wait(10)
                if self._listener is not None:
                    # A reader stuck in a driver keeps standard error open: what it may still say is nobody's.
                    self._listener.join(0.5)
                if self._process.stdout is not None:
                    self._process.stdout.close()
        if self._own is not None:
            self._own.cleanup()
            self._own = None
        return status

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._log.append(line)

    def _read_address(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(10)
            assert self._listener is not None
            self._listener.join(1.0)
            raise AssertionError(f"the daemon did not start (status {process.returncode}):\n{self.log}")
        self.port = int(re.search(r":(\d+)/metrics", line).group(1))  # type: ignore[union-attr]


def until(done: Callable[[], bool], seconds: float = 15.0) -> float:
    """Wait for `done` to be true; returns after how many seconds. Raises AssertionError where it does not."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began


def children(pid: int) -> list[int]:
    """Process ids of the children of all threads of `pid`, oldest first."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as stream:
                found += [int(word) for word in stream.read().split()]
        except OSError:
            continue
    return sorted(found)


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than a corpse that nobody fetched."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            fields = stream.read().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return fields[0] not in "ZX" or int(fields[17]) > 1


def _one(parent: int, module: str) -> int:
    for pid in reversed(children(parent)):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                words = stream.read().split(b"\0")
        except OSError:
            continue
        if module.encode() in words and is_running(pid):
            return pid
    raise LookupError(f"{parent} has no child {module}")
