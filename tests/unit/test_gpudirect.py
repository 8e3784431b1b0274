"""nvidia-fs, peer memory clients and shared buffers: what is printed becomes rows, anything else Malformed.

nvidia-fs is not on any host at hand: version 2 of its statistics is as NVIDIA's GPUDirect Storage guide shows
it, version 4 and the table of peers as its source prints them (https://github.com/NVIDIA/gds-nvidia-fs).
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors import collectors
from gpudaemon.discovery.scan import scan, with_proc
from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.dma_buf import Buffer, bufinfo
from gpudaemon.parsers.nvidia_fs import Gpu, Peer, peer_distance, stats
from tests import captures

VERSION_2 = b"""GDS Version: 0.9.0.743
NVFS statistics(ver: 2.0)
NVFS Driver(version: 2:3:1)
Active Shadow-Buffer (MiB): 128
Active Process: 1
Reads : n=424436862 ok=424436734 err=0 readMiB=21518771 io_state_err=0
Reads : Bandwidth(MiB/s)=13081 Avg-Latency(usec)=9773
Sparse Reads : n=19783000 io=0 holes=0 pages=0
Writes : n=309770912 ok=309770912 err=0 writeMiB=9748727 io_state_err=0 \
pg-cache=0 pg-cache-fail=0 pg-cache-eio=0
Writes : Bandwidth(MiB/s)=6958 Avg-Latency(usec)=18386
Mmap : n=3584 ok=3584 err=0 munmap=3456
Bar1-map : n=3584 ok=3584 err=0 free=3456 callbacks=0 active=128
Error : cpu-gpu-pages=0 sg-ext=0 dma-map=0
Ops : Read=128 Write=0
GPU 0000:be:00.0 uuid:87e5c586-88ed-583b-df45-fcee0f1e7917 : \
Registered_MiB=3 Cache_MiB=0 max_pinned_MiB=8 cross_root_port(%)=7
"""
VERSION_4 = b"""GDS Version: 1.14.0.30 \nNVFS statistics(ver: 4.0)
NVFS Driver(version: 2.25.6)
Mellanox PeerDirect Supported: True
IO stats: Enabled, peer IO stats: Disabled
Logging level: info

