"""AMD GPUs: what the amdgpu driver shows in the text files of the PCI device directory.

Temperatures, power, fans and voltages come from the chip below `hwmon/` and are planned with every other
chip. A file the ASIC lacks is not listed and so never planned; files of an ASIC that lists but cannot fill
them answer EOPNOTSUPP or an empty line.

Load, power, clocks and temperatures are fast: the driver keeps the firmware's table for a millisecond, so a
reading of them all costs one or two transfers (drivers/gpu/drm/amd/pm/swsmu/smu_cmn.c,
smu_cmn_get_metrics_table).

drivers/gpu/drm/amd/pm/amdgpu_pm.c, Documentation/gpu/amdgpu/driver-misc.rst and thermal.rst,
drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from gpudaemon.drivers import Facts, GpuDriver, amdgpu_table
from gpudaemon.drivers.firmware import version_row
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu, gpu_links
from gpudaemon.model.attribute import TEXT_LIMIT, Attribute, Cadence, Constant, Decode, Row, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.dpm import clock_levels, pcie_levels
from gpudaemon.parsers.gpu_metrics.table import TABLE_LIMIT
from gpudaemon.parsers.integer import percentage, quotient, words
from gpudaemon.parsers.ras import PAGE_STATES, bad_pages, error_counts, event_counts
from gpudaemon.parsers.text import text_or_empty
from gpudaemon.parsers.xgmi import members

__all__ = ["DRIVER"]

_ENGINES = {"gpu_busy_percent": "gfx", "mem_busy_percent": "memory", "vcn_busy_percent": "vcn"}
_POOLS = ("vram", "vis_vram", "gtt", "preempt")
_CLOCKS = ("sclk", "mclk", "socclk", "fclk", "vclk", "vclk1", "dclk", "dclk1", "dcefclk")
_SEVERITIES = ("corrected", "uncorrected", "deferred")

_LEVELS = (
    "auto",
    "low",
    "high",
    "manual",
    "profile_standard",
    "profile_min_sclk",
    "profile_min_mclk",
    "profile_peak",
    "perf_determinism",
)
_COMPUTE = ("SPX", "DPX", "TPX", "QPX", "CPX")
_MEMORY = ("NPS1", "NPS2", "NPS3", "NPS4", "NPS6", "NPS8")

_BOARD: dict[str, tuple[Metric, tuple[str, ...]]] = {
    "board/node_power": (gpu.BOARD_POWER, ("node",)),
    "board/cur_node_power_limit": (gpu.BOARD_POWER_LIMIT, ("node", "current")),
    "board/max_node_power_limit": (gpu.BOARD_POWER_LIMIT, ("node", "max")),
    "board/baseboard_power": (gpu.BOARD_POWER, ("baseboard",)),
    "board/baseboard_power_limit": (gpu.BOARD_POWER_LIMIT, ("baseboard", "limit")),
}

_ERROR_COUNT = re.compile(r"ras/([a-z0-9_]{1,32})_err_count", re.ASCII)
_FIRMWARE = re.compile(r"fw_version/([a-z0-9_]{1,32})_fw_version", re.ASCII)
_PARTITION_MODE = "current_compute_partition"
_HIVE = "xgmi_hive_info"
_HIVE_ID = f"{_HIVE}/xgmi_hive_id"
"""Listed for the GPU that holds the hive alone: the links of the others are not followed."""
_XGMI = ("xgmi_device_id", "xgmi_physical_id")
_MOST_MEMBERS = 64
_AVAILABLE = ("available_compute_partition", "available_memory_partition")
_BAD_PAGES_LIMIT = 65536
"""The list of bad pages is a binary attribute and may exceed a page: 29 bytes a line."""

_whole = quotient()
_size = quotient(signed=False)
_npm_words = words(("enabled", "disabled"))


def _npm(content: bytes) -> Sequence[float | None]:
    return _npm_words(content)[:1]


def _needs(device: Device) -> Sequence[str]:
    wanted = (*_AVAILABLE, _PARTITION_MODE, *_XGMI, "gpu_metrics")
    return [name for name in wanted if name in device.names]


def _sensor_needs(device: Device) -> Sequence[str]:
    return ["gpu_metrics"] if "gpu_metrics" in device.names else []


def _attribute(
    device: Device, path: str, cadence: Cadence, decode: Decode, *series: Series
) -> Iterator[Attribute]:
    """The attribute `path`, if the device has that file; text that is a list or a word gets a page."""
    if path in device.names:
        limit = 64 if decode in (_whole, _size, percentage) else TEXT_LIMIT
        yield Attribute(path, cadence, series, decode, limit)


def _load(device: Device) -> Iterator[Attribute]:
    for path, engine in _ENGINES.items():
        series = Series(gpu.BUSY, (device.id, engine))
        cadence = Cadence.FAST if engine == "gfx" else Cadence.NORMAL
        yield from _attribute(device, path, cadence, percentage, series)
    for pool in _POOLS:
        used = Series(gpu.MEMORY_USED, (device.id, pool))
        yield from _attribute(device, f"mem_info_{pool}_used", Cadence.NORMAL, _size, used)
        total = Series(gpu.MEMORY_TOTAL, (device.id, pool))
        # a resized BAR or a changed partition moves the totals without a new device
        yield from _attribute(device, f"mem_info_{pool}_total", Cadence.SLOW, _size, total)


def _clocks(device: Device, given: frozenset[str]) -> Iterator[Attribute]:
    """Levels of the clocks; given: those whose present frequency comes from elsewhere."""
    for clock in _CLOCKS:
        yield from _attribute(
            device,
            f"pp_dpm_{clock}",
            Cadence.SLOW if clock in given else Cadence.NORMAL,
            clock_levels,
            Series(gpu.CLOCK_LEVEL, (device.id, clock)),
            Series(gpu.CLOCK_MAX, (device.id, clock)),
        )
    yield from _attribute(
        device,
        "pp_dpm_pcie",
        Cadence.SLOW,
        pcie_levels,
        Series(gpu.PCIE_LEVEL_TRANSFERS, (device.id,)),
        Series(gpu.PCIE_LEVEL_WIDTH, (device.id,)),
    )


def _errors(device: Device) -> Iterator[Attribute | Rows]:
    replays = Series(gpu.PCIE_REPLAYS, (device.id,))
    yield from _attribute(device, "pcie_replay_count", Cadence.SLOW, _whole, replays)
    for path in sorted(device.names):
        found = _ERROR_COUNT.fullmatch(path)
        if found is not None:
            block = found.group(1)
            series = tuple(Series(gpu.RAS_ERRORS, (device.id, block, severity)) for severity in _SEVERITIES)
            yield Attribute(path, Cadence.SLOW, series, error_counts, TEXT_LIMIT)
    if "ras/event_state" in device.names:
        decode = partial(_events, device=device.id)
        yield Rows("ras/event_state", Cadence.SLOW, decode, (gpu.RAS_EVENTS,), bound=32)
    if "ras/gpu_vram_bad_pages" in device.names:
        series = tuple(Series(gpu.RAS_BAD_PAGES, (device.id, state)) for state in PAGE_STATES)
        yield Attribute("ras/gpu_vram_bad_pages", Cadence.SLOW, series, bad_pages, _BAD_PAGES_LIMIT)


def _again(device: Device, facts: Facts) -> Iterator[Attribute]:
    """The firmware's table where there was none when the device was planned: once there is one, plan anew."""
    if "gpu_metrics" in device.names and not amdgpu_table.is_table(facts.get("gpu_metrics")):
        yield Attribute("gpu_metrics", Cadence.SLOW, (), _any_table, TABLE_LIMIT, settles=True)


