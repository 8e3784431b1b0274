"""Counters of Intel GPUs from a tree of event sources: found, planned, and opened by nothing here."""

from pathlib import Path

from gpudaemon.discovery.scan import scan
from gpudaemon.drivers import Facts
from gpudaemon.metrics import gpu_parts
from gpudaemon.mock.tree import Tree, write
from gpudaemon.model.device import Device
from gpudaemon.pipeline.plan import Selection, call_plans, facts_needed, make_plan, reader_plan
from gpudaemon.reader.channel import LaneMemory

CALLS = frozenset({"pmu", "pmu_held"})


def _gpu(tree: Tree, driver: str, address: str) -> str:
    path = f"sys/devices/pci0000:00/{address}"
    tree.text(path, vendor="0x8086", device="0x56a0")
    tree.text(f"{path}/power", runtime_status="active", control="on")
    tree.file(f"{path}/drm/card0/uevent", b"")
    tree.link(f"{path}/driver", f"sys/bus/pci/drivers/{driver}")
    tree.link("sys/class/drm/card0", f"{path}/drm/card0")
    return path


def _pmu(tree: Tree, name: str, files: dict[str, str]) -> None:
    for file, content in files.items():
        tree.file(f"sys/devices/{name}/{file}", f"{content}\n")
    tree.link(f"sys/devices/{name}/subsystem", "sys/bus/event_source")
    tree.link(f"sys/bus/event_source/devices/{name}", f"sys/devices/{name}")


def _found(tmp_path: Path, tree: Tree) -> tuple[Device, Facts]:
    write(tree, str(tmp_path))
    sysfs = str(tmp_path / "sys")
    device = next(one for one in scan(sysfs) if one.nodes)
    return device, {path: (Path(sysfs) / device.path / path).read_bytes() for path in facts_needed(device)}


I915 = {
    "type": "25", "cpumask": "2", "format/i915_eventid": "config:0-20",
    "events/rcs0-busy": "config=0x0", "events/rcs0-busy.unit": "ns", "events/vcs1-busy": "config=0x2010",
    "events/rcs0-sema": "config=0x2", "events/actual-frequency": "config=0x100000",
}  # fmt: skip


def test_engines_of_i915(tmp_path: Path) -> None:
    tree = Tree()
    _gpu(tree, "i915", "0000:03:00.0")
    _pmu(tree, "i915_0000_03_00.0", I915)
    device, facts = _found(tmp_path, tree)
    plan = call_plans(device, facts, Selection(calls=CALLS), make_plan(device, facts))["pmu"]
    assert [file.path for file in plan.files if "busy" in file.path] == [
        "pmu/rcs0-busy type=25 cpu=2 config=0x0,0x0,0x0",
        "pmu/vcs1-busy type=25 cpu=2 config=0x2010,0x0,0x0",
    ]
    assert plan.gated  # the power state comes first
    prefixes = plan.blocks[gpu_parts.BUSY_SECONDS].prefixes
    assert [prefix.split('engine="')[1] for prefix in prefixes] == ['rcs0"} ', 'vcs1"} ']
    assert not call_plans(device, facts, Selection(), make_plan(device, facts))


def test_the_integrated_gpu_has_no_address_in_its_pmus_name(tmp_path: Path) -> None:
    tree = Tree()
    _gpu(tree, "i915", "0000:00:02.0")
    _pmu(tree, "i915", I915)
    device, facts = _found(tmp_path, tree)
    assert call_plans(device, facts, Selection(calls=CALLS), make_plan(device, facts)).keys() == {"pmu"}


def test_engines_of_xe_are_counted_only_on_request(tmp_path: Path) -> None:
    tree = Tree()
    path = _gpu(tree, "xe", "0000:03:00.0")
    tree.text(f"{path}/tile0/gt0/engines/ccs", job_timeout_ms=5000)
    xe = {
        "type": "26", "cpumask": "0", "format/event": "config:0-11", "format/engine_instance": "config:12-19",
        "format/engine_class": "config:20-27", "format/gt": "config:60-63",
        "events/engine-active-ticks": "event=0x02", "events/engine-total-ticks": "event=0x03",
        "events/gt-c6-residency": "event=0x01",
    }  # fmt: skip
    _pmu(tree, "xe_0000_03_00.0", xe)
    device, facts = _found(tmp_path, tree)
    assert "pmu" not in call_plans(device, facts, Selection(calls=frozenset({"pmu"})), make_plan(device, facts))
    plan = call_plans(device, facts, Selection(calls=CALLS), make_plan(device, facts))["pmu_held"]
    asked = [file.path for file in plan.files if file.path.startswith("pmu_held/")]
    assert len(asked) == 4 * 2  # four compute engines at most, active and total
    assert (
        f"pmu_held/gt0/ccs3/engine-active-ticks type=26 cpu=0 config={4 << 20 | 3 << 12 | 2:#x},0x0,0x0"
        in asked
    )


def test_a_description_that_cannot_be_read_costs_its_own_event(tmp_path: Path) -> None:
    tree = Tree()
    _gpu(tree, "i915", "0000:03:00.0")
    _pmu(
        tree,
        "i915_0000_03_00.0",
        {**I915, "events/bcs0-busy": "config=", "events/ccs0-busy": "config=0x4000,x=?"},
    )
    device, facts = _found(tmp_path, tree)
    plan = call_plans(device, facts, Selection(calls=CALLS), make_plan(device, facts))["pmu"]
    assert len(plan.blocks[gpu_parts.BUSY_SECONDS].prefixes) == 2
    memory = LaneMemory(LaneMemory.create(reader_plan(plan, 1, "/sys", 1.0), [0] * len(plan.files), [1.0] * 16))
    assert memory.plan["paths"][0].endswith("0000:03:00.0/power/runtime_status")
    assert memory.plan["paths"][1].startswith("pmu/")