Active Shadow-Buffer (MiB): 0
Active Process: 2
Batches\t\t\t\t: n=3 ok=2 err=1 Avg-Submit-Latency(usec)=50
Reads\t\t\t\t: n=1048576 ok=1048570 err=6 readMiB=1048576 io_state_err=4
Reads\t\t\t\t: Bandwidth(MiB/s)=13224 Avg-Latency(usec)=594
Sparse Reads\t\t        : n=0 io=0 holes=0 pages=0\x20
Writes\t\t\t\t: n=0 ok=0 err=0 writeMiB=0 io_state_err=0 pg-cache=9 pg-cache-fail=2 pg-cache-eio=1
Writes\t\t\t\t: Bandwidth(MiB/s)=0 Avg-Latency(usec)=0
Mmap\t\t\t\t: n=64 ok=64 err=0 munmap=0
Bar1-map\t\t\t: n=64 ok=64 err=0 free=0 callbacks=0 active=64 delay-frees=0
Error\t\t\t\t: cpu-gpu-pages=0 sg-ext=0 dma-map=5 dma-ref=0
Ops\t\t\t\t: Read=8 Write=0 BatchIO=1
GPU 0000:1b:00.0  uuid:029faa3bcb0d-2718-259c-6dc650c636eb : \
Registered_MiB=16 Cache_MiB=1 max_pinned_MiB=32\x20
"""
NOT_COUNTED = b"""NVFS statistics(ver: 4.0)
IO stats: Disabled, peer IO stats: Disabled
Active Shadow-Buffer (MiB): 1
Reads\t\t\t\t: err=2 io_state_err=0
Ops\t\t\t\t: Read=0 Write=0 BatchIO=0
"""
PEERS = (
    b"gpu\t\tpeer\t\tpeerrank\tp2pdist\tlink\tgen\tnuma\tnp2p\tclass\n"
    b"0000:1b:00.0 \t0000:18:00.0 \t0x00030088\t0x0003\t0x10\t0x05\t0x00\t4096\tnetwork\n"
    b"0000:1b:00.0 \t0000:af:00.0 \t0x010200c4\t0x0102\t0x04\t0x04\t0x01\t0\tnvme\n"
)
BUFINFO = (
    b"\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n"
    b"268435456\t00000002\t02080007\t00000003\tamdgpu\t00000007\t<none>\n"
    b"\twrite fence:amdgpu sdma0 seq 5 signalled\n\tAttached Devices:\n\t0000:05:00.0\n\t0000:05:00.0\n"
    b"Total 2 devices attached\n\n"
    b"00004096\t00000002\t02080007\t00000002\tdrm\t00000008\tsome name\n\tAttached Devices:\n"
    b"Total 0 devices attached\n\n\nTotal 2 objects, 268439552 bytes\n"
)
MIB = 1 << 20


def test_version_2_as_nvidias_guide_shows_it() -> None:
    found = stats(VERSION_2)
    assert (found.io, found.shadow, found.processes) == (None, 128 * MIB, 1)
    assert found.number("Reads", "n") == 424436862 and found.number("Reads", "Avg-Latency(usec)") == 9773
    assert found.gpus == [Gpu("0000:be:00.0", 3 * MIB, 0, 8 * MIB, 7)]


def rows_of(device: Device, path: str, content: bytes) -> dict[tuple[str, ...], float]:
    (one,) = [one for one in collectors()["gpudirect"].attributes(device, {}) if one.path == path]
    assert isinstance(one, Rows)
    found = [
        ((metric.name.removeprefix("gpudaemon_"), *labels), value)
        for metric, labels, value in one.decode(content)
    ]
    assert len(found) == len(dict(found))
    assert all(metric in one.metrics for metric, _, _ in one.decode(content))
    return dict(found)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A host with both modules, one peer memory client, nvidia-fs in procfs."""
    sysfs, procfs = tmp_path / "sys", tmp_path / "proc"
    for path, text in {
        "module/nvidia_fs/version": "2.25\n",
        "module/nvidia_fs/initstate": "live\n",
        "module/nvidia_peermem/initstate": "live\n",
        "kernel/mm/memory_peers/nv_mem/num_reg_bytes": "8192\n",
        "kernel/mm/memory_peers/nv_mem/num_dereg_bytes": "4096\n",
    }.items():
        (sysfs / path).parent.mkdir(parents=True, exist_ok=True)
        (sysfs / path).write_text(text)
    (procfs / "driver/nvidia-fs").mkdir(parents=True)
    for name in ("stats", "peer_distance", "modules"):
        (procfs / f"driver/nvidia-fs/{name}").write_text("")
    (found,) = [one for one in scan(str(sysfs)) if one.kind is DeviceKind.GPUDIRECT]
    return with_proc(str(procfs), found)


def test_what_a_host_has(device: Device) -> None:
    collector = collectors()["gpudirect"]
    assert collector.wants(device)
    facts = {"module/nvidia_fs/version": b"2.25\n", "module/nvidia_peermem/initstate": b"live\n"}
    assert [(series.values, value) for series, value in collector.constants(device, facts)] == [
        (("nvidia_fs", "2.25"), 1.0),
        (("nvidia_peermem", ""), 1.0),
    ]
    planned = {one.path: one for one in collector.attributes(device, facts)}
    assert sorted(planned) == [
        "kernel/mm/memory_peers/nv_mem/num_dereg_bytes",
        "kernel/mm/memory_peers/nv_mem/num_reg_bytes",
        "proc:driver/nvidia-fs/peer_distance",
        "proc:driver/nvidia-fs/stats",
    ]
    assert not any(one.kind is DeviceKind.GPUDIRECT for one in scan("/nonexistent"))


def test_statistics_become_rows(device: Device) -> None:
    found = rows_of(device, "proc:driver/nvidia-fs/stats", VERSION_4)
    assert found["gds_bytes_total", "read"] == 1048576 * MIB
    assert found["gds_operations_total", "batch"] == 3
    assert found["gds_operations_active", "read"] == 8
    assert found["gds_gpu_memory_bytes", "0000:1b:00.0", "cache"] == MIB
    assert ("gds_gpu_cross_root_port_ratio", "0000:1b:00.0") not in found, "peers are not counted"
    errors = {labels[1]: value for labels, value in found.items() if labels[0] == "gds_errors_total" and value}
    assert errors == {
        **{"read": 6, "read_io_state": 4, "batch": 1, "page_cache_fail": 2, "page_cache_eio": 1, "dma_map": 5}
    }
    assert (
        rows_of(device, "proc:driver/nvidia-fs/stats", VERSION_2)[
            "gds_gpu_cross_root_port_ratio", "0000:be:00.0"
        ]
        == 0.07
    )