def _any_table(content: bytes) -> tuple[()]:
    if not amdgpu_table.is_table(content):
        raise Malformed("format" if content else "empty")
    return ()


def _events(content: bytes, device: str) -> list[Row]:
    return [(gpu.RAS_EVENTS, (device, event), count) for event, count in event_counts(content).items()]


def _xgmi(device: Device) -> Iterator[Rows]:
    """The hive as this member sees it."""
    for path, metric in (("xgmi_num_hops", gpu_links.XGMI_HOPS), ("xgmi_num_links", gpu_links.XGMI_LINKS)):
        if path in device.names:
            metrics = (metric, gpu_links.XGMI_HIVE_MEMBERS) if metric is gpu_links.XGMI_HOPS else (metric,)
            decode = partial(_members, metrics=metrics, device=device.id)
            yield Rows(path, Cadence.SLOW, decode, metrics, bound=_MOST_MEMBERS + 1)


def _members(content: bytes, metrics: tuple[Metric, ...], device: str) -> list[Row]:
    numbers = members(content)
    rows: list[Row] = [(metrics[0], (device, str(place)), float(one)) for place, one in enumerate(numbers)]
    return rows + [(metric, (device,), float(len(numbers))) for metric in metrics[1:]]


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    hive = _hive(device)
    member = text_or_empty(facts.get("xgmi_device_id"))
    if not hive or not member:
        return ()
    labels = (hive, member, text_or_empty(facts.get("xgmi_physical_id")))
    return [(Series(gpu_links.XGMI_HIVE_INFO, (device.id, *labels)), 1.0)]


def _hive(device: Device) -> str:
    """The GPU that holds the directory of the hive; every other member links to it (amdgpu_xgmi.c).

    The number in it names nothing more, and each member would read it through the first GPU's directory.
    """
    if any(name.startswith(f"{_HIVE}/") for name in device.names):
        return device.id
    return device.link(_HIVE)


