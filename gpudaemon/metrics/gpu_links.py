"""Rows of a GPU's links as its firmware counts them: PCIe trouble, xGMI between GPUs of a hive.

drivers/gpu/drm/amd/include/kgd_pp_interface.h (gpu_metrics 1.4 and later) and
drivers/gpu/drm/amd/amdgpu/amdgpu_xgmi.c.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

_TABLE = "drivers/gpu/drm/amd/include/kgd_pp_interface.h: gpu_metrics"
_XGMI = "drivers/gpu/drm/amd/amdgpu/amdgpu_xgmi.c"
_DEVICE = ("device",)
_LINK = ("device", "link")


def _counter(name: str, help_text: str, field: str, labels: tuple[str, ...] = _DEVICE) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, help=help_text, labels=labels, abi=f"{_TABLE}, {field}")


PCIE_RECOVERIES = _counter(
    "gpudaemon_gpu_pcie_recoveries_total",
    "Times the PCIe link left L0 to recover: a bad link before it fails.",
    "pcie_l0_to_recov_count_acc",
)
PCIE_PEER_RECOVERIES = _counter(
    "gpudaemon_gpu_pcie_peer_recoveries_total",
    "Times the other end of the PCIe link began a recovery.",
    "pcie_lc_perf_other_end_recovery",
)
PCIE_REPLAY_ROLLOVERS = _counter(
    "gpudaemon_gpu_pcie_replay_rollovers_total",
    "Times the same PCIe packets were sent again so often that the link was trained anew.",
    "pcie_replay_rover_count_acc",
)
PCIE_NAKS = Metric(
    name="gpudaemon_gpu_pcie_naks_total",
    kind=Kind.COUNTER,
    help="PCIe packets refused: sent by the GPU for what it got, received for what it sent.",
    labels=("device", "direction"),
    abi=f"{_TABLE}, pcie_nak_sent_count_acc, pcie_nak_rcvd_count_acc",
)
XGMI_READ = Metric(
    name="gpudaemon_gpu_xgmi_read_bytes_total",
    kind=Kind.COUNTER,
    unit=Unit.BYTES,
    help="Bytes read over an xGMI link, counted in units of 1024.",
    labels=_LINK,
    abi=f"{_TABLE}, xgmi_read_data_acc",
    otel="hw.network.io",
)
XGMI_WRITTEN = Metric(
    name="gpudaemon_gpu_xgmi_written_bytes_total",
    kind=Kind.COUNTER,
    unit=Unit.BYTES,
    help="Bytes written over an xGMI link, counted in units of 1024.",
    labels=_LINK,
    abi=f"{_TABLE}, xgmi_write_data_acc",
    otel="hw.network.io",
)
XGMI_LINK_UP = Metric(
    name="gpudaemon_gpu_xgmi_link_up",
    kind=Kind.GAUGE,
    help="1 while an xGMI link is active, 0 where it is not; a link that is not wired has no series.",
    labels=_LINK,
    abi=f"{_TABLE}, xgmi_link_status",
    otel="hw.network.up",
)
XGMI_WIDTH = Metric(
    name="gpudaemon_gpu_xgmi_link_width",
    kind=Kind.GAUGE,
    help="Lanes of each xGMI link.",
    labels=_DEVICE,
    abi=f"{_TABLE}, xgmi_link_width",
)
XGMI_TRANSFERS = Metric(
    name="gpudaemon_gpu_xgmi_link_transfers_per_second",
    kind=Kind.GAUGE,
    unit=Unit.TRANSFERS_PER_SECOND,
    help="Bit rate of a lane of each xGMI link.",
    labels=_DEVICE,
    abi=f"{_TABLE}, xgmi_link_speed",
)
XGMI_HIVE_INFO = Metric(
    name="gpudaemon_gpu_xgmi_hive_info",
    kind=Kind.INFO,
    help="The xGMI hive a GPU belongs to: hive is the GPU that holds its directory, the same on all members.",
    labels=("device", "hive", "device_id", "physical_id"),
    abi=f"{_XGMI}: whose directory xgmi_hive_info is, xgmi_device_id, xgmi_physical_id",
)
XGMI_HIVE_MEMBERS = Metric(
    name="gpudaemon_gpu_xgmi_hive_members",
    kind=Kind.GAUGE,
    help="GPUs in the hive of this GPU, itself included, as the driver sees them: fewer than fitted is a loss.",
    labels=_DEVICE,
    abi=f"{_XGMI}: xgmi_num_hops, one number a member",
)
XGMI_HOPS = Metric(
    name="gpudaemon_gpu_xgmi_hops",
    kind=Kind.GAUGE,
    help="xGMI links on the way to another member of the hive, which is told by its place in the hive.",
    labels=("device", "member"),
    abi=f"{_XGMI}: xgmi_num_hops",
)
XGMI_LINKS = Metric(
    name="gpudaemon_gpu_xgmi_links",
    kind=Kind.GAUGE,
    help="xGMI links that lead to another member of the hive.",
    labels=("device", "member"),
    abi=f"{_XGMI}: xgmi_num_links",
)
