"""The rows of the host dashboard below its first: one function a subject, each a tuple of panels.

A new metric is one `Query` here: its name comes from the row of the metric table, its unit from there too.
"""

from grafana_foundation_sdk.builders import statetimeline, timeseries

from gpudaemon.export.dashboard_memory import memory_that_moves
from gpudaemon.export.dashboard_parts import firmware, own, parts
from gpudaemon.export.grafana import UNITS, Query, State, lines, strip
from gpudaemon.export.promql import (
    GPU,
    HOST,
    KEY,
    SCRAPE_SAMPLES,
    SCRAPE_SECONDS,
    increase,
    numbered_states,
    rate,
    select,
)
from gpudaemon.metrics import daemon, drm_client, gpu, gpu_links, io_uring, pcie, runtime_power
from gpudaemon.model.metric import Metric, Unit
from gpudaemon.parsers.power_state import RUNTIME_STATUSES

__all__ = ["ROWS", "Lines"]

Lines = timeseries.Panel | statetimeline.Panel

_WINDOW = "$window"
"""The window whose edges are drawn is chosen in the dashboard."""


def _load() -> tuple[Lines, ...]:
    used, total = select(gpu.MEMORY_USED, GPU, pool="vram"), select(gpu.MEMORY_TOTAL, GPU, pool="vram")
    return (
        lines(
            "Busy",
            "Share of time each engine was busy. A gap is not idle: idle is drawn at zero.",
            UNITS[gpu.BUSY.unit],
            [Query(select(gpu.BUSY, GPU), "{{device}} {{engine}}")],
            width=8,
            maximum=1,
        ),
        lines(
            "Busy, highest of each window",
            f"Highest reading over the last complete window of {_WINDOW}: peaks that a scrape does not meet.",
            UNITS[gpu.BUSY.unit],
            [Query(select(gpu.BUSY_WINDOW.maximum, GPU, window=_WINDOW), "{{device}} {{engine}}")],
            width=8,
            maximum=1,
        ),
        lines(
            "Video memory in use",
            "Share of each GPU's own memory.",
            UNITS[Unit.RATIO],
            [Query(f"{used} / on ({KEY}) {total}", "{{device}}")],
            width=8,
            maximum=1,
        ),
        lines(
            "Memory in use by pool",
            gpu.MEMORY_USED.help,
            UNITS[gpu.MEMORY_USED.unit],
            [Query(select(gpu.MEMORY_USED, GPU), "{{device}} {{pool}}")],
            width=24,
        ),
    )


def _clocks() -> tuple[Lines, ...]:
    return (
        lines(
            "Clocks",
            gpu.CLOCK.help,
            UNITS[gpu.CLOCK.unit],
            [Query(select(gpu.CLOCK, GPU), "{{device}} {{clock}}")],
            width=8,
        ),
        lines(
            "Clocks, mean of each window",
            f"Mean over the last complete window of {_WINDOW}.",
            UNITS[gpu.CLOCK.unit],
            [Query(select(gpu.CLOCK_WINDOW.mean, GPU, window=_WINDOW), "{{device}} {{clock}}")],
            width=8,
        ),
        lines(
            "Level against the highest level",
            "1 is the highest frequency the driver offers for this clock.",
            UNITS[Unit.RATIO],
            [
                Query(
                    f"{select(gpu.CLOCK_LEVEL, GPU)} / on ({KEY}, clock) {select(gpu.CLOCK_MAX, GPU)}",
                    "{{device}} {{clock}}",
                )
            ],
            width=8,
            maximum=1,
        ),
    )


def _temperature() -> tuple[Lines, ...]:
    now, crit = select(gpu.TEMPERATURE, GPU), select(gpu.TEMPERATURE_LIMIT, GPU, limit="crit")
    return (
        lines(
            "Temperature",
            "Every sensor, and the lowest critical limit among those shown.",
            UNITS[gpu.TEMPERATURE.unit],
            [Query(now, "{{device}} {{sensor}}"), Query(f"min({crit})", "lowest crit", "limit")],
            width=8,
        ),
        lines(
            "Distance to the critical limit",
            "At zero the GPU throttles. Sensors without a limit have no line.",
            UNITS[gpu.TEMPERATURE.unit],
            [Query(f"{crit} - on ({KEY}, sensor) {now}", "{{device}} {{sensor}}")],
            width=8,
        ),
        lines(
            "At the critical limit or above",
            "Share of time, from a counter that loses nothing between scrapes.",
            UNITS[Unit.RATIO],
            [Query(rate(gpu.TEMPERATURE_ABOVE_CRITICAL, GPU), "{{device}} {{sensor}}")],
            width=8,
            maximum=1,
        ),
    )


