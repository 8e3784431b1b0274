"""NVIDIA GPUs with NVIDIA's own driver: names and versions in procfs, and what NVML answers.

The driver's `information` in procfs takes a reference on the GPU's power: reading it wakes a sleeping one, so
it is a static file behind the power state like any other. The driver shows nothing of load, power or
temperature in sysfs or procfs; all of it comes from its library, by calls that a process of its own makes
(`gpudaemon.calls.nvml`, optional). Without it there is what every PCI device has: link, errors, power state.
Each answer is one question below; a question all of whose metrics are unwanted is not asked.

Reasons for held clocks are those of nvmlDeviceGetCurrentClocksEventReasons that somebody may want to do
something about: an idle GPU's low clocks and clocks somebody set are not among them. NVML's unit of power is
the milliwatt, of energy the millijoule, of clocks MHz, of load percent (nvml.h).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from gpudaemon.drivers import Facts, GpuDriver
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu, nvml
from gpudaemon.model.attribute import Attribute, Cadence, Constant, Decode, Row, Rows
from gpudaemon.model.device import PROC, Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.nvidia import NUMA_STATES, driver_version, entries, numa_status
from gpudaemon.parsers.words import bits, numbers, optional, table

__all__ = ["DRIVER", "QUESTIONS"]

_PERCENT, _MILLI, _MEGA, _KIBI = 0.01, 0.001, 1e6, 1024
_CLOCKS = ("graphics", "sm", "mem", "video")
_SEVERITIES = ("corrected", "uncorrected")
_PLACES = ("l1", "l2", "dram", "register_file", "texture", "texture_shm", "cbu", "sram")
_REASONS: tuple[tuple[int, str, str], ...] = (
    (0x04, "sw_power_cap", "power"),
    (0x08, "hw_slowdown", "other"),
    (0x10, "sync_boost", "other"),
    (0x20, "sw_thermal_slowdown", "thermal"),
    (0x40, "hw_thermal_slowdown", "thermal"),
    (0x80, "hw_power_brake_slowdown", "power"),
)
"""Bit of nvmlClocksEventReasons, its name, and what it comes to on any GPU."""
_LINK_ERRORS = ("replay", "recovery", "crc_flit", "crc_data", "ecc_data")

_Values = Sequence[tuple[Metric, tuple[str, ...], float]]
"""Series of one answer: metric, labels after the device, and what its number is multiplied with."""


_seven = numbers(*[1] * 7)


def _bad_memory(content: bytes) -> tuple[float | None, ...]:
    """Rows corrected, uncorrected, pending, failed; pages single-bit, double-bit, pending. A GPU has either."""
    rows_corrected, rows_uncorrected, pending, failed, single, double, pages_pending = _seven(content)
    return (
        _sum(rows_corrected, rows_uncorrected, single, double),
        pending if pending is not None else pages_pending,
        failed,
        rows_corrected,
        rows_uncorrected,
        single,
        double,
    )


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


_LINES: dict[str, tuple[Cadence, _Values]] = {
    "utilization": (
        Cadence.NORMAL,
        [(gpu.BUSY, ("gfx",), _PERCENT), (gpu.BUSY, ("memory",), _PERCENT)],
    ),
    "engines": (
        Cadence.NORMAL,
        [(gpu.BUSY, (engine,), _PERCENT) for engine in ("encoder", "decoder", "jpeg", "ofa")],
    ),
    "memory": (
        Cadence.NORMAL,
        [
            (gpu.MEMORY_USED, ("vram",), 1),
            (gpu.MEMORY_TOTAL, ("vram",), 1),
            (nvml.MEMORY_RESERVED, ("vram",), 1),
            (gpu.MEMORY_USED, ("bar1",), 1),
            (gpu.MEMORY_TOTAL, ("bar1",), 1),
        ],
    ),
    "power": (
        Cadence.NORMAL,
        [(gpu.POWER, ("gpu",), _MILLI), (gpu.POWER_AVERAGE, ("gpu",), _MILLI)],
    ),
    "power_limits": (
        Cadence.SLOW,
        [(gpu.POWER_LIMIT, ("gpu", limit), _MILLI) for limit in ("cap", "cap_default", "cap_min", "cap_max")],
    ),
    "energy": (Cadence.NORMAL, [(gpu.ENERGY, ("gpu", "hardware"), _MILLI)]),
    "temperatures": (
        Cadence.NORMAL,
        [(gpu.TEMPERATURE, ("gpu",), 1), (gpu.TEMPERATURE, ("memory",), 1)],
    ),
    "temperature_limits": (
        Cadence.SLOW,
        [(gpu.TEMPERATURE_LIMIT, ("gpu", limit), 1) for limit in ("crit", "emergency", "max")]
        + [(gpu.TEMPERATURE_LIMIT, ("memory", "max"), 1)],
    ),
    "clocks": (Cadence.NORMAL, [(gpu.CLOCK, (clock,), _MEGA) for clock in _CLOCKS]),
    "clock_limits": (Cadence.SLOW, [(gpu.CLOCK_MAX, (clock,), _MEGA) for clock in _CLOCKS]),
    "state": (
        Cadence.SLOW,
        [
            (nvml.PERFORMANCE_STATE, (), 1),
            (nvml.PERSISTENCE_MODE, (), 1),
            (nvml.ECC_ENABLED, (), 1),
            (nvml.MIG_ENABLED, (), 1),
        ],
    ),
    "errors": (
        Cadence.SLOW,
        [(gpu.RAS_ERRORS, (place, severity), 1) for place in _PLACES for severity in _SEVERITIES]
        + [(nvml.LIFETIME_ERRORS, (severity,), 1) for severity in _SEVERITIES],
    ),
    "pcie": (
        Cadence.NORMAL,
        [(nvml.PCIE_BYTES, (direction,), 1) for direction in ("sent", "received")]
        + [(nvml.PCIE_THROUGHPUT, (direction,), 1000) for direction in ("sent", "received")],
    ),
    "pcie_replays": (Cadence.SLOW, [(gpu.PCIE_REPLAYS, (), 1)]),
    "nvlink_traffic": (
        Cadence.NORMAL,
        [(nvml.NVLINK_BYTES, (direction,), _KIBI) for direction in ("sent", "received")],
    ),
}
_SENSORS = ("power", "power_limits", "energy", "temperatures", "temperature_limits")
"""What other GPUs have in a hwmon chip."""
_BAD_MEMORY: _Values = [
    *((gpu.RAS_BAD_PAGES, (state,), 1) for state in ("reserved", "pending", "failed")),
    *((nvml.REMAPPED_ROWS, (severity,), 1) for severity in _SEVERITIES),
    *((nvml.RETIRED_PAGES, (cause,), 1) for cause in ("single_bit", "double_bit")),
]


def _fans(device: str, content: bytes) -> Iterator[Row]:
    for fan, percent in table(content, 2):
        yield from _row(gpu.PWM, (device, f"fan{_number(fan)}"), percent, _PERCENT)


def _nvlinks(device: str, content: bytes) -> Iterator[Row]:
    for link, up, *errors in table(content, 2 + len(_LINK_ERRORS)):
        yield from _row(nvml.NVLINK_UP, (device, _number(link)), up)
        for error, count in zip(_LINK_ERRORS, errors, strict=True):
            yield from _row(nvml.NVLINK_ERRORS, (device, _number(link), error), count)


def _mig(device: str, content: bytes) -> Iterator[Row]:
    for instance, compute, uuid, name, multiprocessors in table(content, 5):
        labels = (device, _number(instance), _number(compute))
        yield nvml.MIG_INFO, (*labels, uuid, name), 1.0
        yield from _row(nvml.MIG_MULTIPROCESSORS, labels, multiprocessors)


def _mig_memory(device: str, content: bytes) -> Iterator[Row]:
    for instance, compute, used, total in table(content, 4):
        labels = (device, _number(instance), _number(compute))
        yield from _row(nvml.MIG_MEMORY_USED, labels, used)
        yield from _row(nvml.MIG_MEMORY_TOTAL, labels, total)


def _identity(device: str, content: bytes) -> Iterator[Row]:
    for words in table(content, 7):
        yield nvml.NVML_INFO, (device, *words), 1.0


def _row(metric: Metric, labels: tuple[str, ...], word: str, scale: float = 1) -> Iterator[Row]:
    """A row of one number, none where there is none."""
    value = optional(word.encode()) if word else None
    if value is not None:
        yield metric, labels, value * scale


def _number(word: str) -> str:
    """A number that becomes a label. Raises Malformed."""
    if not (word.isascii() and word.isdigit() and len(word) <= 10):
        raise Malformed("not_a_number")
    return word


_Table = Callable[[str, bytes], Iterator[Row]]
_TABLES: dict[str, tuple[Cadence, _Table, tuple[Metric, ...]]] = {
    "fans": (Cadence.NORMAL, _fans, (gpu.PWM,)),
    "nvlinks": (Cadence.SLOW, _nvlinks, (nvml.NVLINK_UP, nvml.NVLINK_ERRORS)),
    "mig": (Cadence.SLOW, _mig, (nvml.MIG_INFO, nvml.MIG_MULTIPROCESSORS)),
    "mig_memory": (Cadence.NORMAL, _mig_memory, (nvml.MIG_MEMORY_USED, nvml.MIG_MEMORY_TOTAL)),
    "identity": (Cadence.STATIC, _identity, (nvml.NVML_INFO,)),
}
QUESTIONS = (*_LINES, "bad_memory", "clock_reasons", *_TABLES)
"""Every question that is asked."""


def _line(device: Device, name: str, cadence: Cadence, values: _Values, decode: Decode) -> Attribute:
    series = tuple(Series(metric, (device.id, *labels)) for metric, labels, _ in values)
    return Attribute(f"nvml/{name}", cadence, series, decode, limit=512, call="nvml")


def _decoder(decode: _Table, device: str) -> Callable[[bytes], list[Row]]:
    return lambda content: list(decode(device, content))


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    reasons = [(gpu.THROTTLED, ("", cause, reason), 1) for _, reason, cause in _REASONS]
    return [
        *_memory_node(device),
        *_lines(device, (name for name in _LINES if name not in _SENSORS)),
        _line(device, "bad_memory", Cadence.SLOW, _BAD_MEMORY, _bad_memory),
        _line(device, "clock_reasons", Cadence.NORMAL, reasons, bits(*(bit for bit, _, _ in _REASONS))),
        *(
            Rows(f"nvml/{name}", cadence, _decoder(decode, device.id), metrics, limit=8192, call="nvml")
            for name, (cadence, decode, metrics) in _TABLES.items()
        ),
    ]


def _lines(device: Device, names: Iterable[str]) -> Iterator[Attribute]:
    for name in names:
        cadence, values = _LINES[name]
        yield _line(device, name, cadence, values, numbers(*(scale for _, _, scale in values)))


def _sensors(device: Device, _facts: Facts) -> Iterable[Attribute]:
    return _lines(device, _SENSORS)


def _needs(device: Device) -> Sequence[str]:
    return sorted(name for name in device.names if name.startswith(PROC) and not name.endswith("/numa_status"))


def _fact(facts: Facts, end: str) -> bytes:
    """Content of the file in procfs whose name ends so, empty where there is none."""
    return next((content or b"" for name, content in facts.items() if name.endswith(end)), b"")


def _details(facts: Facts) -> dict[str, str]:
    known = entries(_fact(facts, "/information"))
    names = {"product_name": "Model", "unique_id": "GPU UUID", "vbios_version": "Video BIOS"}
    return {label: known[key] for label, key in names.items() if key in known}


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    version = driver_version(_fact(facts, "nvidia/version"))
    if not version:
        return ()
    firmware = entries(_fact(facts, "/information")).get("GPU Firmware", "")
    return [(Series(nvml.DRIVER_INFO, (device.id, version, "" if firmware == "N/A" else firmware)), 1.0)]


def _memory_node(device: Device) -> Iterator[Attribute]:
    states = (Series(nvml.MEMORY_NUMA_STATE, (device.id, state)) for state in NUMA_STATES)
    series = (Series(nvml.MEMORY_NUMA_NODE, (device.id,)), *states)
    for name in device.names:
        if name.startswith(PROC) and name.endswith("/numa_status"):
            yield Attribute(name, Cadence.SLOW, series, numa_status, limit=512)


def _emits() -> tuple[Metric, ...]:
    values = [*_BAD_MEMORY]
    for name, (_, line) in _LINES.items():
        values += line if name not in _SENSORS else ()
    found = dict.fromkeys(metric for metric, _, _ in values)
    for _, _, metrics in _TABLES.values():
        found |= dict.fromkeys(metrics)
    own = (nvml.DRIVER_INFO, nvml.MEMORY_NUMA_NODE, nvml.MEMORY_NUMA_STATE)
    return (*found, *own, gpu.THROTTLED, gpu.THROTTLED_SECONDS)


DRIVER = GpuDriver(
    kernel_driver="nvidia",
    vendor="nvidia",
    identity=PCI_IDENTITY,
    emits=_emits(),
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
    details=_details,
    sensors=_sensors,
)
