"""Threads that wait for fences, on real kernels: vgem's, which are signalled when a program says so.

A processor that wants to read a shared buffer waits for the fences on it (DMA_BUF_IOCTL_SYNC,
drivers/dma-buf/dma-buf.c, begin_cpu_access), as long as the thread that does it measures itself.
"""

import re
from collections.abc import Callable

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.tracefs import contents

pytestmark = [pytest.mark.guest(devices="minimal"), pytest.mark.timeout(900)]

Measured = Callable[[str, float, str], None]
WAITS = (0.5, 0.25, 1.0)
FLAGS = ("--tier", "tracing", "--preset", "scrape", "--read.deadline", "5")


def wait_for_fences(waits: tuple[float, ...]) -> tuple[int, list[float]]:
    """In the guest: wait so long for a fence each time; (process, how long it took, as the thread sees it).

    include/uapi/drm/vgem_drm.h, include/uapi/linux/dma-buf.h.
    """
    import fcntl
    import glob
    import os
    import struct
    import threading
    import time

    def ask(descriptor: int, direction: int, kind: int, number: int, data: bytearray) -> None:
        fcntl.ioctl(descriptor, direction << 30 | len(data) << 16 | kind << 8 | number, data)

    (node,) = (path for path in glob.glob("/sys/class/drm/card*") if "/vgem/" in os.path.realpath(path))
    card = os.open(f"/dev/dri/{os.path.basename(node)}", os.O_RDWR)
    dumb = bytearray(struct.pack("=IIIIIIQ", 64, 64, 32, 0, 0, 0, 0))
    ask(card, 3, 0x64, 0xB2, dumb)
    (handle,) = struct.unpack_from("=I", dumb, 16)
    prime = bytearray(struct.pack("=IIi", handle, os.O_RDWR | os.O_CLOEXEC, 0))
    ask(card, 3, 0x64, 0x2D, prime)
    (buffer,) = struct.unpack_from("=i", prime, 8)
    took = []
    for seconds in waits:
        attach = bytearray(struct.pack("=IIII", handle, 1, 0, 0))  # VGEM_FENCE_WRITE
        ask(card, 3, 0x64, 0x41, attach)
        (fence,) = struct.unpack_from("=I", attach, 8)
        signal = bytearray(struct.pack("=II", fence, 0))
        timer = threading.Timer(seconds, ask, (card, 1, 0x64, 0x42, signal))
        timer.start()
        began = time.monotonic()
        ask(buffer, 1, 0x62, 0, bytearray(struct.pack("=Q", 1)))  # DMA_BUF_SYNC_READ | DMA_BUF_SYNC_START
        took.append(time.monotonic() - began)
        timer.join()
    return os.getpid(), took


def test_time_blocked_on_fences(guest: Guest, measured: Measured) -> None:
    guest.modprobe("vgem")
    clean = contents(guest)
    with GuestDaemon(guest, *FLAGS, "--collector.dma-fence", wait=400.0) as daemon:
        daemon.until(
            lambda: (
                daemon.metrics().get('gpudaemon_daemon_tracer_state{subject="dma_fence",state="armed"}') == 1
            ),
            60.0,
        )

        def sums(name: str) -> float:
            series = daemon.metrics().family(f"gpudaemon_dma_fence_{name}_total").items()
            return sum(value for one, value in series if re.search(r'driver="vgem"', one))

        _, took = guest.call(wait_for_fences, WAITS)
        daemon.until(lambda: sums("waits") == len(WAITS), 60.0)
        seconds = sums("wait_seconds")
        measured("threads waited, by their own clock", sum(took), "s")
        measured("waits, as counted", seconds, "s")
        # The thread's own time has the way into the kernel and out of it in it.
        assert sum(WAITS) * 0.9 <= seconds <= sum(took)
        assert sum(daemon.metrics().family("gpudaemon_dma_fence_waiting").values()) == 0
        assert "Traceback" not in daemon.log
    guest.until(lambda: contents(guest) == clean, 60.0, "for a clean tracefs")
