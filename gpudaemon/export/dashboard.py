"""The Grafana dashboard of one host, made of the metric table: `host_dashboard()`.

Rows answer one question each, from "is this host all right" down to "what does the daemon cost". A value that
is not there leaves a gap; the strip of states at the top and the marks on every panel tell why: suspended,
hung, missing, or the daemon itself not scraped. docs/dashboards.md is the manual.

The rows below the first are in `dashboard_rows`.
"""

from collections.abc import Iterable

from grafana_foundation_sdk.builders.dashboard import CustomVariable, Dashboard, DatasourceVariable, Row

from gpudaemon.export.dashboard_rows import ROWS
from gpudaemon.export.grafana import (
    UNITS,
    Column,
    Panel,
    Query,
    State,
    annotation,
    number,
    rendered,
    strip,
    table_now,
    variable,
)
from gpudaemon.export.promql import (
    GPU,
    HOST,
    KEY,
    PROCESS_START,
    UP,
    Scope,
    gpus_only,
    numbered_states,
    select,
)
from gpudaemon.metrics import daemon, gpu, pcie
from gpudaemon.model.metric import Unit
from gpudaemon.pipeline.publish import STATES

__all__ = ["DEVICE_STATES", "host_dashboard"]

_COLORS = {
    "ok": "green",
    "suspended": "blue",
    "resting": "light-blue",
    "paused": "purple",
    "hung": "red",
    "gone": "dark-red",
    "denied": "dark-yellow",
    "stale": "orange",
    "missing": "dark-red",
    "degraded": "orange",
    "failed": "red",
    "unknown": "text",
}
_MISSING, _DOWN, _ANSWERS = 50, 100, 101
"""Numbers in the strip beside those of the states."""

DEVICE_STATES = (
    *(State(place, state, _COLORS[state]) for place, state in enumerate(STATES)),
    State(_MISSING, "missing", _COLORS["missing"]),
)
"""What the numbers of a device's bar mean."""

_SCRAPE_STATES = (State(_DOWN, "not scraped", "dark-purple"), State(_ANSWERS, "scraped", "super-light-green"))


def host_dashboard() -> str:
    """JSON of the host dashboard, as Grafana imports it."""
    made = Dashboard("gpudaemon: host").uid("gpudaemon-host").tags(["gpudaemon", "gpu"]).editable()
    made.description("GPUs of a host as gpudaemon sees them. Made from its metric table.")
    made.time("now-3h", "now").refresh("30s").timezone("browser")
    _variables(made)
    _annotations(made)
    _row(made, "Host at a glance", _glance())
    for title, folded, panels in ROWS:
        if found := panels():
            _row(made, title, found, folded=folded)
    return rendered(made)


def _row(made: Dashboard, title: str, panels: Iterable[Panel], *, folded: bool = False) -> None:
    row = Row(title)
    if not folded:
        made.with_row(row)
        for panel in panels:
            made.with_panel(panel)
        return
    for panel in panels:
        row.with_panel(panel)
    made.with_row(row.collapsed(True))


def _variables(made: Dashboard) -> None:
    made.with_variable(DatasourceVariable("datasource").label("data source").type("prometheus"))
    made.with_variable(
        variable("job", f"label_values({daemon.BUILD_INFO.name}, job)", "Prometheus job of the daemons.")
    )
    hosts = f"label_values({select(daemon.BUILD_INFO, Scope(HOST.common[:1]))}, instance)"
    made.with_variable(variable("instance", hosts, "The host."))
    # Over the range shown, so that a host that is down now still has its GPUs, and so has one that lost one.
    seen = "last_over_time({}[$__range])"
    known = seen.format(select(gpu.INFO, HOST))
    lost = seen.format(select(daemon.DEVICE_MISSING, HOST))
    nameless = gpus_only(seen.format(select(daemon.DEVICE_STATE, HOST, state="ok")), HOST, seen)
    titled = (
        f"label_join(max by (device, product_name) ({known}) or on (device) max by (device) ({lost}) "
        f'or on (device) max by (device) ({nameless}), "title", " ", "device", "product_name")'
    )
    made.with_variable(
        variable(
            "device",
            f"query_result({titled})",
            "GPUs by PCI address and product name.",
            regex='/device="(?<value>[^"]+)".*title="(?<text>[^"]+)"/',
            many=True,
        )
    )
    # The longer one loses nothing at any interval of scrapes up to a minute.
    made.with_variable(CustomVariable("window").label("window").values("60s,15s"))


