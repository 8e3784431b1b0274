"""A device of this host as sysfs shows it: addresses, names and links, no file content."""

import enum
import re
from dataclasses import dataclass

__all__ = ["PROC", "Device", "DeviceKind", "is_pci_address"]

PROC = "proc:"
"""Before names of files in procfs."""
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]")


def is_pci_address(name: str) -> bool:
    """True for `dddd:bb:dd.f`, the kernel's pci_name() (drivers/pci/probe.c); domains may exceed 16 bit."""
    return _PCI_ADDRESS.fullmatch(name) is not None


class DeviceKind(enum.Enum):
    """What a device is to us; decides which collectors look at it."""

    GPU = "gpu"
    """has a DRM card or accel node, or is a PCI display or processing accelerator without a driver"""
    PARTITION = "partition"
    """a further DRM node of a GPU already counted (amdgpu_xcp_N): never one more GPU"""
    VIRTUAL_FUNCTION = "virtual function"
    """an SR-IOV function of a GPU of this host: never one more GPU; a guest that was given it has a GPU"""
    PCI = "pci"
    """a PCI bridge above one of the others"""
    NIC = "nic"
    """has RDMA devices, on PCI or in software"""
    NVME = "nvme"
    """an NVMe controller"""
    CXL = "cxl"
    """the PCI function of a CXL memory device"""
    KFD = "kfd"
    """KFD, amdgpu's compute driver: one for all GPUs, with the topology it sees"""
    CXL_BUS = "cxl bus"
    """the CXL bus of the host: its ports, decoders, regions and memdevs together"""
    MEMORY_TIERS = "memory tiers"
    """the host's NUMA nodes and memory tiers together"""
    GPUDIRECT = "gpudirect"
    """what lets NICs and drives reach the memory of GPUs: modules and peer memory clients, one for the host"""
    DMA_BUF = "dma-buf"
    """the kernel's list of buffers that drivers share"""
    MEMORY = "memory"
    """the host's memory: its NUMA nodes together"""
    HWMON = "hwmon"
    """any other device that has a hwmon chip"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device and the names below its directory.

    id: the join key: the PCI address, else the basename of the sysfs directory.
    path: sysfs directory, relative to the sysfs root, links resolved (`devices/pci0000:00/…/0000:03:00.0`).
    subsystem, driver: basenames of the links; empty where there is none (driver: unbound).
    nodes: DRM and accel nodes (`card0`, `renderD128`, `accel0`), sorted.
    names: files below `path`, relative to it, deny-list applied, symbolic links not followed
        (`gpu_busy_percent`, `hwmon/hwmon3/temp1_input`, `power/runtime_status`). `PROC` stands before what a
        driver shows of it in procfs (`proc:driver/nvidia/gpus/0000:3b:00.0/information`).
    links: symbolic links directly below `path`, name -> basename of the target (`iommu_group` -> `12`);
        `xgmi_hive_info` -> the device whose directory the target is.
    parents: ids of the PCI functions above, nearest first.
    pci_class: the class code as an int (0x030000), None where not PCI or not known.
    """

    id: str
    kind: DeviceKind
    path: str
    subsystem: str = ""
    driver: str = ""
    nodes: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    links: tuple[tuple[str, str], ...] = ()
    parents: tuple[str, ...] = ()
    pci_class: int | None = None

    def link(self, name: str) -> str:
        """Basename of the link `name`'s target, empty where there is none."""
        return dict(self.links).get(name, "")
