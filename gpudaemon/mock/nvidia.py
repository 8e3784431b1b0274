"""What NVIDIA's own kernel modules show of a GPU without their library: files below /proc/driver/nvidia.

Formats: kernel-open/nvidia/nv-procfs.c of NVIDIA/open-gpu-kernel-modules. No hwmon, no load, no temperature and
no power is there; with modeset=0 no DRM node either. Reading `information` of a GPU that runtime D3 has put to
sleep wakes it, so these files count as accesses.
"""

from gpudaemon.mock.pci import Function
from gpudaemon.mock.tree import Tree

__all__ = ["add_driver", "add_gpu"]

_VERSION = "570.172.08"
_PARAMETERS = {
    "ResmanDebugLevel": 4294967295,
    "RmLogonRC": 1,
    "ModifyDeviceFiles": 1,
    "DeviceFileUID": 0,
    "DeviceFileGID": 0,
    "DeviceFileMode": 438,
    "UsePageAttributeTable": 4294967295,
    "EnableMSI": 1,
    "PreserveVideoMemoryAllocations": 0,
    "DynamicPowerManagement": 3,
    "EnableResizableBar": 0,
}


def add_driver(tree: Tree) -> None:
    """What is there once."""
    base = "proc/driver/nvidia"
    module = f"NVIDIA UNIX Open Kernel Module for x86_64  {_VERSION}  Release Build"
    builder = "(dvs-builder@U22-I3-AE18-23-3)  Tue Jul  8 18:18:41 UTC 2025"
    compiler = "gcc version 14.2.0 (Debian 14.2.0-19) "
    tree.file(f"{base}/version", f"NVRM version: {module}  {builder}\nGCC version:  {compiler}\n")
    lines = "".join(f"{name}: {value}\n" for name, value in _PARAMETERS.items())
    tree.file(f"{base}/params", f'{lines}RegistryDwords: ""\nRegistryDwordsPerDevice: ""\nRmMsg: ""\n')
    tree.file("sys/module/nvidia/version", f"{_VERSION}\n")
    tree.file("sys/module/nvidia_uvm/parameters/uvm_disable_hmm", b"N\n")


def add_gpu(tree: Tree, function: Function, *, index: int, model: str, uuid: str) -> None:
    """Files of the GPU whose device node is /dev/nvidia<index>."""
    base = f"proc/driver/nvidia/gpus/{function.address}"
    facts = {
        "Model": f"\t\t {model}",
        "IRQ": f"  \t\t {120 + index}",
        "GPU UUID": f"\t {uuid}",
        "Video BIOS": "\t 96.00.74.00.01",
        "Bus Type": "\t PCIe",
        "DMA Size": "\t 52 bits",
        "DMA Mask": "\t 0xfffffffffffff",
        "Bus Location": f"\t {function.address}",
        "Device Minor": f"\t {index}",
        "GPU Firmware": f"\t {_VERSION}",
        "GPU Excluded": "\t No",
    }
    tree.file(f"{base}/information", "".join(f"{name}: {value}\n" for name, value in facts.items()))
    tree.file(
        f"{base}/power",
        "Runtime D3 status:          Disabled by default\n"
        "Video Memory:               Active\n\n"
        "GPU Hardware Support:\n"
        " Video Memory Self Refresh: Not Supported\n"
        " Video Memory Off:          Not Supported\n\n"
        "S0ix Power Management:\n"
        " Platform Support:          Not Supported\n"
        " Status:                    Disabled\n\n"
        "Notebook Dynamic Boost:     Not Supported\n",
    )
    tree.file(f"{base}/registry", b'Binary: ""\n', mode=0o644)
    tree.reaches[base] = function.address
