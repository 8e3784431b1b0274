"""CXL memory as Linux 7.3 shows it: memdevs, ports, decoders, a volatile region, its DAX device, memory tiers.

Every name and format is that of a Debian kernel 7.3.4 with emulated CXL memory behind a host bridge
(drivers/cxl/core/{port,memdev,region,hdm}.c, drivers/dax/bus.c, mm/memory-tiers.c). One host bridge, a root
port and a memory device for each target, all of them interleaved into one region that kmem has made a NUMA
node without CPUs.
"""

from collections.abc import Mapping

from gpudaemon.mock.pci import (
    BRIDGE_CLASS,
    Bar,
    Function,
    add_function,
    add_host_bridge,
    add_plain_power,
    devices_path,
)
from gpudaemon.mock.tree import Tree

__all__ = ["ACCESS", "add_memory"]

_ROOT = devices_path("platform", "ACPI0017:00", "root0")
_BUS = 0xC0
_START = 0x2090000000
_GRANULARITY = 256
_DECODERS = 4

ACCESS = {"read_bandwidth": 51_200, "read_latency": 252, "write_bandwidth": 51_200, "write_latency": 352}
"""MB/s and ns, of the region and of the node it became"""


def _device(tree: Tree, path: str, devtype: str, kind: int, *, driver: str = "", more: str = "") -> None:
    """A device of the cxl bus. kind: CXL_DEVICE_* of its modalias (drivers/cxl/cxl.h)."""
    name = path.rsplit("/", 1)[1]
    line = f"DRIVER={driver}\n" if driver else ""
    tree.file(f"{path}/uevent", f"{more}DEVTYPE={devtype}\n{line}MODALIAS=cxl:t{kind}\n", mode=0o644)
    if devtype != "cxl_memdev":  # its type has no attributes of the bus
        tree.text(path, devtype=devtype, modalias=f"cxl:t{kind}")
    tree.link(f"{path}/subsystem", "sys/bus/cxl")
    tree.link(f"sys/bus/cxl/devices/{name}", path)
    if driver:
        tree.link(f"{path}/driver", f"sys/bus/cxl/drivers/{driver}")
        tree.link(f"sys/bus/cxl/drivers/{driver}/{name}", path)
    add_plain_power(tree, path)


def _decoder(tree: Tree, path: str, devtype: str, values: Mapping[str, object]) -> None:
    _device(tree, path, devtype, 0)
    tree.text(path, locked=0, **values)


def _decoders(tree: Tree, port: str, number: int, devtype: str, used: dict[str, object]) -> None:
    """The decoders of a port or endpoint: the first is in use."""
    free: dict[str, object] = {
        "interleave_granularity": _GRANULARITY,
        "interleave_ways": 1,
        "size": "0x0",
        "start": "0x0",
        "target_type": "expander",
        "region": "",
    }
    if devtype == "cxl_decoder_switch":
        free["target_list"] = "0"
    else:
        free |= {"mode": "none", "dpa_resource": "0xffffffffffffffff", "dpa_size": f"0x{0:016x}"}
    for index in range(_DECODERS):
        _decoder(tree, f"{port}/decoder{number}.{index}", devtype, free | (used if index == 0 else {}))


def _add_memdev(tree: Tree, index: int, size: int, cpus: int) -> str:
    """A root port and a type 3 device below it; returns the path of the memdev."""
    port = devices_path(f"pci0000:{_BUS:02x}", f"0000:{_BUS:02x}:{index:02x}.0")
    link = ("32.0", 8)
    add_function(
        tree,
        Function(
            path=port, vendor=0x8086, device=0x7075, pci_class=BRIDGE_CLASS, driver="pcieport", link=link,
            best=link, node=-1, cpus=(0, cpus - 1), group=60 + index, root=True,
        ),
        cpus,
    )  # fmt: skip
    function = Function(
        path=f"{port}/0000:{_BUS + 1 + index:02x}:00.0", vendor=0x8086, device=0x0D93,
        subsystem=(0x1AF4, 0x1100), pci_class=0x050210, revision=1, driver="cxl_pci", link=link, best=link,
        node=-1, cpus=(0, cpus - 1), group=70 + index,
        bars=(Bar(0x9000_0000 + index * 2**20, 2**16, 0x14220C),),
    )  # fmt: skip
    add_function(tree, function, cpus)
    memdev = f"{function.path}/mem{index}"
    node = f"MAJOR=249\nMINOR={index}\nDEVNAME=cxl/mem{index}\n"
    _device(tree, memdev, "cxl_memdev", 5, driver="cxl_mem", more=node)
    tree.text(
        memdev,
        dev=f"249:{index}",
        firmware_version="BWFW VERSION 00",
        label_storage_size=0,
        numa_node=-1,
        payload_max=2048,
        serial=f"0x{0x1001 + index:x}",
    )
    tree.text(f"{memdev}/ram", size=f"0x{size:x}", qos_class=0)
    tree.text(f"{memdev}/pmem", size="0x0")
    tree.text(f"{memdev}/security", state="disabled")
    tree.file(f"{memdev}/security/sanitize", mode=0o200)
    tree.file(f"{memdev}/trigger_poison_list", mode=0o200)
    tree.link(f"sys/dev/char/249:{index}", memdev)
    return memdev


