"""What the fields of amdgpu's `gpu_metrics` are in the metric table, and how the file is read.

One read of the table brings what a dozen text files bring one firmware transfer at a time. On discrete GPUs
(1.x) it fills the very series of `gpu_busy_percent`, `mem_busy_percent` and of the hwmon chip's `temp*_input`,
`power1_average` or `_input`, `freq*_input`, `in0_input` and `fan1_input`, so those are not read; the table is
read as often as the fastest of them. On APUs the driver scales those files chip by chip and the table does not
say how (`gpudaemon.parsers.gpu_metrics.quantities`): there they stay, and the table gives what they lack.

A field counts where the firmware filled it when the device was planned: others are all ones.

drivers/gpu/drm/amd/pm/swsmu/smu*/*_ppt.c: both come from the same SmuMetrics_t, *_get_gpu_metrics and
*_read_sensor.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu, gpu_links, gpu_partition, gpu_throttle
from gpudaemon.model.attribute import Attribute, Cadence
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.gpu_metrics.layouts import TABLES, Layout
from gpudaemon.parsers.gpu_metrics.quantities import pick
from gpudaemon.parsers.gpu_metrics.table import (
    HEADER,
    TABLE_LIMIT,
    Pick,
    decoder,
    is_filled,
    layout_of,
    unpacker,
)
from gpudaemon.parsers.gpu_metrics.throttle import REASONS, RESIDENCIES, throttle_values
from gpudaemon.parsers.text import text_or_empty

__all__ = ["EMITS", "EXAMPLES", "TABLE", "given_clocks", "is_table", "load", "sensors"]

TABLE = "gpu_metrics"

_STATUS = "indep_throttle_status"
_APU_RESIDENCIES = {
    "prochot": "thermal",
    "spl": "power",
    "fppt": "power",
    "sppt": "power",
    "thm_core": "thermal",
    "thm_gfx": "thermal",
    "thm_soc": "thermal",
}
"""reason of `throttle_residency_<reason>` in 3.0 -> cause"""
_CLOCK_NAMES = {"gfxclk": "sclk", "uclk": "mclk", "vclk0": "vclk", "dclk0": "dclk", "vpeclk": "vpeclk"}
"""The names hwmon and pp_dpm_* have for the clocks of the table; others have the same."""
_DISCRETE_CLOCKS = ("gfxclk", "uclk", "socclk", "vclk0", "dclk0", "vclk1", "dclk1")
_APU_CLOCKS = (
    "gfxclk",
    "uclk",
    "socclk",
    "fclk",
    "vclk",
    "dclk",
    "vpeclk",
    "ipuclk",
    "mpipu",
    "coreclk",
    "l3clk",
)
_DOMAINS = ("cpu", "soc", "gfx", "core", "ipu", "apu", "dgpu", "all_core", "sys")
_LIMITED = {
    "gfx_below_host_limit_acc": "any",
    "gfx_below_host_limit_ppt_acc": "power",
    "gfx_below_host_limit_thm_acc": "thermal",
    "gfx_below_host_limit_total_acc": "total",
    "gfx_low_utilization_acc": "low_utilization",
}
_PARTITIONS = 8

EMITS: tuple[Metric, ...] = (
    gpu.DOMAIN_POWER,
    gpu.MEMORY_BANDWIDTH,
    gpu_links.PCIE_RECOVERIES,
    gpu_links.PCIE_PEER_RECOVERIES,
    gpu_links.PCIE_REPLAY_ROLLOVERS,
    gpu_links.PCIE_NAKS,
    gpu_links.XGMI_READ,
    gpu_links.XGMI_WRITTEN,
    gpu_links.XGMI_LINK_UP,
    gpu_links.XGMI_WIDTH,
    gpu_links.XGMI_TRANSFERS,
    gpu_throttle.THROTTLED_TICKS,
    gpu_throttle.FIRMWARE_TICKS,
    gpu_throttle.BUSY_TICKS,
    gpu_partition.PARTITIONS,
    gpu_partition.PARTITION_BUSY,
    gpu_partition.PARTITION_BUSY_TICKS,
    gpu_partition.PARTITION_LIMITED_TICKS,
)
"""The rows only the table fills."""

EXAMPLES: tuple[Facts, ...] = tuple(
    {TABLE: HEADER.pack(size, *revision).ljust(size, b"\x01")} for *revision, size in TABLES
)
"""A table of each revision in which every field is filled."""


class _Entry(NamedTuple):
    series: Series
    pick: Pick
    windows: bool


class _Wanted:
    """Gathers what is wanted of a table.

    layout, content: of the table as it was when the device was planned. series of one element may be several;
    windows: they are followed many times a second.
    """

    def __init__(self, device: Device, layout: Layout, content: bytes) -> None:
        self.device = device
        self.layout = layout
        self.content = content
        self.entries: list[_Entry] = []

    @property
    def discrete(self) -> bool:
        return self.layout.revision[0] == 1

    def count(self, field: str) -> int:
        found = self.layout.fields.get(field)
        return 0 if found is None else found.count

    def filled(self, field: str, index: int = 0) -> bool:
        return is_filled(self.layout, self.content, field, index)

    def add(self, field: str, metric: Metric, *labels: str, index: int = 0, windows: bool = False) -> None:
        found = pick(self.layout, field, index)
        if found is not None and self.filled(field, index):
            self.entries.append(_Entry(Series(metric, (self.device.id, *labels)), found, windows))

    def attribute(self) -> Iterator[Attribute]:
        """The file as it is to be read for all that was gathered."""
        fields = self.layout.fields
        entries = sorted(self.entries, key=lambda entry: fields[entry.pick.field].place(entry.pick.index))
        series = tuple(entry.series for entry in entries)
        steady = frozenset(entry.series for entry in entries if not entry.windows)
        decode = decoder(self.layout, [entry.pick for entry in entries])
        if entries:
            cadence = Cadence.FAST if self.discrete else Cadence.NORMAL
            yield Attribute(TABLE, cadence, series, decode, TABLE_LIMIT, steady=steady)


def is_table(content: bytes | None) -> bool:
    """Whether a file holds a table, if perhaps of a revision nobody knows: then it is as long as it says.

    All ones behind the header are what a firmware gives that does not answer: nothing can be planned by them.
    """
    if content is None or not content[HEADER.size :].strip(b"\xff"):
        return False
    try:
        return layout_of(content) is not None or HEADER.unpack_from(content)[0] == len(content)
    except Malformed:
        return False


def _wanted(device: Device, facts: Facts) -> _Wanted | None:
    content = facts.get(TABLE) if TABLE in device.names else None
    if content is None or not is_table(content):
        return None
    layout = layout_of(content)
    return None if layout is None else _Wanted(device, layout, content)


def _suffix(name: str, index: int) -> str:
    return f"{name}{index}" if index else name


def given_clocks(device: Device, facts: Facts) -> frozenset[str]:
    """Clocks, as `pp_dpm_*` names them, whose present frequency the table of a discrete GPU gives."""
    wanted = _wanted(device, facts)
    if wanted is None or not wanted.discrete:
        return frozenset()
    return frozenset(
        _CLOCK_NAMES.get(clock, clock) for clock in _DISCRETE_CLOCKS if wanted.filled(f"current_{clock}")
    )


# Load, links and what throttles: rows of the GPU itself


def load(device: Device, facts: Facts) -> Iterator[Attribute]:
    """The table for all but the rows of sensors; nothing where it is not there or of an unknown revision."""
    wanted = _wanted(device, facts)
    if wanted is None:
        return
    if wanted.discrete:
        _activity(wanted)
        _pcie(wanted)
        _xgmi(wanted)
        _ticks(wanted)
        _partitions(wanted)
    else:
        _package(wanted)
    yield from _with_throttling(wanted)


def _activity(wanted: _Wanted) -> None:
    wanted.add("average_gfx_activity", gpu.BUSY, "gfx", windows=True)
    wanted.add("average_umc_activity", gpu.BUSY, "memory")
    if "vcn_busy_percent" not in wanted.device.names:
        wanted.add("average_mm_activity", gpu.BUSY, "mm")
    for field, engine in (
        ("vcn_activity", "vcn"),
        ("jpeg_activity", "jpeg"),
        ("gfx_busy_inst", "gfx"),
        ("vcn_busy", "vcn"),
        ("jpeg_busy", "jpeg"),
    ):
        for index in range(wanted.count(field)):
            wanted.add(field, gpu.BUSY, f"{engine}{index}", index=index)


def _pcie(wanted: _Wanted) -> None:
    wanted.add("pcie_link_speed", gpu.PCIE_LEVEL_TRANSFERS)
    wanted.add("pcie_link_width", gpu.PCIE_LEVEL_WIDTH)
    wanted.add("pcie_l0_to_recov_count_acc", gpu_links.PCIE_RECOVERIES)
    wanted.add("pcie_lc_perf_other_end_recovery", gpu_links.PCIE_PEER_RECOVERIES)
    wanted.add("pcie_replay_rover_count_acc", gpu_links.PCIE_REPLAY_ROLLOVERS)
    wanted.add("pcie_nak_sent_count_acc", gpu_links.PCIE_NAKS, "sent")
    wanted.add("pcie_nak_rcvd_count_acc", gpu_links.PCIE_NAKS, "received")
    if "pcie_replay_count" not in wanted.device.names:  # which counts in the bridge, not in the firmware
        wanted.add("pcie_replay_count_acc", gpu.PCIE_REPLAYS)


def _xgmi(wanted: _Wanted) -> None:
    wanted.add("xgmi_link_width", gpu_links.XGMI_WIDTH)
    wanted.add("xgmi_link_speed", gpu_links.XGMI_TRANSFERS)
    states = wanted.count("xgmi_link_status")
    for index in range(wanted.count("xgmi_read_data_acc")):
        if states and not wanted.filled("xgmi_link_status", index):
            continue  # not wired: the driver gives no state
        wanted.add("xgmi_link_status", gpu_links.XGMI_LINK_UP, str(index), index=index)
        wanted.add("xgmi_read_data_acc", gpu_links.XGMI_READ, str(index), index=index)
        wanted.add("xgmi_write_data_acc", gpu_links.XGMI_WRITTEN, str(index), index=index)


def _ticks(wanted: _Wanted) -> None:
    if not wanted.filled("accumulation_counter"):
        return
    wanted.add("accumulation_counter", gpu_throttle.FIRMWARE_TICKS)
    wanted.add("gfx_activity_acc", gpu_throttle.BUSY_TICKS, "gfx")
    wanted.add("mem_activity_acc", gpu_throttle.BUSY_TICKS, "memory")
    for cause, reason in RESIDENCIES:
        wanted.add(f"{reason}_residency_acc", gpu_throttle.THROTTLED_TICKS, "", cause, reason)


def _partitions(wanted: _Wanted) -> None:
    wanted.add("num_partition", gpu_partition.PARTITIONS)
    for number in range(_PARTITIONS):
        for field, engine in (("gfx_busy_inst", "gfx"), ("vcn_busy", "vcn"), ("jpeg_busy", "jpeg")):
            path = f"xcp{number}.{field}"
            for index in range(wanted.count(path)):
                labels = (str(number), engine, str(index))
                wanted.add(path, gpu_partition.PARTITION_BUSY, *labels, index=index)
        path = f"xcp{number}.gfx_busy_acc"
        for index in range(wanted.count(path)):
            wanted.add(path, gpu_partition.PARTITION_BUSY_TICKS, str(number), str(index), index=index)
        for field, reason in _LIMITED.items():
            path = f"xcp{number}.{field}"
            for index in range(wanted.count(path)):
                labels = (str(number), str(index), reason)
                wanted.add(path, gpu_partition.PARTITION_LIMITED_TICKS, *labels, index=index)


def _package(wanted: _Wanted) -> None:
    """What an APU's table says of its parts."""
    for domain in _DOMAINS:
        field = f"average_{domain}_power"
        count = wanted.count(field)
        for index in range(count):
            name = f"{domain}{index}" if count > 1 else domain
            wanted.add(field, gpu.DOMAIN_POWER, name, index=index)
    for agent in ("dram", "ipu"):
        wanted.add(f"average_{agent}_reads", gpu.MEMORY_BANDWIDTH, agent, "read")
        wanted.add(f"average_{agent}_writes", gpu.MEMORY_BANDWIDTH, agent, "write")
    for reason, cause in _APU_RESIDENCIES.items():
        wanted.add(f"throttle_residency_{reason}", gpu_throttle.THROTTLED_TICKS, "", cause, reason)


