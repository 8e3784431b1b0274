"""The committed dashboard: fresh, whole, and made of metrics and labels that exist."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from gpudaemon.export.dashboard import DEVICE_STATES, host_dashboard
from gpudaemon.export.promql import (
    EVERYWHERE,
    GPU,
    PROCESS_START,
    SCRAPE_SAMPLES,
    SCRAPE_SECONDS,
    UP,
    gpus_only,
    numbered_states,
    rate,
    select,
)
from gpudaemon.metrics import daemon, gpu, table
from gpudaemon.pipeline.publish import STATES

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE = os.path.join(TOP, "config", "grafana", "gpudaemon-host.json")
OTHERS = (UP, PROCESS_START, SCRAPE_SECONDS, SCRAPE_SAMPLES)


def committed() -> dict[str, Any]:
    with open(FILE, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, those of folded rows too; no rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and PromQL of every target, annotation and variable."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for mark in dashboard["annotations"]["list"]:
        if "expr" in mark:
            yield mark["name"], mark["expr"]
    for choice in dashboard["templating"]["list"]:
        if choice["type"] == "query":
            yield choice["name"], choice["query"]


def test_the_committed_dashboard_is_fresh() -> None:
    with open(FILE, encoding="utf-8") as file:
        assert file.read() == host_dashboard(), "make it anew, see docs/dashboards.md"


def test_every_name_is_a_row_and_every_matcher_names_a_label_of_it() -> None:
    rows = {row.name: row for row in (*table(), *OTHERS)}
    seen = set()
    for title, expression in expressions(committed()):
        for name, matchers in re.findall(
            r"\b(gpudaemon_\w+|up|process_\w+|scrape_\w+)\b(?:\{([^}]*)\})?", expression
        ):
            assert name in rows, f"{title}: {name}"
            seen.add(name)
            for label in re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers):
                assert label in (*rows[name].labels, "job", "instance"), f"{title}: {name}: {label}"
    assert len(seen) > 50


def test_every_query_is_of_the_host_that_was_chosen() -> None:
    for title, expression in expressions(committed()):
        if title in ("job", "instance"):
            continue
        for matchers in re.findall(r"\b(?:gpudaemon_\w+|up|process_\w+|scrape_\w+)\b(\{[^}]*\})?", expression):
            assert 'job=~"$job"' in matchers and 'instance=~"$instance"' in matchers, f"{title}: {expression}"


def test_the_library_reads_back_what_it_wrote() -> None:
    # Grafana's own types, made from its schema, know all but three keys of marks that the data source reads.
    register_default_plugins()
    wanted = committed()
    for mark in wanted["annotations"]["list"]:
        for key in ("step", "titleFormat", "useValueForTime"):
            mark.pop(key, None)
    assert json.loads(json.dumps(Dashboard.from_json(committed()), cls=JSONEncoder)) == wanted


def test_no_panel_draws_what_is_not_there() -> None:
    kinds = {panel["type"] for panel in panels(committed())}
    assert kinds == {"timeseries", "stat", "state-timeline", "table"}
    for panel in panels(committed()):
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "timeseries":
            assert defaults["custom"]["spanNulls"] is False, panel["title"]
            assert "noValue" not in defaults, panel["title"]
        if panel["type"] == "stat":
            assert defaults["noValue"] in ("no data", "not scraped", "no target"), panel["title"]
            assert all(target["instant"] for target in panel["targets"]), "the last of a range may be long gone"


def test_panels_lie_side_by_side_and_never_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    every = committed()["panels"]
    for panel in [*every, *(inner for row in every if row["type"] == "row" for inner in row["panels"])]:
        place = panel["gridPos"]
        assert place["w"] > 0 and place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_identifiers_are_unique() -> None:
    dashboard = committed()
    assert dashboard["uid"] == "gpudaemon-host" and dashboard.get("id") is None
    for panel in panels(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)), panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    every = [*dashboard["panels"], *panels(dashboard)]
    assert len({panel["id"] for panel in every}) == len({id(panel) for panel in every})
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))


def test_every_state_has_a_number_a_text_and_a_colour() -> None:
    assert {state.text for state in DEVICE_STATES} == {*STATES, "missing"}
    assert len({state.number for state in DEVICE_STATES}) == len(DEVICE_STATES)


def test_the_list_of_devices_is_read_from_what_prometheus_prints() -> None:
    choice = next(one for one in committed()["templating"]["list"] if one["name"] == "device")
    pattern = choice["regex"].strip("/").replace("(?<", "(?P<")
    line = '{device="0000:03:00.0", product_name="A \\"B\\"", title="0000:03:00.0 A B"} 1 1700000000000'
    found = re.search(pattern, line.replace(", ", ","))
    assert found is not None
    assert found.groupdict() == {"value": "0000:03:00.0", "text": "0000:03:00.0 A B"}
    assert choice["multi"] and choice["includeAll"] and "allValue" not in choice


def test_selectors() -> None:
    assert select(daemon.READER_UP) == "gpudaemon_daemon_reader_up"
    assert select(gpu.POWER, GPU, sensor="PPT") == (
        'gpudaemon_gpu_power_watts{job=~"$job",instance=~"$instance",device=~"$device",sensor="PPT"}'
    )
    assert select(gpu.POWER, EVERYWHERE, not_sensor=("a", 'b"')) == (
        'gpudaemon_gpu_power_watts{sensor!~"a|b\\""}'
    )  # fmt: skip
    with pytest.raises(ValueError, match="no label 'chip'"):
        select(gpu.POWER, EVERYWHERE, chip="x")
    with pytest.raises(ValueError, match="not a counter"):
        rate(gpu.POWER, EVERYWHERE)
    with pytest.raises(ValueError, match="not a state set"):
        numbered_states(gpu.POWER, EVERYWHERE, {}, "device")
    assert gpus_only("a", EVERYWHERE).startswith(
        "((a) unless on (job, instance, device) gpudaemon_pci_info{class"
    )
