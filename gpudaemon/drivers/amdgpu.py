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
from collections.abc import Callable, Iterator, Sequence

from gpudaemon.drivers import Facts, GpuDriver
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import TEXT_LIMIT, Attribute, Cadence, Decode, Row, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.dpm import clock_levels, pcie_levels
from gpudaemon.parsers.gpu_metrics import THROTTLE_REASONS, has_throttle_status, throttle_reasons
from gpudaemon.parsers.integer import percentage, quotient, words
from gpudaemon.parsers.ras import PAGE_STATES, bad_pages, error_counts
from gpudaemon.parsers.text import text, text_or_empty

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
_AVAILABLE = ("available_compute_partition", "available_memory_partition")
_BAD_PAGES_LIMIT = 65536
"""The list of bad pages is a binary attribute and may exceed a page: 29 bytes a line."""
_METRICS_LIMIT = 8192
"""The driver gives at most a page; what fills its buffer counts as oversized."""

_whole = quotient()


def _needs(device: Device) -> Sequence[str]:
    return [name for name in (*_AVAILABLE, "gpu_metrics") if name in device.names]


def _attribute(
    device: Device, path: str, cadence: Cadence, decode: Decode, *series: Series
) -> Iterator[Attribute]:
    """The attribute `path`, if the device has that file; text that is a list or a word gets a page."""
    if path in device.names:
        limit = 64 if decode is _whole or decode is percentage else TEXT_LIMIT
        yield Attribute(path, cadence, series, decode, limit)


def _load(device: Device) -> Iterator[Attribute]:
    for path, engine in _ENGINES.items():
        series = Series(gpu.BUSY, (device.id, engine))
        cadence = Cadence.FAST if engine == "gfx" else Cadence.NORMAL
        yield from _attribute(device, path, cadence, percentage, series)
    for pool in _POOLS:
        used = Series(gpu.MEMORY_USED, (device.id, pool))
        yield from _attribute(device, f"mem_info_{pool}_used", Cadence.NORMAL, _whole, used)
        total = Series(gpu.MEMORY_TOTAL, (device.id, pool))
        # a resized BAR or a changed partition moves the totals without a new device
        yield from _attribute(device, f"mem_info_{pool}_total", Cadence.SLOW, _whole, total)


def _clocks(device: Device) -> Iterator[Attribute]:
    for clock in _CLOCKS:
        yield from _attribute(
            device,
            f"pp_dpm_{clock}",
            Cadence.NORMAL,
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


def _errors(device: Device) -> Iterator[Attribute]:
    replays = Series(gpu.PCIE_REPLAYS, (device.id,))
    yield from _attribute(device, "pcie_replay_count", Cadence.SLOW, _whole, replays)
    for path in sorted(device.names):
        found = _ERROR_COUNT.fullmatch(path)
        if found is not None:
            block = found.group(1)
            series = tuple(Series(gpu.RAS_ERRORS, (device.id, block, severity)) for severity in _SEVERITIES)
            yield Attribute(path, Cadence.SLOW, series, error_counts, TEXT_LIMIT)
    if "ras/gpu_vram_bad_pages" in device.names:
        series = tuple(Series(gpu.RAS_BAD_PAGES, (device.id, state)) for state in PAGE_STATES)
        yield Attribute("ras/gpu_vram_bad_pages", Cadence.SLOW, series, bad_pages, _BAD_PAGES_LIMIT)


def _throttling(device: Device, facts: Facts) -> Iterator[Attribute]:
    """The firmware's table, on chips whose table names throttling in bits that mean the same on all of them."""
    table = facts.get("gpu_metrics")
    if table is None or has_throttle_status(table):
        series = (Series(gpu.THROTTLED, (device.id, reason)) for reason in THROTTLE_REASONS)
        if "gpu_metrics" in device.names:
            yield Attribute("gpu_metrics", Cadence.NORMAL, tuple(series), throttle_reasons, _METRICS_LIMIT)


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
        yield from _attribute(device, path, Cadence.SLOW, decode, *series)
    cap = Series(gpu.THERMAL_CAP, (device.id,))
    yield from _attribute(device, "apu_thermal_cap", Cadence.SLOW, _whole, cap)
    for path, (metric, values) in _BOARD.items():
        cadence = Cadence.NORMAL if metric is gpu.BOARD_POWER else Cadence.SLOW
        yield from _attribute(device, path, cadence, _whole, Series(metric, (device.id, *values)))


def _firmware_row(device: str, component: str) -> Callable[[bytes], list[Row]]:
    def decode(content: bytes) -> list[Row]:
        version = text(content)
        return [(gpu.FIRMWARE_INFO, (device, component, version), 1.0)] if version else []

    return decode


def _firmware(device: Device) -> Iterator[Rows]:
    for path in sorted(device.names):
        found = _FIRMWARE.fullmatch(path)
        if found is not None:
            decode = _firmware_row(device.id, found.group(1))
            yield Rows(path, Cadence.STATIC, decode, (gpu.FIRMWARE_INFO,), limit=64, bound=1)


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    return [
        *_load(device),
        *_clocks(device),
        *_throttling(device, facts),
        *_errors(device),
        *_states(device, facts),
        *_firmware(device),
    ]


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
        gpu.RAS_BAD_PAGES,
        gpu.PERFORMANCE_LEVEL,
        gpu.COMPUTE_PARTITION,
        gpu.MEMORY_PARTITION,
        gpu.THERMAL_CAP,
        gpu.BOARD_POWER,
        gpu.BOARD_POWER_LIMIT,
        gpu.FIRMWARE_INFO,
    ),
    needs=_needs,
    attributes=_attributes,
    fast_chip="amdgpu",
)
