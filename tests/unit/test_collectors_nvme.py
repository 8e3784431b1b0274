"""NVMe controllers of real hosts: what the nvme tool prints of the same trees."""

import os
import re
from pathlib import Path

from gpudaemon.model.device import DeviceKind
from tests import captures


def test_what_the_nvme_tool_prints(tmp_path: Path) -> None:
    """Every controller of the tree, at the address that the capture's expected output names."""
    sysfs = captures.from_tarball(captures.capture("nvme-sysfs", "tree-pcie.tar.xz"), str(tmp_path))
    page = captures.page_of(sysfs)
    assert not page.malformed
    with open(captures.capture("nvme-sysfs", "tree-pcie.out"), encoding="utf-8") as file:
        shown = re.findall(r"ctrl (nvme\d+) transport=(\w+) traddr=(\S+)", file.read())
    assert shown
    for name, transport, address in shown:
        info = page.info("gpudaemon_nvme_info", controller=name)
        assert (info["transport"], info["device"].rpartition(".")[0] or address) == (transport, address[:-2])
        assert page.value("gpudaemon_nvme_controller_state", controller=name, state="live") == 1
    print(f"nvme: compared {len(shown)}, agree {len(shown)}")


def test_a_kernel_with_controller_memory(tmp_path: Path) -> None:
    """QEMU's drive with a CMB of 64 MiB, on a kernel with PCI_P2PDMA; two more without."""
    source = captures.capture("vm", "lane", "sysfs-7.3.4+deb13-amd64.tar.gz")
    sysfs = captures.from_tarball(source, str(tmp_path))
    drives = [one for one in captures.devices(sysfs) if one.kind is DeviceKind.NVME]
    page = captures.page_of(sysfs)
    assert drives and all(
        page.value("gpudaemon_nvme_controller_state", device=one.id, state="live") == 1 for one in drives
    )
    shared = [one.id for one in drives if "p2pmem/size" in one.names]
    assert len(shared) == 1
    assert page.value("gpudaemon_p2p_memory_size_bytes", device=shared[0]) == 64 << 20
    assert page.value("gpudaemon_p2p_memory_published", device=shared[0]) == 1
    assert not [one for one in page.malformed if os.path.basename(one[1]) == "allocate"]


def test_older_kernels_have_no_memory_to_share(tmp_path: Path) -> None:
    """6.12 as Debian builds it: CONFIG_PCI_P2PDMA is not set; absent is no zero."""
    source = captures.capture("vm", "lane", "sysfs-6.12.95+deb12-amd64.tar.gz")
    page = captures.page_of(captures.from_tarball(source, str(tmp_path)))
    assert not [sample for sample, _, _ in page.samples if sample.startswith("gpudaemon_p2p_memory")]