def _with_throttling(wanted: _Wanted) -> Iterator[Attribute]:
    """The table with a series for each bit of its throttle status, where that means the same on all chips."""
    if not wanted.filled(_STATUS):
        yield from wanted.attribute()
        return
    reasons = tuple(Series(gpu.THROTTLED, (wanted.device.id, "", *one)) for one in REASONS)
    status = unpacker(wanted.layout, ((_STATUS, 0),))
    bare = Attribute(TABLE, Cadence.NORMAL, (), decoder(wanted.layout, ()), TABLE_LIMIT)
    attribute = next(wanted.attribute(), bare)
    numbers = attribute.decode

    def decode(content: bytes) -> Sequence[float | None]:
        return [*numbers(content), *throttle_values(status(content)[0])]

    series = (*attribute.series, *reasons)
    steady = attribute.steady | frozenset(reasons)
    yield Attribute(TABLE, attribute.cadence, series, decode, TABLE_LIMIT, steady=steady)


# Temperatures, powers, clocks, voltages: the rows hwmon fills


def sensors(device: Device, facts: Facts) -> Iterator[Attribute]:
    """The table for the rows of sensors, under the names the hwmon chip has for them."""
    wanted = _wanted(device, facts)
    if wanted is None:
        return
    chip = _chip(device, facts)
    if wanted.discrete:
        _discrete(wanted, chip, facts)
    else:
        _apu(wanted, chip)
    yield from wanted.attribute()


