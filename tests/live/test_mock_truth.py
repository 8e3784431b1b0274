"""The live mock host's load model, driver binding, resets and system sleep, as ordinary reads meet them."""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from gpudaemon.mock import ControlError, HostProcess

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

FIRST, SECOND = "0000:03:00.0", "0000:23:00.0"
CARD = "sys/class/drm/card0/device"


@pytest.fixture
def host() -> Iterator[HostProcess]:
    with HostProcess("mi300x8", gpus=2) as host:
        yield host


def read(host: HostProcess, path: str) -> bytes:
    with open(os.path.join(host.directory, path), "rb", buffering=0) as stream:
        return stream.read(65536)


def number(host: HostProcess, path: str) -> int:
    return int(read(host, path))


def listening(host: HostProcess) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(host.uevents)
    listener.settimeout(5)
    return listener


def heads(listener: socket.socket, count: int) -> list[str]:
    return [listener.recv(8192).split(b"\0", 1)[0].decode() for _ in range(count)]


def test_what_is_served_is_true_in_text_and_table_alike(host: HostProcess) -> None:
    host.control.workload(FIRST, "training")
    deadline = time.monotonic() + 2.5
    checked = 0
    while time.monotonic() < deadline:
        since = time.monotonic()
        table = read(host, f"{CARD}/gpu_metrics")
        watts = number(host, f"{CARD}/hwmon/hwmon0/power1_input") / 1e6
        busy = number(host, f"{CARD}/gpu_busy_percent") / 100
        junction = number(host, f"{CARD}/hwmon/hwmon0/temp2_input") / 1000
        ranges = host.control.truth(FIRST, since)["ranges"]
        for value, step, name in (
            (watts, 1, "power_watts"),
            (struct.unpack_from("<H", table, 10)[0], 1, "power_watts"),
            (busy, 0.01, "busy_ratio"),
            (struct.unpack_from("<H", table, 12)[0] / 100, 0.01, "busy_ratio"),
            (junction, 1, "hotspot_celsius"),
            (struct.unpack_from("<H", table, 4)[0], 1, "hotspot_celsius"),
            (struct.unpack_from("<Q", table, 16)[0] / 65536, 1 / 65536, "energy_joules"),
        ):
            low, high = ranges[name]
            assert low - step <= value <= high + 1e-9, (name, value, low, high)
            checked += 1
        time.sleep(0.05)
    assert checked > 60


def test_every_content_is_one_that_was_true(host: HostProcess) -> None:
    paths = [f"{CARD}/{name}" for name in ("gpu_metrics", "pp_dpm_sclk", "mem_info_vram_used", "aer_dev_fatal")]
    for _ in range(10):
        since = time.monotonic()
        seen = {path: read(host, path) for path in paths}
        for path, content in seen.items():
            ((_, possible),) = host.control.contents(path, since).items()
            assert content in possible or path.endswith("gpu_metrics")
        table = seen[paths[0]]
        (_, tables) = host.control.contents(paths[0], since).popitem()
        # The table has a clock that runs on between two steps; all else is the step's.
        without = [possible[:24] + possible[32:] for possible in tables]
        assert table[:24] + table[32:] in without


def test_workloads_are_switched_one_by_one(host: HostProcess) -> None:
    host.control.workload(FIRST, "idle")
    host.control.workload(SECOND, "thermal")
    time.sleep(2)
    first, second = (host.control.truth(device) for device in (FIRST, SECOND))
    assert (first["workload"], second["workload"]) == ("idle", "thermal")
    assert first["values"]["busy_ratio"] < 0.1
    assert second["values"]["busy_ratio"] > 0.9
    with pytest.raises(ControlError, match="no workload 'rest'"):
        host.control.workload(FIRST, "rest")
    with pytest.raises(ControlError, match="follows no model"):
        host.control.truth("0000:00:01.1")


