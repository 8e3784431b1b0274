"""Records a guest as a capture of the project: what the daemon reads of it, and the page it makes of that.

    python -m tests.vm.record KERNEL...          # writes tests/captures/vm-KERNEL/

The guest has every device of the set `all`, their drivers, a CXL memory region, soft-RoCE, and the test GPU
where it can be built. Identifiers are replaced by the capture itself (docs/capture.md).
"""

import sys
from pathlib import Path

from tests.captures_replay import page_of_capture
from tests.vm.build import why_not
from tests.vm.guest import Guest
from tests.vm.store import KERNELS, ROOT, Store
from tests.vm.testgpu import load

_MODULES = ("nvme", "bochs", "virtio_gpu", "vgem", "cxl_acpi", "cxl_pci", "cxl_port", "cxl_mem", "cxl_pmem")
_ETHERNET = "eth0"
_CAPTURE = "capture.tar.gz"


def furnish(guest: Guest, *, test_gpu: bool) -> None:
    """Load what drives the guest's devices, make a memory region, a RoCE device; the test GPU at rest."""
    guest.modprobe(*_MODULES, "virtio_net", "rdma_rxe")
    guest.until(lambda: len(guest.glob("/sys/bus/cxl/devices/endpoint*")) == 5, 60.0, "for five CXL endpoints")
    volatile = guest.shell("grep -l 0x1001 /sys/bus/cxl/devices/mem*/serial").split("/")[-2]
    guest.run("cxl", "create-region", "-m", "-t", "ram", "-d", "decoder0.0", "-w", "1", volatile)
    guest.run("ip", "link", "set", _ETHERNET, "up")
    guest.run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", _ETHERNET)
    if test_gpu:
        load(guest, devices=2, autosuspend_ms=-1)


def record(key: str, folder: Path) -> None:
    """Boot a guest, furnish it, capture it into a folder, with its page."""
    store = Store()
    folder.mkdir(parents=True, exist_ok=True)
    with Guest(store, key, "all") as guest:
        furnish(guest, test_gpu=not why_not(store))
        words = [sys.executable, "-P", "-m", "gpudaemon.cli", "capture", "--host-only", f"/mnt/out/{_CAPTURE}"]
        print(guest.run(*words, seconds=600.0, environment={"PYTHONPATH": str(ROOT)}).stdout, end="")
        (folder / _CAPTURE).write_bytes((guest.out / _CAPTURE).read_bytes())
        release = guest.kernel.release
        faults = guest.faults()
    assert not faults, faults
    (folder / "page.prom").write_text(page_of_capture(str(folder / _CAPTURE)))
    (folder / "SOURCE").write_text(
        f"QEMU with the devices of `tests/vm/devices.py`, set `all`, Debian's kernel {release}; recorded by\n"
        f"`python -m tests.vm.record {key}`. Part of this project.\n"
    )


def main() -> None:
    """Record the guests named, all where none is."""
    for key in sys.argv[1:] or KERNELS:
        record(key, ROOT / "tests/captures" / f"vm-{key}")


if __name__ == "__main__":
    main()
