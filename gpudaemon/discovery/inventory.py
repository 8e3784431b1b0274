"""The devices of this host over time: what is here, and what was here and is not any more. No I/O."""

from collections.abc import Callable, Iterable, Mapping

from gpudaemon.discovery.expected import Expected, Info
from gpudaemon.model.device import Device

__all__ = ["Inventory", "concerns"]

_SUBSYSTEMS = frozenset(
    {"drm", "accel", "pci", "hwmon", "infiniband", "nvme", "cxl", "dax", "node", "memory_tiering"}
)
_ACTIONS = frozenset({"add", "remove", "bind", "unbind", "move"})


def concerns(action: str, subsystem: str, devtype: str) -> bool:
    """Whether a uevent may change the inventory. Display connectors and hot-plug changes do not."""
    return subsystem in _SUBSYSTEMS and action in _ACTIONS and devtype != "drm_connector"


def _nobody(_: str) -> Mapping[str, str] | None:
    return None


def _any(_: str) -> bool:
    return True


class Inventory:
    """Devices by id, and the missing ones: GPUs that left and have not come back, or that should be here.

    A partition or a hwmon chip that goes is a change of configuration, not a loss; a bridge that goes takes
    its GPUs along. Who is missed is `Expected`'s to say: a GPU that leaves is missed at once, one that a former
    run knew from `compare` on.
    """

    def __init__(self, expected: Expected | None = None) -> None:
        self.expected = Expected() if expected is None else expected
        self.devices: dict[str, Device] = {}
        self.missing: dict[str, Device] = {}
        self._info: Info = _nobody
        self._compared = False
        self.wanted: Callable[[str], bool] = _any
        """Whether a device with this id is looked at at all: one that is not is not missed either."""

    def update(self, devices: Iterable[Device]) -> bool:
        """Take over what a scan found; True where anything changed."""
        found: Mapping[str, Device] = {device.id: device for device in devices}
        if found == self.devices:
            return False
        self.devices = dict(found)
        self.expected.see(found.values())
        self._miss()
        return True

    def compare(self, info: Info) -> bool:
        """A scan is complete: whom a former run or the administrator knows must be here. True if that changed.

        To be called now and then (with each heartbeat: it is cheap), for what is learnt is learnt by time.
        info: labels of `gpudaemon_gpu_info` of a device that is here, None while they are not known.
        """
        self._info, self._compared = info, True
        return self._miss()

    def forget(self, id_: str) -> bool:
        """The administrator took this GPU out: it is missed no more. False where it is not missing."""
        if not self.expected.forget(id_):
            return False
        self._miss()
        return True

    def removed(self, devpath: str) -> list[str]:
        """The kernel says that the directory `devpath` (from the sysfs root) goes: ids gone with it."""
        path = devpath.lstrip("/")
        gone = [id_ for id_, d in self.devices.items() if d.path == path or d.path.startswith(path + "/")]
        if gone:
            self.update([device for id_, device in self.devices.items() if id_ not in gone])
        return gone

    def _miss(self) -> bool:
        """Take over who is missing; until a scan is complete those of former runs are not counted."""
        missing = self.expected.compare(self._info) if self._compared else self.expected.left()
        now = {known.id: known.device for known in missing if self.wanted(known.id)}
        if now == self.missing:
            return False
        self.missing = now
        return True
