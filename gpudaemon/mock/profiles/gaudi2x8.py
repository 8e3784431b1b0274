"""Eight Habana Gaudi2 (HL-225), as Linux 6.12 with habanalabs shows them.

Power, memory and addresses as `hl-smi` of such a host has them: 600 W and 96 GiB each, idle at 86 to 112 W,
buses 08 to 0f. No DRM class: only accel nodes. Sources: gpudaemon.mock.habanalabs, gpudaemon.mock.pci.
"""

from gpudaemon.mock.habanalabs import GAUDI2, add_gaudi2
from gpudaemon.mock.machine import INTEL, Process, add_machine, add_process, node_cpus
from gpudaemon.mock.model import Gpu
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS_PER_NODE = 40
_NODES = 2
_MODULES = (1, 0, 2, 4, 3, 5, 7, 6)  # which place of the baseboard each bus has


def _host(gpus: int) -> Tree:
    if not 1 <= gpus <= 8:
        raise ValueError(f"gpus is {gpus}, allowed are 1 to 8")
    tree = Tree()
    add_host_bridge(tree, "pci0000:00")
    for index in range(gpus):
        _add_gaudi(tree, index)
    add_machine(tree, nodes=_NODES, cpus_per_node=_CPUS_PER_NODE, memory=2**40, cpu=INTEL)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    worker = Process(
        3117, "hl_worker (0)", "/user.slice/user-1000.slice/session-4.scope", {5: "/dev/accel/accel0"}
    )
    add_process(tree, worker)
    return tree


def _add_gaudi(tree: Tree, index: int) -> None:
    node, link = index // 4, ("16.0", 16)
    cpus, total = node_cpus(node, _CPUS_PER_NODE), _NODES * _CPUS_PER_NODE
    port = Function(
        path=devices_path("pci0000:00", f"0000:00:{0x10 + index:02x}.0"), vendor=0x8086, device=0x347A,
        pci_class=BRIDGE_CLASS, revision=4, driver="pcieport", link=link, best=link, node=node, cpus=cpus,
        root=True,
    )  # fmt: skip
    add_function(tree, port, total)
    function = Function(
        path=f"{port.path}/0000:{8 + index:02x}:00.0", vendor=0x1DA3, device=0x1020, subsystem=(0x1DA3, 0x1020),
        pci_class=0x120000, revision=1, driver="habanalabs", link=link, best=link, node=node, cpus=cpus,
        group=index, bars=(Bar(0xA0_0000_0000 + index * 2**38, 2**37, 0x14220C),),
    )  # fmt: skip
    gpu = Gpu(GAUDI2, 225 + index)
    add_function(tree, function, total, gpu)
    add_gaudi2(tree, function, gpu, index=index, hwmon=index, module=_MODULES[index])


PROFILE = Profile("gaudi2x8", "8 Habana Gaudi2, accel nodes only", _host, 8)