def test_errors_on_command_show_where_drivers_count_them(host: HostProcess) -> None:
    before = read(host, f"{CARD}/aer_dev_nonfatal")
    host.control.errors(FIRST, "corrected", 5)
    host.control.errors(FIRST, "uncorrected", 2)
    host.control.errors(FIRST, "aer_nonfatal", 3)
    begins = host.control.errors(FIRST, "replays", 4)
    time.sleep(max(0.0, begins - time.monotonic()) + 0.01)
    ue, ce = (int(word) for word in read(host, f"{CARD}/ras/umc_err_count").split()[1:4:2])
    assert (ue, ce >= 5) == (2, True)
    assert len(read(host, f"{CARD}/ras/gpu_vram_bad_pages").splitlines()) == 2
    assert number(host, f"{CARD}/pcie_replay_count") >= 4
    after = read(host, f"{CARD}/aer_dev_nonfatal")
    assert b"CmpltTO 0\n" in before
    assert b"CmpltTO 3\n" in after
    assert after.endswith(b"TOTAL_ERR_NONFATAL 3\n")


def test_a_rebind_changes_card_render_and_hwmon(host: HostProcess) -> None:
    with listening(host) as listener:
        held = os.open(os.path.join(host.directory, CARD, "gpu_busy_percent"), os.O_RDONLY)
        names = host.control.rebind(FIRST)
        assert names == {"card": "card2", "renderD": "renderD130", "hwmon": "hwmon2"}
        with pytest.raises(OSError, match="No such device"):
            os.pread(held, 64, 0)
        os.close(held)
        path = f"/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/{FIRST}"
        assert heads(listener, 8) == [
            *(f"remove@{path}/drm/card0", f"remove@{path}/drm/renderD128", f"remove@{path}/hwmon/hwmon0"),
            *(f"unbind@{path}", f"add@{path}/hwmon/hwmon2", f"add@{path}/drm/renderD130"),
            *(f"add@{path}/drm/card2", f"bind@{path}"),
        ]
    assert sorted(os.listdir(f"{host.sysfs}/class/drm")) == [
        "card1",
        "card2",
        "renderD129",
        "renderD130",
        "version",
    ]
    assert sorted(os.listdir(f"{host.sysfs}/class/hwmon")) == ["hwmon1", "hwmon2"]
    assert read(host, "sys/class/drm/card2/dev") == b"226:2\n"
    assert b"MINOR=130\nDEVNAME=dri/renderD130\n" in read(host, "sys/dev/char/226:130/uevent")
    assert os.path.realpath(f"{host.sysfs}/class/drm/card2/device") == os.path.realpath(
        f"{host.sysfs}/bus/pci/devices/{FIRST}"
    )
    assert number(host, "sys/class/drm/card2/device/gpu_busy_percent") >= 0
    assert host.control.truth(FIRST)["names"] == names


def test_two_drivers_bound_in_another_order_swap_their_numbers(host: HostProcess) -> None:
    for device in (FIRST, SECOND):
        host.control.unbind(device)
    device = f"sys/bus/pci/devices/{FIRST}"
    assert os.listdir(f"{host.sysfs}/class/drm") == ["version"]
    assert not os.path.lexists(os.path.join(host.directory, device, "driver"))
    assert not os.path.exists(os.path.join(host.directory, device, "gpu_metrics"))
    assert b"DRIVER=" not in read(host, f"{device}/uevent")
    assert read(host, f"{device}/vendor") == b"0x1002\n"
    with pytest.raises(ControlError, match="no driver that could be taken off"):
        host.control.unbind(FIRST)
    for address in (SECOND, FIRST):
        host.control.bind(address)
    assert host.control.truth(SECOND)["names"]["card"] == "card0"
    assert host.control.truth(FIRST)["names"]["hwmon"] == "hwmon1"
    assert os.readlink(f"{host.sysfs}/class/drm/card0").endswith(f"{SECOND}/drm/card0")
    assert read(host, "sys/class/drm/card0/dev") == b"226:0\n"
    assert b"DRIVER=amdgpu\n" in read(host, f"{device}/uevent")
    host.control.unbind(FIRST)
    host.control.remove(FIRST)
    host.control.restore(FIRST)  # the kernel probes what it finds
    assert number(host, f"{device}/gpu_busy_percent") >= 0
    with pytest.raises(ControlError, match="one of these is taken"):
        host.control.rebind(FIRST, card="card0")


