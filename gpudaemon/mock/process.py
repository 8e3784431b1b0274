"""Starting and stopping a live mock host."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from gpudaemon.errors import GpudaemonError
from gpudaemon.mock.control import Control
from gpudaemon.mock.mount import unmount
from gpudaemon.mock.netlink import NETLINK

__all__ = ["HostProcess"]


class HostProcess:
    """Context manager: `python -P -m gpudaemon.mock.host` with this interpreter, mounted while inside.

    sysfs, procfs: where to point the daemon. control: client of the control socket. uevents: path to which the
    host sends uevents; bind a UNIX datagram socket there before causing any. pid: of the host. namespace: with
    netlink, the network namespace where it sends uevents instead.
    seed, workload, scenario: as on the command line.
    Entering raises GpudaemonError where the host does not come up; leaving never leaves a mount behind.
    """

    def __init__(
        self,
        profile: str = "mi300x8",
        gpus: int | None = None,
        *,
        seed: int | None = None,
        workload: str | None = None,
        scenario: str | None = None,
        netlink: bool = False,
        timeout: float = 15.0,
    ) -> None:
        self._profile = profile
        self._options = {"gpus": gpus, "seed": seed, "workload": workload, "scenario": scenario}
        self._netlink = netlink
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._home = ""

    def __enter__(self) -> "HostProcess":
        self._home = tempfile.mkdtemp(prefix="gpudaemon-mock-")
        os.chmod(self._home, 0o755)  # daemons under another user look at the tree too
        self.directory = os.path.join(self._home, "host")
        os.mkdir(self.directory)
        self.sysfs = os.path.join(self.directory, "sys")
        self.procfs = os.path.join(self.directory, "proc")
        self.uevents = os.path.join(self._home, "uevents")
        socket = os.path.join(self._home, "control")
        self.control = Control(socket)
        command = [
            sys.executable,
            "-P",
            "-m",
            "gpudaemon.mock.host",
            self.directory,
            "--profile",
            self._profile,
        ]
        # The host ends with us even if we are killed: then its standard input ends.
        command += ["--control", socket, "--uevents", NETLINK if self._netlink else self.uevents, "--until-eof"]
        for name, value in self._options.items():
            command += [f"--{name}", str(value)] if value is not None else []
        # -P keeps the working directory out of the path; the package may be a checkout that is not installed.
        packages = str(Path(__file__).resolve().parents[2])
        search = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": search},
            )
            self._wait_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the host; raises GpudaemonError where it does not run."""
        if self._process is None:
            raise GpudaemonError("the mock host does not run")
        return self._process.pid

    @property
    def namespace(self) -> str:
        """Path of the host's network namespace, for `nsenter --net=`."""
        return f"/proc/{self.pid}/ns/net"

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        deadline = time.monotonic() + self._timeout
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(process.stdout.fileno(), 4096) if readable else b""
            if not part:
                raise GpudaemonError(f"the mock host {self._profile} did not come up (its reason is on stderr)")
            line += part

    def stop(self) -> int | None:
        """End the host, by force if need be, and unmount; returns its exit status. May be called again."""
        self.control.close()
        status = None
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                status = self._process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None
        if self._home:
            # A host that was killed left its mount behind, and with it a directory that cannot be removed.
            if os.path.ismount(self.directory) or not _answers(self.directory):
                unmount(self.directory)
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = ""
        return status


def _answers(directory: str) -> bool:
    """False where a directory is a mount whose server is gone (ENOTCONN)."""
    with contextlib.suppress(OSError):
        os.stat(directory)
        return True
    return False
