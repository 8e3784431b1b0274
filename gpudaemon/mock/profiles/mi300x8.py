"""Eight AMD Instinct MI300X behind PCIe switches on two NUMA nodes, as Linux 6.12 with amdgpu shows them.

Each GPU hangs on a root port and a switch of its own, `root port - upstream port - downstream port - GPU`, and
all of them are one xGMI hive. Runtime PM is off for these cards: `power/control` says `on`. One process uses
the first GPU. Sources: gpudaemon.mock.amdgpu, gpudaemon.mock.pci, drivers/gpu/drm/amd/amdgpu/amdgpu_xgmi.c.
"""

from gpudaemon.mock.amdgpu import Card, add_instinct, client_fdinfo
from gpudaemon.mock.machine import Process, add_machine, add_process, node_cpus
from gpudaemon.mock.motion import Load
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE", "amdgpu_host"]

_CPUS_PER_NODE = 96
_MAXIMUM = 128  # cardN is a minor below 128 up to here, renderD128 comes next


def amdgpu_host(gpus: int = 8, *, vram: int = 206_141_652_992, cap: int = 750) -> Tree:
    """A host with `gpus` MI300X, half of them on each NUMA node; eight to a PCI domain.

    vram: bytes per GPU. cap: watts per GPU. Raises ValueError unless gpus is 1 to 128.
    """
    if not 1 <= gpus <= _MAXIMUM:
        raise ValueError(f"gpus is {gpus}, allowed are 1 to {_MAXIMUM}")
    nodes = 2 if gpus > 1 else 1
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    cards = [
        _add_gpu(tree, index, min(index * nodes // gpus, nodes - 1), nodes=nodes, vram=vram, cap=cap)
        for index in range(gpus)
    ]
    for card in cards:
        # Up to eight GPUs share a hive, one hop apart.
        hive = range(card.index // 8 * 8, min(card.index // 8 * 8 + 8, gpus))
        add_instinct(tree, card, tuple(0 if other == card.index else 1 for other in hive))
        _add_hive(tree, cards, card, hive)
    add_machine(tree, nodes=nodes, cpus_per_node=_CPUS_PER_NODE, memory=2**41)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    add_process(tree, Process(812, "sshd", "/system.slice/ssh.service"))
    pod = "/kubepods.slice/kubepods-pod3f9c1d42_6b1e_4c77_9a52_0e8f7d6c5b4a.slice/cri-containerd-" + "5e" * 32
    add_process(
        tree,
        Process(
            4242,
            "python3",
            f"{pod}.scope",
            {0: "/dev/null", 3: "/dev/dri/renderD128", 4: "/dev/kfd"},
            {3: client_fdinfo(cards[0], 17, 0.8)},
        ),
    )
    return tree


def _add_gpu(tree: Tree, index: int, node: int, *, nodes: int, vram: int, cap: int) -> Card:
    """The chain of PCI functions from the host bridge to GPU `index`."""
    domain, root = f"{index // 8:04x}", index % 8 * 0x20
    bridge = f"pci{domain}:{root:02x}"
    add_host_bridge(tree, bridge)
    path = devices_path(bridge)
    cpus = node_cpus(node, _CPUS_PER_NODE)
    total = nodes * _CPUS_PER_NODE
    fast = ("32.0", 16)
    for step, (slot, vendor, device) in enumerate(
        (
            (f"{root:02x}:01.1", 0x1022, 0x14AB),
            (f"{root + 1:02x}:00.0", 0x1000, 0xC030),
            (f"{root + 2:02x}:00.0", 0x1000, 0xC030),
        )
    ):
        path = f"{path}/{domain}:{slot}"
        port = Function(
            path=path, vendor=vendor, device=device, pci_class=BRIDGE_CLASS, revision=1, driver="pcieport",
            link=fast, best=fast, node=node, cpus=cpus, group=4 * index + step, root=step == 0,
        )  # fmt: skip
        add_function(tree, port, total)
    window = 0x2000_0000_0000 + index * 2**39
    function = Function(
        path=f"{path}/{domain}:{root + 3:02x}:00.0",
        vendor=0x1002,
        device=0x74A1,
        subsystem=(0x1002, 0x74A1),
        pci_class=0x120000,
        driver="amdgpu",
        link=fast,
        best=fast,
        node=node,
        cpus=cpus,
        group=4 * index + 3,
        bars=(
            Bar(window, 2**38, 0x14220C),
            *_no_bars(1),
            Bar(window + 2**38, 2**21, 0x14220C),
            *_no_bars(2),
            Bar(0xD000_0000 + index * 2**20, 2**19, 0x40200),
        ),
    )
    add_function(tree, function, total)
    return Card(
        function=function, index=index, render=128 + index, hwmon=index, vram=vram, idle=140, cap=cap,
        clocks=(132, 2100), load=Load.seeded(index),
    )  # fmt: skip


def _no_bars(count: int) -> tuple[Bar, ...]:
    # The upper half of a 64-bit BAR and a BAR that is not implemented both print as zeros.
    return (Bar(0, 1, 0),) * count


def _add_hive(tree: Tree, cards: list[Card], card: Card, hive: range) -> None:
    # The hive's directory lives with the GPU that came first; the others link to it (amdgpu_xgmi.c).
    home = f"{cards[hive[0]].function.path}/xgmi_hive_info"
    if card.index == hive[0]:
        tree.file(f"{home}/xgmi_hive_id", b"%d\n" % (0x8A5C3D71 + hive[0]))
    else:
        tree.link(f"{card.function.path}/xgmi_hive_info", home)
    tree.link(f"{home}/node{card.index - hive[0] + 1}", card.function.path)


PROFILE = Profile("mi300x8", "8 AMD Instinct MI300X, two NUMA nodes, PCIe switches", amdgpu_host, 8)
