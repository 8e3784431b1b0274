"""Discovery on trees built like sysfs: what is a device, whose chip is whose, and what is never touched."""

import os
import threading
import time
from pathlib import Path

import pytest

from gpudaemon.discovery import scan as scanning
from gpudaemon.discovery.scan import bridges, is_gpu_class, scan, unclaimed_pci
from gpudaemon.model.device import Device, DeviceKind

ROOT_PORT = "devices/pci0000:00/0000:00:01.0"


class Tree:
    """A sysfs under construction; paths are relative to its root."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def file(self, path: str, content: str = "0\n") -> None:
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content)

    def link(self, path: str, target: str) -> None:
        full, goal = os.path.join(self.root, path), os.path.join(self.root, target)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        os.makedirs(goal, exist_ok=True)
        os.symlink(os.path.relpath(goal, os.path.dirname(full)), full)

    def pci(self, path: str, driver: str = "") -> str:
        self.file(f"{path}/vendor", "0x1002\n")
        self.file(f"{path}/power/runtime_status", "active\n")
        self.link(f"{path}/subsystem", "bus/pci")
        self.link(f"bus/pci/devices/{os.path.basename(path)}", path)
        if driver:
            self.link(f"{path}/driver", f"bus/pci/drivers/{driver}")
        return path

    def node(self, device: str, name: str, subsystem: str = "drm") -> str:
        path = f"{device}/{subsystem}/{name}"
        self.file(f"{path}/dev", "226:0\n")
        self.link(f"{path}/device", device)
        self.link(f"{path}/subsystem", f"class/{subsystem}")
        self.link(f"class/{subsystem}/{name}", path)
        return path

    def chip(self, parent: str, name: str) -> str:
        path = f"{parent}/{name}"
        self.file(f"{path}/name", "chip\n")
        self.file(f"{path}/temp1_input", "1000\n")
        self.link(f"{path}/subsystem", "class/hwmon")
        self.link(f"class/hwmon/{name}", path)
        return path

    def scan(self) -> dict[str, Device]:
        found = scan(self.root)
        assert len({device.id for device in found}) == len(found)
        return {device.id: device for device in found}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def gpu(tree: Tree, path: str = f"{ROOT_PORT}/0000:03:00.0", card: int = 0) -> str:
    tree.pci(path, "amdgpu")
    tree.file(f"{path}/gpu_busy_percent", "3\n")
    tree.node(path, f"card{card}")
    tree.node(path, f"renderD{128 + card}")
    return path


def test_no_sysfs_is_no_device(tmp_path: Path) -> None:
    assert scan(str(tmp_path / "nowhere")) == ()
    assert unclaimed_pci(str(tmp_path / "nowhere"), ()) == ()


def test_a_gpu_its_nodes_links_and_bridges(tree: Tree) -> None:
    tree.pci(ROOT_PORT, "pcieport")
    path = gpu(tree)
    tree.link(f"{path}/iommu_group", "kernel/iommu_groups/12")
    tree.chip(f"{path}/hwmon", "hwmon3")
    found = tree.scan()
    assert list(found) == ["0000:03:00.0", "0000:00:01.0"]
    card = found["0000:03:00.0"]
    assert (card.kind, card.subsystem, card.driver) == (DeviceKind.GPU, "pci", "amdgpu")
    assert card.nodes == ("card0", "renderD128")
    assert card.parents == ("0000:00:01.0",)
    assert card.link("iommu_group") == "12"
    assert card.path == path
    assert {
        "gpu_busy_percent",
        "power/runtime_status",
        "hwmon/hwmon3/temp1_input",
        "drm/card0/dev",
    } <= card.names
    assert (found["0000:00:01.0"].kind, found["0000:00:01.0"].driver) == (DeviceKind.PCI, "pcieport")


def test_forbidden_files_connectors_links_and_children_are_not_listed(tree: Tree) -> None:
    path = gpu(tree)
    for name in ("pcie_bw", "xgmi_error", "config", "rom", "resource0", "drm/card0/card0-DP-1/status"):
        tree.file(f"{path}/{name}")
    tree.file(f"{path}/drm/card0/gt/gt0/rps_act_freq_mhz")
    tree.file(f"{path}/a/b/c/d/kept")
    tree.file(f"{path}/a/b/c/d/e/too_deep")
    tree.file(f"{path}/i2c-5/name")
    tree.link(f"{path}/i2c-5/subsystem", "bus/i2c")
    tree.link(f"{path}/loop", path)
    (card,) = [device for device in tree.scan().values() if device.kind is DeviceKind.GPU]
    assert {"drm/card0/gt/gt0/rps_act_freq_mhz", "a/b/c/d/kept"} <= card.names
    unwanted = (
        "pcie_bw",
        "xgmi_error",
        "config",
        "rom",
        "resource0",
        "card0-DP-1",
        "too_deep",
        "i2c-5",
        "loop",
    )
    assert [name for name in card.names if any(part in name for part in unwanted)] == []


def test_names_are_bounded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gpu(tree)
    for number in range(40):
        tree.file(f"{path}/file{number}")
    monkeypatch.setattr(scanning, "MOST_NAMES", 20)
    assert len(tree.scan()["0000:03:00.0"].names) == 20


def test_partitions_are_not_gpus_and_have_no_bridges(tree: Tree) -> None:
    gpu(tree)
    for number in (0, 1):
        path = f"devices/platform/amdgpu_xcp_{number}"
        tree.file(f"{path}/uevent")
        tree.link(f"{path}/subsystem", "bus/platform")
        tree.node(path, f"card{number + 1}")
    found = tree.scan()
    kinds = {name: device.kind for name, device in found.items()}
    assert kinds["amdgpu_xcp_0"] is kinds["amdgpu_xcp_1"] is DeviceKind.PARTITION
    assert [name for name, kind in kinds.items() if kind is DeviceKind.GPU] == ["0000:03:00.0"]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("devices/faux/vgem", "vgem"),
        ("devices/platform/soc/fd000000.gpu", "fd000000.gpu"),
        (f"{ROOT_PORT}/0000:04:00.0/virtio3", "virtio3"),
    ],
)
def test_gpus_on_other_buses(tree: Tree, path: str, wanted: str) -> None:
    tree.file(f"{path}/uevent")
    tree.node(path, "card0")
    device = tree.scan()[wanted]
    assert device.kind is DeviceKind.GPU and device.nodes == ("card0",)


def test_accelerators_and_two_cards_on_one_device(tree: Tree) -> None:
    path = tree.pci("devices/pci0000:00/0000:00:0b.0", "intel_vpu")
    tree.node(path, "accel0", "accel")
    two = gpu(tree)
    tree.node(two, "card1")
    found = tree.scan()
    assert found["0000:00:0b.0"].nodes == ("accel0",)
    assert found["0000:03:00.0"].nodes == ("card0", "card1", "renderD128")


def test_whose_chip_it_is(tree: Tree) -> None:
    card = gpu(tree)
    tree.chip(f"{card}/hwmon", "hwmon0")
    tree.file(f"{card}/i2c-5/5-0040/uevent")
    tree.link(f"{card}/i2c-5/subsystem", "bus/i2c")
    tree.link(f"{card}/i2c-5/5-0040/subsystem", "bus/i2c")
    tree.chip(f"{card}/i2c-5/5-0040/hwmon", "hwmon1")
    drive = tree.pci(f"{ROOT_PORT}/0000:05:00.0", "nvme")
    tree.link(f"{drive}/nvme/nvme0/subsystem", "class/nvme")
    tree.chip(f"{drive}/nvme/nvme0", "hwmon2")
    tree.chip("devices/platform/coretemp.0/hwmon", "hwmon3")
    tree.chip("devices/virtual/thermal/thermal_zone0", "hwmon4")
    tree.chip("devices/virtual/hwmon", "hwmon5")
    tree.node("devices/platform/soc/fd000000.gpu", "card7")
    tree.chip("devices/platform/soc/fd000000.gpu/regulator.3/hwmon", "hwmon6")
    found = tree.scan()
    assert {"hwmon/hwmon0/temp1_input", "i2c-5/5-0040/hwmon/hwmon1/temp1_input"} <= found["0000:03:00.0"].names
    others = {name: device.kind for name, device in found.items() if device.kind is DeviceKind.HWMON}
    assert set(others) == {"0000:05:00.0", "coretemp.0", "thermal_zone0", "hwmon5"}
    assert "nvme/nvme0/hwmon2/temp1_input" in found["0000:05:00.0"].names
    assert "hwmon/hwmon3/temp1_input" in found["coretemp.0"].names
    assert "temp1_input" in found["hwmon5"].names
    assert "regulator.3/hwmon/hwmon6/temp1_input" in found["fd000000.gpu"].names


def test_same_basename_on_two_buses_is_two_ids(tree: Tree) -> None:
    tree.chip("devices/platform/a/sensor/hwmon", "hwmon0")
    tree.chip("devices/platform/b/sensor/hwmon", "hwmon1")
    assert set(tree.scan()) == {"sensor", "b/sensor"}


def test_pci_gpus_without_a_node(tree: Tree) -> None:
    gpu(tree)
    tree.pci(ROOT_PORT)
    bare = tree.pci("devices/pci0000:80/0000:80:01.0/0000:81:00.0", "vfio-pci")
    known = scan(tree.root)
    candidates = unclaimed_pci(tree.root, known)
    assert [(device.id, device.kind, device.driver) for device in candidates] == [
        ("0000:81:00.0", DeviceKind.GPU, "vfio-pci")
    ]
    assert candidates[0].path == bare and "vendor" in candidates[0].names
    assert [device.id for device in bridges(tree.root, (*known, *candidates))] == ["0000:80:01.0"]


def test_gpu_classes() -> None:
    assert all(map(is_gpu_class, (0x030000, 0x030200, 0x038000, 0x120000)))
    assert not any(map(is_gpu_class, (0x060400, 0x010802, 0x0502_10, 0x040300, 0)))


def test_contents_are_never_read(tree: Tree) -> None:
    path = gpu(tree)
    blocking = os.path.join(tree.root, path, "gpu_busy_percent")
    os.unlink(blocking)
    os.mkfifo(blocking)  # opening it would hang
    assert "gpu_busy_percent" in tree.scan()["0000:03:00.0"].names


def test_directories_that_vanish_and_return_never_raise(tree: Tree) -> None:
    gpu(tree)
    stop = threading.Event()

    def churn() -> None:
        hidden, shown = os.path.join(tree.root, "hidden"), os.path.join(tree.root, ROOT_PORT, "0000:03:00.0")
        while not stop.is_set():
            os.rename(shown, hidden)
            os.rename(hidden, shown)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        seen = {len(tree.scan()) for _ in range(300)}
    finally:
        stop.set()
        thread.join()
    assert max(seen) == 2


def test_a_large_host_is_scanned_quickly(tree: Tree) -> None:
    for number in range(64):
        path = f"devices/pci00{number:02x}:00/00{number:02x}:00:01.0/00{number:02x}:03:00.0"
        gpu(tree, path, number)
        tree.chip(f"{path}/hwmon", f"hwmon{number}")
        for name in range(250):
            tree.file(f"{path}/ras/file{name}" if name % 5 == 0 else f"{path}/file{name}")
    start = time.perf_counter()
    found = scan(tree.root)
    elapsed = time.perf_counter() - start
    print(f"64 GPUs scanned in {elapsed * 1000:.0f} ms")
    assert sum(device.kind is DeviceKind.GPU for device in found) == 64
    assert elapsed < 1.0
