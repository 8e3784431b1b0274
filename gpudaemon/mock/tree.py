"""A sysfs and procfs tree as pure data: what a kernel would print, held in memory.

Paths are relative to a directory that has `sys/` and `proc/` below it; directories are implied by the paths.
Links are spelled as kernfs spells them (`fs/kernfs/symlink.c`, kernfs_get_target_path): up from the link's own
directory to the nearest directory that properly contains the target, then down.
"""

import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gpudaemon.mock.clock import HostClock
from gpudaemon.mock.model import Gpu

__all__ = ["File", "Generate", "Link", "Tree", "kernfs_target", "write"]

Generate = Callable[[float], bytes]
"""seconds since the host started -> content at that moment; depends on nothing else but orders to a model"""


@dataclass(frozen=True, slots=True)
class File:
    """One attribute.

    content: what a read gives at time 0.
    mode: permission bits as sysfs shows them.
    generate: for values that move; None where `content` is all there ever is.
    error: errno of a read that fails in the kernel too (autosuspend_delay_ms gives EIO where autosuspend is
        not in use); 0 for none. A written tree leaves such files out, an ordinary file cannot fail.
    delay: seconds a read takes in the kernel too (pcie_bw of amdgpu sleeps a second).
    in_reset: content while the driver is in a reset, None where reads fail then.
    """

    content: bytes = b""
    mode: int = 0o444
    generate: Generate | None = None
    error: int = 0
    delay: float = 0.0
    in_reset: bytes | None = None

    def at(self, seconds: float) -> bytes:
        """Content `seconds` after the host started."""
        return self.content if self.generate is None else self.generate(seconds)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; `target` is relative to the link's own directory, or absolute for /dev nodes."""

    target: str


def kernfs_target(link: str, target: str) -> str:
    """The target text of a link at `link` to `target`, both relative to the same root, as kernfs writes it.

    Unlike os.path.relpath, a link to one of its own ancestors climbs one directory further and comes down
    again by name: `drm/card0/device -> ../../../0000:03:00.0`.
    """
    wanted = target.split("/")
    base = link.split("/")[:-1]
    shared = 0
    while shared < min(len(base), len(wanted) - 1) and base[shared] == wanted[shared]:
        shared += 1
    return "../" * (len(base) - shared) + "/".join(wanted[shared:])


@dataclass(slots=True)
class Tree:
    """path -> File or Link, in the order in which they were added.

    gpus: PCI address -> the model that its moving files follow. reaches: directory elsewhere -> address of the
    PCI device that its files ask and whose driver they belong to. clock: what the host's clocks say.
    """

    entries: dict[str, File | Link] = field(default_factory=dict)
    gpus: dict[str, Gpu] = field(default_factory=dict)
    reaches: dict[str, str] = field(default_factory=dict)
    clock: HostClock = field(default_factory=HostClock)

    def file(
        self,
        path: str,
        content: str | bytes = b"",
        *,
        mode: int = 0o444,
        generate: Generate | None = None,
        error: int = 0,
        delay: float = 0.0,
        in_reset: bytes | None = None,
    ) -> None:
        """Add a file. Text is encoded as UTF-8; with `generate` the content is what it gives at time 0."""
        data = content.encode() if isinstance(content, str) else content
        content_now = generate(0.0) if generate else data
        self._add(path, File(content_now, mode, generate, error, delay, in_reset))

    def renew(self) -> None:
        """Make the contents at time 0 anew, after a model has changed."""
        for path, entry in self.entries.items():
            if isinstance(entry, File) and entry.generate is not None:
                self.entries[path] = replace(entry, content=entry.generate(0.0))

    def text(self, directory: str, mode: int = 0o444, /, **lines: object) -> None:
        """Add one file per keyword below `directory`: the value and a newline, as sysfs_emit prints."""
        for name, value in lines.items():
            self.file(f"{directory}/{name}", f"{value}\n", mode=mode)

    def link(self, path: str, target: str) -> None:
        """Add a link to `target`, a path of this tree or an absolute path (kept as it is)."""
        self._add(path, Link(target if target.startswith("/") else kernfs_target(path, target)))

    def _add(self, path: str, entry: File | Link) -> None:
        if path in self.entries:
            raise AssertionError(f"{path}: added twice")
        self.entries[path] = entry

    def resolve(self, path: str) -> str:
        """Path with every link on its way followed; raises KeyError where a link leads nowhere."""
        done: list[str] = []
        todo = path.split("/")[::-1]
        for _ in range(400):
            if not todo:
                return "/".join(done)
            part = todo.pop()
            if part == "..":
                done.pop()
                continue
            here = "/".join([*done, part])
            entry = self.entries.get(here)
            if not isinstance(entry, Link):
                done.append(part)
            elif entry.target.startswith("/"):
                raise KeyError(path)
            else:
                todo.extend(entry.target.split("/")[::-1])
        raise KeyError(path)

    def directories(self) -> frozenset[str]:
        """Every directory the paths imply."""
        found: set[str] = set()
        for path in self.entries:
            parent = posixpath.dirname(path)
            while parent and parent not in found:
                found.add(parent)
                parent = posixpath.dirname(parent)
        return frozenset(found)

    def below(self, directory: str) -> Iterator[tuple[str, File | Link]]:
        """Entries below `directory`, with their paths relative to it."""
        prefix = directory + "/"
        for path, entry in self.entries.items():
            if path.startswith(prefix):
                yield path[len(prefix) :], entry


def write(tree: Tree, directory: str) -> None:
    """Write the tree below `directory` as ordinary files and links; what is there already is overwritten.

    Modes are kept, so root-only files (0400) are root-only here too. Raises OSError.
    """
    for path in sorted(tree.directories()):
        os.makedirs(os.path.join(directory, path), exist_ok=True)
    for path, entry in tree.entries.items():
        place = os.path.join(directory, path)
        if os.path.lexists(place):
            os.unlink(place)
        if isinstance(entry, Link):
            os.symlink(entry.target, place)
        elif not entry.error:
            with open(place, "wb") as stream:
                stream.write(entry.content)
            # The owner may write what moves, or nobody but root could bring it to move.
            os.chmod(place, entry.mode | (0o200 if entry.generate else 0))