def _chip(device: Device, facts: Facts) -> str:
    """Directory of the driver's own hwmon chip, with its slash; empty where there is none."""
    for path in device.names:
        if path.startswith("hwmon/") and path.endswith("/name") and text_or_empty(facts.get(path)) == "amdgpu":
            return path.removesuffix("name")
    return ""


def _namer(wanted: _Wanted, chip: str, facts: Facts) -> Callable[[str, str], str]:
    """(channel, the driver's usual label) -> what the chip's own series of that channel are called."""

    def name(channel: str, usual: str) -> str:
        if not chip or not any(path.startswith(f"{chip}{channel}_") for path in wanted.device.names):
            return usual
        return text_or_empty(facts.get(f"{chip}{channel}_label")) or channel

    return name


def _discrete(wanted: _Wanted, chip: str, facts: Facts) -> None:
    name = _namer(wanted, chip, facts)
    names = wanted.device.names
    for field, channel, usual in (
        ("edge", "temp1", "edge"),
        ("hotspot", "temp2", "junction"),
        ("mem", "temp3", "mem"),
    ):
        sensor = name(channel, usual)
        wanted.add(f"temperature_{field}", gpu.TEMPERATURE, sensor, windows=usual != "mem")
    for part in ("vrgfx", "vrsoc", "vrmem"):
        wanted.add(f"temperature_{part}", gpu.TEMPERATURE, part)
    for part in ("hbm", "mid", "aid", "xcd"):
        for index in range(wanted.count(f"temperature_{part}")):
            wanted.add(f"temperature_{part}", gpu.TEMPERATURE, f"{part}{index}", index=index)
    sensor = name("power1", "PPT")
    if f"{chip}power1_input" not in names or not chip:
        wanted.add("average_socket_power", gpu.POWER, sensor, windows=True)
    wanted.add("average_socket_power", gpu.POWER_AVERAGE, sensor)
    wanted.add("curr_socket_power", gpu.POWER, sensor, windows=True)
    wanted.add("energy_accumulator", gpu.ENERGY, sensor, "hardware")
    _discrete_clocks(wanted, name)
    wanted.add("voltage_gfx", gpu.VOLTAGE, name("in0", "vddgfx"))
    wanted.add("voltage_soc", gpu.VOLTAGE, "soc")
    wanted.add("voltage_mem", gpu.VOLTAGE, "mem")
    if chip and f"{chip}fan1_input" in names:  # passive cards have the field too
        wanted.add("current_fan_speed", gpu.FAN, name("fan1", "fan1"))


