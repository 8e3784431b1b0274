"""The few kinds of Grafana panel the dashboards are made of: the one door to `grafana-foundation-sdk`.

That library is an extra (`gpudaemon[dashboards]`): only who makes the files anew needs it, the daemon does not.

Panels never invent a value. Lines break where there is no sample (no connected nulls), stacked or not; tables
leave the cell empty; single numbers say "no data". Why a value is absent is the state timeline's to tell.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat as stat_builders
from grafana_foundation_sdk.builders import statetimeline, table, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, prometheus
from grafana_foundation_sdk.models import dashboard as models

from gpudaemon.model.metric import Unit

__all__ = [
    "DATASOURCE",
    "UNITS",
    "Column",
    "Panel",
    "Query",
    "State",
    "annotation",
    "lines",
    "number",
    "rendered",
    "strip",
    "table_now",
    "variable",
]

Panel = timeseries.Panel | statetimeline.Panel | stat_builders.Panel | table.Panel
"""Any of the kinds below."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

UNITS: Mapping[Unit, str] = {
    Unit.NONE: "short",
    Unit.AMPERES: "amp",
    Unit.BYTES: "bytes",
    Unit.BYTES_PER_SECOND: "binBps",
    Unit.CELSIUS: "celsius",
    Unit.HERTZ: "hertz",
    Unit.JOULES: "joule",
    Unit.RATIO: "percentunit",
    Unit.RPM: "rotrpm",
    Unit.SECONDS: "s",
    Unit.TRANSFERS_PER_SECOND: "si:T/s",
    Unit.VOLTS: "volt",
    Unit.WATTS: "watt",
}
"""Grafana's name of each base unit; `si:` puts the SI prefixes before any suffix."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query of a panel.

    legend: Grafana's template of a series' name. style: `limit` for limits, `edge` for the lower edge of a
    band, for its upper edge the legend of the lower one, else empty.
    """

    expression: str
    legend: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """What a number of a state timeline means."""

    number: int
    text: str
    color: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: a query whose value (`labels` empty) or labels are shown."""

    title: str
    expression: str
    unit: str = "short"
    states: tuple[State, ...] = ()
    labels: tuple[str, ...] = ()


def lines(
    title: str,
    text: str,
    unit: str,
    queries: Sequence[Query],
    *,
    width: int,
    height: int = 8,
    maximum: float | None = None,
    stacked: bool = False,
    repeat: str = "",
) -> timeseries.Panel:
    """Values over time, zero in sight. repeat: a variable; one panel for each of its values, four in a line."""
    panel = timeseries.Panel().title(title).description(text).unit(unit).datasource(DATASOURCE)
    panel.span(width).height(height).axis_soft_min(0).line_width(1).show_points(common.VisibilityMode.AUTO)
    panel.span_nulls(False).fill_opacity(20 if stacked else 0)
    panel.tooltip(
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    panel.legend(_legend())
    if maximum is not None:
        panel.max(maximum)
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if repeat:
        panel.repeat(repeat).repeat_direction("h").max_per_row(4)
    for query, letter in zip(queries, _LETTERS, strict=False):
        panel.with_target(_target(query.expression, letter).legend_format(query.legend).range())
        if query.style:
            panel.override_by_query(letter, _style(query))
    return panel


def strip(
    title: str, text: str, queries: Sequence[Query], states: Sequence[State], *, width: int, height: int = 8
) -> statetimeline.Panel:
    """States over time, one bar a series; where there is no sample there is no bar."""
    panel = statetimeline.Panel().title(title).description(text).datasource(DATASOURCE).mappings(_map(states))
    panel.span(width).height(height).show_value(common.VisibilityMode.NEVER).merge_values(True).row_height(0.8)
    panel.fill_opacity(80).line_width(0)
    panel.legend(_legend())
    for query, letter in zip(queries, _LETTERS, strict=False):
        panel.with_target(_target(query.expression, letter).legend_format(query.legend).range())
    return panel


def number(
    title: str,
    text: str,
    unit: str,
    query: Query,
    *,
    width: int,
    states: Sequence[State] = (),
    colors: Mapping[str, str] | None = None,
    limits: Sequence[tuple[float, str]] = (),
    absent: str = "no data",
) -> stat_builders.Panel:
    """The newest value in large, one a series; `absent` where there is none at this moment.

    colors: of series by name. limits: colour from a value on, ascending; green below the first.
    """
    panel = stat_builders.Panel().title(title).description(text).unit(unit).datasource(DATASOURCE)
    panel.span(width).height(4).no_value(absent).graph_mode(common.BigValueGraphMode.NONE)
    # An instant query: the last of a range would show what was known before the device went silent.
    panel.with_target(_target(query.expression, "A").legend_format(query.legend).instant())
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.mappings(_map(states))
    steps = [models.Threshold(None, "text" if colors else "green")]
    steps += [models.Threshold(value, color) for value, color in limits]
    panel.thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    for name, color in (colors or {}).items():
        panel.override_by_name(name, [_fixed(color)])
    return panel


def table_now(title: str, text: str, columns: Sequence[Column], *, width: int, height: int) -> table.Panel:
    """What is known at this moment, one row a device; a cell without a value is empty.

    Every query must leave the label `device` and none but those of its column.
    """
    panel = table.Panel().title(title).description(text).datasource(DATASOURCE).span(width).height(height)
    panel.align(common.FieldTextAlignment.AUTO)
    names: dict[str, str] = {"device": "device"}
    hidden = {"Time": True}
    for column, letter in zip(columns, _LETTERS, strict=False):
        target = _target(column.expression, letter).format(prometheus.PromQueryFormat.TABLE)
        panel.with_target(target.instant())
        if column.labels:
            hidden[f"Value #{letter}"] = True
            names |= {label: label.replace("_", " ") for label in column.labels}
            continue
        names[f"Value #{letter}"] = column.title
        settings = [models.DynamicConfigValue("unit", column.unit)]
        if column.states:
            settings.append(models.DynamicConfigValue("mappings", _map(column.states)))
            settings.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-background"}))
        panel.override_by_name(column.title, settings)
    # Rows of one device become one; the order of columns is the order they are declared in.
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": hidden,
                "renameByName": names,
                "indexByName": {name: place for place, name in enumerate(names)},
            },
        )
    )
    return panel


def variable(
    name: str, query: str, text: str, *, regex: str = "", many: bool = False
) -> builders.QueryVariable:
    """A drop-down filled by the data source, asked anew when the time range changes.

    many: several may be chosen, and `All` is every value listed.
    """
    made = builders.QueryVariable(name).label(name).description(text).datasource(DATASOURCE).query(query)
    made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    made.regex(regex)
    if many:
        made.multi(True).include_all(True)
        made.current(models.VariableOption(selected=True, text="All", value="$__all"))
    return made


class _Annotation(models.AnnotationQuery):
    """The library's annotation with what the Prometheus data source reads besides."""

    title_format = ""
    at_value = False

    def to_json(self) -> dict[str, object]:
        found = {**super().to_json(), "titleFormat": self.title_format, "step": "15s"}
        return {**found, "useValueForTime": True} if self.at_value else found