def _annotations(made: Dashboard) -> None:
    state = daemon.DEVICE_STATE
    sick = f"max by (device, state) ({select(state, GPU, state=('hung', 'gone', 'denied', 'stale'))} == 1)"
    asleep = f"max by (device, state) ({select(state, GPU, state=('suspended', 'resting', 'paused'))} == 1)"
    missing = f"max by (device) ({select(daemon.DEVICE_MISSING, GPU)} == 1)"
    # Grafana marks where the value is above zero.
    down = f"1 - {select(UP, HOST)} == 1"
    made.annotation(annotation("hung, gone, denied, stale", sick, "{{device}} {{state}}", "red"))
    made.annotation(annotation("missing", missing, "{{device}} missing", "dark-red"))
    made.annotation(annotation("left asleep", asleep, "{{device}} {{state}}", "blue"))
    made.annotation(annotation("not scraped", down, "{{instance}} not scraped", "purple"))
    started = f"max by (instance) ({select(PROCESS_START, HOST)}) * 1000"
    made.annotation(annotation("daemon started", started, "gpudaemon started", "green", at_value=True))


def _glance() -> tuple[Panel, ...]:
    state = daemon.DEVICE_STATE
    asleep = select(state, GPU, state=("suspended", "resting", "paused"))
    # Zero only where the daemon answered: an empty sum is no zero.
    missing = f"sum({select(daemon.DEVICE_MISSING, GPU)}) or 0 * sum({select(daemon.BUILD_INFO, HOST)})"
    return (
        number(
            "GPUs by state",
            "How the daemon stands with each GPU. Nothing here means that the daemon is not scraped.",
            "short",
            Query(f"sum by (state) ({select(state, GPU)})", "{{state}}"),
            width=10,
            colors=_COLORS,
            absent="not scraped",
        ),
        number(
            "GPUs by verdict",
            "The daemon's verdict about each GPU; `gpudaemon health` on the host says why.",
            "short",
            Query(f"sum by (state) ({select(daemon.DEVICE_HEALTH, GPU)})", "{{state}}"),
            width=5,
            colors=_COLORS,
            absent="not scraped",
        ),
        number(
            "Missing",
            "GPUs that were here and are not any more.",
            "short",
            Query(missing, "missing"),
            width=3,
            limits=[(1, "red")],
            absent="not scraped",
        ),
        number(
            "Oldest data",
            "Age of the newest reading of the GPU that was silent longest, of those not asleep.",
            UNITS[daemon.DATA_AGE.unit],
            Query(f"max({select(daemon.DATA_AGE, GPU)} unless on ({KEY}) ({asleep} == 1))", "age"),
            width=3,
            limits=[(5, "orange"), (30, "red")],
        ),
        number(
            "Scrape",
            "Whether Prometheus reaches the daemon.",
            "short",
            Query(f"min({select(UP, HOST)})", "scrape"),
            width=3,
            states=(State(0, "down", "red"), State(1, "up", "green")),
            absent="no target",
        ),
        _state_strip(),
        _gpus_now(),
    )


def _states_by_device() -> str:
    numbers = {state.text: state.number for state in DEVICE_STATES if state.number != _MISSING}
    missing = f"max by (device) ({select(daemon.DEVICE_MISSING, GPU)} == 1) * {_MISSING}"
    return f"{missing} or {numbered_states(daemon.DEVICE_STATE, GPU, numbers, 'device')}"


def _state_strip() -> Panel:
    return strip(
        "Why values are there or not",
        "One bar a GPU, and one for the scrape. No bar: Prometheus had no sample, look at the scrape. "
        "Everything below has gaps where a GPU is not ok; zero is drawn as zero.",
        (
            Query(_states_by_device(), "{{device}}"),
            Query(f"{_DOWN} + min({select(UP, HOST)})", "scrape"),
        ),
        (*DEVICE_STATES, *_SCRAPE_STATES),
        width=24,
        height=9,
    )


def _gpus_now() -> Panel:
    identity = ("product_name", "driver", "card")
    used, total = select(gpu.MEMORY_USED, GPU, pool="vram"), select(gpu.MEMORY_TOTAL, GPU, pool="vram")
    columns = [
        Column("state", _states_by_device(), states=DEVICE_STATES),
        Column("", f"max by (device, {', '.join(identity)}) ({select(gpu.INFO, GPU)})", labels=identity),
        Column("memory", f"max by (device) ({used} / on ({KEY}) {total})", UNITS[Unit.RATIO]),
    ]
    for title, row, labels in (
        ("busy", gpu.BUSY, {"engine": "gfx"}),
        ("hottest", gpu.TEMPERATURE, {}),
        ("power", gpu.POWER, {}),
        ("cap", gpu.POWER_LIMIT, {"limit": "cap"}),
        ("lanes", pcie.LINK_WIDTH, {}),
        ("speed", pcie.LINK_TRANSFERS, {}),
        ("data age", daemon.DATA_AGE, {}),
    ):
        columns.append(Column(title, f"max by (device) ({select(row, GPU, **labels)})", UNITS[row.unit]))
    return table_now(
        "GPUs now",
        "An empty cell is a value that is not known; the state says why.",
        columns,
        width=24,
        height=9,
    )
