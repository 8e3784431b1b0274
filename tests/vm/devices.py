"""What a guest is made of: named sets of emulated devices, as QEMU's arguments.

A set is a list of parts; a part is a function that returns arguments. To add a device: write its arguments into
a part, or a part of its own, and name it in `SETS`. Ids (`id=`) are what QMP calls a device; tests that plug
and unplug use those of the free ports: `hotplug0` and `hotplug1` (PCI Express), `cxl_free0` and `cxl_free1`
(CXL).

Two things are not obvious. CXL regions need the CPUID bit `hypervisor` off: with it the kernel has no way to
flush processor caches and region commit fails with ENXIO (drivers/cxl/core/region.c,
cxl_region_invalidate_memregion). A root port needs `mem-reserve` for a device with a BAR to be plugged in
later.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SETS", "Machine", "arguments"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Of which the arguments are made. folder: for images. processors; memory: in MiB."""

    folder: Path
    processors: int = 2
    memory: int = 2048

    def image(self, name: str, mebibytes: int = 64) -> Path:
        """A file full of zeros for a drive."""
        path = self.folder / f"{name}.img"
        with open(path, "wb") as file:
            file.truncate(mebibytes << 20)
        return path


def _device(text: str) -> list[str]:
    return ["-device", text]


def _memory(name: str, mebibytes: int) -> list[str]:
    return ["-object", f"memory-backend-ram,id={name},share=on,size={mebibytes}M"]


def _iommu(_: Machine) -> list[str]:
    return _device("intel-iommu,intremap=on")


def _numa(machine: Machine) -> list[str]:
    """SRAT and HMAT; node 1 is the generic port of the first CXL host bridge; CXL memory becomes node 2."""
    last = machine.processors - 1
    words = ["-object", f"memory-backend-ram,id=ram0,size={machine.memory}M"]
    words += ["-numa", f"node,nodeid=0,memdev=ram0,cpus=0-{last}", "-numa", "node,nodeid=1"]
    for target, latency, bandwidth in ((0, 10, 10), (1, 100, 5)):
        common = f"hmat-lb,initiator=0,target={target},hierarchy=memory"
        words += ["-numa", f"{common},data-type=access-latency,latency={latency}"]
        words += ["-numa", f"{common},data-type=access-bandwidth,bandwidth={bandwidth}G"]
    return words


def _cxl(machine: Machine) -> list[str]:
    """Host bridge 1: a volatile and a persistent device, a switch with both, a free port; 2: one device."""
    words = _numa(machine)
    words += [*_memory("cxl_ram0", 256), *_memory("cxl_ram1", 256), *_memory("cxl_ram2", 256)]
    words += [*_memory("cxl_pm0", 256), *_memory("cxl_pm1", 256)]
    words += [*_memory("cxl_lsa0", 1), *_memory("cxl_lsa1", 1)]
    for text in (
        "pxb-cxl,bus_nr=32,bus=pcie.0,id=cxl.1",
        "pxb-cxl,bus_nr=64,bus=pcie.0,id=cxl.2",
        "cxl-rp,port=0,bus=cxl.1,id=cxl_rp0,chassis=10,slot=2",
        "cxl-rp,port=1,bus=cxl.1,id=cxl_rp1,chassis=10,slot=3",
        "cxl-rp,port=2,bus=cxl.1,id=cxl_rp2,chassis=10,slot=4",
        "cxl-rp,port=3,bus=cxl.1,id=cxl_free0,chassis=10,slot=7",
        "cxl-rp,port=0,bus=cxl.2,id=cxl_rp4,chassis=10,slot=8",
        "cxl-rp,port=1,bus=cxl.2,id=cxl_free1,chassis=10,slot=9",
        "cxl-type3,bus=cxl_rp0,volatile-memdev=cxl_ram0,id=cxl_volatile0,sn=0x1001",
        "cxl-type3,bus=cxl_rp1,persistent-memdev=cxl_pm0,lsa=cxl_lsa0,id=cxl_persistent0,sn=0x1002",
        "cxl-upstream,bus=cxl_rp2,id=cxl_switch",
        "cxl-downstream,port=0,bus=cxl_switch,id=cxl_down0,chassis=11,slot=5",
        "cxl-downstream,port=1,bus=cxl_switch,id=cxl_down1,chassis=11,slot=6",
        "cxl-type3,bus=cxl_down0,volatile-memdev=cxl_ram1,id=cxl_volatile1,sn=0x1003",
        "cxl-type3,bus=cxl_down1,persistent-memdev=cxl_pm1,lsa=cxl_lsa1,id=cxl_persistent1,sn=0x1004",
        "cxl-type3,bus=cxl_rp4,volatile-memdev=cxl_ram2,id=cxl_volatile2,sn=0x1005",
    ):
        words += _device(text)
    words += ["-object", "acpi-generic-port,id=generic0,pci-bus=cxl.1,node=1"]
    return words


