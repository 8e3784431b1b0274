"""Rows of RDMA devices: ports, their state, rate and counters.

`device` is the PCI function, or the RDMA device itself where there is none (rdma_rxe); `rdma` is the name of
the RDMA device. Error counters of InfiniBand are 4 to 16 bits wide and stay at their maximum: see docs/p2p.md.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "BYTES",
    "ERRORS",
    "HARDWARE",
    "INFO",
    "OBJECTS",
    "OBJECTS_LEFT_OUT",
    "OBJECTS_MAX",
    "OWNER_OBJECTS",
    "OWNER_REGISTERED",
    "PACKETS",
    "PHYSICAL_STATE",
    "QUEUE_PAIRS",
    "RATE",
    "STATE",
    "TRANSMIT_WAIT",
]

_ABI = "Documentation/ABI/stable/sysfs-class-infiniband"
_NLDEV = "include/uapi/rdma/rdma_netlink.h"
_PORT = ("device", "rdma", "port")

INFO = Metric(
    name="gpudaemon_rdma_info",
    kind=Kind.INFO,
    help="Identity of an RDMA device.",
    labels=("device", "rdma", "node_guid", "firmware", "board", "node_type"),
    abi=f"{_ABI}: node_guid, fw_ver, board_id, node_type",
)
STATE = Metric(
    name="gpudaemon_rdma_port_state",
    kind=Kind.STATESET,
    help="Logical state of a port.",
    labels=(*_PORT, "state"),
    abi=f"{_ABI}: ports/<port>/state",
)
PHYSICAL_STATE = Metric(
    name="gpudaemon_rdma_port_physical_state",
    kind=Kind.STATESET,
    help="Physical state of a port.",
    labels=(*_PORT, "state"),
    abi=f"{_ABI}: ports/<port>/phys_state",
)
RATE = Metric(
    name="gpudaemon_rdma_port_rate_bytes_per_second",
    kind=Kind.GAUGE,
    unit=Unit.BYTES_PER_SECOND,
    help="Signalling rate of a port, one way.",
    labels=_PORT,
    abi=f"{_ABI}: ports/<port>/rate",
)
BYTES = Metric(
    name="gpudaemon_rdma_port_data_bytes_total",
    kind=Kind.COUNTER,
    unit=Unit.BYTES,
    help="Octets of data packets; the kernel counts words of four.",
    labels=(*_PORT, "direction"),
    abi=f"{_ABI}: ports/<port>/counters/port_rcv_data, port_xmit_data",
)
PACKETS = Metric(
    name="gpudaemon_rdma_port_packets_total",
    kind=Kind.COUNTER,
    help="Packets; cast is all, or unicast or multicast, the two sorts of them.",
    labels=(*_PORT, "direction", "cast"),
    abi=f"{_ABI}: ports/<port>/counters/port_rcv_packets, unicast_rcv_packets, multicast_rcv_packets and xmit",
)
ERRORS = Metric(
    name="gpudaemon_rdma_port_errors_total",
    kind=Kind.COUNTER,
    help="Errors of a port, by the kernel's name of the counter. Many are narrow and stay at their maximum.",
    labels=(*_PORT, "kind"),
    abi=f"{_ABI}: ports/<port>/counters",
)
TRANSMIT_WAIT = Metric(
    name="gpudaemon_rdma_port_transmit_wait_ticks_total",
    kind=Kind.COUNTER,
    help="Ticks in which a port had data to send and was not allowed to; stays at its maximum of 32 bits.",
    labels=_PORT,
    abi=f"{_ABI}: ports/<port>/counters/port_xmit_wait",
)
HARDWARE = Metric(
    name="gpudaemon_rdma_hardware_statistics_total",
    kind=Kind.COUNTER,
    help=(
        "A counter of the driver, by its own name; port is empty for one of the whole device. Optional "
        "counters that are on come by calls."
    ),
    labels=(*_PORT, "counter"),
    abi=f"{_ABI}: hw_counters, ports/<port>/hw_counters; {_NLDEV}: RDMA_NLDEV_CMD_STAT_GET",
)

OBJECTS = Metric(
    name="gpudaemon_rdma_objects",
    kind=Kind.GAUGE,
    help="Objects a device has: queue pairs (qp), completion queues (cq), memory regions (mr) and others.",
    labels=("device", "rdma", "type"),
    abi=f"{_NLDEV}: RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR",
)
OBJECTS_MAX = Metric(
    name="gpudaemon_rdma_objects_max",
    kind=Kind.GAUGE,
    help="Objects a device can have, where the kernel says so.",
    labels=("device", "rdma", "type"),
    abi=f"{_NLDEV}: RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_MAX",
)
OBJECTS_LEFT_OUT = Metric(
    name="gpudaemon_rdma_objects_left_out",
    kind=Kind.GAUGE,
    help="Objects whose owners are not looked at: too many of their type, or the driver does not tell.",
    labels=("device", "rdma", "type"),
    abi=f"{_NLDEV}: RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR",
)
QUEUE_PAIRS = Metric(
    name="gpudaemon_rdma_queue_pairs",
    kind=Kind.GAUGE,
    help="Queue pairs of a device by their state; one in the state error moves nothing any more.",
    labels=("device", "rdma", "state"),
    abi=f"{_NLDEV}: RDMA_NLDEV_ATTR_RES_STATE",
)
OWNER_OBJECTS = Metric(
    name="gpudaemon_rdma_owner_objects",
    kind=Kind.GAUGE,
    help=(
        "Objects by whom they belong to: owner is that of the process's cgroup, or kernel, and process the "
        "name of the process, or of the part of the kernel."
    ),
    labels=("device", "rdma", "owner", "process", "type"),
    abi=f"{_NLDEV}: RDMA_NLDEV_ATTR_RES_PID, RDMA_NLDEV_ATTR_RES_KERN_NAME",
)
OWNER_REGISTERED = Metric(
    name="gpudaemon_rdma_owner_registered_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Memory registered with a device, of the host or of a GPU; what is registered twice counts twice.",
    labels=("device", "rdma", "owner", "process"),
    abi=f"{_NLDEV}: RDMA_NLDEV_ATTR_RES_MRLEN",
)
