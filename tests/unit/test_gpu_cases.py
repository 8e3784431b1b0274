"""GPUs that are more or less than one card: two in a laptop, shared out, virtual, and none on PCI."""

import os
from pathlib import Path

import pytest

from gpudaemon.discovery.expected import Expected
from gpudaemon.discovery.inventory import Inventory
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.pipeline.plan import make_plan
from tests import captures


def write(directory: str, **files: str) -> None:
    for name, content in files.items():
        captures._write(os.path.join(directory, name.replace("__", "/")), content.encode() + b"\n")


def node(sysfs: str, device: str, kind: str, name: str) -> str:
    """A DRM or accel node below a device, with its links."""
    path = os.path.join(device, kind, name)
    os.makedirs(path, exist_ok=True)
    captures._link(os.path.join(path, "subsystem"), os.path.join(sysfs, "class", kind))
    captures._link(os.path.join(sysfs, "class", kind, name), path)
    captures._link(os.path.join(path, "device"), device)
    return path


def found(sysfs: str) -> dict[str, Device]:
    return {device.id: device for device in captures.devices(sysfs)}


def gpus(page: captures.Page) -> set[str]:
    return {labels["device"] for name, labels, _ in page.samples if name == "gpudaemon_gpu_info"}


def test_a_laptop_with_two_gpus_has_two_that_are_read_and_left_alone_by_themselves(tmp_path: Path) -> None:
    sysfs = str(tmp_path)
    inner = captures.add_pci(sysfs, "0000:00:02.0", "i915")
    write(inner, vendor="0x8086", device="0x46a6", power__runtime_status="active", **{"class": "0x030000"})
    write(node(sysfs, inner, "drm", "card1"), gt__gt0__rps_act_freq_mhz="900", gt__gt0__rc6_residency_ms="1500")
    node(sysfs, inner, "drm", "renderD128")
    outer = captures.add_pci(sysfs, "0000:01:00.0", "nouveau", "devices/pci0000:00/0000:00:06.0")
    write(outer, vendor="0x10de", device="0x25a2", power__runtime_status="suspended", **{"class": "0x030200"})
    node(sysfs, outer, "drm", "card0")
    chip = os.path.join(outer, "hwmon", "hwmon5")
    write(chip, name="nouveau", temp1_input="48000", temp1_crit="95000", fan1_input="1500", pwm1="30")
    captures.link_classes(sysfs, outer)

    devices = found(sysfs)
    assert [(one.id, one.driver, one.nodes) for one in devices.values() if one.kind is DeviceKind.GPU] == [
        ("0000:00:02.0", "i915", ("card1", "renderD128")),
        ("0000:01:00.0", "nouveau", ("card0",)),
    ]
    for one in ("0000:00:02.0", "0000:01:00.0"):  # each asks for its own power state before all else
        plan = make_plan(devices[one], {})
        assert plan.gated and plan.files[0].path == "power/runtime_status"
    page = captures.page_of(sysfs)
    assert page.malformed == []
    vendors = {page.info("gpudaemon_gpu_info", device=one)["vendor"] for one in gpus(page)}
    assert vendors == {"intel", "nvidia"}
    assert page.value("gpudaemon_gpu_clock_hertz", device="0000:00:02.0", clock="gt0") == 9e8
    residency = "gpudaemon_gpu_idle_residency_seconds_total"
    assert page.value(residency, device="0000:00:02.0", domain="gt0", state="rc6") == 1.5
    assert page.value("gpudaemon_gpu_temperature_celsius", device="0000:01:00.0") == 48
    assert page.value("gpudaemon_gpu_temperature_limit_celsius", device="0000:01:00.0", limit="crit") == 95


def shared_out(sysfs: str) -> None:
    """An xe GPU with two virtual functions: one driven by the host, one given to a guest."""
    whole = captures.add_pci(sysfs, "0000:03:00.0", "xe")
    write(
        whole, vendor="0x8086", device="0xe211", sriov_numvfs="2", sriov_totalvfs="4", **{"class": "0x038000"}
    )
    node(sysfs, whole, "drm", "card0")
    for function in ("pf", "vf1", "vf2", "vf3", "vf4"):
        profile = os.path.join(whole, "sriov_admin", function, "profile")
        write(profile, exec_quantum_ms="16", preempt_timeout_us="32000", sched_priority="[low] normal")
        if function != "pf":
            write(profile, vram_quota="4294967296")
    for number, driver in ((0, "xe"), (1, "vfio-pci")):
        address = f"0000:03:00.{number + 1}"
        part = captures.add_pci(sysfs, address, driver)
        write(part, vendor="0x8086", device="0xe211", **{"class": "0x038000"})
        captures._link(os.path.join(part, "physfn"), whole)
        captures._link(os.path.join(whole, f"virtfn{number}"), part)
        if driver == "xe":
            node(sysfs, part, "drm", "card1")


