"""Rows of NVMe controllers: what a GPU may read from without the CPU."""

from gpudaemon.model.metric import Kind, Metric

__all__ = ["INFO", "STATE"]

_ABI = "drivers/nvme/host/sysfs.c"

INFO = Metric(
    name="gpudaemon_nvme_info",
    kind=Kind.INFO,
    help="Identity of an NVMe controller; device is its PCI function, or the controller itself over fabrics.",
    labels=("device", "controller", "model", "firmware", "serial", "transport"),
    abi=f"{_ABI}: model, firmware_rev, serial, transport",
)
STATE = Metric(
    name="gpudaemon_nvme_controller_state",
    kind=Kind.STATESET,
    help="State of an NVMe controller as the driver sees it; live is the one that works.",
    labels=("device", "controller", "state"),
    abi=f"{_ABI}: state",
)
