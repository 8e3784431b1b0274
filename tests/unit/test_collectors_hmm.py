"""Memory that moves: what real kernels print, of the host and by node, and any content."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.hmm import COLLECTOR, LINES
from gpudaemon.discovery.memory import memory_device, with_procfs
from gpudaemon.discovery.scan import scan, with_proc
from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Attribute
from gpudaemon.model.device import PROC, Device, DeviceKind
from gpudaemon.parsers import vmstat
from tests import captures

NODE_6_1 = b"nr_free_pages 5\nnuma_hit 7\nnuma_miss 0\n"
NODE_6_12 = b"nr_free_pages 5\nnuma_hit 7\nnuma_miss 0\npgpromote_success 3\npgdemote_kswapd 11\n"


def device(*nodes: int) -> Device:
    names = {f"node/node{node}/vmstat" for node in nodes}
    names |= {f"{PROC}vmstat", f"{PROC}zoneinfo", f"{PROC}pressure/memory"}
    return Device(id="memory", kind=DeviceKind.MEMORY, path="devices/system", names=frozenset(names))


def values(host: Device, contents: Mapping[str, bytes]) -> dict[tuple[str, ...], float | None]:
    """(metric, labels) -> value of one reading; no series twice."""
    facts = {path: contents.get(path) for path in COLLECTOR.needs(host)}
    found: dict[tuple[str, ...], float | None] = {}
    for planned in COLLECTOR.attributes(host, facts):
        assert isinstance(planned, Attribute)
        if planned.path in contents:
            for series, value in zip(planned.series, planned.decode(contents[planned.path]), strict=True):
                key = (series.metric.name.removeprefix("gpudaemon_memory_"), *series.values)
                assert key not in found
                found[key] = value
    return found


def test_what_is_counted_by_node_is_not_counted_of_the_host_again() -> None:
    host = b"numa_hit 14\npgpromote_success 3\npgdemote_kswapd 11\npgmigrate_success 20\n"
    older = values(device(0, 2), {"node/node0/vmstat": NODE_6_1, f"{PROC}vmstat": host})
    assert older["demoted_pages_total", "", "kswapd"] == 11
    assert older["numa_allocated_pages_total", "0", "hit"] == 7
    assert ("demoted_pages_total", "0", "kswapd") not in older
    newer = values(device(0, 2), {"node/node0/vmstat": NODE_6_12, f"{PROC}vmstat": host})
    assert newer["demoted_pages_total", "0", "kswapd"] == 11
    assert ("demoted_pages_total", "", "kswapd") not in newer
    assert newer["migrated_pages_total", "", "success"] == 20
    # A kernel that does not count something has no sample of it, and not a zero.
    assert newer["migrated_pages_total", "", "failure"] is None
    assert ("demoted_pages_total", "0", "direct") not in newer


def test_nodes_that_may_not_be_read_leave_the_host() -> None:
    found = values(device(0), {f"{PROC}vmstat": b"numa_hit 14\npgdemote_kswapd 11\n"})
    assert (
        found["demoted_pages_total", "", "kswapd"] == 11
        and found["numa_allocated_pages_total", "", "hit"] == 14
    )


def test_every_line_of_a_real_kernel() -> None:
    """Linux 7.3 as booted: every line of the table is there, of the host or of its nodes."""
    content = Path(captures.capture("vm", "lane", "vmstat1.txt")).read_bytes()
    there = vmstat.names(content)
    assert there >= LINES.keys() and len(there) > 190
    plain = dict(line.split() for line in content.decode().splitlines())
    decoded = vmstat.counters(tuple(LINES))(content)
    assert decoded == [float(plain[name]) for name in LINES]
    assert plain["pgmigrate_success"] != "0"


def test_real_trees(tmp_path: Path) -> None:
    """7.3 and 6.12 with a CXL node: files are found, and decoded to what they say."""
    for release in ("7.3.4+deb13", "6.12.95+deb12"):
        sysfs = captures.from_tarball(
            captures.capture("vm", "lane", f"sysfs-{release}-amd64.tar.gz"), str(tmp_path / release)
        )
        (found,) = (one for one in scan(sysfs) if one.kind is DeviceKind.MEMORY)
        assert sorted(found.names) == ["node/node0/vmstat", "node/node2/vmstat"]
        contents = {path: captures.read(sysfs, found, path) or b"" for path in found.names}
        known = values(found, contents)
        for node in ("0", "2"):
            said = dict(line.split() for line in contents[f"node/node{node}/vmstat"].decode().splitlines())
            for name in ("pgpromote_success", "pgdemote_proactive", "numa_foreign"):
                metric, labels = LINES[name]
                key = (metric.name.removeprefix("gpudaemon_memory_"), node, *labels)
                assert known.get(key) == (float(said[name]) if name in said else None), (release, name)
        assert known["promoted_pages_total", "2"] == 0


def test_an_old_host(tmp_path: Path) -> None:
    """node_exporter's: Linux 4.x lines, zones with a zone of devices."""
    procfs = captures.capture("node_exporter", "proc")
    node = tmp_path / "devices/system/node/node0"
    node.mkdir(parents=True)
    (node / "vmstat").write_bytes(NODE_6_1)
    bare = memory_device(str(tmp_path))
    assert bare is not None and with_proc("/nowhere", bare) == bare
    host = with_procfs(procfs, bare)
    assert len(host.names) == 4
    contents = {
        path: Path(procfs, path.removeprefix(PROC)).read_bytes() for path in host.names if path.startswith(PROC)
    }
    known = values(host, {**contents, "node/node0/vmstat": NODE_6_1})
    plain = dict(line.split() for line in contents[f"{PROC}vmstat"].decode().splitlines())
    assert known["migrated_pages_total", "", "success"] == float(plain["pgmigrate_success"])
    assert known["demoted_pages_total", "", "kswapd"] is None
    assert known["zone_device_pages", "0", "spanned"] == 0
    assert known["pressure_seconds_total", "full"] == 0