def _partitions(facts: Facts, available: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The modes the card offers (`SPX, DPX`); all that exist where it does not say or says nonsense."""
    offered = [word.strip() for word in text_or_empty(facts.get(available)).split(",")]
    return tuple(mode for mode in known if mode in offered) or known


def _states(device: Device, facts: Facts) -> Iterator[Attribute]:
    compute = _partitions(facts, "available_compute_partition", _COMPUTE)
    memory = _partitions(facts, "available_memory_partition", _MEMORY)
    for path, metric, states in (
        ("power_dpm_force_performance_level", gpu.PERFORMANCE_LEVEL, _LEVELS),
        ("current_compute_partition", gpu.COMPUTE_PARTITION, compute),
        ("current_memory_partition", gpu.MEMORY_PARTITION, memory),
    ):
        series = tuple(Series(metric, (device.id, state)) for state in states)
        decode = words(states, unknown=("UNKNOWN", "unknown"))
        for one in _attribute(device, path, Cadence.SLOW, decode, *series):
            # the table's partitions are others then, and so are KFD's nodes
            yield replace(one, settles=True) if path == _PARTITION_MODE else one
    cap = Series(gpu.THERMAL_CAP, (device.id,))
    yield from _attribute(device, "apu_thermal_cap", Cadence.SLOW, _whole, cap)
    management = Series(gpu.NODE_POWER_MANAGEMENT, (device.id,))
    yield from _attribute(device, "board/npm_status", Cadence.SLOW, _npm, management)
    for path, (metric, values) in _BOARD.items():
        cadence = Cadence.NORMAL if metric is gpu.BOARD_POWER else Cadence.SLOW
        yield from _attribute(device, path, cadence, _whole, Series(metric, (device.id, *values)))


def _firmware(device: Device) -> Iterator[Rows]:
    for path in sorted(device.names):
        found = _FIRMWARE.fullmatch(path)
        if found is not None:
            decode = version_row(device.id, found.group(1))
            yield Rows(path, Cadence.STATIC, decode, (gpu.FIRMWARE_INFO,), limit=64, bound=1)


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    return [
        *amdgpu_table.load(device, facts),
        *_again(device, facts),
        *_load(device),
        *_clocks(device, amdgpu_table.given_clocks(device, facts)),
        *_errors(device),
        *_xgmi(device),
        *_states(device, facts),
        *_firmware(device),
    ]


_EXAMPLE = (
    *PCI_IDENTITY.values(),
    *("product_name", "product_number", "serial_number", "unique_id", "vbios_version", "mem_info_vram_vendor"),
    *_ENGINES,
    *(f"mem_info_{pool}_{what}" for pool in _POOLS for what in ("used", "total")),
    *(f"pp_dpm_{clock}" for clock in _CLOCKS),
    *(
        "pp_dpm_pcie",
        "pcie_replay_count",
        "power_dpm_force_performance_level",
        "apu_thermal_cap",
        "gpu_metrics",
    ),
    *_AVAILABLE,
    *("current_compute_partition", "current_memory_partition", "xgmi_num_hops", "xgmi_num_links"),
    _HIVE_ID,
    *_XGMI,
    *("ras/umc_err_count", "ras/event_state", "ras/gpu_vram_bad_pages", "board/npm_status", *_BOARD),
    "fw_version/smc_fw_version",
)

DRIVER = GpuDriver(
    kernel_driver="amdgpu",
    vendor="amd",
    identity={
        **PCI_IDENTITY,
        "product_name": "product_name",
        "product_number": "product_number",
        "serial_number": "serial_number",
        "unique_id": "unique_id",
        "vbios_version": "vbios_version",
        "memory_vendor": "mem_info_vram_vendor",
    },
    emits=(
        gpu.BUSY,
        *gpu.BUSY_WINDOW,
        gpu.MEMORY_USED,
        gpu.MEMORY_TOTAL,
        gpu.CLOCK_LEVEL,
        gpu.CLOCK_MAX,
        gpu.PCIE_LEVEL_TRANSFERS,
        gpu.PCIE_LEVEL_WIDTH,
        gpu.PCIE_REPLAYS,
        gpu.THROTTLED,
        gpu.THROTTLED_SECONDS,
        gpu.RAS_ERRORS,
        gpu.RAS_EVENTS,
        gpu.RAS_BAD_PAGES,
        gpu_links.XGMI_HIVE_INFO,
        gpu_links.XGMI_HIVE_MEMBERS,
        gpu_links.XGMI_HOPS,
        gpu_links.XGMI_LINKS,
        gpu.PERFORMANCE_LEVEL,
        gpu.COMPUTE_PARTITION,
        gpu.MEMORY_PARTITION,
        gpu.THERMAL_CAP,
        gpu.BOARD_POWER,
        gpu.BOARD_POWER_LIMIT,
        gpu.NODE_POWER_MANAGEMENT,
        gpu.FIRMWARE_INFO,
        *amdgpu_table.EMITS,
    ),
    example=_EXAMPLE,
    example_facts=({}, *amdgpu_table.EXAMPLES),
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
    sensors=amdgpu_table.sensors,
    sensor_needs=_sensor_needs,
    fast_chip="amdgpu",
)
