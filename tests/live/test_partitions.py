"""A divided MI300 through the whole daemon: its partitions are parts of one GPU, named by KFD's topology."""

import os
import shutil
import struct
from pathlib import Path

import pytest

from gpudaemon.mock import build
from tests.live.daemon import RunningDaemon

pytestmark = pytest.mark.live

GPU = "0000:03:00.0"
MODES = 4


def _node(sysfs: str, number: int, render: int, location: int) -> None:
    path = Path(sysfs, "devices/virtual/kfd/kfd/topology/nodes", str(number))
    path.mkdir(parents=True)
    (path / "gpu_id").write_text(f"{1000 + number}\n")
    (path / "properties").write_text(
        f"simd_count 80\nsimd_per_cu 4\nlocation_id {location}\ndomain 0\ndrm_render_minor {render}\n"
        "unique_id 598046273873802902\nnum_xcc 2\n"
    )


def _divide(sysfs: str, partitions: int) -> None:
    """What amdgpu_xcp_drv.c and kfd_topology.c add for the partitions of the first GPU."""
    home = Path(sysfs, "devices/virtual/kfd/kfd/topology")
    home.mkdir(parents=True)
    (home / "generation_id").write_text("2\n")
    (Path(sysfs) / "class/kfd").mkdir()
    os.symlink("../../devices/virtual/kfd/kfd", Path(sysfs) / "class/kfd/kfd")
    _node(sysfs, 1, 128, 0x0300)
    for partition in range(1, partitions):
        _node(sysfs, partition + 1, 200 + partition, 0x0300 + partition)
        for node in (f"card{60 + partition}", f"renderD{200 + partition}"):
            path = Path(sysfs, f"devices/platform/amdgpu_xcp_{partition - 1}/drm/{node}")
            path.mkdir(parents=True)
            (path / "dev").write_text("226:0\n")
            os.symlink(os.path.relpath(path, Path(sysfs, "class/drm")), Path(sysfs, "class/drm", node))


def _table(partitions: int) -> bytes:
    """A table 1.6: two dies in each partition, at 10 % for the first, 20 % for the second and so on."""
    table = bytearray(b"\xff" * 1664)
    struct.pack_into("<HBB", table, 0, 1664, 1, 6)
    struct.pack_into("<H", table, 12, 25)  # average_gfx_activity
    struct.pack_into("<H", table, 306, partitions)
    for partition in range(partitions):
        struct.pack_into("<II", table, 312 + 168 * partition, *[10 * (partition + 1)] * 2)
    return bytes(table)


def nodes(daemon: RunningDaemon) -> list[str]:
    """KFD's nodes that belong to the GPU."""
    return [name for name in daemon.metrics().family("gpudaemon_kfd_node_info") if f'device="{GPU}"' in name]


def test_a_divided_gpu_is_one_gpu_with_parts(tmp_path: Path) -> None:
    build("mi300x8", str(tmp_path), gpus=1)
    sysfs = str(tmp_path / "sys")
    card = os.path.realpath(f"{sysfs}/bus/pci/devices/{GPU}")
    _divide(sysfs, MODES)
    Path(card, "gpu_metrics").write_bytes(_table(MODES))
    mode = Path(card, "current_compute_partition")
    mode.chmod(0o644)
    mode.write_text("QPX\n")
    with RunningDaemon(None, "--period.slow", "1", sysfs=sysfs) as daemon:

        def parents() -> list[str]:
            infos = daemon.metrics().family("gpudaemon_gpu_partition_info")
            return [name for name in infos if f'parent="{GPU}"' in name]

        daemon.until(lambda: len(parents()) == MODES - 1)
        page = daemon.metrics()
        assert page['gpudaemon_daemon_devices{kind="gpu"}'] == 1
        assert page['gpudaemon_daemon_devices{kind="partition"}'] == MODES - 1
        assert len(page.family("gpudaemon_gpu_info")) == 1
        assert page[f'gpudaemon_gpu_partitions{{device="{GPU}"}}'] == MODES
        health = page.family("gpudaemon_device_health")
        assert health and all("amdgpu_xcp" not in name for name in health)
        for partition in range(MODES):
            labels = f'device="{GPU}",partition="{partition}",engine="gfx",instance="0"'
            assert page[f"gpudaemon_gpu_partition_busy_ratio{{{labels}}}"] == pytest.approx(
                (partition + 1) / 10
            )
        daemon.until(lambda: len(nodes(daemon)) == MODES)
        # Somebody divides it another way: the table's partitions are looked at anew, and nothing stale stays.
        shutil.rmtree(f"{sysfs}/devices/platform")
        for partition in range(1, MODES):
            for node in (f"card{60 + partition}", f"renderD{200 + partition}"):
                os.unlink(f"{sysfs}/class/drm/{node}")
            shutil.rmtree(f"{sysfs}/devices/virtual/kfd/kfd/topology/nodes/{partition + 1}")
        Path(card, "gpu_metrics").write_bytes(_table(1))
        Path(sysfs, "devices/virtual/kfd/kfd/topology/generation_id").write_text("3\n")
        mode.write_text("SPX\n")
        daemon.until(lambda: daemon.metrics()['gpudaemon_daemon_devices{kind="partition"}'] == 0)
        daemon.until(lambda: len(nodes(daemon)) == 1)
        page = daemon.metrics()
        assert page[f'gpudaemon_gpu_partitions{{device="{GPU}"}}'] == 1
        assert not [
            name for name in page.family("gpudaemon_gpu_partition_busy_ratio") if 'partition="1"' in name
        ]
        assert page["gpudaemon_kfd_topology_generation"] == 3
