"""CXL memory on real kernels: health as the mailbox tells it to another caller, regions and memory devices that
come and go, tiers.

QEMU's devices answer some commands of the mailbox and not others: which, is what the kernel tells the test's
own caller, and the daemon must find the same.
"""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.daemon import Page
from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.test_hotplug import _slot, _unplug

pytestmark = pytest.mark.guest()

MODULES = ("cxl_acpi", "cxl_pci", "cxl_port", "cxl_mem", "cxl_pmem", "dax_cxl", "kmem")
FLAGS = ("--tier", "full", "--period.slow", "2", "--preset", "scrape", "--call.deadline", "30")
LATEST = 60.0
COMMANDS = {"firmware": (4, 0x50), "health": (7, 0x12), "thresholds": (11, 0x10), "shutdown": (13, 1)}

Measured = Callable[[str, float, str], None]


def furnish(guest: Guest) -> None:
    """Load what drives the memory, and wait for all five devices."""
    for module in MODULES:
        guest.run("modprobe", module, check=False)
    guest.until(lambda: len(guest.glob("/sys/bus/cxl/devices/endpoint*")) == 5, LATEST, "for five endpoints")


def ask_mailboxes(commands: dict[str, tuple[int, int]]) -> dict[str, dict[str, int | str]]:
    """In the guest: what each memory device answers to each command: hex of the payload, or an errno."""
    import ctypes
    import glob
    import os

    class Part(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("payload", ctypes.c_uint64)]

    class Send(ctypes.Structure):
        _fields_ = [
            ("id", ctypes.c_uint32),
            ("flags", ctypes.c_uint32),
            ("raw", ctypes.c_uint32),
            ("retval", ctypes.c_uint32),
            ("input", Part),
            ("output", Part),
        ]

    libc = ctypes.CDLL(None, use_errno=True)
    found: dict[str, dict[str, int | str]] = {}
    for path in sorted(glob.glob("/dev/cxl/mem*")):
        answers: dict[str, int | str] = {}
        descriptor = os.open(path, os.O_RDWR)
        for name, (number, size) in commands.items():
            payload = (ctypes.c_ubyte * size)()
            send = Send(id=number)
            send.output.size = size
            send.output.payload = ctypes.addressof(payload)
            if libc.ioctl(descriptor, ctypes.c_ulong(0xC030CE02), ctypes.byref(send)) < 0:
                answers[name] = ctypes.get_errno()
            elif send.retval:
                answers[name] = -send.retval
            else:
                answers[name] = bytes(payload)[: send.output.size].hex()
        os.close(descriptor)
        found[os.path.basename(path)] = answers
    return found


def descriptors(pid: int) -> dict[str, int]:
    """In the guest: what a process and all below it have open -> how often, numbers of sockets left out."""
    import os
    import re

    import psutil

    found: dict[str, int] = {}
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        words = " ".join(word for word in one.cmdline() if word.startswith("gpudaemon"))
        for name in os.listdir(f"/proc/{one.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{one.pid}/fd/{name}")
            except FileNotFoundError:
                continue
            key = f"{words}: {re.sub(r':.[0-9]+.', '', target)}"
            if "gpudaemon-lane" in target:
                with open(f"/proc/{one.pid}/fd/{name}", "rb") as stream:
                    plan = re.search(rb'"lane": *(\d+).*"device": *"([^"]*)"', stream.read())
                    key = f"{words}: lane of {plan[2].decode()}" if plan else key
            found[key] = found.get(key, 0) + 1
    return found


def of_memdev(page: Page, memdev: str) -> dict[str, float]:
    """What the page says of the mailbox of a memory device."""
    return {
        series: value
        for series, value in page.items()
        if f'memdev="{memdev}"' in series
        and series.split("{")[0].removeprefix("gpudaemon_cxl_memdev_").split("_")[0]
        in ("health", "media", "alert", "life", "temperature", "dirty", "corrected", "shutdown", "firmware")
    }