def _power() -> tuple[Lines, ...]:
    low, high, mean = gpu.POWER_WINDOW
    floor = "lowest of the window"

    def each(row: Metric, **labels: str) -> str:
        return f"max by (device) ({select(row, GPU, **labels)})"

    return (
        lines(
            "Power of all GPUs",
            "Sum of those that are known; a GPU that is not ok is missing from it.",
            UNITS[gpu.POWER.unit],
            [Query(f"sum by (instance) ({select(gpu.POWER, GPU)})", "{{instance}}")],
            width=8,
        ),
        lines(
            "Energy a second",
            "Rate of the energy counter: mean power with nothing lost between scrapes.",
            UNITS[Unit.WATTS],
            [Query(rate(gpu.ENERGY, GPU), "{{device}} {{sensor}} {{source}}")],
            width=8,
        ),
        lines(
            "At the power cap or above",
            "Share of time.",
            UNITS[Unit.RATIO],
            [Query(rate(gpu.POWER_ABOVE_CAP, GPU), "{{device}} {{sensor}}")],
            width=8,
            maximum=1,
        ),
        lines(
            "Power of $device",
            f"The band is the lowest and highest reading of the last complete window of {_WINDOW}; "
            "the dashed line is the cap in force.",
            UNITS[gpu.POWER.unit],
            [
                Query(each(gpu.POWER), "now"),
                Query(each(high, window=_WINDOW), "highest of the window", floor),
                Query(each(low, window=_WINDOW), floor, "edge"),
                Query(each(mean, window=_WINDOW), "mean of the window"),
                Query(each(gpu.POWER_LIMIT, limit="cap"), "cap", "limit"),
            ],
            width=24,
            repeat="device",
        ),
    )


def _throttling() -> tuple[Lines, ...]:
    return (
        lines(
            "Throttled",
            "Share of time the firmware held clocks down, by part and reason. No line: the driver is silent.",
            UNITS[Unit.RATIO],
            [Query(rate(gpu.THROTTLED_SECONDS, GPU), "{{device}} {{domain}} {{reason}}")],
            width=12,
            maximum=1,
        ),
        strip(
            "Throttled now",
            "One bar a GPU and reason.",
            [Query(select(gpu.THROTTLED, GPU), "{{device}} {{domain}} {{reason}}")],
            [State(0, "no", "super-light-green"), State(1, "throttled", "orange")],
            width=12,
        ),
    )


def _fans() -> tuple[Lines, ...]:
    return (
        lines(
            "Fan speed",
            "Zero is a fan that stands still, as many do below a temperature; no line is a GPU without a fan.",
            UNITS[gpu.FAN.unit],
            [
                Query(select(gpu.FAN, GPU), "{{device}} {{sensor}}"),
                Query(select(gpu.FAN_TARGET, GPU), "{{device}} {{sensor}} target", "limit"),
            ],
            width=12,
        ),
        lines(
            "Fan drive",
            gpu.PWM.help,
            UNITS[gpu.PWM.unit],
            [Query(select(gpu.PWM, GPU), "{{device}} {{sensor}}")],
            width=12,
            maximum=1,
        ),
    )


def _pcie() -> tuple[Lines, ...]:
    seen = increase(pcie.AER_ERRORS, HOST, "$__rate_interval")

    def share(now: Metric, most: Metric) -> list[Query]:
        return [Query(f"{select(now, GPU)} / on ({KEY}) {select(most, GPU)}", "{{device}}")]

    return (
        lines(
            "Link width against the widest",
            "Below 1: lanes are lost, or the slot has fewer. The bridges above the GPU are in the alert.",
            UNITS[Unit.RATIO],
            share(pcie.LINK_WIDTH, pcie.LINK_MAX_WIDTH),
            width=6,
            maximum=1,
        ),
        lines(
            "Link speed against the highest",
            "An idle GPU lowers it; under load it should be 1.",
            UNITS[Unit.RATIO],
            share(pcie.LINK_TRANSFERS, pcie.LINK_MAX_TRANSFERS),
            width=6,
            maximum=1,
        ),
        lines(
            "Packets sent again",
            gpu.PCIE_REPLAYS.help,
            UNITS[Unit.NONE],
            [Query(increase(gpu.PCIE_REPLAYS, GPU, "$__rate_interval"), "{{device}}")],
            width=6,
        ),
        lines(
            "AER errors, all functions of the host",
            "Root ports and switches too: the link above a GPU fails at both ends. Only kinds that happen.",
            UNITS[Unit.NONE],
            [
                Query(
                    f"sum by (device, severity, kind) ({seen}) > 0",
                    "{{device}} {{severity}} {{kind}}",
                ),
                # Zero is drawn once, so that a quiet host does not look like one that does not report.
                Query(f"0 * sum({select(pcie.AER_MESSAGES, HOST)})", "none"),
            ],
            width=6,
        ),
    )


