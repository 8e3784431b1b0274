"""RDMA ports: what node_exporter makes of the same trees, a soft-RoCE device of a real kernel, any content."""

import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.rdma import PHYSICAL_STATES, STATES, counter, numbered, rate
from tests import captures

_PORT_ROWS = {
    "port_data_received_bytes_total": ("gpudaemon_rdma_port_data_bytes_total", {"direction": "receive"}),
    "port_data_transmitted_bytes_total": ("gpudaemon_rdma_port_data_bytes_total", {"direction": "transmit"}),
    "port_packets_received_total": (
        "gpudaemon_rdma_port_packets_total",
        {"direction": "receive", "cast": "all"},
    ),
    "port_packets_transmitted_total": (
        "gpudaemon_rdma_port_packets_total",
        {"direction": "transmit", "cast": "all"},
    ),
    **{
        f"{cast}_packets_{ending}_total": (
            "gpudaemon_rdma_port_packets_total",
            {"direction": direction, "cast": cast},
        )
        for cast in ("unicast", "multicast")
        for ending, direction in (("received", "receive"), ("transmitted", "transmit"))
    },
    "port_transmit_wait_total": ("gpudaemon_rdma_port_transmit_wait_ticks_total", {}),
    "rate_bytes_per_second": ("gpudaemon_rdma_port_rate_bytes_per_second", {}),
    **{
        theirs: ("gpudaemon_rdma_port_errors_total", {"kind": ours})
        for theirs, ours in (
            ("link_downed_total", "link_downed"),
            ("link_error_recovery_total", "link_error_recovery"),
            ("port_constraint_errors_received_total", "port_rcv_constraint_errors"),
            ("port_constraint_errors_transmitted_total", "port_xmit_constraint_errors"),
            ("port_discards_received_total", "port_rcv_discards"),
            ("port_discards_transmitted_total", "port_xmit_discards"),
            ("port_errors_received_total", "port_rcv_errors"),
        )
    },
}
_LINE = re.compile(r'node_infiniband_(\w+)\{device="(\w+)",port="(\d+)"\} (\S+)')


@pytest.fixture
def tree(tmp_path: Path) -> str:
    """node_exporter's RDMA devices where the kernel has them: links below class/ into devices/."""
    source = captures.capture("node_exporter", "sys", "class", "infiniband")
    sysfs = tmp_path / "sys"
    for name in os.listdir(source):
        target = sysfs / "devices/virtual/infiniband" / name
        shutil.copytree(os.path.join(source, name), target, symlinks=True)
        link = sysfs / "class/infiniband" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))
    return str(sysfs)


def test_node_exporter(tree: str) -> None:
    page = captures.page_of(tree)
    assert not page.malformed
    with open(captures.capture("node_exporter", "e2e-output.txt"), encoding="utf-8") as file:
        expected = _LINE.findall(file.read())
    compared, wrong = 0, []
    for name, device, port, value in expected:
        if name.startswith("legacy_"):
            continue  # counters_ext, which no kernel since 4.4 has
        compared += 1
        labels = {"rdma": device, "port": port}
        if name in ("state_id", "physical_state_id"):
            states = STATES if name == "state_id" else PHYSICAL_STATES
            metric = "gpudaemon_rdma_port_" + ("state" if name == "state_id" else "physical_state")
            found = page.value(metric, **labels, state=states[int(value)])
            right = found == 1
        else:
            metric, more = _PORT_ROWS[name]
            found = page.value(metric, **labels, **more)
            right = found == float(value)
        if not right:
            wrong.append((name, device, port, value, found))
    print(f"node_exporter infiniband: compared {compared}, agree {compared - len(wrong)}")
    assert compared > 30 and not wrong
    assert page.info("gpudaemon_rdma_info", rdma="mlx4_0")["firmware"] == "2.31.5050"


def test_a_port_without_counters_gives_none(tree: str) -> None:
    """i40iw: `N/A (no PMA)`."""
    page = captures.page_of(tree)
    assert page.value("gpudaemon_rdma_port_data_bytes_total", rdma="i40iw0", direction="receive") is None
    assert page.value("gpudaemon_rdma_port_state", rdma="i40iw0", state="active") == 1


def test_soft_roce_on_a_real_kernel(tmp_path: Path) -> None:
    source = captures.capture("vm", "lane", "sysfs-infiniband-7.3.4+deb13-amd64.tar.gz")
    page = captures.page_of(captures.from_tarball(source, str(tmp_path)))
    assert not page.malformed
    labels = {"device": "rxe0", "rdma": "rxe0", "port": "1"}
    assert page.value("gpudaemon_rdma_port_state", **labels, state="active") == 1
    assert page.value("gpudaemon_rdma_port_rate_bytes_per_second", **labels) == 2.5e9 / 8
    assert page.value("gpudaemon_rdma_hardware_statistics_total", **labels, counter="rdma_sends") is not None
    assert page.value("gpudaemon_rdma_hardware_statistics_total", **labels, counter="lifespan") is None


@given(st.binary(max_size=80) | st.from_regex(rb"\A[0-9]{1,6}(: [A-Za-z]*|\.5| Gb/sec)?.*\Z"))
def test_any_content(content: bytes) -> None:
    for decode in (numbered(STATES), numbered(PHYSICAL_STATES), rate, counter(4)):
        try:
            values = decode(content)
        except Malformed:
            continue
        assert all(value is None or value >= 0 for value in values)