def _ports(_: Machine) -> list[str]:
    """Free PCI Express ports, for what is plugged in while the guest runs."""
    words = []
    for number in range(2):
        words += _device(
            f"pcie-root-port,id=hotplug{number},bus=pcie.0,chassis=1,slot={30 + number},mem-reserve=64M"
        )
    return words


def _nvme(machine: Machine) -> list[str]:
    """An NVMe with a controller memory buffer (p2pmem), one without; `spare` is a drive for a third."""
    words = []
    for number, (name, more) in enumerate((("cmb", ",cmb_size_mb=64"), ("plain", ""))):
        words += _device(f"pcie-root-port,id=nvme_rp{number},bus=pcie.0,chassis=1,slot={20 + number}")
        words += ["-drive", f"file={machine.image(name)},if=none,id=drive_{name},format=raw"]
        words += _device(f"nvme,drive=drive_{name},serial={name},bus=nvme_rp{number},id=nvme_{name}{more}")
    return [*words, "-drive", f"file={machine.image('spare')},if=none,id=spare,format=raw"]


def _drm(_: Machine) -> list[str]:
    """Two display adapters with drivers in the kernel; a bochs-display can be unplugged, a virtio-gpu not."""
    words = _device("pcie-root-port,id=gpu_rp0,bus=pcie.0,chassis=1,slot=22")
    return [
        *words,
        *_device("virtio-gpu-pci,id=virtio_gpu,bus=gpu_rp0"),
        *_device("bochs-display,id=bochs,bus=pcie.0"),
    ]


def _test_gpu(_: Machine) -> list[str]:
    """Functions with a BAR of 16 MiB for the test GPU driver: one by itself, two below a switch."""
    words = _device("pci-testdev,membar=16M,id=testgpu0,bus=pcie.0")
    words += _device("pcie-root-port,id=switch_rp,bus=pcie.0,chassis=1,slot=24")
    words += _device("x3130-upstream,id=switch_up,bus=switch_rp")
    for number in range(2):
        words += _device(f"xio3130-downstream,id=switch{number},bus=switch_up,chassis=2,slot={number + 1}")
        words += _device(f"pci-testdev,membar=16M,id=testgpu{number + 1},bus=switch{number}")
    return words


def _peers(machine: Machine) -> list[str]:
    """Drives that may reach each other: two below the switch of `_test_gpu`, two functions of one root port.

    One of each two has a controller memory buffer. Of QEMU's ports only root ports have ACS.
    """
    words = _device("pcie-root-port,id=pair_rp,bus=pcie.0,chassis=1,slot=25")
    for number, more in enumerate((",cmb_size_mb=16", "")):
        for name, bus in (
            ("switch", f"peer_down{number}"),
            ("pair", f"pair_rp,addr=0.{number},multifunction=on"),
        ):
            if name == "switch":
                port = f"xio3130-downstream,id={bus},bus=switch_up,chassis=2,slot={number + 3}"
                words += _device(port)
            drive = f"{name}{number}"
            words += ["-drive", f"file={machine.image(drive, 16)},if=none,id=drive_{drive},format=raw"]
            words += _device(f"nvme,drive=drive_{drive},serial={drive},bus={bus}{more}")
    return words


def _network(_: Machine) -> list[str]:
    """A virtio network card that leads nowhere, for soft-RoCE."""
    words = ["-netdev", "user,id=net0,restrict=on"]
    return [*words, *_device("virtio-net-pci,netdev=net0,id=nic0,bus=pcie.0,romfile=")]


_EVERYTHING = (_cxl, _ports, _nvme, _drm, _test_gpu, _network)

SETS: dict[str, tuple[Callable[[Machine], list[str]], ...]] = {
    "all": (_iommu, *_EVERYTHING),
    "iommu": (_iommu, _nvme, _test_gpu, _peers),
    "no-iommu": (*_EVERYTHING, _peers),
    "minimal": (_ports, _test_gpu),
}
"""What a test can ask for by `@pytest.mark.guest(devices=...)`."""


def arguments(name: str, machine: Machine) -> list[str]:
    """QEMU's arguments for a set, the machine's included."""
    parts = SETS[name]
    board = "q35"
    if _cxl in parts:
        windows = [
            f"cxl-fmw.{number}.targets.0=cxl.{number + 1},cxl-fmw.{number}.size=4G" for number in range(2)
        ]
        board = ",".join(["q35,cxl=on,hmat=on", *windows])
    words = ["-M", board, "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,hypervisor=off"]
    words += ["-smp", str(machine.processors), "-m", f"{machine.memory}M,slots=8,maxmem=32G"]
    for part in parts:
        words += part(machine)
    return words