def test_virtual_functions_are_devices_with_a_parent_and_no_further_gpus(tmp_path: Path) -> None:
    sysfs = str(tmp_path)
    shared_out(sysfs)
    devices = found(sysfs)
    kinds = {id_: device.kind for id_, device in devices.items()}
    virtual = DeviceKind.VIRTUAL_FUNCTION
    assert kinds == {"0000:03:00.0": DeviceKind.GPU, "0000:03:00.1": virtual, "0000:03:00.2": virtual}
    page = captures.page_of(sysfs)
    assert page.malformed == []
    assert gpus(page) == {"0000:03:00.0"}
    own = page.info("gpudaemon_gpu_virtual_function_info", device="0000:03:00.1")
    assert (own["parent"], own["driver"], own["vendor"], own["card"]) == (
        "0000:03:00.0",
        "xe",
        "intel",
        "card1",
    )
    given = page.info("gpudaemon_gpu_virtual_function_info", device="0000:03:00.2")
    assert (given["parent"], given["driver"], given["card"]) == ("0000:03:00.0", "vfio-pci", "")
    addresses = {
        labels["function"]: labels["address"]
        for name, labels, _ in page.samples
        if name == "gpudaemon_gpu_sriov_function_info"
    }
    assert addresses == {"pf": "0000:03:00.0", "vf1": "0000:03:00.1", "vf2": "0000:03:00.2"}


def test_shares_are_served_of_functions_that_are_enabled(tmp_path: Path) -> None:
    sysfs = str(tmp_path)
    shared_out(sysfs)
    page = captures.page_of(sysfs)
    functions = {labels["function"] for name, labels, _ in page.samples if "sriov_exec_quantum" in name}
    assert functions == {"pf", "vf1", "vf2"}
    whole = {"device": "0000:03:00.0"}
    assert page.value("gpudaemon_gpu_sriov_exec_quantum_seconds", function="vf2", **whole) == 0.016
    assert page.value("gpudaemon_gpu_sriov_preempt_timeout_seconds", function="pf", **whole) == 0.032
    assert page.value("gpudaemon_gpu_sriov_vram_quota_bytes", function="vf1", **whole) == 1 << 32
    assert page.value("gpudaemon_gpu_sriov_vram_quota_bytes", function="pf", **whole) is None
    assert page.value("gpudaemon_gpu_sriov_priority", function="vf1", state="low", **whole) == 1
    assert page.value("gpudaemon_pci_sriov_vfs", **whole) == 2


def test_a_virtual_function_that_goes_is_not_missed(tmp_path: Path) -> None:
    sysfs = str(tmp_path)
    shared_out(sysfs)
    inventory = Inventory(Expected())
    inventory.update(found(sysfs).values())
    inventory.update([device for device in found(sysfs).values() if device.kind is DeviceKind.GPU])
    assert inventory.missing == {}
    inventory.update([])
    assert set(inventory.missing) == {"0000:03:00.0"}


def test_a_function_in_a_guest_is_a_gpu(tmp_path: Path) -> None:
    """A guest sees no physfn link."""
    part = captures.add_pci(str(tmp_path), "0000:00:05.0", "xe")
    write(part, vendor="0x8086", **{"class": "0x038000"})
    node(str(tmp_path), part, "drm", "card0")
    assert found(str(tmp_path))["0000:00:05.0"].kind is DeviceKind.GPU


def test_virtio_gpu_of_a_real_guest(tmp_path: Path) -> None:
    archive = captures.capture("vm", "lane", "sysfs-7.3.4+deb13-amd64.tar.gz")
    sysfs = captures.from_tarball(archive, str(tmp_path))
    device = found(sysfs)["0000:03:00.0"]
    assert (device.kind, device.driver) == (DeviceKind.GPU, "virtio-pci")
    page = captures.page_of(sysfs)
    assert page.malformed == []
    info = page.info("gpudaemon_gpu_info", device="0000:03:00.0")
    assert (info["vendor"], info["vendor_id"], info["render"]) == ("virtio", "0x1af4", "renderD128")
    assert page.info("gpudaemon_pci_info", device="0000:03:00.0")["parent"] == "0000:00:08.0"


def test_a_platform_gpu_has_clocks_and_no_pci_address(tmp_path: Path) -> None:
    """A Mali of a system on chip, as panfrost has it: names and paths as on a board with the RK3568."""
    sysfs = str(tmp_path)
    gpu = os.path.join(sysfs, "devices/platform/fde60000.gpu")
    write(gpu, profiling="0", power__runtime_status="active", power__control="auto")
    captures._link(os.path.join(gpu, "subsystem"), os.path.join(sysfs, "bus/platform"))
    captures._link(os.path.join(gpu, "driver"), os.path.join(sysfs, "bus/platform/drivers/panfrost"))
    node(sysfs, gpu, "drm", "card1")
    node(sysfs, gpu, "drm", "renderD128")
    scaler = node(sysfs, gpu, "devfreq", "fde60000.gpu")
    write(scaler, cur_freq="200000000", target_freq="400000000", min_freq="200000000", max_freq="0")
    write(scaler, governor="simple_ondemand", trans_stat="Not Supported.")

    device = found(sysfs)["fde60000.gpu"]
    assert (device.kind, device.driver, device.subsystem) == (DeviceKind.GPU, "panfrost", "platform")
    page = captures.page_of(sysfs)
    assert page.malformed == []
    info = page.info("gpudaemon_gpu_info", device="fde60000.gpu")
    assert (info["vendor"], info["vendor_id"], info["card"]) == ("arm", "", "card1")
    assert not page.info("gpudaemon_pci_info")
    own = {"device": "fde60000.gpu", "clock": "core"}
    assert page.value("gpudaemon_gpu_clock_hertz", **own) == 2e8
    assert page.value("gpudaemon_gpu_clock_requested_hertz", **own) == 4e8
    assert page.value("gpudaemon_gpu_clock_limit_hertz", limit="min", **own) == 2e8
    assert page.value("gpudaemon_gpu_clock_limit_hertz", limit="max", **own) is None