def test_what_is_not_counted_is_not_zero(device: Device) -> None:
    found = rows_of(device, "proc:driver/nvidia-fs/stats", NOT_COUNTED)
    assert found == {
        ("gds_statistics_enabled", "io"): 0,
        ("gds_statistics_enabled", "peer"): 0,
        ("gds_errors_total", "read"): 2,
        ("gds_errors_total", "read_io_state"): 0,
        ("gds_shadow_buffer_bytes",): MIB,
    }


def test_peers(device: Device) -> None:
    assert peer_distance(PEERS)[0] == Peer("0000:1b:00.0", "0000:18:00.0", 3, 4096)
    assert rows_of(device, "proc:driver/nvidia-fs/peer_distance", PEERS) == {
        ("gds_peer_distance", "0000:1b:00.0", "0000:18:00.0"): 3,
        ("gds_peer_operations_total", "0000:1b:00.0", "0000:18:00.0"): 4096,
        ("gds_peer_distance", "0000:1b:00.0", "0000:af:00.0"): 0x102,
    }


def test_buffers_and_who_is_attached() -> None:
    assert bufinfo(BUFINFO) == [
        Buffer("amdgpu", 256 * MIB, ("0000:05:00.0", "0000:05:00.0")),
        Buffer("drm", 4096, ()),
    ]
    device = Device(id="dma-buf", kind=DeviceKind.DMA_BUF, path="x", names=frozenset({"bufinfo"}))
    (one,) = collectors()["dma_buf"].attributes(device, {})
    assert isinstance(one, Rows)
    found = {
        (metric.name.removeprefix("gpudaemon_dma_buf_"), *labels): value
        for metric, labels, value in one.decode(BUFINFO)
    }
    assert found == {
        ("buffers", "amdgpu"): 1,
        ("bytes", "amdgpu"): 256 * MIB,
        ("buffers", "drm"): 1,
        ("bytes", "drm"): 4096,
        ("attachments", "amdgpu", "0000:05:00.0"): 1,
        ("attached_bytes", "amdgpu", "0000:05:00.0"): 256 * MIB,
    }


@pytest.mark.parametrize("kernel", ["7.3.4+deb13-amd64", "6.12.95+deb12-amd64"])
def test_buffers_of_a_real_kernel(kernel: str) -> None:
    with open(captures.capture("vm", "lane", f"vgem-dmabuf-fdinfo-bufinfo-{kernel}.txt"), "rb") as file:
        content = file.read()
    assert bufinfo(content[content.index(b"Dma-buf Objects") :]) == [Buffer("drm", 16384, ())]


@pytest.mark.parametrize("content", [BUFINFO[:-40], b"", b"Dma-buf Objects:\n"])
def test_a_list_that_was_cut_is_no_list(content: bytes) -> None:
    with pytest.raises(Malformed):
        bufinfo(content)


@given(st.binary(max_size=300), st.integers(0, 2000), st.sampled_from([VERSION_2, VERSION_4, PEERS, BUFINFO]))
def test_any_content(noise: bytes, place: int, real: bytes) -> None:
    place %= len(real)
    for content in (noise, real[:place], real[:place] + noise + real[place + len(noise) :]):
        for parse in (stats, peer_distance, bufinfo):
            try:
                parse(content)
            except Malformed as error:
                assert error.reason in Malformed.REASONS


NUMBERS = st.integers(0, 2**64 - 1)


@given(st.dictionaries(st.sampled_from(["n", "ok", "err", "readMiB", "io_state_err"]), NUMBERS, min_size=1))
def test_numbers_of_a_line_come_back(words: dict[str, int]) -> None:
    line = " ".join(f"{name}={value}" for name, value in words.items())
    assert stats(f"NVFS statistics(ver: 4.0)\nReads\t\t: {line}\n".encode()).lines["Reads"] == words


@given(
    st.lists(st.tuples(NUMBERS, st.lists(st.sampled_from(["0000:05:00.0", "vgem"]), max_size=3)), max_size=5)
)
def test_buffers_come_back(buffers: list[tuple[int, list[str]]]) -> None:
    text = "\nDma-buf Objects:\n"
    for number, (size, devices) in enumerate(buffers):
        text += f"{size:08d}\t00000002\t02080007\t00000003\tdrm\t{number:08d}\t<none>\n\tAttached Devices:\n"
        text += "".join(f"\t{device}\n" for device in devices) + f"Total {len(devices)} devices attached\n\n"
    text += f"\nTotal {len(buffers)} objects, 0 bytes\n"
    assert bufinfo(text.encode()) == [Buffer("drm", size, tuple(devices)) for size, devices in buffers]
