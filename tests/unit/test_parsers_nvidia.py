"""/proc/driver/nvidia: what real hosts printed, what the driver does not know, and any bytes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.discovery.scan import with_proc
from gpudaemon.drivers import nvidia
from gpudaemon.errors import Malformed
from gpudaemon.metrics import nvml
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.nvidia import NUMA_STATES, driver_version, entries, numa_status
from gpudaemon.pipeline.plan import facts_needed, facts_plan, make_plan, reader_plan
from tests import captures

VERSION = b"""\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""


@pytest.mark.parametrize(
    ("file", "model", "uuid", "vbios"),
    [
        ("information_a10g.txt", "NVIDIA A10G", "GPU-82523fd8-3897-f599-d088-ccd04ae45ec1", "94.04.42.00.01"),
        (
            "information_tesla_k80.txt",
            "Tesla K80",
            "GPU-c6398fd0-9366-8e15-5d6a-369da852f85b",
            "80.21.25.00.02",
        ),
    ],
)
def test_information_of_real_cards(file: str, model: str, uuid: str, vbios: str) -> None:
    with open(captures.capture("nvidia-proc", file), "rb") as stream:
        content = stream.read()
    found = entries(content)
    assert (found["Model"], found["GPU UUID"], found["Video BIOS"]) == (model, uuid, vbios)
    facts = {"proc:driver/nvidia/gpus/0000:00:1e.0/information": content}
    assert nvidia.DRIVER.details(facts) == {"product_name": model, "unique_id": uuid, "vbios_version": vbios}


def test_memory_of_a_real_power9_host_is_a_node() -> None:
    with open(captures.capture("nvidia-proc", "numa_status_0004:05:00.0_v100_power9.txt"), "rb") as stream:
        node, *states = numa_status(stream.read())
    assert node == 255
    assert dict(zip(NUMA_STATES, states, strict=True))["online"] == 1.0
    assert sum(states) == 1.0  # type: ignore[arg-type]


def test_what_the_driver_does_not_know_yet_is_left_out() -> None:
    content = b"Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-????????-????\nVideo BIOS: \t ??.??.??\n"
    assert entries(content) == {"Model": "NVIDIA H100"}


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (VERSION, "550.54.15"),
        (b"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n", "570.86.15"),
        (b"NVRM version: NVIDIA UNIX x86_64 Kernel Module  304.137  Thu\n", "304.137"),
        (b"GCC version:  12.2.0 \n", ""),
        (b"", ""),
    ],
)
def test_versions(content: bytes, version: str) -> None:
    assert driver_version(content) == version


@given(st.binary(max_size=300) | st.sampled_from([b"Status: online\n", b"Node: x\nStatus: online\n", VERSION]))
def test_any_bytes(content: bytes) -> None:
    assert all("?" not in value and len(value) <= 128 for value in entries(content).values())
    assert len(driver_version(content)) <= 14
    try:
        values = numa_status(content)
    except Malformed as error:
        assert error.reason in Malformed.REASONS
    else:
        assert len(values) == 1 + len(NUMA_STATES)


def test_files_in_procfs_are_read_below_procfs(tmp_path: Path) -> None:
    gpu = Device(id="0000:3b:00.0", kind=DeviceKind.GPU, path="devices/x", driver="nvidia")
    assert with_proc(str(tmp_path), gpu) == gpu
    directory = tmp_path / "driver/nvidia/gpus/0000:3b:00.0"
    directory.mkdir(parents=True)
    for name in ("information", "numa_status", "registry", "power"):
        (directory / name).write_bytes(b"")
    found = with_proc(str(tmp_path), gpu)
    wanted = {"version", "gpus/0000:3b:00.0/information", "gpus/0000:3b:00.0/numa_status"}
    assert found.names == {f"proc:driver/nvidia/{name}" for name in wanted}
    needed = facts_needed(found)
    assert set(needed) == {name for name in found.names if "numa" not in name}
    told = reader_plan(facts_plan(found, needed), 1, "/sys", 1.0, procfs="/mock/proc")
    assert "/mock/proc/driver/nvidia/version" in told["paths"]
    plan = make_plan(found, {"proc:driver/nvidia/version": VERSION})
    assert nvml.DRIVER_INFO in plan.blocks and nvml.MEMORY_NUMA_NODE in plan.blocks