def _xgmi() -> tuple[Lines, ...]:
    return (
        lines(
            "xGMI read",
            "By link. No line: the GPU has no xGMI, or its firmware does not count.",
            UNITS[Unit.BYTES_PER_SECOND],
            [Query(rate(gpu_links.XGMI_READ, GPU), "{{device}} {{link}}")],
            width=8,
        ),
        lines(
            "xGMI written",
            gpu_links.XGMI_WRITTEN.help,
            UNITS[Unit.BYTES_PER_SECOND],
            [Query(rate(gpu_links.XGMI_WRITTEN, GPU), "{{device}} {{link}}")],
            width=8,
        ),
        lines(
            "PCIe link: recoveries and refused packets",
            "A link that leaves L0 to recover, or refuses packets, is bad before it fails.",
            UNITS[Unit.NONE],
            [
                Query(increase(gpu_links.PCIE_RECOVERIES, GPU, "$__rate_interval"), "{{device}} recoveries"),
                Query(
                    increase(gpu_links.PCIE_NAKS, GPU, "$__rate_interval"), "{{device}} refused {{direction}}"
                ),
            ],
            width=8,
        ),
    )


def _ras() -> tuple[Lines, ...]:
    each = f"sum by (device, severity) ({select(gpu.RAS_ERRORS, GPU)})"
    return (
        lines(
            "Errors since the driver was loaded",
            "By severity; a fall to zero is a reload of the driver. No line: the GPU has no RAS.",
            UNITS[Unit.NONE],
            [Query(each, "{{device}} {{severity}}")],
            width=8,
        ),
        lines(
            "Blocks with errors",
            gpu.RAS_ERRORS.help,
            UNITS[Unit.NONE],
            [
                Query(f"{select(gpu.RAS_ERRORS, GPU)} > 0", "{{device}} {{block}} {{severity}}"),
                Query(f"0 * sum({select(gpu.RAS_ERRORS, GPU)})", "none"),
            ],
            width=8,
        ),
        lines(
            "Memory pages taken out of use",
            gpu.RAS_BAD_PAGES.help,
            UNITS[Unit.NONE],
            [Query(select(gpu.RAS_BAD_PAGES, GPU), "{{device}} {{state}}")],
            width=8,
        ),
    )


_RUNTIME_COLORS = {
    "active": "green",
    "suspended": "blue",
    "suspending": "light-blue",
    "resuming": "light-green",
    "unsupported": "text",
    "error": "red",
}


def _sleep() -> tuple[Lines, ...]:
    numbers = {status: place for place, status in enumerate(RUNTIME_STATUSES)}
    return (
        strip(
            "Runtime power state",
            "As the kernel says it; 'unsupported' is its word for management switched off.",
            [Query(numbered_states(runtime_power.POWER_STATE, GPU, numbers, "device"), "{{device}}")],
            [State(place, status, _RUNTIME_COLORS[status]) for status, place in numbers.items()],
            width=12,
        ),
        lines(
            "Left asleep",
            "Share of time the daemon saw the GPU asleep and left it alone.",
            UNITS[Unit.RATIO],
            [Query(rate(daemon.SUSPENDED_SEEN, GPU), "{{device}}")],
            width=6,
            maximum=1,
        ),
        lines(
            "Active",
            "Share of time the GPU was runtime active, by the kernel's count.",
            UNITS[Unit.RATIO],
            [Query(rate(runtime_power.ACTIVE_SECONDS, GPU), "{{device}}")],
            width=6,
            maximum=1,
        ),
    )