class _AnnotationBuilder(builders.AnnotationQuery):
    def __init__(self, title: str, at_value: bool) -> None:
        self._internal = _Annotation()
        self._internal.title_format = title
        self._internal.at_value = at_value


def annotation(
    name: str, expression: str, title: str, color: str, *, at_value: bool = False
) -> builders.AnnotationQuery:
    """Marks on every panel over time while a series of the expression is above zero.

    at_value: the value is the moment to mark, in milliseconds since 1970.
    """
    made = _AnnotationBuilder(title, at_value)
    return made.name(name).expr(expression).datasource(DATASOURCE).enable(True).icon_color(color)


def rendered(dashboard: builders.Dashboard) -> str:
    """The dashboard as Grafana imports it; the same text whenever the dashboard is the same."""
    made = dashboard.build()
    place = 0
    for panel in made.panels or []:
        for one in (panel, *(panel.panels if isinstance(panel, models.RowPanel) else ())):
            place += 1
            one.id_val = place
    return json.dumps(made, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _target(expression: str, letter: str) -> Dataquery:
    return Dataquery().expr(expression).ref_id(letter).datasource(DATASOURCE)


def _legend() -> common_builders.VizLegendOptions:
    made = common_builders.VizLegendOptions().show_legend(True)
    return made.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)


def _fixed(color: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


def _style(query: Query) -> list[models.DynamicConfigValue]:
    set_ = models.DynamicConfigValue
    if query.style == "limit":
        return [set_("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}), _fixed("red")]
    # The upper edge is filled down to the series whose name is the style.
    if query.style != "edge":
        return [
            set_("custom.lineWidth", 0),
            set_("custom.fillBelowTo", query.style),
            set_("custom.fillOpacity", 25),
        ]
    return [set_("custom.lineWidth", 0)]


def _map(states: Sequence[State]) -> list[models.ValueMapping]:
    if not states:
        return []
    results = {
        str(state.number): models.ValueMappingResult(text=state.text, color=state.color, index=place)
        for place, state in enumerate(states)
    }
    return [models.ValueMap(options=results)]
