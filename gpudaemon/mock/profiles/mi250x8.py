"""Four AMD Instinct MI250X modules, eight GPUs to the kernel, one xGMI hive, on two NUMA nodes (Linux 6.12).

Each die of a module is a PCI device of its own; the module's power is the first die's. Sources:
gpudaemon.mock.amdgpu_mi200, gpudaemon.mock.chassis.
"""

from gpudaemon.mock.amdgpu import Card, client_fdinfo
from gpudaemon.mock.amdgpu_mi200 import add_mi250x
from gpudaemon.mock.chassis import CPUS_PER_NODE, add_slot, no_bars, nodes_for
from gpudaemon.mock.machine import Process, add_machine, add_process
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.pci import Bar, Function, add_function
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

# Of one die: the module takes 560 W.
_DIE = Chip(
    idle=90, cap=560, peak=640, low=500, high=1700, memory_low=400, memory_high=1600, memory=68_702_699_520,
    hot=86, limit=100, link=28e9, fabric=40e9,
)  # fmt: skip


def _host(gpus: int) -> Tree:
    if gpus not in (2, 4, 8, 16):
        raise ValueError(f"gpus is {gpus}, allowed are 2, 4, 8 and 16: two for each module")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    cards = [_add_gpu(tree, index, gpus) for index in range(gpus)]
    for card in cards:
        # The other die of a module is one hop away, and so is each neighbour.
        hive = range(card.index // 8 * 8, min(card.index // 8 * 8 + 8, gpus))
        hops = tuple(0 if other == card.index else 1 for other in hive)
        add_mi250x(tree, card, hops, primary=card.index % 2 == 0)
        home = f"{cards[hive[0]].function.path}/xgmi_hive_info"
        if card.index == hive[0]:
            tree.file(f"{home}/xgmi_hive_id", b"%d\n" % (0x5B4E2C11 + hive[0]))
        else:
            tree.link(f"{card.function.path}/xgmi_hive_info", home)
        tree.link(f"{home}/node{card.index - hive[0] + 1}", card.function.path)
    add_machine(tree, nodes=nodes_for(gpus), cpus_per_node=CPUS_PER_NODE, memory=2**39)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    job = "/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0"
    descriptors = {3: "/dev/dri/renderD128", 4: "/dev/kfd"}
    add_process(tree, Process(5120, "lmp", job, descriptors, {3: client_fdinfo(cards[0], 9, 0.9)}))
    return tree


def _add_gpu(tree: Tree, index: int, gpus: int) -> Card:
    link = ("16.0", 16)
    slot = add_slot(tree, index, gpus, link)
    function = Function(
        path=slot.path, vendor=0x1002, device=0x7408, subsystem=(0x1002, 0x0B0C), pci_class=0x038000,
        revision=1, driver="amdgpu", link=link, best=link, node=slot.node, cpus=slot.cpus, group=slot.group,
        bars=(
            Bar(slot.window, 2**36, 0x14220C), *no_bars(1), Bar(slot.window + 2**36, 2**21, 0x14220C),
            *no_bars(2), Bar(0xD000_0000 + index * 2**20, 2**19, 0x40200),
        ),
    )  # fmt: skip
    gpu = Gpu(_DIE, 250 + index)
    add_function(tree, function, slot.total, gpu)
    return Card(function=function, index=index, render=128 + index, hwmon=index, gpu=gpu)


PROFILE = Profile("mi250x8", "4 AMD Instinct MI250X, 8 GPUs of 64 GiB, second dies without power", _host, 8)
