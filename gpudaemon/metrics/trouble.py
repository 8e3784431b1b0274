"""Rows of trouble: what went wrong with which device, how badly, and when last. The same for every vendor."""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = ["EVENTS", "EVENTS_DROPPED", "LAST_SEEN", "SXIDS", "UNPLACED", "XIDS"]

_ABI = (
    "Documentation/gpu/drm-uapi.rst: WEDGED; Documentation/PCI/pcieaer-howto.rst; drivers/base/devcoredump.c; "
    "Documentation/gpu/amdgpu/ras.rst; Documentation/ABI/testing/dev-kmsg"
)

EVENTS = Metric(
    name="gpudaemon_trouble_events_total",
    kind=Kind.COUNTER,
    help=(
        "What went wrong since the daemon started. Severity: corrected (nothing lost), recovered (work lost, "
        "the device goes on), uncorrected, fatal (the device needs somebody)."
    ),
    labels=("device", "kind", "severity"),
    abi=_ABI,
)
LAST_SEEN = Metric(
    name="gpudaemon_trouble_last_seen_timestamp_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="When that went wrong last, unix time.",
    labels=("device", "kind", "severity"),
    abi=_ABI,
)
EVENTS_DROPPED = Metric(
    name="gpudaemon_trouble_events_dropped_total",
    kind=Kind.COUNTER,
    help="Events that are counted nowhere because too many devices had trouble; devices that went give room.",
    abi=_ABI,
)
XIDS = Metric(
    name="gpudaemon_trouble_xids_total",
    kind=Kind.COUNTER,
    help="Xid lines of NVIDIA's driver in the kernel's log since the daemon started, by number.",
    labels=("device", "xid"),
    abi="docs.nvidia.com/deploy/xid-errors; open-gpu-kernel-modules: kernel_rc.c, krcReportXid",
)
SXIDS = Metric(
    name="gpudaemon_trouble_sxids_total",
    kind=Kind.COUNTER,
    help="SXid lines of NVSwitches in the kernel's log since the daemon started, by number.",
    labels=("device", "sxid"),
    abi="NVIDIA Fabric Manager user guide, appendix D; open-gpu-kernel-modules: NVSWITCH_PRINT_SXID",
)
UNPLACED = Metric(
    name="gpudaemon_trouble_unplaced_total",
    kind=Kind.COUNTER,
    help="Lines of trouble in the kernel's log that name no device where it could be several.",
    labels=("driver",),
    abi="drivers/gpu/drm/amd/amdgpu/amdgpu_job.c of older kernels: DRM_ERROR",
)
