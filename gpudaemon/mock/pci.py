"""PCI functions as the PCI, PM and IOMMU cores show them: bridges, switches and endpoints.

Formats: drivers/pci/pci-sysfs.c, drivers/pci/pcie/aer.c, drivers/base/power/sysfs.c, drivers/iommu/iommu.c,
as of Linux 6.12; Documentation/ABI/testing/sysfs-bus-pci and sysfs-devices-power.
"""

import errno
from dataclasses import dataclass

from gpudaemon.mock.model import Gpu
from gpudaemon.mock.show import integer
from gpudaemon.mock.tree import Generate, Tree

__all__ = [
    "BRIDGE_CLASS",
    "Bar",
    "Function",
    "add_class_device",
    "add_function",
    "add_host_bridge",
    "add_plain_power",
    "devices_path",
]

BRIDGE_CLASS = 0x060400

_CORRECTABLE = ("RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr", "CorrIntErr", "HeaderOF")
_UNCORRECTABLE = (
    *("Undefined", "DLP", "SDES", "TLP", "FCP", "CmpltTO", "CmpltAbrt", "UnxCmplt", "RxOF", "MalfTLP"),
    *("ECRC", "UnsupReq", "ACSViol", "UncorrIntErr", "BlockedTLP", "AtomicOpBlocked", "TLPBlockedErr"),
    "PoisonTLPBlocked",
)