def test_a_gpu_that_only_waits_to_be_flashed_has_no_node_and_says_so(tmp_path: Path) -> None:
    """xe in boot survivability mode: bound, no DRM node, the details for root only."""
    path = captures.add_pci(str(tmp_path), "0000:03:00.0", "xe")
    write(path, vendor="0x8086", device="0xe20b", **{"class": "0x030000"})
    write(
        path,
        survivability_mode="Boot",
        survivability_info__postcode_trace="0x1f2e",
        lb_fan_control_version="1.2.3.4",
    )
    device = found(str(tmp_path))["0000:03:00.0"]
    assert (device.kind, device.nodes, device.driver) == (DeviceKind.GPU, (), "xe")
    page = captures.page_of(str(tmp_path))
    info = page.info("gpudaemon_gpu_survivability_info", device="0000:03:00.0")
    assert (info["mode"], info["postcode_trace"], info["fdo_mode"]) == ("Boot", "0x1f2e", "")
    os.chmod(os.path.join(path, "survivability_mode"), 0)
    plan = make_plan(device, {})  # without the right to read it the presence of the file is told
    assert any(metric.name == "gpudaemon_gpu_survivability_info" for metric in plan.blocks)


@pytest.mark.parametrize("driver", ["vfio-pci", ""])
def test_a_gpu_nobody_here_drives_is_counted_and_only_its_function_is_read(driver: str, tmp_path: Path) -> None:
    """Given to a guest, or left without a driver: no node, no sensor, but its link and identity are there."""
    sysfs = str(tmp_path)
    bridge = captures.add_pci(sysfs, "0000:40:01.0", "pcieport", "devices/pci0000:40")
    path = captures.add_pci(sysfs, "0000:41:00.0", driver, os.path.relpath(bridge, sysfs))
    write(path, vendor="0x1002", device="0x74a1", power__runtime_status="suspended", **{"class": "0x120000"})
    write(path, current_link_speed="32.0 GT/s PCIe", current_link_width="16")
    (gpu,) = [one for one in found(sysfs).values() if one.kind is DeviceKind.GPU]
    assert (gpu.id, gpu.driver, gpu.nodes) == ("0000:41:00.0", driver, ())
    plan = make_plan(gpu, {})
    assert plan.gated  # a suspended function is not woken by reading its link
    assert not any(file.path.startswith(("ras/", "pp_", "gpu_")) for file in plan.files)
    page = captures.page_of(sysfs)
    assert gpus(page) == {"0000:41:00.0"}
    info = page.info("gpudaemon_gpu_info")
    assert (info["driver"], info["vendor_id"], info["card"]) == (driver, "0x1002", "")
    assert page.value("gpudaemon_pcie_link_width", device="0000:41:00.0") == 16
    assert page.malformed == []
    inventory = Inventory(Expected())
    inventory.update(found(sysfs).values())
    assert set(inventory.devices) == {"0000:40:01.0", "0000:41:00.0"}


def test_an_apu_gives_its_package_and_no_discrete_cards_fields(tmp_path: Path) -> None:
    """A Phoenix: no VRAM of its own worth the name, hundredths of degrees and milliwatts in the table."""
    address = captures.from_card_folder(captures.capture("lact", "amd", "phoenix"), str(tmp_path))
    page = captures.page_of(str(tmp_path))
    assert (page.malformed, gpus(page)) == ([], {address})
    # What the driver scales comes from the text files, what they lack from the table.
    assert page.value("gpudaemon_gpu_temperature_celsius", sensor="edge") == 25
    assert page.value("gpudaemon_gpu_power_watts", device=address) == 3.142
    assert page.value("gpudaemon_gpu_busy_ratio", engine="gfx") == 0
    assert page.value("gpudaemon_gpu_temperature_celsius", sensor="soc") == 27.37
    assert page.value("gpudaemon_gpu_domain_power_watts", domain="gfx") == 0.585
    assert page.value("gpudaemon_gpu_domain_power_watts", domain="soc") == 0.743
    assert page.value("gpudaemon_gpu_clock_hertz", clock="core7") == 1.4e9
    assert page.value("gpudaemon_gpu_clock_hertz", clock="fclk") == 4e8
    names = {name for name, _, _ in page.samples}
    assert not names & {"gpudaemon_gpu_ras_errors_total", "gpudaemon_gpu_throttled", "gpudaemon_gpu_fan_rpm"}
