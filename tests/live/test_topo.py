"""`gpudaemon topo` and the topology a running daemon serves, on a tree with a switch, a NIC and a drive."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.captures import _link, _write
from tests.live.daemon import RunningDaemon, until

pytestmark = pytest.mark.live

ROOT, UP = "0000:00:01.0", "0000:01:00.0"
DOWN = ("0000:02:00.0", "0000:02:01.0", "0000:02:02.0")
GPU, NIC, NVME = "0000:03:00.0", "0000:04:00.0", "0000:05:00.0"


def config(port: int, control: int | None = None) -> bytes:
    """4 KiB of configuration space of that port type; control: of its ACS, None for no ACS."""
    content = bytearray(4096)
    struct.pack_into("<HH", content, 0, 0x1002, 0x1478)
    content[6], content[0x34] = 0x10, 0x40
    struct.pack_into("<BBH", content, 0x40, 0x10, 0, port << 4 | 2)
    if control is not None:
        struct.pack_into("<IHH", content, 0x100, 0x0001_000D, 0x1F, control)
    return bytes(content)


@pytest.fixture
def host(tmp_path: Path) -> tuple[str, str]:
    """(sysfs, procfs) of a host with one switch: a GPU, an RDMA device and a drive below it."""
    sysfs, procfs = str(tmp_path / "sys"), str(tmp_path / "proc")
    base = f"{sysfs}/devices/pci0000:00"
    switch = f"{base}/{ROOT}/{UP}"
    paths = {ROOT: f"{base}/{ROOT}", UP: switch}
    paths |= {id_: f"{switch}/{id_}" for id_ in DOWN}
    ends = zip((GPU, NIC, NVME), DOWN, strict=True)
    paths |= {id_: f"{switch}/{above}/{id_}" for id_, above in ends}
    os.makedirs(f"{sysfs}/bus/pci/devices")
    for id_, path in {"0000:00:00.0": f"{base}/0000:00:00.0", **paths}.items():
        _write(f"{path}/vendor", b"0x8086\n")
        _write(f"{path}/device", b"0x1234\n")
        _write(f"{path}/class", b"0x060400\n" if id_ in (ROOT, UP, *DOWN) else b"0x010802\n")
        _write(f"{path}/numa_node", b"0\n")
        for name, value in (("speed", b"16.0 GT/s PCIe\n"), ("width", b"8\n" if id_ == NIC else b"16\n")):
            _write(f"{path}/current_link_{name}", value)
            _write(f"{path}/max_link_{name}", value if name == "speed" else b"16\n")
        _write(f"{path}/power/runtime_status", b"active\n")
        port = {ROOT: 4, UP: 5}.get(id_, 6 if id_ in DOWN else 0)
        _write(f"{path}/config", config(port, 0x1D if id_ == DOWN[2] else 0))
        _link(f"{path}/subsystem", f"{sysfs}/bus/pci")
        _link(f"{sysfs}/bus/pci/devices/{id_}", path)
    for end, directory, node in ((GPU, "drm", "card0"), (NIC, "infiniband", "mlx5_0"), (NVME, "nvme", "nvme0")):
        _write(f"{paths[end]}/{directory}/{node}/uevent", b"")
        _link(f"{paths[end]}/{directory}/{node}/subsystem", f"{sysfs}/class/{directory}")
        _link(f"{sysfs}/class/{directory}/{node}", f"{paths[end]}/{directory}/{node}")
    _write(f"{procfs}/cpuinfo", b"processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n\n")
    return sysfs, procfs


def topo(host: tuple[str, str], tmp_path: Path, *arguments: str) -> str:
    where = ("--path.sysfs", host[0], "--path.procfs", host[1], "--path.runtime", str(tmp_path / "run"))
    command = [sys.executable, "-m", "gpudaemon.cli", "topo", *arguments, *where, "--uevent.source", "none"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_command(host: tuple[str, str], tmp_path: Path) -> None:
    text = topo(host, tmp_path)
    assert text.splitlines()[1].split() == ["GPU0", "X", "PIX+", "PIX-", "0"]
    assert "DOWNGRADED, x16 possible" in text
    found = json.loads(topo(host, tmp_path, "--json"))
    assert {one["id"] for one in found["functions"] if one["name"]} == {GPU, NIC, NVME}
    why = topo(host, tmp_path, "--why", "card0", "nvme0")
    assert f"ACS redirects at {DOWN[2]}" in why and "no (not_supported, acs_redirect)" in why


def test_the_daemon_serves_it_and_follows(host: tuple[str, str], tmp_path: Path) -> None:
    with RunningDaemon(None, "--period.slow", "1", sysfs=host[0], procfs=host[1]) as daemon:
        pair = f'{{src="{GPU}",dst="{NIC}"}}'
        until(lambda: daemon.metrics().get(f"gpudaemon_p2p_reachable{pair}") == 1, 15)
        page = daemon.metrics()
        assert page[f'gpudaemon_p2p_reachable{{src="{GPU}",dst="{NVME}"}}'] == 0
        assert page[f'gpudaemon_pcie_link_downgraded{{device="{NIC}"}}'] == 1
        assert page[f'gpudaemon_pci_acs_redirect{{device="{DOWN[2]}"}}'] == 1
        assert page[f"gpudaemon_p2p_ceiling_bytes_per_second{pair}"] == pytest.approx(15.754e9, rel=1e-3)
        # The NIC's link is retrained to all its lanes: what is read again changes what is known of its paths.
        width = f"{host[0]}/bus/pci/devices/{NIC}/current_link_width"
        Path(width).write_bytes(b"16\n")
        ceiling = f"gpudaemon_p2p_ceiling_bytes_per_second{pair}"
        until(lambda: daemon.metrics()[ceiling] == pytest.approx(31.508e9, rel=1e-3), 40)
        assert daemon.metrics()[f'gpudaemon_pcie_link_downgraded{{device="{NIC}"}}'] == 0