_SEEN = {"correctable": "BadTLP", "nonfatal": "CmpltTO", "fatal": "DLP"}
"""As what a model's errors are counted: a packet with a bad checksum, a request nobody answers, a lost link."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of `resource`: first and last address, IORESOURCE_* flags (include/linux/ioport.h)."""

    start: int
    size: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A PCI function and what its core attributes say.

    path: below sys/, `devices/pci0000:00/0000:00:01.1/…`.
    vendor, device, subsystem, pci_class: ids; `subsystem` is (vendor, device), (0, 0) for bridges.
    link: (GT/s, lanes) now, best: the same at most.
    node: NUMA node, -1 where the firmware does not say; cpus: CPUs of that node, first and last.
        None for both where it is no PCI Express function.
    group: IOMMU group, None without an IOMMU.
    autosuspend: milliseconds of idleness after which runtime PM puts it to sleep; None where the driver keeps
        it awake (`control` says `on` and autosuspend_delay_ms fails with EIO).
    asleep: runtime PM has put it to sleep, and it stays so until somebody uses it.
    root: a root port, which also counts the errors reported to it. aer: has the AER capability. A link of 0
    lanes prints as one that is not known.
    """

    path: str
    vendor: int
    device: int
    subsystem: tuple[int, int] = (0, 0)
    pci_class: int
    revision: int = 0
    driver: str
    link: tuple[str, int] | None
    best: tuple[str, int] | None
    node: int
    cpus: tuple[int, int]
    group: int | None = None
    autosuspend: int | None = None
    asleep: bool = False
    bars: tuple[Bar, ...] = ()
    root: bool = False
    aer: bool = True

    @property
    def address(self) -> str:
        """The PCI address, the last part of the path."""
        return self.path.rsplit("/", 1)[1]


def devices_path(*parts: str) -> str:
    """Path of a device below sys/devices, from the host bridge down."""
    return "/".join(("sys", "devices", *parts))


def _cpumap(first: int, last: int, total: int) -> str:
    """Hexadecimal words of 32 CPUs, highest first (lib/bitmap-str.c, `%*pb`)."""
    mask = ((1 << (last + 1)) - 1) & ~((1 << first) - 1)
    words = []
    for start in range((total - 1) // 32 * 32, -1, -32):
        width = (min(32, total - start) + 3) // 4
        words.append(f"{mask >> start & 0xFFFFFFFF:0{width}x}")
    return ",".join(words)


def add_host_bridge(tree: Tree, name: str) -> None:
    """A host bridge `pciDDDD:BB` (drivers/pci/probe.c, pci_register_host_bridge)."""
    path = devices_path(name)
    tree.file(f"{path}/uevent", b"", mode=0o644)
    add_plain_power(tree, path)


def add_plain_power(tree: Tree, path: str) -> None:
    """The power directory of a device without runtime PM: class devices, hwmon, host bridges."""
    tree.text(f"{path}/power", runtime_status="unsupported", runtime_active_time=0, runtime_suspended_time=0)
    tree.file(f"{path}/power/control", b"auto\n", mode=0o644)
    tree.file(f"{path}/power/autosuspend_delay_ms", mode=0o644, error=errno.EIO)


def add_class_device(
    tree: Tree,
    path: str,
    class_name: str,
    numbers: tuple[int, int] | None,
    uevent: str,
    *,
    parent: str = "",
) -> None:
    """A device of a class: its directory, `device` and `subsystem` links and the class link to it.

    path: two levels below its parent (`…/drm/card0`, `…/hwmon/hwmon3`), or with `parent` wherever it is: a
    device of a class has its children without such a level between (drivers/base/core.c, get_device_parent).
    numbers: major and minor of the node, None where there is none. uevent: lines after MAJOR and MINOR.
    """
    name = path.rsplit("/", 1)[1]
    parent = parent or path.rsplit("/", 2)[0]
    if numbers is not None:
        major, minor = numbers
        tree.file(f"{path}/dev", f"{major}:{minor}\n")
        uevent = f"MAJOR={major}\nMINOR={minor}\n{uevent}"
        tree.link(f"sys/dev/char/{major}:{minor}", path)
    tree.file(f"{path}/uevent", uevent, mode=0o644)
    tree.link(f"{path}/device", parent)
    tree.link(f"{path}/subsystem", f"sys/class/{class_name}")
    tree.link(f"sys/class/{class_name}/{name}", path)
    add_plain_power(tree, path)


def add_function(tree: Tree, function: Function, total_cpus: int, gpu: Gpu | None = None) -> None:
    """Add a function with everything the PCI, PM, AER and IOMMU cores show of it.

    gpu: whose errors its AER counters count, and the model of this tree at that address; None for no GPU.
    """
    if gpu is not None:
        tree.gpus[function.address] = gpu
    path = function.path
    vendor, device = function.subsystem
    pci_class = function.pci_class
    first, last = function.cpus if function.node >= 0 else (0, total_cpus - 1)
    tree.text(
        path,
        vendor=f"0x{function.vendor:04x}",
        device=f"0x{function.device:04x}",
        subsystem_vendor=f"0x{vendor:04x}",
        subsystem_device=f"0x{device:04x}",
        revision=f"0x{function.revision:02x}",
        local_cpus=_cpumap(first, last, total_cpus),
        local_cpulist=f"{first}-{last}",
        power_state="D3cold" if function.asleep else "D0",
        irq=64 + sum(map(ord, function.address)) % 128,
        ari_enabled=0,
        dma_mask_bits=48,
        consistent_dma_mask_bits=48,
    )
    tree.file(f"{path}/class", f"0x{pci_class:06x}\n")
    tree.text(
        path, 0o644, numa_node=function.node, enable=1, d3cold_allowed=1, msi_bus=1, broken_parity_status=0
    )
    _add_identity(tree, function)
    _add_resources(tree, function)
    _add_power(tree, function)
    _add_express(tree, function, gpu)
    tree.link(f"{path}/subsystem", "sys/bus/pci")
    tree.link(f"{path}/driver", f"sys/bus/pci/drivers/{function.driver}")
    tree.link(f"sys/bus/pci/devices/{function.address}", path)
    tree.link(f"sys/bus/pci/drivers/{function.driver}/{function.address}", path)
    if function.group is not None:
        group = f"sys/kernel/iommu_groups/{function.group}"
        tree.link(f"{path}/iommu_group", group)
        tree.link(f"{group}/devices/{function.address}", path)
        tree.file(f"{group}/type", b"DMA-FQ\n", mode=0o644)
        tree.file(f"{group}/reserved_regions", b"0x00000000fee00000 0x00000000feefffff msi\n")


def _add_identity(tree: Tree, function: Function) -> None:
    vendor, device = function.subsystem
    pci_class = function.pci_class
    modalias = (
        f"pci:v{function.vendor:08X}d{function.device:08X}sv{vendor:08X}sd{device:08X}"
        f"bc{pci_class >> 16:02X}sc{pci_class >> 8 & 0xFF:02X}i{pci_class & 0xFF:02X}"
    )
    tree.file(f"{function.path}/modalias", f"{modalias}\n")
    tree.file(
        f"{function.path}/uevent",
        f"DRIVER={function.driver}\nPCI_CLASS={pci_class:04X}\nPCI_ID={function.vendor:04X}:{function.device:04X}\n"
        f"PCI_SUBSYS_ID={vendor:04X}:{device:04X}\nPCI_SLOT_NAME={function.address}\nMODALIAS={modalias}\n",
        mode=0o644,
    )


def _add_resources(tree: Tree, function: Function) -> None:
    # A function without a bus below shows 6 BARs and the ROM; a bridge also its windows and the SR-IOV BARs
    # (pci-sysfs.c, resource_show).
    bridge = function.pci_class == BRIDGE_CLASS
    lines = [
        f"0x{bar.start:016x} 0x{bar.start + bar.size - 1:016x} 0x{bar.flags:016x}\n" for bar in function.bars
    ]
    nothing = f"0x{0:016x} 0x{0:016x} 0x{0:016x}\n"
    lines += [nothing] * ((17 if bridge else 7) - len(lines))
    tree.file(f"{function.path}/resource", "".join(lines))
    for index, bar in enumerate(function.bars):
        if bar.flags & 0x200 and not bridge:
            tree.file(f"{function.path}/resource{index}", mode=0o600, error=errno.EIO)
    if not bridge:
        # Fails until someone writes 1 to it (pci-sysfs.c, pci_read_rom).
        tree.file(f"{function.path}/rom", mode=0o600, error=errno.EINVAL)


def _add_power(tree: Tree, function: Function) -> None:
    power = f"{function.path}/power"
    tree.text(power, runtime_status="suspended" if function.asleep else "active")
    # A minute awake before the host started, for the driver's probe; then one of the two goes on.
    counting, standing = ("suspended", "active") if function.asleep else ("active", "suspended")
    began = 0 if function.asleep else 60_000
    tree.file(f"{power}/runtime_{standing}_time", f"{60_000 - began}\n")
    tree.file(f"{power}/runtime_{counting}_time", generate=integer(lambda seconds: began + seconds * 1000))
    delay = function.autosuspend
    tree.file(f"{power}/control", b"on\n" if delay is None else b"auto\n", mode=0o644)
    if delay is None:
        tree.file(f"{power}/autosuspend_delay_ms", mode=0o644, error=errno.EIO)
    else:
        tree.file(f"{power}/autosuspend_delay_ms", b"%d\n" % delay, mode=0o644)


def _add_express(tree: Tree, function: Function, gpu: Gpu | None) -> None:
    """Link and errors of a PCI Express function."""
    if function.link is None or function.best is None:
        return
    for prefix, (speed, width) in (("current", function.link), ("max", function.best)):
        shown = f"{speed} GT/s PCIe" if width else "Unknown"  # drivers/pci/probe.c, pci_speed_string
        tree.text(function.path, **{f"{prefix}_link_speed": shown, f"{prefix}_link_width": width})
    if not function.aer:
        return
    for severity, names, total in (
        ("correctable", _CORRECTABLE, "TOTAL_ERR_COR"),
        ("nonfatal", _UNCORRECTABLE, "TOTAL_ERR_NONFATAL"),
        ("fatal", _UNCORRECTABLE, "TOTAL_ERR_FATAL"),
    ):
        path = f"{function.path}/aer_dev_{severity}"
        if gpu is None:
            tree.file(path, "".join([*(f"{name} 0\n" for name in names), f"{total} 0\n"]))
        else:
            tree.file(path, generate=_counted(gpu, severity, names, total))
    if function.root:
        tree.text(
            function.path,
            aer_rootport_total_err_cor=0,
            aer_rootport_total_err_fatal=0,
            aer_rootport_total_err_nonfatal=0,
        )


def _counted(gpu: Gpu, severity: str, names: tuple[str, ...], total: str) -> Generate:
    """Counters of errors that follow the model (drivers/pci/pcie/aer.c, aer_stats_dev_attr)."""

    def content(seconds: float) -> bytes:
        state = gpu.at(seconds)
        counts = {
            "correctable": state.aer_corrected,
            "nonfatal": state.aer_nonfatal,
            "fatal": state.aer_fatal,
        }
        count = counts[severity]
        lines = [f"{name} {count if name == _SEEN[severity] else 0}\n" for name in names]
        return "".join([*lines, f"{total} {count}\n"]).encode()

    return content
