"""Eight AMD Instinct MI300X behind PCIe switches on two NUMA nodes, as Linux 6.12 with amdgpu shows them.

Each GPU hangs on a root port and a switch of its own, `root port - upstream port - downstream port - GPU`, and
all of them are one xGMI hive. Runtime PM is off for these cards: `power/control` says `on`. One process uses
the first GPU. Sources: gpudaemon.mock.amdgpu, gpudaemon.mock.pci, drivers/gpu/drm/amd/amdgpu/amdgpu_xgmi.c.
"""

from gpudaemon.mock.amdgpu import Card, add_instinct, client_fdinfo
from gpudaemon.mock.chassis import CPUS_PER_NODE, add_slot, no_bars, nodes_for
from gpudaemon.mock.machine import Process, add_machine, add_process
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.pci import Bar, Function, add_function
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE", "amdgpu_host"]

_MAXIMUM = 128  # cardN is a minor below 128 up to here, renderD128 comes next


def amdgpu_host(gpus: int = 8, *, vram: int = 206_141_652_992, cap: int = 750) -> Tree:
    """A host with `gpus` MI300X, half of them on each NUMA node; eight to a PCI domain.

    vram: bytes per GPU. cap: watts per GPU. Raises ValueError unless gpus is 1 to 128.
    """
    if not 1 <= gpus <= _MAXIMUM:
        raise ValueError(f"gpus is {gpus}, allowed are 1 to {_MAXIMUM}")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    cards = [_add_gpu(tree, index, gpus, vram=vram, cap=cap) for index in range(gpus)]
    for card in cards:
        # Up to eight GPUs share a hive, one hop apart.
        hive = range(card.index // 8 * 8, min(card.index // 8 * 8 + 8, gpus))
        add_instinct(tree, card, tuple(0 if other == card.index else 1 for other in hive))
        _add_hive(tree, cards, card, hive)
    add_machine(tree, nodes=nodes_for(gpus), cpus_per_node=CPUS_PER_NODE, memory=2**41)
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


def _add_gpu(tree: Tree, index: int, gpus: int, *, vram: int, cap: int) -> Card:
    """GPU `index` in its slot."""
    slot = add_slot(tree, index, gpus)
    fast = ("32.0", 16)
    function = Function(
        path=slot.path,
        vendor=0x1002,
        device=0x74A1,
        subsystem=(0x1002, 0x74A1),
        pci_class=0x120000,
        driver="amdgpu",
        link=fast,
        best=fast,
        node=slot.node,
        cpus=slot.cpus,
        group=slot.group,
        bars=(
            Bar(slot.window, 2**38, 0x14220C),
            *no_bars(1),
            Bar(slot.window + 2**38, 2**21, 0x14220C),
            *no_bars(2),
            Bar(0xD000_0000 + index * 2**20, 2**19, 0x40200),
        ),
    )
    chip = Chip(
        idle=140, cap=cap, peak=1.15 * cap, low=132, high=2100, memory_low=900, memory_high=1300, memory=vram
    )
    gpu = Gpu(chip, index)
    add_function(tree, function, slot.total, gpu)
    return Card(function=function, index=index, render=128 + index, hwmon=index, gpu=gpu)


def _add_hive(tree: Tree, cards: list[Card], card: Card, hive: range) -> None:
    # The hive's directory lives with the GPU that came first; the others link to it (amdgpu_xgmi.c).
    home = f"{cards[hive[0]].function.path}/xgmi_hive_info"
    if card.index == hive[0]:
        tree.file(f"{home}/xgmi_hive_id", b"%d\n" % (0x8A5C3D71 + hive[0]))
    else:
        tree.link(f"{card.function.path}/xgmi_hive_info", home)
    tree.link(f"{home}/node{card.index - hive[0] + 1}", card.function.path)


PROFILE = Profile("mi300x8", "8 AMD Instinct MI300X, two NUMA nodes, PCIe switches", amdgpu_host, 8)
