"""Whole devices with any names and any content: only Malformed leaves a decoder, nothing leaves a plan."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudaemon.collectors import collectors
from gpudaemon.drivers import drivers
from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Attribute
from gpudaemon.model.device import Device, DeviceKind

KNOWN = [
    "gpu_busy_percent",
    "gpu_metrics",
    "mem_info_vram_used",
    "pp_dpm_sclk",
    "pp_dpm_pcie",
    "pcie_replay_count",
    "ras/umc_err_count",
    "ras/gpu_vram_bad_pages",
    "power_dpm_force_performance_level",
    "current_compute_partition",
    "available_compute_partition",
    "available_memory_partition",
    "current_memory_partition",
    "fw_version/smc_fw_version",
    "board/node_power",
    "apu_thermal_cap",
    "unique_id",
    "vendor",
    "class",
    "current_link_speed",
    "max_link_width",
    "aer_dev_fatal",
    "aer_rootport_total_err_cor",
    "numa_node",
    "power_state",
    "hwmon/hwmon3/name",
    "hwmon/hwmon3/temp1_input",
    "hwmon/hwmon3/temp1_label",
    "hwmon/hwmon3/temp2_label",
    "hwmon/hwmon3/temp2_input",
    "hwmon/hwmon3/power1_average",
    "hwmon/hwmon3/power1_cap",
    "hwmon/hwmon3/pwm1",
    "hwmon/hwmon3/fan1_alarm",
    "hwmon/hwmon4/name",
    "hwmon/hwmon4/temp1_input",
    "hwmon/hwmon4/temp1_label",
    "i2c-5/5-0040/hwmon/hwmon9/in0_input",
]

NAMES = st.sets(st.sampled_from(KNOWN) | st.text(min_size=1, max_size=24), max_size=40)
LABELS = st.sampled_from([b"edge\n", b"edge temp1\n", b"\xff\xfe\n", b"", b"amdgpu\n", b"amdgpu 2\n"])
CONTENT = (
    st.binary(max_size=64)
    | LABELS
    | st.sampled_from(
        [b"ue: 1\nce: 2\n", b"0: 500Mhz *\n", b"RxErr 1\n", b"16.0 GT/s PCIe\n", b"55000\n"]
    ).flatmap(lambda good: st.integers(0, len(good)).map(lambda cut: good[:cut]))
    | st.binary(min_size=1, max_size=8).map(lambda piece: (piece * 4096)[:4097])
)
DEVICES = st.builds(
    Device,
    id=st.sampled_from(["0000:03:00.0", "amdgpu_xcp_0", "coretemp.0"]),
    kind=st.sampled_from(DeviceKind),
    path=st.just("devices/x"),
    subsystem=st.sampled_from(["pci", "platform", ""]),
    driver=st.sampled_from([*drivers(), "vfio-pci"]),
    nodes=st.just(("card0", "renderD128")),
    names=NAMES.map(frozenset),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(DEVICES, st.data())
def test_any_names_facts_and_contents(device: Device, data: st.DataObject) -> None:
    seen = set()
    for name in ("gpu", "pcie", "power"):
        collector = collectors()[name]
        if not collector.wants(device):
            continue
        facts = {path: data.draw(st.none() | CONTENT) for path in collector.needs(device)}
        assert set(facts) <= device.names
        for series, _ in collector.constants(device, facts):
            assert series not in seen
            seen.add(series)
        for planned in collector.attributes(device, facts):
            assert planned.call or planned.path in device.names
            try:
                values = list(planned.decode(data.draw(CONTENT)))
            except Malformed as error:
                assert error.reason in Malformed.REASONS
                values = None
            if not isinstance(planned, Attribute):
                continue
            assert values is None or len(values) == len(planned.series)
            for series in planned.series:
                assert series not in seen, series
                seen.add(series)
