"""A machine made of namespaces, with this host's own systemd as its process 1 and gpudaemon installed.

with Machine() as machine, machine.host("mi300x8") as host:
    machine.configure(host)
    machine.run("systemctl", "start", "gpudaemon")
    machine.fetch("/metrics")

See `tests/systemd/boot` for what it consists of. By hand: `python -m tests.systemd.machine` boots one and runs
a shell in it.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from gpudaemon.mock import HostProcess
from tests.live.daemon import until

__all__ = ["PORT", "ROOT", "Machine", "why_not"]

ROOT = Path(__file__).resolve().parents[2]
PORT = 9836
_SYSTEMD = "/lib/systemd/systemd"
_CLONE_NEWNET = 0x40000000
_DROP_INS = "etc/systemd/system/gpudaemon.service.d"


def why_not() -> str:
    """Why no machine can be booted here; an empty text where one can."""
    if os.geteuid() != 0:
        return "only root can boot a machine of namespaces"
    if not os.path.exists(_SYSTEMD) or shutil.which("systemd-analyze") is None:
        return "systemd is not installed"
    for program in ("unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    with open("/proc/filesystems") as stream:
        known = stream.read().split()
    for kind in ("overlay", "cgroup2", "fuse"):
        if kind not in known:
            return f"this kernel has no {kind}"
    return "" if _cgroup2() else "no cgroup2 is mounted"


def _cgroup2() -> str:
    with open("/proc/mounts") as stream:
        return next((fields[1] for fields in map(str.split, stream) if fields[2] == "cgroup2"), "")


class Machine:
    """Context manager. source: the checkout whose package and units are installed. pid: of its process 1."""

    def __init__(self, source: Path = ROOT) -> None:
        self._source = source
        self._boot: subprocess.Popen[bytes] | None = None
        self._network = ThreadPoolExecutor(1)
        self.pid = 0

    def __enter__(self) -> "Machine":
        self._home = tempfile.mkdtemp(prefix="gpudaemon-machine-")
        os.chmod(self._home, 0o755)
        self._cgroup = f"{_cgroup2()}/{os.path.basename(self._home)}"
        command = [f"{ROOT}/tests/systemd/boot", self._home, self._cgroup]
        command += [sys.base_prefix, sysconfig.get_path("purelib"), str(self._source)]
        self._log = open(f"{self._home}/log", "wb")
        self._boot = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        try:
            until(self._is_up, 30.0)
            self._network.submit(self.enter_network).result()
        except BaseException as error:
            log = Path(self._home, "log").read_text(errors="replace")
            self.__exit__(None, None, None)
            raise AssertionError(f"the machine did not boot: {log}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._network.shutdown()
        if self._boot is not None:
            if self.pid:
                # The end of process 1 ends all others; for one that is stuck this would wait.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self._boot.kill()
            self._boot.wait(30)
            self._boot = None
        with contextlib.suppress(AssertionError):
            until(lambda: not _populated(self._cgroup), 10.0)
        for directory, _, _ in sorted(os.walk(self._cgroup), reverse=True):
            os.rmdir(directory)
        subprocess.run(["umount", "-l", f"{self._home}/hosts"], check=False, capture_output=True)
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _is_up(self) -> bool:
        assert self._boot is not None
        if self._boot.poll() is not None:
            raise AssertionError("it ended")
        with open(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children") as stream:
            children = stream.read().split()
        if not children:
            return False
        with open(f"/proc/{children[0]}/cmdline", "rb") as stream:
            if not stream.read().startswith(_SYSTEMD.encode()):
                return False
        self.pid = int(children[0])
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def enter_network(self) -> None:
        """The calling thread's sockets are of the machine's network from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)

    # Inside

    def command(self, *words: str) -> list[str]:
        """The command line that runs a command inside."""
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", *words]

    def run(self, *words: str, check: bool = True, seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run a command inside; with check an exit status other than 0 is an AssertionError."""
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": "cat", "LANG": "C.UTF-8"}
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=clean,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{words}: {done.stdout}{done.stderr}\n{self.journal()[-4000:]}"
        )
        return done

    def fetch(self, path: str, *, port: int = PORT, timeout: float = 5.0) -> str | None:
        """Body of an answer with status 200; None for any other and for none at all."""

        def get() -> str | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
                    return str(answer.read().decode()) if answer.status == 200 else None
            except (urllib.error.HTTPError, OSError):
                return None

        return self._network.submit(get).result()

    def connection(self, timeout: float) -> socket.socket:
        """A connection to the daemon, from a thread that has entered the network. Raises OSError."""
        return socket.create_connection(("127.0.0.1", PORT), timeout)

    def write(self, path: str, text: str) -> None:
        """Write a file inside, with the directories above it."""
        target = Path(f"/proc/{self.pid}/root", path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    # The service

    @contextlib.contextmanager
    def host(self, profile: str = "mi300x8", gpus: int | None = None) -> Iterator[HostProcess]:
        """A live mock host that is seen inside too; what hangs is released at the end."""
        directory, tempfile.tempdir = tempfile.tempdir, f"{self._home}/hosts"
        try:
            made = HostProcess(profile, gpus)
            with contextlib.ExitStack() as stack:
                host = stack.enter_context(made)
                tempfile.tempdir = directory
                try:
                    yield host
                finally:
                    host.control.clear()
                    self.run("systemctl", "stop", "gpudaemon.socket", "gpudaemon.service", check=False)
        finally:
            tempfile.tempdir = directory

    def inside(self, path: str) -> str:
        """What a path below a host is called inside."""
        return path.replace(f"{self._home}/hosts", "/srv/hosts")

    def configure(self, host: HostProcess, *flags: str, tier: str = "base", service: str = "") -> None:
        """Point the unit at a mock host, by drop-ins as an operator writes them. service: further lines."""
        roots = f"--path.sysfs={self.inside(host.sysfs)} --path.procfs={self.inside(host.procfs)}"
        text = " ".join([roots, "--uevent.source=none", *flags])
        self.write(f"{_DROP_INS}/zz-test.conf", f'[Service]\nEnvironment="GPUDAEMON_FLAGS={text}"\n{service}\n')
        drop_in = f"/proc/{self.pid}/root/{_DROP_INS}/tier.conf"
        Path(drop_in).unlink(missing_ok=True)
        if tier != "base":
            shutil.copy(self._source / f"systemd/tiers/{tier}.conf", drop_in)
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "reset-failed", "gpudaemon.service", check=False)

    def show(self, name: str, unit: str = "gpudaemon.service") -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def main_pid(self) -> int:
        """Process id of the server as this host counts, 0 where it does not run."""
        inner = self.show("MainPID")
        return self.outer(int(inner)) if inner != "0" else 0

    def outer(self, inner: int) -> int:
        """The process id here of a process inside; 0 where there is none."""
        return next((pid for pid in self.processes("") if _inner(pid) == inner), 0)

    def processes(self, unit: str = "gpudaemon.service") -> list[int]:
        """Process ids, as this host counts, of a unit's control group, or of all: those that still run."""
        found = []
        for directory, _, _ in os.walk(self._cgroup):
            if unit and not directory.endswith(f"/{unit}"):
                continue
            with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as stream:
                found += [int(line) for line in stream]
        return sorted(found)

    def journal(self, unit: str = "gpudaemon.service", *, since: float = 0.0) -> str:
        """What a unit and process 1 about it wrote, with microseconds. since: seconds of the wall clock."""
        words = [
            "journalctl",
            "--no-pager",
            "-o",
            "short-unix",
            "-u",
            unit,
            "-u",
            unit.replace("service", "socket"),
        ]
        done = subprocess.run(
            self.command(*words, f"--since=@{since:.6f}"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout


def _inner(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as stream:
        for line in stream:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _populated(cgroup: str) -> bool:
    try:
        with open(f"{cgroup}/cgroup.events") as stream:
            return "populated 1" in stream.read()
    except OSError:
        return False


def main() -> None:
    """Boot a machine and run a shell, or the command given, in it."""
    reason = why_not()
    if reason:
        sys.exit(reason)
    with Machine() as machine:
        began = time.monotonic()
        subprocess.run(machine.command(*(sys.argv[1:] or ["bash"])), check=False)
        print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