def _add_region(tree: Tree, targets: int, size: int, node: int) -> None:
    root = f"{_ROOT}/decoder0.0"
    region = f"{root}/region0"
    _device(tree, region, "cxl_region", 6, driver="cxl_region")
    tree.text(
        region,
        commit=1,
        interleave_granularity=_GRANULARITY,
        interleave_ways=targets,
        locked=0,
        mode="ram",
        size=f"0x{size:x}",
        uuid="",
        **{f"target{index}": f"decoder{2 + index}.0" for index in range(targets)},
    )
    tree.file(f"{region}/resource", f"0x{_START:x}\n", mode=0o400)
    for access in ("access0", "access1"):
        values = {
            "read_bandwidth": 51_200,
            "read_latency": 252,
            "write_bandwidth": 51_200,
            "write_latency": 352,
        }
        tree.text(f"{region}/{access}", **values)
    home = f"{region}/dax_region0"
    _device(tree, home, "cxl_dax_region", 8, driver="cxl_dax_region")
    tree.text(f"{home}/dax_region", align=2**21, available_size=0, id=0, size=size, seed="")
    dax = f"{home}/dax0.0"
    tree.file(
        f"{dax}/uevent", b"MAJOR=251\nMINOR=0\nDEVNAME=dax0.0\nDRIVER=kmem\nMODALIAS=dax:t0\n", mode=0o644
    )
    tree.text(dax, align=2**21, dev="251:0", modalias="dax:t0", numa_node=-1, size=size, target_node=node)
    tree.text(dax, 0o644, memmap_on_memory=1, state="online")
    tree.file(f"{dax}/resource", f"0x{_START:x}\n", mode=0o400)
    tree.link(f"{dax}/subsystem", "sys/bus/dax")
    tree.link(f"{dax}/driver", "sys/bus/dax/drivers/kmem")
    tree.link("sys/bus/dax/devices/dax0.0", dax)
    tree.link("sys/bus/dax/drivers/kmem/dax0.0", dax)
    add_plain_power(tree, dax)


def add_memory(tree: Tree, *, targets: int, size: int, node: int, cpus: int) -> None:
    """`targets` memory devices of `size` bytes each, interleaved into NUMA node `node`; cpus: of the host."""
    total = targets * size
    bridge = f"pci0000:{_BUS:02x}"
    add_host_bridge(tree, bridge)
    tree.file(f"{_ROOT.rsplit('/', 1)[0]}/uevent", b"DRIVER=cxl_acpi\nMODALIAS=acpi:ACPI0017:\n", mode=0o644)
    _device(tree, _ROOT, "cxl_port", 4)
    tree.text(_ROOT, decoders_committed=0)
    root: dict[str, object] = {
        **{f"cap_{name}": 1 for name in ("pmem", "ram", "type2", "type3")},
        "create_pmem_region": "region1",
        "create_ram_region": "region1",
        "interleave_granularity": _GRANULARITY,
        "interleave_ways": 1,
        "qos_class": 0,
        "size": f"0x{2 * total:x}",
        "start": f"0x{_START:x}",
        "target_list": _BUS,
    }
    _decoder(tree, f"{_ROOT}/decoder0.0", "cxl_decoder_root", root)
    tree.file(f"{_ROOT}/decoder0.0/delete_region", mode=0o200)
    port = f"{_ROOT}/port1"
    _device(tree, port, "cxl_port", 3, driver="cxl_port")
    tree.text(port, decoders_committed=1)
    tree.link(f"{port}/uport", devices_path(bridge))
    tree.link(f"{port}/parent_dport", devices_path(bridge))
    used: dict[str, object] = {
        "interleave_ways": targets,
        "size": f"0x{total:x}",
        "start": f"0x{_START:x}",
        "region": "region0",
    }
    listed = ",".join(map(str, range(targets)))
    _decoders(tree, port, 1, "cxl_decoder_switch", used | {"target_list": listed})
    for index in range(targets):
        memdev = _add_memdev(tree, index, size, cpus)
        root_port = memdev.rsplit("/", 2)[0]
        tree.link(f"{port}/dport{index}", root_port)
        endpoint = f"{port}/endpoint{2 + index}"
        _device(tree, endpoint, "cxl_port", 3, driver="cxl_port")
        tree.text(endpoint, decoders_committed=1)
        tree.link(f"{endpoint}/uport", memdev)
        tree.link(f"{endpoint}/parent_dport", root_port)
        part = {"mode": "ram", "dpa_resource": "0x0", "dpa_size": f"0x{size:016x}"}
        _decoders(tree, endpoint, 2 + index, "cxl_decoder_endpoint", used | part)
    _add_region(tree, targets, total, node)