def expected(memdev: str, answers: dict[str, Any]) -> dict[str, float]:
    """The same, of the answers another caller got: read here, not by the daemon's decoder."""
    name = "gpudaemon_cxl_memdev_"
    found: dict[str, float] = {}
    if isinstance(answers["health"], str):
        status, media, more, life, degrees, dirty, volatile, persistent = struct.unpack(
            "<BBBBhIII", bytes.fromhex(answers["health"])
        )
        bits = ("maintenance_needed", "performance_degraded", "replacement_needed", "capacity_degraded")
        for bit, word in enumerate(bits):
            found[f'{name}health_status{{memdev="{memdev}",status="{word}"}}'] = status >> bit & 1
        found[f'{name}media_status{{memdev="{memdev}",state="normal"}}'] = float(media == 0)
        found[f'{name}alert_level{{memdev="{memdev}",alert="life_used",level="normal"}}'] = float(more & 3 == 0)
        if life != 0xFF:
            found[f'{name}life_used_ratio{{memdev="{memdev}"}}'] = life / 100
        if degrees != 0x7FFF:
            found[f'{name}temperature_celsius{{memdev="{memdev}"}}'] = degrees
        found[f'{name}dirty_shutdowns_total{{memdev="{memdev}"}}'] = dirty
        found[f'{name}corrected_errors_total{{memdev="{memdev}",type="volatile"}}'] = volatile
        found[f'{name}corrected_errors_total{{memdev="{memdev}",type="persistent"}}'] = persistent
    if isinstance(answers["thresholds"], str):
        values = struct.unpack("<BBBBhhhhHH", bytes.fromhex(answers["thresholds"]))
        found[f'{name}life_used_threshold_ratio{{memdev="{memdev}",level="critical"}}'] = values[2] / 100
        for direction, degrees in (("over", values[4]), ("under", values[5])):
            labels = f'memdev="{memdev}",direction="{direction}",level="critical"'
            found[f"{name}temperature_threshold_celsius{{{labels}}}"] = degrees
    if isinstance(answers["shutdown"], str):
        found[f'{name}shutdown_state_dirty{{memdev="{memdev}"}}'] = bytes.fromhex(answers["shutdown"])[0]
    if isinstance(answers["firmware"], str):
        payload = bytes.fromhex(answers["firmware"])
        for slot in range(1, payload[0] + 1):
            version = payload[16 * slot : 16 * slot + 16].split(b"\0")[0].decode().strip()
            if version:
                active, staged = payload[1] & 7 == slot, payload[1] >> 3 & 7 == slot
                labels = f'memdev="{memdev}",slot="{slot}",version="{version}"'
                flags = f'active="{str(active).lower()}",staged="{str(staged).lower()}"'
                found[f"{name}firmware_info{{{labels},{flags}}}"] = 1.0
    return found


def check_mailboxes(guest: Guest, daemon: GuestDaemon) -> int:
    """Everything another caller was told is on the page, and nothing else is; how many values were compared."""
    told = guest.call(ask_mailboxes, COMMANDS)
    assert len(told) == 5
    wanted = {memdev: expected(memdev, answers) for memdev, answers in told.items()}
    print(f"{guest.kernel.release}: answers of mem0: {told['mem0']}")

    def agree() -> bool:
        page = daemon.metrics()
        return all(values.items() <= of_memdev(page, memdev).items() for memdev, values in wanted.items())

    daemon.until(agree, LATEST, f"for {wanted}")
    page = daemon.metrics()
    for memdev, answers in told.items():
        shown = {
            series.split("{")[0].removeprefix("gpudaemon_cxl_memdev_") for series in of_memdev(page, memdev)
        }
        if not isinstance(answers["health"], str):
            assert not shown & {"health_status", "media_status", "alert_level", "temperature_celsius"}
        if not isinstance(answers["shutdown"], str):
            assert "shutdown_state_dirty" not in shown
    return sum(map(len, wanted.values()))


