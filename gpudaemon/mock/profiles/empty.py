"""A server without any GPU: two Intel processors with their sensors, bridges, an SSD, and no DRM class at all.

The DRM class exists as soon as the drm module is loaded, which nothing asks for here. Sources:
gpudaemon.mock.sensors, gpudaemon.mock.pci.
"""

from gpudaemon.mock.machine import Process, add_machine, add_process, node_cpus
from gpudaemon.mock.motion import Load
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.sensors import add_coretemp, add_nvme
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS_PER_NODE = 16
_NODES = 2


def _host(gpus: int) -> Tree:
    if gpus != 0:
        raise ValueError(f"gpus is {gpus}, this profile has none")
    tree = Tree()
    work = Load.seeded(0, high=0.4)
    ports = [_add_port(tree, bridge, node) for node, bridge in enumerate(("16", "97"))]
    drive = Function(
        path=f"{ports[0]}/0000:17:00.0", vendor=0x144D, device=0xA824, subsystem=(0x1028, 0x2041),
        pci_class=0x010802, driver="nvme", link=("8.0", 4), best=("16.0", 4), node=0,
        cpus=node_cpus(0, _CPUS_PER_NODE), group=1, bars=(Bar(0xB000_0000, 2**15, 0x140204),),
    )  # fmt: skip
    add_nvme(tree, drive, 0, hwmon=2, load=work, cpus=_NODES * _CPUS_PER_NODE)
    network = Function(
        path=f"{ports[1]}/0000:98:00.0", vendor=0x8086, device=0x1592, subsystem=(0x8086, 0x0002),
        pci_class=0x020000, revision=2, driver="ice", link=("16.0", 16), best=("16.0", 16), node=1,
        cpus=node_cpus(1, _CPUS_PER_NODE), group=2, bars=(Bar(0x22_0000_0000, 2**25, 0x14220C),),
    )  # fmt: skip
    add_function(tree, network, _NODES * _CPUS_PER_NODE)
    for package in range(_NODES):
        add_coretemp(tree, package, package, _CPUS_PER_NODE, work)
    add_machine(tree, nodes=_NODES, cpus_per_node=_CPUS_PER_NODE, memory=2**38)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    return tree


def _add_port(tree: Tree, bus: str, node: int) -> str:
    add_host_bridge(tree, f"pci0000:{bus}")
    port = Function(
        path=devices_path(f"pci0000:{bus}", f"0000:{bus}:02.0"), vendor=0x8086, device=0x347A,
        pci_class=BRIDGE_CLASS, revision=6, driver="pcieport", link=("16.0", 16), best=("16.0", 16), node=node,
        cpus=node_cpus(node, _CPUS_PER_NODE), root=True,
    )  # fmt: skip
    add_function(tree, port, _NODES * _CPUS_PER_NODE)
    return port.path


PROFILE = Profile("empty", "a server without any GPU", _host, 0)
