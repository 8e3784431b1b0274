"""A mock host to show the daemon on, on any machine: by FUSE where that works, else as files kept in motion.

Without FUSE the tree is written as ordinary files and a thread rewrites those that move, in place, once a
second: no faults, no sleep, no removal, but the page has something to show.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from types import TracebackType

from gpudaemon.errors import GpudaemonError
from gpudaemon.mock.control import Control
from gpudaemon.mock.mount import available
from gpudaemon.mock.process import HostProcess
from gpudaemon.mock.profiles import profiles
from gpudaemon.mock.tree import File, Generate, Tree, write

__all__ = ["Demo", "Mover"]

_log = logging.getLogger(__name__)


class Mover:
    """Thread that keeps the moving files of a written tree in motion.

    A file is overwritten from its start and then cut, so a reader that comes in between sees the new value and
    perhaps the end of a longer old one; descriptors stay valid, as they do in sysfs.
    """

    def __init__(self, tree: Tree, directory: str, period: float = 1.0) -> None:
        self._moving: list[tuple[str, Generate]] = [
            (os.path.join(directory, path), entry.generate)
            for path, entry in tree.entries.items()
            if isinstance(entry, File) and entry.generate is not None
        ]
        self._period = period
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mock-mover", daemon=True)

    def start(self) -> None:
        """Begin; the first change comes after one period."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the change under way."""
        self._ended.set()
        self._thread.join()

    def step(self, seconds: float) -> None:
        """Bring every moving file to its content at `seconds`. Raises OSError."""
        for path, generate in self._moving:
            content = generate(seconds)
            descriptor = os.open(path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, content, 0)
                os.ftruncate(descriptor, len(content))
            finally:
                os.close(descriptor)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(self._period):
            try:
                self.step(time.monotonic() - began)
            except OSError as error:
                _log.warning("the mock host stands still: %s", error)
                return


class Demo:
    """Context manager: a mock host in motion.

    sysfs, procfs: where to point the daemon. control: of the live host, None where it is made of plain files.
    fuse: None tries FUSE and falls back, True insists (GpudaemonError where it fails), False uses plain files.
    Entering raises KeyError for a profile that does not exist.
    """

    def __init__(self, profile: str = "mi300x8", gpus: int | None = None, *, fuse: bool | None = None) -> None:
        self._profile = profiles()[profile]
        self._gpus = gpus
        self._fuse = fuse
        self._host: HostProcess | None = None
        self._mover: Mover | None = None
        self._directory = ""
        self.control: Control | None = None

    def __enter__(self) -> "Demo":
        if self._fuse or (self._fuse is None and available()):
            try:
                self._host = HostProcess(self._profile.name, self._gpus).__enter__()
            except GpudaemonError as error:
                if self._fuse:
                    raise
                _log.warning("no live mock host, using plain files: %s", error)
        if self._host is not None:
            self.sysfs, self.procfs, self.control = self._host.sysfs, self._host.procfs, self._host.control
            return self
        tree = self._profile.tree(self._gpus)
        self._directory = tempfile.mkdtemp(prefix="gpudaemon-mock-")
        os.chmod(self._directory, 0o755)
        self.sysfs, self.procfs = f"{self._directory}/sys", f"{self._directory}/proc"
        try:
            write(tree, self._directory)
            self._mover = Mover(tree, self._directory)
            self._mover.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._host is not None:
            self._host.stop()
        if self._mover is not None:
            self._mover.stop()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