def check_region(guest: Guest, daemon: GuestDaemon) -> None:
    """A region is made, becomes a node, and is torn down: its series come and go."""
    page = daemon.metrics()
    assert not page.family("gpudaemon_cxl_region_size_bytes")
    # What the kernel uses for itself cannot be taken away again (admin-guide/mm/memory-hotplug.rst).
    guest.shell("echo online_movable > /sys/devices/system/memory/auto_online_blocks")
    volatile = guest.shell("grep -l 0x1001 /sys/bus/cxl/devices/mem*/serial").split("/")[-2]
    guest.run("cxl", "create-region", "-m", "-t", "ram", "-d", "decoder0.0", "-w", "1", volatile)

    def committed() -> bool:
        page = daemon.metrics()
        return list(page.family("gpudaemon_cxl_region_committed").values()) == [1.0]

    daemon.until(committed, LATEST)
    (region,) = guest.glob("/sys/bus/cxl/devices/region*")
    name = region.rsplit("/", 1)[-1]
    page = daemon.metrics()
    assert page[f'gpudaemon_cxl_region_size_bytes{{region="{name}"}}'] == int(guest.read(f"{region}/size"), 16)
    daemon.until(
        lambda: 'kind="cxl"' in "".join(daemon.metrics().family("gpudaemon_memory_pool_bytes")), LATEST
    )
    page = daemon.metrics()
    ((series, size),) = (
        (series, size)
        for series, size in page.family("gpudaemon_memory_pool_bytes").items()
        if 'kind="cxl"' in series
    )
    node = series.split('pool="')[1].split('"')[0]
    said = guest.read(f"/sys/devices/system/node/{node}/meminfo").split()
    assert size == int(said[said.index("MemTotal:") + 1]) * 1024
    (tier,) = (
        path.split("memory_tier")[-1]
        for path in guest.glob("/sys/bus/memory_tiering/devices/memory_tier*")
        if guest.read(f"{path}/nodelist").strip() == node.removeprefix("node")
    )
    assert page[f'gpudaemon_memory_pool_info{{pool="{node}",kind="cxl",tier="{tier}"}}'] == 1
    (dax,) = guest.glob("/sys/bus/dax/devices/dax*")
    guest.until(
        lambda: guest.run("daxctl", "offline-memory", dax.rsplit("/", 1)[-1], check=False).status == 0,
        LATEST,
        "for memory nobody uses",
    )
    guest.run("cxl", "disable-region", name)
    guest.run("cxl", "destroy-region", "-f", name)
    daemon.until(lambda: not daemon.metrics().family("gpudaemon_cxl_region_committed"), LATEST)
    page = daemon.metrics()
    assert not [series for series in page if f'region="{name}"' in series]
    assert not [series for series in page if f'pool="{node}"' in series]


def check_hotplug(guest: Guest, daemon: GuestDaemon) -> None:
    """A memory device is plugged in, asked for its health, and unplugged."""
    device = _slot(guest, "cxl_free0")
    guest.qmp.command("object-add", qom_type="memory-backend-ram", id="cxl_new", size=256 << 20)
    guest.qmp.command(
        "device_add",
        driver="cxl-type3",
        bus="cxl_free0",
        volatile_memdev="cxl_new",
        id="cxl_plugged",
        sn=0x1009,
    )

    def memdev() -> str:
        infos = daemon.metrics().family("gpudaemon_cxl_memdev_info")
        found = [series for series in infos if 'serial="0x1009"' in series]
        return found[0].split('memdev="')[1].split('"')[0] if found else ""

    try:
        daemon.until(lambda: memdev() and of_memdev(daemon.metrics(), memdev()), LATEST)
        name = memdev()
    finally:
        # The memory stays QEMU's: it cannot be deleted once a device has had it.
        _unplug(guest, "cxl_plugged", device)
    daemon.until(lambda: not memdev() and not of_memdev(daemon.metrics(), name), LATEST)
    page = daemon.metrics()
    assert not [series for series in page if f'memdev="{name}"' in series]
    assert device not in daemon.devices()


def check_descriptors(guest: Guest, daemon: GuestDaemon, before: dict[str, int]) -> None:
    """Nothing is open that was not before."""

    def more() -> dict[str, int]:
        now = guest.call(descriptors, daemon.pid)
        return {name: count for name, count in now.items() if count > before.get(name, 0)}

    try:
        daemon.until(lambda: not more(), LATEST)
    except AssertionError as error:
        raise AssertionError(f"{more()} more than {before}: {error}") from None


def test_memory_devices(guest: Guest, measured: Measured) -> None:
    furnish(guest)
    with GuestDaemon(guest, *FLAGS) as daemon:
        measured("values of mailboxes compared", check_mailboxes(guest, daemon), "")
        before = guest.call(descriptors, daemon.pid)
        check_region(guest, daemon)
        check_hotplug(guest, daemon)
        check_mailboxes(guest, daemon)
        check_descriptors(guest, daemon, before)
        assert "Traceback" not in daemon.log
