"""The reference made of the metric table."""

from gpudaemon.export.reference import reference
from gpudaemon.metrics import table
from gpudaemon.model.metric import Kind, Metric, Unit

POWER = Metric(
    name="gpudaemon_gpu_power_watts",
    kind=Kind.GAUGE,
    unit=Unit.WATTS,
    help="Power | now,\nof <device>.",
    labels=("device", "sensor"),
    abi="Documentation/hwmon/sysfs-interface.rst",
    otel="hw.power",
)
LINK = Metric(name="gpudaemon_pcie_resets_total", kind=Kind.COUNTER, help="Resets.", abi="drivers/pci")
STATE = Metric(name="gpudaemon_gpu_state", kind=Kind.STATESET, help="State.", labels=("device",), abi="x")


def test_sections_and_cells() -> None:
    text = reference((POWER, LINK, STATE))
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## gpu", "## pcie"]
    assert (
        "| `gpudaemon_gpu_power_watts` | gauge | watts | `device`, `sensor` "
        "| Power \\| now, of &lt;device&gt;. OpenTelemetry: `hw.power`. "
        "| Documentation/hwmon/sysfs-interface.rst |\n"
        "| `gpudaemon_gpu_state` | stateset |  | `device` | State. | x |\n"
    ) in text


def test_every_row_of_the_table_has_one_line_of_six_cells() -> None:
    lines = [line for line in reference(table()).splitlines() if line.startswith("| `")]
    assert sorted(line.split("`")[1] for line in lines) == sorted(row.name for row in table())
    assert {line.replace("\\|", "").count("|") for line in lines} <= {7}
