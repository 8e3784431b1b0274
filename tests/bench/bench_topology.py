"""What it costs to know who can reach whom: built whole, and again after one drive came or went.

    python tests/bench/bench_topology.py [--gpus 16] [--nics 16] [--drives 32] [--runs 5]

A made-up host: two processors, each GPU with a NIC and two drives below a switch of its own. What is measured
is what the daemon does: facts decoded (configuration space of 4 KiB each), functions, verdicts, paths,
ceilings, series. CPU time of the process, medians.
"""

import argparse
import statistics
import struct
import time

from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.topology import Link
from gpudaemon.pipeline.topology import HostFacts, Made

MUST = 0.2


def config(port: int) -> bytes:
    """Configuration space of a function of that port type, ACS present and off."""
    content = bytearray(4096)
    struct.pack_into("<HH", content, 0, 0x1002, 0x1478)
    content[6], content[0x34] = 0x10, 0x40
    struct.pack_into("<BBH", content, 0x40, 0x10, 0, port << 4 | 2)
    struct.pack_into("<IHH", content, 0x100, 0x0001_000D, 0x1F, 0)
    return bytes(content)


def part(id_: str, kind: DeviceKind, path: str, port: int) -> tuple[Device, dict[str, bytes | None], Link]:
    above = tuple(one for one in reversed(path.split("/")[2:-1]))
    device = Device(id=id_, kind=kind, path=path, subsystem="pci", parents=above)
    facts: dict[str, bytes | None] = {
        "vendor": b"0x1002\n",
        "device": b"0x1478\n",
        "class": b"0x060400\n",
        "numa_node": b"0\n",
        "resource": b"0x00000000e0000000 0x00000000efffffff 0x000000000014220c\n" * 6,
        "config": config(port),
    }
    return device, facts, Link(32e9, 16, 32e9, 16)


def host(gpus: int, nics: int, drives: int) -> list[tuple[Device, dict[str, bytes | None], Link]]:
    ends = [DeviceKind.GPU] * gpus + [DeviceKind.NIC] * nics + [DeviceKind.NVME] * drives
    found = []
    for number, kind in enumerate(ends):
        switch = number % max(gpus, 1)
        root = f"devices/pci{switch % 2:04x}:00"
        port = f"{switch % 2:04x}:00:{switch % 32:02x}.0"
        up = f"{switch % 2:04x}:{16 + switch:02x}:00.0"
        down = f"{switch % 2:04x}:{48 + switch:02x}:{number // max(gpus, 1):02x}.0"
        end = f"{switch % 2:04x}:{80 + number:02x}:00.0"
        if number < gpus:
            found.append(part(port, DeviceKind.PCI, f"{root}/{port}", 4))
            found.append(part(up, DeviceKind.PCI, f"{root}/{port}/{up}", 5))
        found.append(part(down, DeviceKind.PCI, f"{root}/{port}/{up}/{down}", 6))
        found.append(part(end, kind, f"{root}/{port}/{up}/{down}/{end}", 0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--gpus", type=int, default=16)
    parser.add_argument("--nics", type=int, default=16)
    parser.add_argument("--drives", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    parts = host(arguments.gpus, arguments.nics, arguments.drives)
    facts = HostFacts(cpu_vendor="GenuineIntel", cpu_family=6, nodes=2, iommu_types={})
    whole, again, judged, series = [], [], 0, 0
    for _ in range(arguments.runs):
        made = Made()
        began = time.process_time()
        rows = made.update(parts, facts)
        whole.append(time.process_time() - began)
        series = sum(map(len, rows.values()))
        began = time.process_time()
        made.update(parts[:-1], facts)
        again.append(time.process_time() - began)
        judged = made.judged
    print(f"{len(parts)} functions, {series} series")
    first, second = 1000 * statistics.median(whole), 1000 * statistics.median(again)
    print(f"built whole            {first:7.1f} ms CPU   must be within {1000 * MUST:.0f} ms")
    print(f"after one drive left   {second:7.1f} ms CPU   {first / second:.1f} x less, {judged} pairs judged")


if __name__ == "__main__":
    main()