def _daemon_work() -> tuple[Lines, ...]:
    return (
        lines(
            "Reads by outcome",
            "Files read a second, all devices. Outcomes: docs/design.md.",
            UNITS[Unit.NONE],
            [Query(f"sum by (outcome) ({rate(daemon.READS, HOST)})", "{{outcome}}")],
            width=8,
            stacked=True,
        ),
        lines(
            "Stuck reads",
            "Age of each read the kernel has not given back: which file, since when. No line is good.",
            UNITS[daemon.STUCK_READ_AGE.unit],
            [
                Query(
                    f"max by (device, attribute) ({select(daemon.STUCK_READ_AGE, HOST)})",
                    "{{device}} {{attribute}}",
                )
            ],
            width=8,
        ),
        lines(
            "Stuck, quarantined, in flight",
            "Devices quarantined, former readers that cannot end, reads not yet returned, workers in use.",
            UNITS[Unit.NONE],
            [
                Query(select(daemon.STUCK_LANES, HOST), "devices quarantined"),
                Query(select(daemon.STUCK_READER_PROCESSES, HOST), "readers that cannot end"),
                Query(select(daemon.READS_IN_FLIGHT, HOST), "reads in flight"),
                Query(select(daemon.WORKERS, HOST), "workers"),
            ],
            width=8,
        ),
        lines(
            "What went wrong",
            "Hangs, malformed readings, decoder failures, lost readings, replaced readers, restarted tasks.",
            UNITS[Unit.NONE],
            [
                Query(f"sum({increase(row, HOST, '$__rate_interval')})", legend)
                for row, legend in (
                    (daemon.HANGS, "hangs"),
                    (daemon.MALFORMED, "malformed"),
                    (daemon.DECODER_FAILURES, "decoder failures"),
                    (daemon.TICKS_MISSED, "readings lost"),
                    (daemon.RECORDS_DROPPED, "records dropped"),
                    (daemon.ROWS_DROPPED, "rows dropped"),
                    (daemon.READER_RESTARTS, "readers replaced"),
                    (daemon.TASK_RESTARTS, "tasks restarted"),
                    (daemon.UEVENTS_LOST, "events lost"),
                )
            ],
            width=8,
        ),
        lines(
            "Kernel events and scans",
            "Events received by subsystem, scans of sysfs by reason.",
            UNITS[Unit.NONE],
            [
                Query(
                    f"sum by (subsystem) ({increase(daemon.UEVENTS, HOST, '$__rate_interval')})",
                    "{{subsystem}}",
                ),
                Query(
                    f"sum by (reason) ({increase(daemon.RESCANS, HOST, '$__rate_interval')})",
                    "scan: {{reason}}",
                ),
            ],
            width=8,
        ),
        strip(
            "Reader, configuration, pause",
            "Whether the reader answers, the configuration could be used when last read, reading is paused, "
            "and series are dropped beyond the limit.",
            [
                Query(select(daemon.READER_UP, HOST), "reader answers"),
                Query(select(daemon.CONFIG_RELOAD_SUCCESS, HOST), "configuration used"),
                Query(f"1 - {select(daemon.PAUSED, HOST)}", "not paused"),
                Query(f"sum({select(daemon.SERIES_DROPPED, HOST)}) == bool 0", "no series dropped"),
            ],
            [State(0, "no", "red"), State(1, "yes", "green")],
            width=8,
        ),
    )


def _daemon_cost() -> tuple[Lines, ...]:
    return (
        lines(
            "CPU by process",
            "Share of one processor; the reader's with its kernel workers.",
            UNITS[Unit.RATIO],
            [
                Query(rate(daemon.PROCESS_CPU, HOST), "{{process}}"),
                Query(rate(daemon.READER_CPU, HOST), "reader, workers included"),
            ],
            width=6,
        ),
        lines(
            "Resident memory",
            daemon.PROCESS_RESIDENT.help,
            UNITS[daemon.PROCESS_RESIDENT.unit],
            [Query(select(daemon.PROCESS_RESIDENT, HOST), "{{process}}")],
            width=6,
        ),
        lines(
            "Time of a scrape",
            "As Prometheus measured it, and the part of it that was rendering.",
            UNITS[Unit.SECONDS],
            [
                Query(select(SCRAPE_SECONDS, HOST), "scrape"),
                Query(
                    f"{rate(daemon.SCRAPE_SECONDS, HOST)} / on (job, instance) "
                    f"sum by (job, instance) ({rate(daemon.HTTP_REQUESTS, HOST, code='200')})",
                    "rendering",
                ),
            ],
            width=6,
        ),
        lines(
            "Size of a scrape",
            "Samples, and those dropped beyond metric.limit.",
            UNITS[Unit.NONE],
            [
                Query(select(SCRAPE_SAMPLES, HOST), "samples"),
                Query(f"sum({select(daemon.SERIES_DROPPED, HOST)})", "dropped"),
            ],
            width=6,
        ),
    )


