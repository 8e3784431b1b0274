"""Counters of CXL memory from a tree of event sources as drivers/perf/cxl_pmu.c makes it."""

from pathlib import Path

import pytest

from gpudaemon.discovery.scan import scan
from gpudaemon.metrics import cxl_pmu
from gpudaemon.mock.tree import Tree, write
from gpudaemon.pipeline.plan import Selection, call_plans, facts_needed, make_plan

FUNCTION = "sys/devices/pci0000:20/0000:20:00.0/0000:21:00.0"
UNIT = {
    "type": "31", "cpumask": "3",
    "format/mask": "config:0-31", "format/gid": "config:32-47", "format/vid": "config:48-63",
    "format/threshold": "config1:0-15", "format/invert": "config1:16", "format/hdm": "config2:0-15",
    "events/clock_ticks": "vid=0x1e98,gid=0x0,mask=0x1",
    "events/s2m_drs_memdata": "vid=0x1e98,gid=0x24,mask=0x1",
    "events/m2s_rwd_memwr": "vid=0x1e98,gid=0x22,mask=0x2",
    "events/m2s_req_memspecrd": "vid=0x1e98,gid=0x20,mask=0x100",
}  # fmt: skip


@pytest.fixture
def sysfs(tmp_path: Path) -> str:
    tree = Tree()
    tree.text(FUNCTION, vendor="0x1af4", device="0x0d93")
    tree.file(f"{FUNCTION}/mem3/uevent", b"")
    tree.link("sys/bus/cxl/devices/mem3", f"{FUNCTION}/mem3")
    for unit in ("cxl_pmu_mem3.0", "cxl_pmu_mem7.0"):
        place = f"{FUNCTION}/pmu/{unit}" if unit.endswith("mem3.0") else f"sys/devices/{unit}"
        for file, content in UNIT.items():
            tree.file(f"{place}/{file}", f"{content}\n")
        tree.link(f"{place}/subsystem", "sys/bus/event_source")
        tree.link(f"sys/bus/event_source/devices/{unit}", place)
    write(tree, str(tmp_path))
    return str(tmp_path / "sys")


def test_what_says_how_much_data_moves_is_counted(sysfs: str) -> None:
    (device,) = (one for one in scan(sysfs) if "mem3" in one.nodes)
    facts = {path: (Path(sysfs) / device.path / path).read_bytes() for path in facts_needed(device)}
    assert not [path for path in facts if "memspecrd" in path or "mem7" in path]
    plan = call_plans(device, facts, Selection(calls=frozenset({"pmu"})), make_plan(device, facts))["pmu"]
    assert [file.path for file in plan.files] == [
        "pmu/mem3.0/clock_ticks type=31 cpu=3 config=0x1e98000000000001,0x0,0x0 pinned",
        "pmu/mem3.0/s2m_drs_memdata type=31 cpu=3 config=0x1e98002400000001,0x0,0x0 pinned",
        "pmu/mem3.0/m2s_rwd_memwr type=31 cpu=3 config=0x1e98002200000002,0x0,0x0 pinned",
    ]
    read = plan.files[1]
    assert read.decode is not None and list(read.decode((7).to_bytes(8, "little"))) == [7.0, 448.0]
    assert len(plan.blocks[cxl_pmu.TRAFFIC].prefixes) == 2 and len(plan.blocks[cxl_pmu.EVENTS].prefixes) == 3