def test_a_reset_refuses_then_counts_anew_and_says_so(host: HostProcess) -> None:
    with listening(host) as listener:
        before = host.control.truth(FIRST)["values"]["energy_joules"]
        over = host.control.reset(FIRST, 0.4, PID="4242", TASK="python3")
        with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
            read(host, f"{CARD}/gpu_busy_percent")
        assert host.control.truth(FIRST)["in_reset"]
        assert number(host, "sys/class/drm/card1/device/gpu_busy_percent") >= 0
        event = listener.recv(8192)
        assert b"\0WEDGED=none\0PID=4242\0TASK=python3\0" in event
        time.sleep(max(0.0, over - time.monotonic()))
        (energy,) = struct.unpack_from("<Q", read(host, f"{CARD}/gpu_metrics"), 16)
        assert energy / 65536 < before / 100
        assert host.control.truth(FIRST)["values"]["resets"] == 1


def test_system_sleep_holds_every_read_and_loses_events(host: HostProcess) -> None:
    up = float(read(host, "proc/uptime").split()[0])
    energy = host.control.truth(FIRST)["values"]["energy_joules"]
    with listening(host) as listener:
        began = time.monotonic()
        wakes = host.control.host_sleep(0.6, 3600)
        assert host.control.change(FIRST, WEDGED="none") == 0
        assert read(host, f"{CARD}/vendor") == b"0x1002\n"  # answered when the host is awake again
        assert time.monotonic() >= wakes > began + 0.59
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(8192)
    assert 3600 <= float(read(host, "proc/uptime").split()[0]) - up < 3610
    after = host.control.truth(FIRST)["values"]
    assert after["energy_joules"] - energy < 5 * 750
    assert after["hotspot_celsius"] < 40
    with pytest.raises(ControlError, match="longer than 0 s"):
        host.control.host_sleep(0)


def test_a_clock_step_moves_the_boot_time(host: HostProcess) -> None:
    def booted() -> int:
        return int(read(host, "proc/stat").split(b"btime ")[1].split()[0])

    before = booted()
    host.control.clock_step(-86_400)
    assert booted() == before - 86_400
    host.control.clock_step(86_400)
    assert booted() == before


def test_garbage_truncation_and_all_ones(host: HostProcess) -> None:
    busy, table = f"{CARD}/gpu_busy_percent", f"{CARD}/gpu_metrics"
    host.control.fault(table, "truncate", bytes=100)
    assert len(read(host, table)) == 100
    host.control.release(table)
    host.control.fault(table, "ones")
    assert read(host, table) == struct.pack("<HBB", 1664, 1, 6) + b"\xff" * 1660
    assert host.control.fault(FIRST, "ones") > 40  # a PCI address means all that reaches the device
    assert read(host, busy) == b"4294967295\n"
    assert read(host, f"{CARD}/ras/umc_err_count") == b"ue: 4294967295\nce: 4294967295\nde: 4294967295\n"
    assert read(host, f"{CARD}/vendor") == b"0x1002\n"
    host.control.clear()
    host.control.fault(busy, "garbage")
    assert not read(host, busy).strip().isdigit()
    host.control.clear()
    for kind, arguments in (("truncate", {"bytes": -1}), ("truncate", {}), ("ones", {"seconds": 1})):
        with pytest.raises(ControlError, match="no fault"):
            host.control.fault(busy, kind, **arguments)


def test_requests_can_wait(host: HostProcess) -> None:
    host.control.request("remove", device=FIRST, after=0.3)
    host.control.request("remove", device=FIRST, after=0.35)  # refused then
    assert os.path.exists(f"{host.sysfs}/class/drm/card0")
    time.sleep(0.5)
    assert not os.path.exists(f"{host.sysfs}/class/drm/card0")
    assert host.control.stats()["refused"] == 1