def test_zones_of_devices() -> None:
    page = (
        b"Node 0, zone   Normal\n  pages free     5\n        spanned  9\n        present  8\n"
        b"      nr_free_pages 5\n  pagesets\n    cpu: 0\n              count: 1\n"
        b"Node 0, zone   Device\n  pages free     0\n        spanned  65536\n        present  0\n"
        b"        managed  0\nNode 2, zone  Movable\n  pages free     1\n        spanned  4\n"
    )
    found = values(device(0, 2), {f"{PROC}zoneinfo": page})
    assert (
        found["zone_device_pages", "0", "spanned"] == 65536 and found["zone_device_pages", "0", "present"] == 0
    )
    assert found["zone_device_pages", "2", "spanned"] is None
    assert vmstat.zones(page)["0", "Normal"] == {"free": 5, "spanned": 9, "present": 8}


@pytest.mark.parametrize(
    "content,reason",
    [
        (b"", "empty"),
        (b"nr_free_pages 5\npgmigrate_succ", "format"),
        (b"nr_free_pages 5\npgmigrate_success 1", "format"),
        (b"pgmigrate_success -1\n", "not_a_number"),
        (b"pgmigrate_success 99999999999999999999999\n", "out_of_range"),
    ],
)
def test_what_is_cut_off_or_no_number(content: bytes, reason: str) -> None:
    """A count whose last digits are missing is a wrong count: the whole reading is given up."""
    with pytest.raises(Malformed) as refused:
        vmstat.counters(tuple(LINES))(content)
    assert refused.value.reason == reason


def test_pressure() -> None:
    page = b"some avg10=0.29 avg60=100.00 avg300=1.50 total=1234567\n"
    assert vmstat.pressure(page) == (0.0029, 1.0, 0.015, 1.234567, None, None, None, None)
    both = vmstat.pressure(page + b"full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")
    assert both[4:] == (0.0, 0.0, 0.0, 7e-6)


@given(
    st.binary(max_size=200)
    | st.text("some full avg10=.0123456789\nNode,zone pages", max_size=200).map(str.encode)
)
def test_any_content(content: bytes) -> None:
    for decode in (vmstat.counters(tuple(LINES)), vmstat.pressure, vmstat.zones):
        with contextlib.suppress(Malformed):
            decode(content)
    vmstat.names(content)


@pytest.mark.skipif(not os.path.exists("/proc/vmstat"), reason="no procfs")
def test_this_kernel() -> None:
    found = vmstat.names(Path("/proc/vmstat").read_bytes())
    assert "nr_free_pages" in found
    assert vmstat.zones(Path("/proc/zoneinfo").read_bytes())
