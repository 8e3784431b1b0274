"""Rows of PCI functions: links, error counters, power states, SR-IOV.

The endpoint of an AMD card sits behind a switch of its own and may report a link it does not have: compare
with the bridges above it (`parent` of `gpudaemon_pci_info`).
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "AER_ERRORS",
    "AER_MESSAGES",
    "AER_ROOT_PORT_MESSAGES",
    "D3COLD_ALLOWED",
    "INFO",
    "LINK_MAX_TRANSFERS",
    "LINK_MAX_WIDTH",
    "LINK_TRANSFERS",
    "LINK_WIDTH",
    "POWER_STATE",
    "SRIOV_DRIVERS_AUTOPROBE",
    "SRIOV_TOTAL_VFS",
    "SRIOV_VFS",
    "SRIOV_VF_TOTAL_MSIX",
]

_PCI = "Documentation/ABI/testing/sysfs-bus-pci"
_AER = "Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats"

INFO = Metric(
    name="gpudaemon_pci_info",
    kind=Kind.INFO,
    help="Identity of a PCI function; parent is the PCI function above it, empty below a host bridge.",
    labels=(
        "device",
        "vendor_id",
        "device_id",
        "subsystem_vendor_id",
        "subsystem_device_id",
        "class",
        "revision",
        "driver",
        "iommu_group",
        "parent",
    ),
    abi=f"{_PCI}: vendor, device, subsystem_vendor, subsystem_device, class, revision",
)

LINK_TRANSFERS = Metric(
    name="gpudaemon_pcie_link_transfers_per_second",
    kind=Kind.GAUGE,
    unit=Unit.TRANSFERS_PER_SECOND,
    help="Present speed of the link, per lane. An idle GPU lowers it: not a fault unless under load.",
    labels=("device",),
    abi=f"{_PCI}: current_link_speed",
)
LINK_MAX_TRANSFERS = Metric(
    name="gpudaemon_pcie_link_max_transfers_per_second",
    kind=Kind.GAUGE,
    unit=Unit.TRANSFERS_PER_SECOND,
    help="Highest speed the function is capable of, per lane.",
    labels=("device",),
    abi=f"{_PCI}: max_link_speed",
)
LINK_WIDTH = Metric(
    name="gpudaemon_pcie_link_width",
    kind=Kind.GAUGE,
    help="Lanes the link uses now.",
    labels=("device",),
    abi=f"{_PCI}: current_link_width",
)
LINK_MAX_WIDTH = Metric(
    name="gpudaemon_pcie_link_max_width",
    kind=Kind.GAUGE,
    help="Lanes the function is capable of.",
    labels=("device",),
    abi=f"{_PCI}: max_link_width",
)

AER_ERRORS = Metric(
    name="gpudaemon_pcie_aer_errors_total",
    kind=Kind.COUNTER,
    help=(
        "Errors the function reported through Advanced Error Reporting, by the kernel's name of the error. "
        "Severity is corrected, or nonfatal or fatal, the two sorts of uncorrected."
    ),
    labels=("device", "severity", "kind"),
    abi=f"{_AER}: aer_dev_correctable, aer_dev_nonfatal, aer_dev_fatal",
    otel="hw.errors",
)
AER_MESSAGES = Metric(
    name="gpudaemon_pcie_aer_messages_total",
    kind=Kind.COUNTER,
    help="Error messages of the function; one message can carry several errors.",
    labels=("device", "severity"),
    abi=f"{_AER}: TOTAL_ERR_COR, TOTAL_ERR_NONFATAL, TOTAL_ERR_FATAL",
)
AER_ROOT_PORT_MESSAGES = Metric(
    name="gpudaemon_pcie_aer_root_port_messages_total",
    kind=Kind.COUNTER,
    help="Error messages a root port received from everything below it.",
    labels=("device", "severity"),
    abi=f"{_AER}: aer_rootport_total_err_cor, aer_rootport_total_err_nonfatal, aer_rootport_total_err_fatal",
)

POWER_STATE = Metric(
    name="gpudaemon_pci_power_state",
    kind=Kind.STATESET,
    help="PCI power state the kernel last put the function in.",
    labels=("device", "state"),
    abi=f"{_PCI}: power_state",
)
D3COLD_ALLOWED = Metric(
    name="gpudaemon_pci_d3cold_allowed",
    kind=Kind.GAUGE,
    help="1 where the function may lose all power when suspended.",
    labels=("device",),
    abi=f"{_PCI}: d3cold_allowed",
)

SRIOV_VFS = Metric(
    name="gpudaemon_pci_sriov_vfs",
    kind=Kind.GAUGE,
    help="Virtual functions enabled now.",
    labels=("device",),
    abi=f"{_PCI}: sriov_numvfs",
)
SRIOV_TOTAL_VFS = Metric(
    name="gpudaemon_pci_sriov_max_vfs",
    kind=Kind.GAUGE,
    help="Virtual functions the device can have.",
    labels=("device",),
    abi=f"{_PCI}: sriov_totalvfs",
)
SRIOV_DRIVERS_AUTOPROBE = Metric(
    name="gpudaemon_pci_sriov_drivers_autoprobe",
    kind=Kind.GAUGE,
    help="1 where the kernel binds drivers to new virtual functions by itself.",
    labels=("device",),
    abi=f"{_PCI}: sriov_drivers_autoprobe",
)
SRIOV_VF_TOTAL_MSIX = Metric(
    name="gpudaemon_pci_sriov_vf_total_msix",
    kind=Kind.GAUGE,
    help="MSI-X vectors that can be shared out among the virtual functions.",
    labels=("device",),
    abi=f"{_PCI}: sriov_vf_total_msix",
)
