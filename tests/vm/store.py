"""Where the lane keeps what it fetched: `$GPUDAEMON_VM`, else `.venv/vm` of the checkout. Never committed.

    debs/  apt/             packages as fetched, and the apt that fetched them
    debian/                 an unpacked newer Debian: qemu, kmod, cxl, busybox; a compiler with --build-tools
    kernels/KEY/            a kernel: `release`, `vmlinux`, `lib/modules/RELEASE`
    modules/                test modules built for them

Programs of `debian/` run on this host, and in the guest, through that Debian's own dynamic linker: nothing is
installed, and this host's libc may be older than theirs.
"""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KERNELS", "Kernel", "Store"]

ROOT = Path(__file__).resolve().parents[2]

KERNELS = ("7.x", "6.12")
"""Keys of the kernels: the newest 7.x of trixie-backports, 6.12 of bookworm-backports."""

_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel. key: one of `KERNELS`. release: as `uname -r` says it. folder: of its files."""

    key: str
    release: str
    folder: Path

    @property
    def image(self) -> Path:
        """Uncompressed: QEMU enters it through its PVH note, which saves the decompression under emulation."""
        return self.folder / "vmlinux"

    @property
    def modules(self) -> Path:
        """The folder that is /lib/modules in the guest."""
        return self.folder / "lib/modules"


class Store:
    """folder: see the module; None asks the environment."""

    def __init__(self, folder: Path | None = None) -> None:
        chosen = folder or Path(os.environ.get("GPUDAEMON_VM") or ROOT / ".venv/vm")
        self.folder = chosen.absolute()

    @property
    def debian(self) -> Path:
        """Root of the unpacked Debian."""
        return self.folder / "debian"

    def program(self, path: str, *arguments: str, name: str = "") -> list[str]:
        """Command line of a program of the unpacked Debian. path: below its root. name: its argv[0]."""
        libraries = ":".join(str(self.debian / library) for library in _LIBRARIES)
        words = [str(self.debian / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries]
        words += ["--argv0", name] if name else []
        return [*words, str(self.debian / path), *arguments]

    def kernel(self, key: str) -> Kernel:
        """A kernel that was set up. Raises FileNotFoundError where it was not."""
        folder = self.folder / "kernels" / key
        return Kernel(key, (folder / "release").read_text().strip(), folder)

    def missing(self) -> str:
        """Why no guest can be booted; empty where one can."""
        for key in KERNELS:
            if not (self.folder / "kernels" / key / "release").exists():
                return f"no kernel {key} in {self.folder}: run tests/vm/setup"
        return ""

    @property
    def can_build(self) -> bool:
        """Whether `setup --build-tools` was run: modules can be built."""
        return (self.folder / "build-tools").exists()
