"""A host with NVIDIA GPUs: their PCI functions as files, and the stand-in for the library behind them."""

import json
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from gpudaemon.mock.machine import node_cpus
from gpudaemon.mock.pci import Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.tree import Tree, write

__all__ = ["NvidiaHost"]

_STANDIN = str(Path(__file__).resolve().parents[1] / "standin_nvml")

_INFORMATION = (
    "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 42\n"
    "GPU UUID: \t GPU-00000000-0000-0000-0000-0000000000{gpu:02x}\nVideo BIOS: \t ??.??.??.??.??\n"
    "Bus Type: \t PCIe\nDMA Size: \t 52 bits\nDevice Minor: \t {gpu}\nGPU Firmware: \t 570.86.15\n"
    "GPU Excluded:\t No\n"
)
"""As nv-procfs.c prints it before the GPU was first used: the VBIOS is not known."""
_VERSION = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)


class NvidiaHost:
    """Context manager. gpus: how many. values: of the stand-in, by GPU. autosuspend: as in `mock.pci.Function`.

    environment: to be added to a daemon's, so that its processes of calls find the stand-in.
    """

    def __init__(
        self, gpus: int, values: dict[int, dict[str, Any]] | None = None, autosuspend: int | None = None
    ):
        self._directory = tempfile.TemporaryDirectory(prefix="gpudaemon-nvidia-")
        self.root = self._directory.name
        self.sysfs = f"{self.root}/sys"
        self.procfs = f"{self.root}/proc"
        self.addresses = [f"0000:{16 * (gpu + 1):02x}:00.0" for gpu in range(gpus)]
        tree = Tree()
        for gpu, address in enumerate(self.addresses):
            bridge = f"pci0000:{16 * (gpu + 1):02x}"
            add_host_bridge(tree, bridge)
            function = Function(
                path=devices_path(bridge, address), vendor=0x10DE, device=0x2330, subsystem=(0x10DE, 0x16C1),
                pci_class=0x030200, driver="nvidia", link=("32.0", 16), best=("32.0", 16), node=0,
                cpus=node_cpus(0, 2), autosuspend=autosuspend,
            )  # fmt: skip
            add_function(tree, function, 2)
            tree.file(f"proc/driver/nvidia/gpus/{address}/information", _INFORMATION.format(gpu=gpu))
        tree.file("proc/driver/nvidia/version", _VERSION)
        write(tree, self.root)
        self._state = f"{self.root}/nvml.json"
        self._values = {address: (values or {}).get(gpu, {}) for gpu, address in enumerate(self.addresses)}
        self.fault()
        self.environment = {"PYTHONPATH": _STANDIN, "GPUDAEMON_STANDIN_NVML": self._state}

    def __enter__(self) -> "NvidiaHost":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def fault(self, *faults: dict[str, Any]) -> None:
        """Have the library misbehave so from now on; without any, behave."""
        with open(f"{self._state}.new", "w", encoding="ascii") as file:
            json.dump({"gpus": self._values, "faults": faults}, file)
        os.replace(f"{self._state}.new", self._state)

    def become(self, gpu: int, values: dict[str, Any]) -> None:
        """Have a GPU say other values from now on."""
        self._values[self.addresses[gpu]] = values
        self.fault()

    def power_state(self, gpu: int, state: str) -> None:
        """What `power/runtime_status` of a GPU says from now on."""
        path = Path(f"{self.sysfs}/bus/pci/devices/{self.addresses[gpu]}/power/runtime_status")
        path.chmod(0o644)
        path.write_text(f"{state}\n")

    def calls(self) -> list[str]:
        """Each call so far: `function address`."""
        path = Path(f"{self._state}.log")
        return path.read_text().splitlines() if path.exists() else []
