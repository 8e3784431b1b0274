"""Devices that a bus names by links: the tree of a capture holds their files once, where they are."""

import os
from pathlib import Path

from gpudaemon.capture import load, write

_GUEST = Path(__file__).parents[1] / "captures/vm-7.x/capture.tar.gz"


def test_files_of_a_bus_are_where_its_links_lead(tmp_path: Path) -> None:
    write(load(str(_GUEST)), str(tmp_path / "host"))
    entry = tmp_path / "host/sys/bus/cxl/devices/decoder0.0"
    assert entry.is_symlink()
    assert os.path.realpath(entry).endswith("/sys/devices/platform/ACPI0017:00/root0/decoder0.0")
    assert (entry / "size").read_text().startswith("0x")
