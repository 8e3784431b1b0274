"""PCI functions: link, error counters, power state, place in the host.

The present link speed and width are register reads that resume a function in D3cold: seldom, and only behind
the power-state gate. Documentation/ABI/testing/sysfs-bus-pci, drivers/pci/pcie/aer.c.
"""

from collections.abc import Callable, Iterator, Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.drivers import Facts
from gpudaemon.metrics import pcie
from gpudaemon.metrics.device import NUMA_NODE
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Row, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.integer import quotient, quotient_or_unknown, words
from gpudaemon.parsers.pcie import aer_counters, link_speed, link_width, own_link_width
from gpudaemon.parsers.power_state import PCI_POWER_STATES
from gpudaemon.parsers.text import text_or_empty

__all__ = ["COLLECTOR"]

_whole = quotient()

_SCALARS: tuple[tuple[str, Cadence, Decode, Metric], ...] = (
    ("current_link_speed", Cadence.SLOW, link_speed, pcie.LINK_TRANSFERS),
    ("current_link_width", Cadence.SLOW, link_width, pcie.LINK_WIDTH),
    ("max_link_speed", Cadence.STATIC, link_speed, pcie.LINK_MAX_TRANSFERS),
    ("max_link_width", Cadence.STATIC, link_width, pcie.LINK_MAX_WIDTH),
    # an administrator can correct a node firmware got wrong; -1 is NUMA_NO_NODE
    ("numa_node", Cadence.SLOW, quotient_or_unknown(unknown=(-1,)), NUMA_NODE),
    ("d3cold_allowed", Cadence.SLOW, _whole, pcie.D3COLD_ALLOWED),
    ("sriov_numvfs", Cadence.SLOW, _whole, pcie.SRIOV_VFS),
    ("sriov_totalvfs", Cadence.SLOW, _whole, pcie.SRIOV_TOTAL_VFS),
    ("sriov_drivers_autoprobe", Cadence.SLOW, _whole, pcie.SRIOV_DRIVERS_AUTOPROBE),
    ("sriov_vf_total_msix", Cadence.SLOW, _whole, pcie.SRIOV_VF_TOTAL_MSIX),
)
_AER = {"aer_dev_correctable": "corrected", "aer_dev_nonfatal": "nonfatal", "aer_dev_fatal": "fatal"}
_ROOT_PORT = {
    "aer_rootport_total_err_cor": "corrected",
    "aer_rootport_total_err_nonfatal": "nonfatal",
    "aer_rootport_total_err_fatal": "fatal",
}
_IDENTITY = {
    "vendor_id": "vendor",
    "device_id": "device",
    "subsystem_vendor_id": "subsystem_vendor",
    "subsystem_device_id": "subsystem_device",
    "class": "class",
    "revision": "revision",
}


def _wants(device: Device) -> bool:
    return device.subsystem == "pci"


def _needs(device: Device) -> Sequence[str]:
    return [path for path in _IDENTITY.values() if path in device.names]


def _aer_rows(device: str, severity: str) -> Callable[[bytes], Iterator[Row]]:
    def decode(content: bytes) -> Iterator[Row]:
        counters, total = aer_counters(content)
        rows: list[Row] = [
            (pcie.AER_ERRORS, (device, severity, kind), float(count)) for kind, count in counters
        ]
        if total is not None:
            rows.append((pcie.AER_MESSAGES, (device, severity), float(total)))
        return iter(rows)

    return decode


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    endpoint = device.kind is not DeviceKind.PCI
    planned: list[Attribute | Rows] = [
        Attribute(
            path,
            cadence,
            (Series(metric, (device.id,)),),
            own_link_width if endpoint and decode is link_width else decode,
        )
        for path, cadence, decode, metric in _SCALARS
        if path in device.names
    ]
    if "power_state" in device.names:
        series = tuple(Series(pcie.POWER_STATE, (device.id, state)) for state in PCI_POWER_STATES)
        planned.append(Attribute("power_state", Cadence.SLOW, series, words(PCI_POWER_STATES)))
    planned += [
        Attribute(path, Cadence.SLOW, (Series(pcie.AER_ROOT_PORT_MESSAGES, (device.id, severity)),), _whole)
        for path, severity in _ROOT_PORT.items()
        if path in device.names
    ]
    planned += [
        Rows(path, Cadence.SLOW, _aer_rows(device.id, severity), (pcie.AER_ERRORS, pcie.AER_MESSAGES))
        for path, severity in _AER.items()
        if path in device.names
    ]
    return planned


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    labels = {label: text_or_empty(facts.get(path)) for label, path in _IDENTITY.items()}
    labels |= {
        "device": device.id,
        "driver": device.driver,
        "iommu_group": device.link("iommu_group"),
        "parent": device.parents[0] if device.parents else "",
    }
    return [(Series(pcie.INFO, tuple(labels[label] for label in pcie.INFO.labels)), 1.0)]


COLLECTOR = Collector(
    name="pcie",
    emits=(
        pcie.INFO,
        *(metric for _, _, _, metric in _SCALARS),
        pcie.POWER_STATE,
        pcie.AER_ROOT_PORT_MESSAGES,
        pcie.AER_ERRORS,
        pcie.AER_MESSAGES,
    ),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
