"""A /proc that does not exist: processes with GPU nodes open, as far as scout and rosters look."""

import os
from pathlib import Path

__all__ = ["Procfs", "amdgpu", "xe"]


def amdgpu(client: int, busy: int, *, vram: int = 0, address: str = "0000:03:00.0", name: str = "") -> str:
    """fdinfo of an amdgpu client: nanoseconds of its gfx engine, bytes of video memory."""
    size = f"{vram >> 10} KiB" if vram and not vram % 1024 else str(vram)
    named = f"drm-client-name:\t{name}\n" if name else ""
    return (
        f"pos:\t0\nflags:\t02100002\nmnt_id:\t24\nino:\t1204\ndrm-driver:\tamdgpu\ndrm-client-id:\t{client}\n"
        f"{named}drm-pdev:\t{address}\npasid:\t32785\ndrm-total-vram:\t{size}\ndrm-shared-vram:\t0\n"
        f"drm-resident-vram:\t{size}\ndrm-memory-vram:\t{vram >> 10} KiB\ndrm-engine-gfx:\t{busy} ns\n"
    )


def xe(client: int, cycles: int, total: int, *, capacity: int = 1, address: str = "0000:03:00.0") -> str:
    """fdinfo of an xe client: cycles of its render engines."""
    several = f"drm-engine-capacity-rcs:\t{capacity}\n" if capacity > 1 else ""
    return (
        f"pos:\t0\ndrm-driver:\txe\ndrm-client-id:\t{client}\ndrm-pdev:\t{address}\n"
        f"drm-cycles-rcs:\t{cycles}\ndrm-total-cycles-rcs:\t{total}\n{several}"
    )


class Procfs:
    """Made below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys" / "kernel").mkdir(parents=True, exist_ok=True)

    def process(self, pid: int, *, name: bytes = b"app", cgroup: str = "/", started: int = 0) -> Path:
        """A process; it is there whole or not at all, as in the real one."""
        made = self.root / f"new{pid}"
        for directory in ("fd", "fdinfo", "task"):
            (made / directory).mkdir(parents=True)
        self._stat(made, pid, name, started or 1000 + pid)
        (made / "cgroup").write_text(f"0::{cgroup}\n")
        os.rename(made, self.root / str(pid))
        return self.root / str(pid)

    @staticmethod
    def _stat(made: Path, pid: int, name: bytes, started: int) -> None:
        tail = b") S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0 0\n" % started
        (made / "stat").write_bytes(b"%d (" % pid + name + tail)

    def restart(self, pid: int, *, name: bytes = b"other", started: int) -> None:
        """Another process has this number now."""
        self._stat(self.root / str(pid), pid, name, started)

    def open(self, pid: int, descriptor: int, fdinfo: str, node: str = "/dev/dri/renderD128") -> None:
        """Open a node, or have an open one say something else."""
        link = self.root / str(pid) / "fd" / str(descriptor)
        path = self.root / str(pid) / "fdinfo" / str(descriptor)
        # In place and at once: who has the file open sees what it says now, and never half of it.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(file, fdinfo.encode(), 0)
        os.ftruncate(file, len(fdinfo.encode()))
        os.close(file)
        if not link.is_symlink():
            link.symlink_to(node)

    def close(self, pid: int, descriptor: int) -> None:
        """Close a descriptor."""
        (self.root / str(pid) / "fd" / str(descriptor)).unlink()
        path = self.root / str(pid) / "fdinfo" / str(descriptor)
        path.write_text("")
        path.unlink()

    def end(self, pid: int) -> None:
        """End a process: what was open of it says nothing more."""
        base = self.root / str(pid)
        for path in [*base.glob("fdinfo/*"), base / "stat", base / "cgroup"]:
            path.write_text("")
        os.rename(base, self.root / f"gone{pid}.{os.urandom(4).hex()}")
