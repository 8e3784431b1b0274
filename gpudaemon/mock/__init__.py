"""A host that does not exist: trees as data, and a live one that can be made to fail.

`build` writes a profile as ordinary files; `HostProcess` serves one by FUSE in a process of its own, where any
file can be slow, hang, fail, vanish or lie, devices sleep and wake, and PCI devices go and come with uevents:

    with HostProcess("mi300x8") as host:
        host.control.fault("sys/class/drm/card3/device/gpu_busy_percent", "hang")
        # run the daemon with --path.sysfs host.sysfs --path.procfs host.procfs

Everything is deterministic: a profile always gives the same tree, values move as functions of the time since
start. `Demo` is a live host where FUSE works and files in motion elsewhere. docs/mock.md is the manual.
"""

from gpudaemon.mock.control import Control, ControlError
from gpudaemon.mock.demo import Demo
from gpudaemon.mock.mount import available
from gpudaemon.mock.process import HostProcess
from gpudaemon.mock.profiles import Profile, profiles
from gpudaemon.mock.schedule import Schedule, Sensor
from gpudaemon.mock.tree import Tree, write

__all__ = [
    "Control",
    "ControlError",
    "Demo",
    "HostProcess",
    "Profile",
    "Schedule",
    "Sensor",
    "Tree",
    "available",
    "build",
    "profiles",
]


def build(profile: str, directory: str, gpus: int | None = None) -> Tree:
    """Write the host `profile` below `directory`, as `sys/` and `proc/`; returns the tree that was written.

    Raises KeyError for a profile that does not exist, ValueError for a number of GPUs it cannot have, OSError.
    """
    tree = profiles()[profile].tree(gpus)
    write(tree, directory)
    return tree
