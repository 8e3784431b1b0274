"""What a process may see of a host without touching a device: mounts, kernel options, modules, its own rights.

Roots are parameters. Only regular files below `/proc`, `/boot` and `/lib/modules` and the cgroup root's are
read, bounded and without waiting; of everything else only names and permissions are looked at. No device node
and no attribute of a device is opened: that runs a driver. Whatever a tree contains, there is an answer.
"""

import os
import re
import stat
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property

from gpudaemon.model.forbidden import is_forbidden
from gpudaemon.model.rights import NUMBERS

__all__ = ["Host"]

_LARGEST = 16 << 20
_MOST_NAMES = 4096
_MOST_PATHS = 64
_OPTION = re.compile(r"(?:# )?(CONFIG_\w+)(?:=(.*)| is not set)", re.ASCII)


class Host:
    """See the module. sysfs, procfs: mount points; root: what holds /boot, /dev, /lib/modules and /run.

    release: of the running kernel, by default what uname(2) says. Every answer is that of the first asking.
    """

    def __init__(
        self, *, sysfs: str = "/sys", procfs: str = "/proc", root: str = "/", release: str = ""
    ) -> None:
        self.sysfs = sysfs
        self.procfs = procfs
        self.root = root
        self.release = release or os.uname().release
        self._roots = {"sys": sysfs, "proc": procfs, "dev": os.path.join(root, "dev"), "root": root}

    def find(self, pattern: str) -> list[str]:
        """Paths that match `sys/…`, `proc/…`, `dev/…` or `root/…`; `*` within a name; 64 at most."""
        first, _, rest = pattern.partition("/")
        return list(_matching(self._roots[first], rest.split("/")))

    def denied(self, paths: list[str], access: str) -> list[str]:
        """Those of `paths` this process may not read (`r`), enter (`x`) or write (`w`)."""
        mode = sum(bit for word, bit in (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)) if word in access)
        return [path for path in paths if not os.access(path, mode, effective_ids=True)] if mode else []

    def text(self, pattern: str) -> str | None:
        """Content of a small text file that belongs to no device, stripped; None where it cannot be had."""
        first, _, rest = pattern.partition("/")
        content = _read(os.path.join(self._roots[first], rest), 65536)
        return content.decode(errors="replace").strip() if content is not None else None

    def option(self, name: str) -> str | None:
        """Value of a kernel option: `y`, `m`, a value, `n` where it is not set; None where nobody can say."""
        return self._options.get(name, "n") if self._options else None

    @property
    def knows_options(self) -> bool:
        """Whether the kernel's configuration can be read."""
        return bool(self._options)

    def module(self, name: str) -> str:
        """`loaded`, `builtin`, `available` (on disk), `none`, or empty where nobody can say."""
        if os.path.isdir(os.path.join(self.sysfs, "module", name)):
            return "loaded"
        builtin, available = self._modules
        if name in builtin:
            return "builtin"
        if name in available:
            return "available"
        return "none" if builtin or available else ""

    def mounted(self, kind: str) -> dict[str, str]:
        """Mount points of a file system type and their options; empty as well where nobody can say."""
        return self._mounts.get(kind, {})

    def holds(self, capability: str) -> bool:
        """Whether this process has a capability in effect."""
        return bool(self._effective >> NUMBERS[capability] & 1)

    @cached_property
    def filtered(self) -> bool:
        """Whether a seccomp filter watches this process."""
        return self._status.get("Seccomp") == "2"

    @cached_property
    def _status(self) -> dict[str, str]:
        lines = (self.text("proc/self/status") or "").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    @cached_property
    def _effective(self) -> int:
        try:
            return int(self._status.get("CapEff", "0"), 16)
        except ValueError:
            return 0

    @cached_property
    def _options(self) -> dict[str, str]:
        boot = os.path.join(self.root, "boot", f"config-{self.release}")
        modules = os.path.join(self.root, "lib/modules", self.release, "config")
        for path in (os.path.join(self.procfs, "config.gz"), boot, modules):
            content = _read(path, _LARGEST)
            if content is not None and path.endswith(".gz"):
                content = _unpacked(content)
            if content:
                found = (_OPTION.match(line) for line in content.decode(errors="replace").splitlines())
                options = {one[1]: one[2] or "n" for one in found if one is not None}
                if options:
                    return options
        return {}

    @cached_property
    def _modules(self) -> tuple[frozenset[str], frozenset[str]]:
        """(built in, on disk); their names as the kernel writes them."""
        directory = os.path.join(self.root, "lib/modules", self.release)
        found = []
        for name in ("modules.builtin", "modules.dep"):
            text = (_read(os.path.join(directory, name), _LARGEST) or b"").decode(errors="replace")
            files = (line.split(":", 1)[0].rsplit("/", 1)[-1] for line in text.splitlines())
            found.append(
                frozenset(file.split(".ko", 1)[0].replace("-", "_") for file in files if ".ko" in file)
            )
        return found[0], found[1]

    @cached_property
    def _mounts(self) -> dict[str, dict[str, str]]:
        mounts: dict[str, dict[str, str]] = {}
        for line in (self.text("proc/self/mountinfo") or "").splitlines():
            left, separator, right = line.partition(" - ")
            place, what = left.split(" "), right.split(" ")
            if separator and len(place) > 5 and len(what) > 2:
                mounts.setdefault(what[0], {})[place[4]] = f"{place[5]},{what[2]}"
        return mounts


def _matching(base: str, parts: list[str]) -> Iterator[str]:
    """Existing paths below `base`; a directory's names are looked at in order, so that answers repeat."""
    paths = [base]
    for part in parts:
        below: list[str] = []
        for path in paths:
            if "*" not in part:
                below += [os.path.join(path, part)]
                continue
            try:
                with os.scandir(path) as entries:
                    names = sorted(entry.name for entry, _ in zip(entries, range(_MOST_NAMES), strict=False))
            except OSError:
                continue
            below += [os.path.join(path, name) for name in names if fnmatchcase(name, part)]
        paths = [path for path in below[:_MOST_NAMES] if os.path.lexists(path)]
    yield from paths[:_MOST_PATHS]


def _read(path: str, limit: int) -> bytes | None:
    """At most `limit` bytes of a regular file, None where that is not what is there."""
    if is_forbidden(path):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    try:
        with open(descriptor, "rb") as stream:
            return stream.read(limit) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def _unpacked(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content, _LARGEST)
    except zlib.error:
        return b""
