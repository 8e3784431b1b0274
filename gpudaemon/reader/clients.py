"""Who has a DRM or accel node open: a scan of /proc/PID/fd, in a thread of the reader.

Only links are read, which enters no driver. What may not be looked at is counted: without CAP_SYS_PTRACE
(tier `processes`) other users' processes stay unseen, and "no client" then means "none that can be seen".
proc(5), /proc/PID/fd; Documentation/gpu/drm-uapi.rst on nodes.
"""

import os

__all__ = ["scan_clients"]

_PREFIXES = ("/dev/dri/", "/dev/accel/")


def scan_clients(procfs: str) -> tuple[dict[str, int], int]:
    """(open descriptors by node name, processes that may not be looked at). Races and oddities give nothing."""
    found: dict[str, int] = {}
    denied = 0
    for name in os.listdir(procfs):
        if not name.isdigit():
            continue
        directory = f"{procfs}/{name}/fd"
        try:
            descriptors = os.listdir(directory)
        except PermissionError:
            denied += 1
            continue
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{directory}/{descriptor}")
            except OSError:
                continue
            if target.startswith(_PREFIXES):
                node = target.rsplit("/", 1)[1]
                found[node] = found.get(node, 0) + 1
    return found, denied
