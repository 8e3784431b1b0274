"""The newest state of the host, immutable: what every exporter and view reads.

A snapshot costs its maker one tuple per device; nothing in it changes afterwards, so a page can be rendered
in pieces while the next snapshot is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpudaemon.model.metric import Metric

__all__ = ["Block", "DeviceView", "Samples", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Block:
    """The series of one metric in one device's values, fixed at plan time.

    prefixes: rendered lines up to the value (`name{label="value"} `), in order.
    indexes: where in `Samples.values` each value stands.
    """

    prefixes: tuple[str, ...]
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """One device's part of a snapshot.

    blocks: metric -> its series here; the same mapping object as long as the plan is the same.
    values: None where nothing is known: no sample is published.
    rows: metric -> (prefix, value) of the series found in file contents.
    created: prefix -> unix time at which that counter started from zero, where that was seen.
    """

    device: str
    blocks: Mapping[Metric, Block]
    values: tuple[float | None, ...]
    rows: Mapping[Metric, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    created: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """What is known of a device besides its samples, for `list` and `/api/v1/devices`.

    state: an `Outcome` value as a word: ok, suspended, resting, hung, gone, denied, stale.
    age: seconds since the newest reading, None before the first.
    """

    id: str
    kind: str
    driver: str
    path: str
    nodes: tuple[str, ...]
    numa_node: int | None
    state: str
    age: float | None
    identity: Mapping[str, str]
    attributes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole host at one moment.

    at: unix time in seconds. version: counts snapshots, for caches.
    samples: one per device, then the daemon's own under the device name "".
    devices: what is known of each besides; empty in a snapshot made for a page of metrics.
    """

    at: float
    version: int
    samples: tuple[Samples, ...]
    devices: tuple[DeviceView, ...]
