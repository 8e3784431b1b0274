"""What belongs to GPUDirect and to no device: modules, peer memory clients, buffers. Listed, not opened.

One device for what counts, and one for debugfs' list of buffers, whose reading may wait for a GPU and must hold
up nothing else.
"""

import os
from dataclasses import replace

from gpudaemon.model.device import PROC, Device, DeviceKind

__all__ = ["buffers_device", "gpudirect_device", "with_nvidia_fs"]

_MODULES = ("nvidia_fs", "nvidia_peermem", "nv_peer_mem")
_OF_MODULE = ("version", "initstate")
_CLIENTS = "kernel/mm/memory_peers"
_OF_CLIENT = ("num_reg_bytes", "num_dereg_bytes")
_MOST_CLIENTS = 16
_NVIDIA_FS = "driver/nvidia-fs"
_OF_NVIDIA_FS = ("stats", "peer_distance")
_DEBUG = "kernel/debug"


def gpudirect_device(sysfs: str) -> Device | None:
    """What the modules show; None where none of them is loaded."""
    names = {f"module/{module}/{file}" for module in _MODULES for file in _OF_MODULE}
    try:
        clients = sorted(os.listdir(os.path.join(sysfs, _CLIENTS)))[:_MOST_CLIENTS]
    except OSError:
        clients = []
    names |= {f"{_CLIENTS}/{client}/{file}" for client in clients for file in _OF_CLIENT}
    there = frozenset(name for name in names if os.path.isfile(os.path.join(sysfs, name)))
    if not there:
        return None
    return Device(id="gpudirect", kind=DeviceKind.GPUDIRECT, path=".", names=there)


def buffers_device(sysfs: str) -> Device | None:
    """The list of shared buffers; None where there is no debugfs. Whether it holds one only root can see."""
    if not os.path.isdir(os.path.join(sysfs, _DEBUG)):
        return None
    names = frozenset({"bufinfo"})
    return Device(id="dma-buf", kind=DeviceKind.DMA_BUF, path=f"{_DEBUG}/dma_buf", names=names)


def with_nvidia_fs(procfs: str, device: Device) -> Device:
    """The device with what nvidia-fs shows in procfs."""
    if device.kind is not DeviceKind.GPUDIRECT:
        return device
    there = {
        f"{PROC}{_NVIDIA_FS}/{name}"
        for name in _OF_NVIDIA_FS
        if os.path.exists(os.path.join(procfs, _NVIDIA_FS, name))
    }
    return replace(device, names=device.names | there)