def _clients() -> tuple[Lines, ...]:
    info = select(drm_client.OWNER_INFO, HOST, kind="kubernetes")
    used = rate(drm_client.OWNER_ENGINE_BUSY, GPU)
    busy = f"sum by (job, instance, owner) ({used})"
    return (
        lines(
            "Engine time by owner",
            "Engines kept busy, by whom the process works for: pod, container, job, unit. 1 is one whole "
            "engine. Work of ROCm's user queues is not in it.",
            UNITS[Unit.NONE],
            [
                Query(
                    f"sum by (device, owner) ({used})",
                    "{{device}} {{owner}}",
                )
            ],
            width=8,
        ),
        lines(
            "Share of each engine class by owner",
            drm_client.OWNER_ENGINE_RATIO.help,
            UNITS[drm_client.OWNER_ENGINE_RATIO.unit],
            [Query(select(drm_client.OWNER_ENGINE_RATIO, GPU), "{{device}} {{engine}} {{owner}}")],
            width=8,
            maximum=1,
        ),
        lines(
            "Engine time by pod",
            "The same by the UID of the Kubernetes pod.",
            UNITS[Unit.NONE],
            [Query(f"sum by (pod) ({busy} * on (job, instance, owner) group_left (pod) {info})", "{{pod}}")],
            width=8,
        ),
        lines(
            "Memory by owner",
            drm_client.OWNER_MEMORY.help,
            UNITS[drm_client.OWNER_MEMORY.unit],
            [
                Query(
                    f"sum by (device, owner, region) ({select(drm_client.OWNER_MEMORY, GPU, kind='resident')})",
                    "{{device}} {{region}} {{owner}}",
                ),
                Query(select(drm_client.KFD_VRAM, GPU), "{{device}} KFD {{owner}}"),
            ],
            width=12,
        ),
        lines(
            "Clients",
            "Clients that have the GPU open, and descriptors of its nodes by owner.",
            UNITS[Unit.NONE],
            [
                Query(select(drm_client.CLIENTS, GPU), "{{device}} clients"),
                Query(select(drm_client.DESCRIPTORS, GPU), "{{device}} descriptors of {{owner}}"),
            ],
            width=6,
        ),
        lines(
            "ROCm processes held up",
            "Share of time that queues were evicted, and compute units occupied.",
            UNITS[Unit.NONE],
            [
                Query(rate(drm_client.KFD_EVICTED, GPU), "{{device}} {{owner}} evicted"),
                Query(select(drm_client.KFD_CU_OCCUPANCY, GPU), "{{device}} {{owner}} compute units"),
            ],
            width=6,
        ),
    )


def _rings() -> tuple[Lines, ...]:
    return (
        lines(
            "Waiting entries",
            "Submissions the kernel has not taken, and completions the program has not.",
            UNITS[Unit.NONE],
            [
                Query(select(io_uring.SUBMISSIONS, HOST), "{{owner}} submissions"),
                Query(select(io_uring.COMPLETIONS, HOST), "{{owner}} completions"),
                Query(select(io_uring.OVERFLOW, HOST), "{{owner}} overflowed"),
            ],
            width=12,
        ),
        lines(
            "Threads",
            "Kernel workers of rings, and threads that poll.",
            UNITS[Unit.NONE],
            [
                Query(select(io_uring.WORKERS, HOST), "{{owner}} workers"),
                Query(select(io_uring.POLLERS, HOST), "{{owner}} pollers"),
            ],
            width=6,
        ),
        lines(
            "Rings",
            io_uring.RINGS.help,
            UNITS[Unit.NONE],
            [Query(select(io_uring.RINGS, HOST), "{{owner}}")],
            width=6,
        ),
    )


ROWS = (
    ("Load and memory", False, _load),
    ("Who uses the GPUs", True, _clients),
    ("Clocks", True, _clocks),
    ("Temperature", False, _temperature),
    ("Power and energy", False, _power),
    ("Throttling", True, _throttling),
    ("Fans", True, _fans),
    ("PCIe", True, _pcie),
    ("xGMI and link firmware", True, _xgmi),
    ("RAS", True, _ras),
    ("Parts of a GPU", True, parts),
    ("Firmware and virtual functions", True, firmware),
    ("What one driver alone knows", True, own),
    ("Runtime power", True, _sleep),
    ("Memory that moves", True, memory_that_moves),
    ("Rings of io_uring", True, _rings),
    ("The daemon: what it does", True, _daemon_work),
    ("The daemon: what it costs", True, _daemon_cost),
)
"""Title, whether it starts folded (its queries are made when it is opened), and its panels."""
