"""What the virtual-machine lane does on this side: no guest is started here."""

import os
import re
import socket
import threading
from pathlib import Path

import pytest

from tests.vm.agent import Agent
from tests.vm.devices import SETS, Machine, arguments
from tests.vm.guest import _FAULTS
from tests.vm.kernels import _WANTED, _cpio
from tests.vm.packages import version_key
from tests.vm.qmp import Qmp, QmpError


def test_newest_kernel_is_by_number_not_by_text() -> None:
    releases = ["7.3.4+deb13-amd64", "7.10.1+deb13-amd64", "7.9.12+deb13-amd64"]
    assert max(releases, key=version_key) == "7.10.1+deb13-amd64"
    releases = ["6.12.90+deb12.1-amd64", "6.12.90+deb12-amd64", "6.12.9+deb12-amd64"]
    assert max(releases, key=version_key) == "6.12.90+deb12.1-amd64"


@pytest.mark.parametrize("variant", ["rt-amd64", "amd64-dbg", "cloud-amd64", "amd64-unsigned"])
def test_other_flavours_are_not_taken(variant: str) -> None:
    assert _WANTED["7.x"].fullmatch("linux-image-7.3.4+deb13-amd64")
    assert not _WANTED["7.x"].fullmatch(f"linux-image-7.3.4+deb13-{variant}")
    assert not _WANTED["6.12"].fullmatch(f"linux-image-6.12.95+deb12-{variant}")


@pytest.mark.parametrize("name", SETS)
def test_devices_have_ids_of_their_own(name: str, tmp_path: Path) -> None:
    words = arguments(name, Machine(tmp_path))
    ids = [match for word in words for match in re.findall(r"(?:^|,)id=([^,]+)", word)]
    assert len(ids) == len(set(ids))
    buses = {match for word in words for match in re.findall(r"(?:^|,)bus=([^,]+)", word)}
    assert buses <= {*ids, "pcie.0"}
    slots = [word.split("slot=")[1].split(",")[0] for word in words if "slot=" in word]
    chassis = [word.split("chassis=")[1].split(",")[0] for word in words if "chassis=" in word]
    assert len(set(zip(chassis, slots, strict=True))) == len(slots)


def test_archive_is_aligned() -> None:
    entry = _cpio(1, "bin/x", 0o100755, b"12345")
    assert len(entry) % 4 == 0
    assert entry.startswith(b"070701" + b"00000001")
    assert entry[110:].startswith(b"bin/x\0")
    assert int(entry[54:62], 16) == 5


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 1 PID: 77 at drivers/gpu/drm/drm_mm.c:975 drm_mm_takedown+0x25/0x40 [drm]",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "refcount_t: underflow; use-after-free.",
        "UBSAN: array-index-out-of-bounds in drivers/x.c:1:2",
        "sysfs: cannot create duplicate filename '/class/drm/card0'",
    ],
)
def test_complaints_are_known(line: str) -> None:
    assert _FAULTS.search(f"[   12.345678] {line}")


@pytest.mark.parametrize(
    "line",
    [
        "gpudaemon_test_gpu: loading out-of-tree module taints kernel.",
        "pci_bus 0000:40: Unknown NUMA node; performance will be reduced",
        "cxl_nvdimm pmem1: GPF: could not set dirty shutdown state",
    ],
)
def test_remarks_are_none(line: str) -> None:
    assert _FAULTS.search(f"[   12.345678] {line}") is None


def _monitor(path: Path, answers: list[bytes]) -> None:
    """A QEMU that answers each line it gets with the next of these."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(answers[0])
            for answer in answers[1:]:
                lines.readline()
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()


def test_events_between_answers_are_kept(tmp_path: Path) -> None:
    event = b'{"event": "DEVICE_DELETED", "data": {"device": "x", "path": "/"}}\n'
    _monitor(
        tmp_path / "qmp",
        [b'{"QMP": {}}\n', b'{"return": {}}\n', event + b'{"return": 7}\n', b'{"error": {"desc": "no"}}\n'],
    )
    qmp = Qmp(tmp_path / "qmp")
    assert qmp.command("query-x", some_thing=1) == 7
    assert qmp.wait_event("DEVICE_DELETED", 1.0, device="x")["data"]["path"] == "/"
    assert qmp.events == []
    with pytest.raises(QmpError, match="device_del: no"):
        qmp.command("device_del")
    qmp.close()


def test_agent_answers_and_goes_with_the_host() -> None:
    """The agent over a socket pair in place of its virtio port, which it uses as a plain descriptor."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        Agent(there.fileno()).run()
        os._exit(7)
    there.close()
    stream = here.makefile("rwb")
    assert b'"uptime"' in stream.readline()
    stream.write(b'{"id": 1, "do": "run", "words": ["sh", "-c", "echo out; exit 2"], "seconds": 9}\n')
    stream.flush()
    assert b'"status": 2, "stdout": "out\\n"' in stream.readline()
    stream.write(b'{"id": 2, "do": "run", "words": ["sleep", "60"], "seconds": 0.1}\n')
    stream.flush()
    assert b'"id": 2, "answer": {"late": true}' in stream.readline()
    stream.close()
    here.shutdown(socket.SHUT_RDWR)
    here.close()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