def _discrete_clocks(wanted: _Wanted, name: Callable[[str, str], str]) -> None:
    channels = {"gfxclk": "freq1", "uclk": "freq2"}
    for clock in _DISCRETE_CLOCKS:
        usual = _CLOCK_NAMES.get(clock, clock)
        for index in range(wanted.count(f"current_{clock}")):
            label = name(channels[clock], usual) if clock in channels and not index else _suffix(usual, index)
            windows = clock in channels and not index
            wanted.add(f"current_{clock}", gpu.CLOCK, label, index=index, windows=windows)


def _apu(wanted: _Wanted, chip: str) -> None:
    names = wanted.device.names

    def text_has(channel: str) -> bool:
        return bool(chip) and f"{chip}{channel}_input" in names

    for part in ("gfx", "soc", "core", "l3", "skin"):
        if part == "gfx" and text_has("temp1"):
            continue
        field = f"temperature_{part}"
        count = wanted.count(field)
        for index in range(count):
            label = f"{part}{'_' if part == 'l3' else ''}{index}" if count > 1 else part
            wanted.add(field, gpu.TEMPERATURE, label, index=index)
    channels = {"gfxclk": "freq1", "uclk": "freq2"}
    for clock in _APU_CLOCKS:
        if clock not in channels or not text_has(channels[clock]):
            _apu_clock(wanted, clock)
    for part, channel in (("cpu", ""), ("soc", ""), ("gfx", "in0")):
        if not (channel and text_has(channel)):
            wanted.add(f"average_{part}_voltage", gpu.VOLTAGE, part)
        wanted.add(f"average_{part}_current", gpu.CURRENT, part)


def _apu_clock(wanted: _Wanted, clock: str) -> None:
    """The present frequency, or its average where the firmware gives nothing else."""
    usual = _CLOCK_NAMES.get(clock, clock.removesuffix("clk") if clock in ("coreclk", "l3clk") else clock)
    current = f"current_{clock}"
    field = current if wanted.filled(current) else f"average_{clock}_frequency"
    count = wanted.count(field)
    for index in range(count):
        label = f"{usual}{'_' if clock == 'l3clk' else ''}{index}" if count > 1 else usual
        wanted.add(field, gpu.CLOCK, label, index=index)
