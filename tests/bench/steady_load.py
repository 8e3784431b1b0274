"""The steady load: 500 attributes at 1 Hz and 80 at 10 Hz in 8 lanes, on this machine's own sysfs.

Files are real kernel attributes that hold one decimal number, found by walking /sys; where the machine has too
few, lanes read the same file through descriptors of their own, as the kernel does not care.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence

from gpudaemon.collectors import Collector, collectors
from gpudaemon.drivers import Facts
from gpudaemon.model.attribute import Attribute, Cadence
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Kind, Metric, Series
from gpudaemon.parsers.integer import quotient

LANES = 8
NORMAL = 500
FAST = 80
SYSFS = "/sys"
PERIODS = {"normal": 1.0, "fast": 0.1}

_ROOTS = ("devices/system/cpu", "devices/system/node", "kernel", "module", "devices/virtual", "devices")
_METRIC = Metric(
    name="gpudaemon_bench_value", kind=Kind.GAUGE, help="A number.", labels=("device", "file"), abi="sysfs"
)


def _numbers() -> Iterator[str]:
    """Readable attributes below /sys that hold one decimal number, symbolic links not followed."""
    seen = set()
    for root in _ROOTS:
        for directory, names, files in os.walk(f"{SYSFS}/{root}"):
            # Tracing, debugging and security trees are no attributes of devices.
            names[:] = [name for name in names if name not in ("debug", "tracing", "security", "slab")]
            for name in files:
                path = f"{directory}/{name}"
                if path in seen or not os.stat(path, follow_symlinks=False).st_mode & 0o444:
                    continue
                seen.add(path)
                try:
                    with open(path, "rb", buffering=0) as file:
                        content = file.read(64)
                except OSError:
                    continue
                if content[:-1].isdigit():
                    yield os.path.relpath(path, SYSFS)


def lanes() -> list[tuple[list[str], list[str]]]:
    """(fast files, normal files) of each lane, relative to /sys."""
    found = list(itertools.islice(_numbers(), NORMAL + FAST))
    if len(found) < 100:
        raise SystemExit(f"only {len(found)} numeric attributes below {SYSFS}: no steady load on this machine")
    pool = itertools.cycle(found)
    return [
        (
            [next(pool) for _ in range(FAST // LANES)],
            [next(pool) for _ in range((NORMAL + lane) // LANES)],
        )
        for lane in range(LANES)
    ]


def install(load: Sequence[tuple[list[str], list[str]]]) -> tuple[Device, ...]:
    """Make the load the only thing to be collected; returns its devices, one a lane."""
    by_device: Mapping[str, tuple[list[str], list[str]]] = {f"lane{i}": pair for i, pair in enumerate(load)}

    def attributes(device: Device, _: Facts) -> list[Attribute]:
        fast, normal = by_device[device.id]
        planned: dict[str, Attribute] = {}
        for number, (path, cadence) in enumerate(
            [*((path, Cadence.FAST) for path in fast), *((path, Cadence.NORMAL) for path in normal)]
        ):
            # "./" in front makes a second reading of one file a file of its own.
            name = "./" * (number if path in planned else 0) + path
            series = (Series(_METRIC, (device.id, str(number))),)
            planned[name] = Attribute(name, cadence, series, quotient())
        return list(planned.values())

    table = collectors()
    assert isinstance(table, dict)
    table.clear()
    table["steady"] = Collector(
        name="steady",
        wants=lambda device: device.id in by_device,
        needs=lambda device: (),
        attributes=attributes,
        constants=lambda device, facts: (),
    )
    return tuple(Device(id=id_, kind=DeviceKind.GPU, path=".") for id_ in by_device)
