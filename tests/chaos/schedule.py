"""What goes wrong, when, for how long: drawn from a seed, the same for the same seed. Pure.

Each device has its own course: something happens to it, it gets the time to recover that the daemon promises,
it is well for a while, the next thing happens. Devices' courses do not know of each other, so any number of
them is in trouble at once. Beside them the host sleeps, clocks are set, the reader is killed and the server
restarted.
"""

import errno
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["HOST", "KINDS", "Episode", "Kind", "schedule"]

HOST = -1
"""The device number of what happens to all of them, or to the daemon."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of trouble.

    weight: how often, against the others. seconds: shortest and longest. heals: seconds after its end in which
    the daemon must be as if nothing had been. arguments: drawn from these.
    """

    name: str
    weight: float
    seconds: tuple[float, float]
    heals: float
    arguments: tuple[dict[str, Any], ...] = field(default=({},))


_TRANSIENT = tuple({"errno": number} for number in (errno.EIO, errno.EBUSY, errno.EPERM, errno.EAGAIN))
_LASTING = (
    {"kind": "read_errno", "errno": errno.EINVAL},
    {"kind": "read_errno", "errno": errno.EOPNOTSUPP},
    {"kind": "read_errno", "errno": errno.ENODATA},
    {"kind": "open_errno", "errno": errno.EACCES},
    {"kind": "vanish"},
)
KINDS: tuple[Kind, ...] = (
    Kind("hang file", 3, (0.5, 12), 2),
    Kind("hang device", 2, (0.5, 12), 2),
    Kind("hang gate", 1, (0.5, 8), 2),
    # Files that cost too much move to a period of 15 s or a minute and come home after two quick readings.
    Kind("latency", 1, (2, 6), 45, tuple({"seconds": seconds} for seconds in (0.002, 0.03, 0.25))),
    Kind("jitter", 1, (2, 6), 3, ({"seconds": 0.01},)),
    # Back-off: asked again 1, 2, 4, 8, 15 s later.
    Kind("errno", 3, (1, 6), 10, _TRANSIENT),
    # Asked again 5, 30 and 120 s after the device came: the file stays away, nothing else may.
    Kind("lasting errno", 1, (3, 6), 2, _LASTING),
    Kind("content", 3, (2, 6), 4, ({"kind": "garbage"}, {"kind": "ones"}, {"kind": "truncate", "bytes": 0})),
    Kind("suspend", 2, (3, 10), 3),
    Kind("remove", 2, (1, 8), 3),
    Kind("rebind", 1, (0, 0), 3),
    Kind("reset", 2, (0.5, 4), 10, ({"wedged": "none"}, {"wedged": "rebind"}, {"wedged": ""})),
    Kind(
        "workload", 2, (0, 0), 0, tuple({"name": name} for name in ("training", "inference", "idle", "thermal"))
    ),
    Kind("errors", 2, (0, 0), 0, tuple({"counter": name} for name in ("corrected", "uncorrected", "replays"))),
    Kind("wrap", 1, (0, 0), 0),
)
_HOST_KINDS: tuple[Kind, ...] = (
    Kind("host sleep", 1, (0.5, 1.5), 4),
    Kind("clock step", 1, (0, 0), 0, ({"seconds": 3600.0}, {"seconds": -3600.0})),
)
_DAEMON_KINDS: tuple[Kind, ...] = (
    Kind("kill reader", 2, (0, 0), 2),
    Kind("restart server", 1, (0, 0), 3),
    Kind("kill server", 1, (0, 0), 3),
)


@dataclass(frozen=True, slots=True, order=True)
class Episode:
    """Something that happens. begins, seconds: from the start of the schedule. device: number, or HOST."""

    begins: float
    device: int
    kind: str = field(compare=False)
    seconds: float = field(compare=False)
    heals: float = field(compare=False)
    file: str = field(compare=False, default="")
    arguments: dict[str, Any] = field(compare=False, default_factory=dict)

    @property
    def healed(self) -> float:
        """When all must be well again."""
        return self.begins + self.seconds + self.heals


def _draw(
    source: random.Random, kinds: tuple[Kind, ...], begins: float, device: int, files: Sequence[str]
) -> Episode:
    kind = source.choices(kinds, [one.weight for one in kinds])[0]
    seconds = round(source.uniform(*kind.seconds), 2)
    file = files[0] if source.random() < 0.5 else source.choice(files)
    arguments = dict(source.choice(kind.arguments))
    return Episode(round(begins, 2), device, kind.name, seconds, kind.heals, file, arguments)


def _course(
    source: random.Random, kinds: tuple[Kind, ...], device: int, files: Sequence[str], until: float
) -> Iterator[Episode]:
    """What happens to one device, or to the host: one thing after the other, with time between."""
    gap = (20.0, 60.0) if device == HOST else (1.0, 7.0)
    moment = source.uniform(*gap)
    while True:
        episode = _draw(source, kinds, moment, device, files)
        if episode.healed > until:
            # What takes long to heal has no room any more; something else may.
            if moment + 5 > until:
                return
            moment += 1
            continue
        yield episode
        moment = episode.healed + source.uniform(*gap)


def schedule(seed: int, seconds: float, devices: int, files: Sequence[str]) -> list[Episode]:
    """Everything that happens within `seconds`, healed by then, in order. files: of a device; the first is the
    one that matters most and fails as often as all others together."""
    source = random.Random(seed)
    found: list[Episode] = []
    for device in range(devices):
        found += _course(random.Random(source.getrandbits(64)), KINDS, device, files, seconds)
    host = random.Random(source.getrandbits(64))
    found += _course(host, _HOST_KINDS, HOST, files, seconds)
    # One of each in any case: a restart in the middle is what must change nothing.
    daemon = random.Random(source.getrandbits(64))
    moment = 0.0
    for kind in _forever(daemon):
        # Far enough apart for the one before to be over on a busy machine.
        moment += daemon.uniform(14.0, 24.0)
        if moment + 8 > seconds:
            break
        found.append(Episode(round(moment, 2), HOST, kind.name, 0.0, kind.heals))
    return sorted(found)


def _forever(source: random.Random) -> Iterator[Kind]:
    while True:
        order = list(_DAEMON_KINDS)
        source.shuffle(order)
        yield from order
