"""soft-RoCE with real traffic: what the daemon says against what iproute2's `rdma` says in the same guest.

The traffic is NVMe over RDMA, a drive of the guest to itself: queue pairs and memory regions of the kernel.
A process of Python holds a context, a protection domain and a memory region of its own besides, by the ABI of
uverbs (include/uapi/rdma/ib_user_verbs.h).
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gpudaemon.parsers.rdma_objects import SORTS
from tests.live.daemon import Page
from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest

_ADDRESS = "192.0.2.1"
_MODULES = ("nvme_rdma", "nvmet_rdma", "rdma_rxe", "ib_uverbs")
_REGISTERED = 1 << 16
_READ = 4 << 20
_TARGET = f"""
set -e
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
cd /sys/kernel/config/nvmet
mkdir subsystems/loop && echo 1 >subsystems/loop/attr_allow_any_host
mkdir subsystems/loop/namespaces/1 && cd subsystems/loop/namespaces/1
printf %s "$DISK" >device_path && echo 1 >enable && cd ../../../..
mkdir ports/1 && cd ports/1
echo ipv4 >addr_adrfam && echo rdma >addr_trtype && echo {_ADDRESS} >addr_traddr && echo 4420 >addr_trsvcid
ln -s ../../subsystems/loop subsystems/loop
"""
_CONNECT = f"transport=rdma,traddr={_ADDRESS},trsvcid=4420,nqn=loop,nr_io_queues=1,keep_alive_tmo=0"
_END = """
for c in /sys/class/nvme-fabrics/ctl/nvme*/delete_controller; do [ -e "$c" ] && echo 1 >"$c"; done
cd /sys/kernel/config/nvmet && rm ports/1/subsystems/loop && rmdir ports/1
echo 0 >subsystems/loop/namespaces/1/enable
rmdir subsystems/loop/namespaces/1 subsystems/loop
"""
_HOLDER = f"""
import mmap, os, struct, time, ctypes
open("/proc/self/comm", "w").write("holder")
verbs = os.open("/dev/infiniband/uverbs0", os.O_RDWR)
answer = (ctypes.c_uint32 * 8)()
memory = mmap.mmap(-1, {_REGISTERED})
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
def call(command, words, out):
    body = struct.pack("=Q", ctypes.addressof(answer)) + words
    os.write(verbs, struct.pack("=IHH", command, (8 + len(body)) // 4, out) + body)
    return answer[0]
call(0, b"", 2)  # IB_USER_VERBS_CMD_GET_CONTEXT
domain = call(3, b"", 1)  # ALLOC_PD
call(9, struct.pack("=QQQII", start, {_REGISTERED}, start, domain, 1), 3)  # REG_MR, IB_ACCESS_LOCAL_WRITE
print("held", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def roce(guest: Guest) -> Iterator[None]:
    """rxe0 on the guest's Ethernet device, and a process that holds objects of it."""
    guest.modprobe("virtio_net", "nvme", *_MODULES)
    guest.run("ip", "link", "set", "eth0", "up")
    guest.run("ip", "addr", "add", f"{_ADDRESS}/24", "dev", "eth0")
    guest.run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "eth0")
    holder = guest.start(sys.executable, "-c", _HOLDER, log="/run/holder")
    try:
        guest.until(lambda: "held" in guest.read("/run/holder"), 30.0, "for the holder")
        yield
    finally:
        guest.run("kill", str(holder))
        guest.until(lambda: guest.ended(holder) is not None, 10.0, "for the holder's end")
        guest.run("rdma", "link", "delete", "rxe0")
        guest.run("ip", "addr", "flush", "dev", "eth0")
        guest.run("ip", "link", "set", "eth0", "down")
        guest.shell("; ".join(f"rmmod {module}" for module in _MODULES), check=False)


@contextlib.contextmanager
def loop(guest: Guest) -> Iterator[str]:
    """A drive of the guest over RDMA; its block device."""
    plain = guest.shell("grep -l ^plain /sys/class/nvme/nvme*/serial").split("/")[-2]
    guest.shell(f"DISK=/dev/{plain}n1\n{_TARGET}")
    before = set(guest.glob("/dev/nvme*n1"))
    try:
        guest.write("/dev/nvme-fabrics", _CONNECT)
        guest.until(lambda: set(guest.glob("/dev/nvme*n1")) - before, 60.0, "for the drive over RDMA")
        (found,) = set(guest.glob("/dev/nvme*n1")) - before
        yield found
    finally:
        guest.shell(_END, check=False)


def said(guest: Guest, *words: str) -> list[dict[str, Any]]:
    """What `rdma -j WORDS` prints."""
    found: list[dict[str, Any]] = json.loads(guest.run("rdma", "-j", *words).stdout)
    return found


def counters(guest: Guest) -> dict[str, int]:
    (found,) = said(guest, "statistic", "show", "link", "rxe0/1")
    return {name: value for name, value in found.items() if name not in ("ifindex", "ifname", "port")}


def of_page(page: Page, metric: str) -> dict[tuple[str, ...], float]:
    """Labels but device and RDMA device -> value."""
    found = {}
    for series, value in page.items():
        name, _, rest = series.partition("{")
        if name == metric and 'rdma="rxe0"' in rest:
            words = dict(one.split("=", 1) for one in rest.rstrip("}").split(","))
            found[tuple(words[key].strip('"') for key in words if key not in ("device", "rdma"))] = value
    return found


def by_type(page: Page) -> dict[str, float]:
    """Objects of all owners together."""
    sums: dict[str, float] = {}
    for (*_, kind), value in of_page(page, "gpudaemon_rdma_owner_objects").items():
        sums[kind] = sums.get(kind, 0.0) + value
    return sums


@pytest.mark.guest(devices="all")
def test_counters_and_objects_as_iproute2_says(guest: Guest) -> None:
    flags = ("--engine", "threads", "--tier", "full", "--period.slow", "1", "--collector.disable-defaults")
    with roce(guest), GuestDaemon(guest, *flags, "--collector.rdma") as daemon:
        before = counters(guest)
        with loop(guest) as disk:
            guest.run("dd", f"if={disk}", "of=/dev/null", "bs=256k", f"count={_READ >> 18}", "iflag=direct")
            after = counters(guest)
            assert after["rcvd_pkts"] - before["rcvd_pkts"] > _READ // 4096, (before, after)
            hardware = "gpudaemon_rdma_hardware_statistics_total"
            daemon.until(
                lambda: (
                    {name: value for (_, name), value in of_page(daemon.metrics(), hardware).items()}
                    == counters(guest)
                ),
                30.0,
                "for the counters of rdma statistic",
            )
            (summary,) = said(guest, "resource", "show", "rxe0")
            expected = {(name,): count for name, count in summary.items() if name not in ("ifindex", "ifname")}
            daemon.until(
                lambda: of_page(daemon.metrics(), "gpudaemon_rdma_objects") == expected,
                30.0,
                "for the objects of rdma resource",
            )
            held = {name: count for (name,), count in expected.items() if count and name in SORTS}
            kernel = [one for one in said(guest, "resource", "show", "qp") if one["ifname"] == "rxe0"]
            assert len(kernel) == summary["qp"] >= 4
            daemon.until(lambda: by_type(daemon.metrics()) == held, 30.0, "for their owners")
            page = daemon.metrics()
            owned = of_page(page, "gpudaemon_rdma_owner_objects")
            states = of_page(page, "gpudaemon_rdma_queue_pairs")
            assert states["ready_to_send",] == sum(one["state"] == "RTS" for one in kernel) >= 4
            mine = {kind: count for (_, process, kind), count in owned.items() if process == "holder"}
            print(f"{guest.kernel.release}: {expected}, of the holder {mine}")
            assert mine == {"ctx": 1, "pd": 1, "mr": 1}
            registered = of_page(page, "gpudaemon_rdma_owner_registered_bytes")
            assert [value for (_, process), value in registered.items() if process == "holder"] == [_REGISTERED]
        assert "Traceback" not in daemon.log
