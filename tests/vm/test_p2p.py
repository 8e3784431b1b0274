"""Who can reach whom: what `gpudaemon topo` says of every pair against what the kernel says when it is asked.

The test GPU's `p2p_distance` is pci_p2pdma_distance(): steps, or -1 where the kernel refuses. Its rules read
ACS from the functions at that moment, so switching it on in a port changes both answers. What comes of it is
seen in reads with O_DIRECT from one drive into the memory (CMB) of another.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.guest import Guest, GuestError
from tests.vm.store import ROOT
from tests.vm.testgpu import MODULE, TestGpus

_QUESTION = f"/sys/kernel/debug/{MODULE}/p2p_distance"
_REDIRECT = 0x1C
_EINVAL = 22

Answers = dict[tuple[str, str], tuple[bool | None, int, int]]

_JUDGE = """
import json, sys
from gpudaemon.collectors.p2p.pairs import judge
from gpudaemon.config.load import load
from gpudaemon.daemon import look_between
from gpudaemon.pipeline.alone import without_output

with without_output():
    topology, _ = look_between(load("", {"tier": "full", "path.runtime": "/run/topo"}))
print(json.dumps([judge(topology, *pair).verdict.reachable for pair in json.loads(sys.argv[1])]))
"""


def topo(guest: Guest, *arguments: str) -> str:
    """What the command prints in the guest."""
    command = (sys.executable, "-P", "-m", "gpudaemon.cli", "topo", *arguments, "--path.runtime", "/run/topo")
    return guest.run(*command, environment={"PYTHONPATH": str(ROOT)}, seconds=180.0).stdout


def asked(guest: Guest, provider: str, client: str) -> int:
    """pci_p2pdma_distance() of a pair."""
    guest.write(_QUESTION, f"{provider} {client}")
    return int(guest.read(_QUESTION).split()[-1])


def compare(guest: Guest) -> tuple[dict[str, Any], Answers]:
    """(what topo knows, pair -> (reachable, its distance, the kernel's)) of every pair topo judges."""
    found = json.loads(topo(guest, "--json"))
    answers = {}
    for pair in found["pairs"]:
        ends = (pair["src"], pair["dst"])
        answers[ends] = (pair["reachable"], pair["distance"], asked(guest, *ends))
    return found, answers


def check(guest: Guest, answers: Answers) -> None:
    wrong = {
        ends: answer
        for ends, answer in answers.items()
        if answer[0] is None or answer[0] != (answer[2] >= 0) or (answer[0] and answer[1] != answer[2])
    }
    reachable = sum(answer[2] >= 0 for answer in answers.values())
    print(
        f"{guest.kernel.release}, {guest.devices}: {len(answers)} pairs, {reachable} reachable by the kernel, "
        f"{len(answers) - len(wrong)} predicted as it says"
    )
    assert answers and not wrong, wrong


def acs(address: str, value: int) -> int:
    """In the guest: the ACS control register of a function, -1 where it has none; a value >= 0 is written."""
    import os

    descriptor = os.open(f"/sys/bus/pci/devices/{address}/config", os.O_RDWR)
    try:
        place = 0x100
        for _ in range(64):
            header = int.from_bytes(os.pread(descriptor, 4, place), "little")
            if header & 0xFFFF == 0x000D:
                before = int.from_bytes(os.pread(descriptor, 2, place + 6), "little")
                if value >= 0:
                    os.pwrite(descriptor, value.to_bytes(2, "little"), place + 6)
                return before
            place = header >> 20 & 0xFFC
            if place < 0x100:
                break
        return -1
    finally:
        os.close(descriptor)


def predicted(guest: Guest, pairs: list[list[str]]) -> list[bool | None]:
    """What `gpudaemon topo --why` says of each pair; topo itself leaves out drives among themselves."""
    command = (sys.executable, "-P", "-c", _JUDGE, json.dumps(pairs))
    return list(json.loads(guest.run(*command, environment={"PYTHONPATH": str(ROOT)}, seconds=180.0).stdout))


def target_takes(pairs: list[list[str]]) -> list[int]:
    """In the guest: for each provider and drive the errno with which the NVMe target refuses to export the
    drive with memory of the provider for its data (`p2pmem`, drivers/nvme/target/core.c), 0 where it does.
    """
    import glob
    import os

    subsystem = "/sys/kernel/config/nvmet/subsystems/peers"
    namespace = f"{subsystem}/namespaces/1"

    def write(name: str, text: str) -> None:
        descriptor = os.open(f"{namespace}/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    refused = []
    os.mkdir(subsystem)
    try:
        for provider, drive in pairs:
            (disk,) = glob.glob(f"/sys/bus/pci/devices/{drive}/nvme/nvme*/nvme*n1")
            os.mkdir(namespace)
            try:
                write("device_path", f"/dev/{os.path.basename(disk)}")
                write("p2pmem", provider)
                write("enable", "1")
                refused.append(0)
                write("enable", "0")
            except OSError as error:
                refused.append(error.errno or -1)
            finally:
                os.rmdir(namespace)
    finally:
        os.rmdir(subsystem)
    return refused


def read_into(source: str, target: str) -> tuple[int, bool, int]:
    """In the guest: 64 KiB of drive `source` by O_DIRECT into the CMB of function `target`.

    The errno, 0 for none; whether what arrived is what the drive holds; bytes of the CMB that this took.
    """
    import glob
    import mmap
    import os

    size = 65536
    (disk,) = glob.glob(f"/sys/bus/pci/devices/{source}/nvme/nvme*/nvme*n1")
    path = f"/dev/{os.path.basename(disk)}"
    content = os.urandom(size)
    with open(path, "r+b") as file:
        file.write(content)
        os.fsync(file.fileno())

    def available() -> int:
        with open(f"/sys/bus/pci/devices/{target}/p2pmem/available") as text:
            return int(text.read())

    before = available()
    memory = os.open(f"/sys/bus/pci/devices/{target}/p2pmem/allocate", os.O_RDWR)
    drive = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(memory, size) as there:
            taken = before - available()
            failed = 0
            try:
                os.preadv(drive, [there], 0)
            except OSError as error:
                failed = error.errno or -1
            return failed, there[:] == content, taken
    finally:
        os.close(drive)
        os.close(memory)


@contextlib.contextmanager
def judged(guest: Guest) -> Iterator[TestGpus]:
    """The test GPUs and all drives, where the kernel can be asked."""
    with TestGpus(guest) as gpus:
        guest.modprobe("nvme")
        guest.until(lambda: len(guest.glob("/sys/bus/pci/devices/*/nvme/nvme*/nvme*n1")) == 6, 60.0, "drives")
        try:
            guest.write(_QUESTION, f"{gpus.pci[1].name} {gpus.pci[2].name}")
            guest.read(_QUESTION)
        except GuestError as refused:
            assert refused.errno == 95
            pytest.skip("CONFIG_PCI_P2PDMA is not set")
        yield gpus


def drives(guest: Guest) -> dict[str, str]:
    """Serial number -> PCI function."""
    found = guest.shell("grep -H . /sys/bus/pci/devices/*/nvme/nvme*/serial").splitlines()
    return {line.rpartition(":")[2].strip(): line.split("/")[5] for line in found}


def pair_of(answers: Answers, one: str, other: str) -> tuple[bool | None, int, int]:
    return answers.get((one, other)) or answers[other, one]


@pytest.mark.guest(kernels=("7.x",), devices="iommu")
def test_with_an_iommu(guest: Guest) -> None:
    """The kernel switches ACS on in every port that has it."""
    with judged(guest) as gpus:
        found, answers = compare(guest)
        check(guest, answers)
        redirecting = [one["id"] for one in found["functions"] if (one["acs_control"] or 0) & _REDIRECT]
        print(f"ACS redirects at {redirecting}")
        assert redirecting and all(one["iommu_group"] for one in found["functions"] if one["role"] != "other")
        known = drives(guest)
        assert asked(guest, known["pair0"], known["pair1"]) == -1
        assert asked(guest, known["switch0"], known["switch1"]) == 4
        assert asked(guest, gpus.pci[1].name, known["switch0"]) == 4


@pytest.mark.guest(kernels=("7.x",), devices="no-iommu")
def test_without_an_iommu(guest: Guest) -> None:
    with judged(guest):
        found, answers = compare(guest)
        check(guest, answers)
        roles = {one["id"]: one["role"] for one in found["functions"]}
        assert {roles[id_] for ends in answers for id_ in ends} >= {"gpu", "nvme"}
        assert all(one["acs_known"] for one in found["functions"] if one["port"])


@pytest.mark.guest(kernels=("7.x",), devices="no-iommu")
def test_acs_and_reads_from_drive_to_drive(guest: Guest) -> None:
    """Below a switch and behind one root port a read arrives; between ports, or with ACS, it is refused."""
    with judged(guest):
        known = drives(guest)
        port = guest.run("realpath", f"/sys/bus/pci/devices/{known['pair0']}").stdout.split("/")[-2]
        assert guest.call(acs, port, -1) == 0
        outcomes = {}
        for name, source, target in (
            ("below a switch", "switch1", "switch0"),
            ("of one root port", "pair1", "pair0"),
            ("between root ports", "pair1", "switch0"),
            ("itself", "cmb", "cmb"),
        ):
            said = asked(guest, known[target], known[source])
            outcomes[name] = (said, *guest.call(read_into, known[source], known[target]))
        assert outcomes == {
            "below a switch": (4, 0, True, 65536),
            "of one root port": (2, 0, True, 65536),
            "between root ports": (-1, _EINVAL, False, 65536),
            "itself": (0, 0, True, 65536),
        }
        why = topo(guest, "--why", known["pair0"], known["pair1"])
        assert "peer-to-peer DMA: yes (bus_addr, same_switch)" in why, why
        guest.call(acs, port, _REDIRECT)
        try:
            assert asked(guest, known["pair0"], known["pair1"]) == -1
            assert guest.call(read_into, known["pair1"], known["pair0"])[:2] == [_EINVAL, False]
            why = topo(guest, "--why", known["pair0"], known["pair1"])
        finally:
            guest.call(acs, port, 0)
        assert f"ACS redirects at {port}" in why, why
        assert "peer-to-peer DMA: no (not_supported, acs_redirect)" in why, why


@pytest.mark.guest(kernels=("7.x",), devices="iommu")
def test_the_nvme_target_with_an_iommu(guest: Guest) -> None:
    assert ("pair0", "pair1") not in _taken(guest)


@pytest.mark.guest(kernels=("7.x",), devices="no-iommu")
def test_the_nvme_target_without_an_iommu(guest: Guest) -> None:
    assert ("pair0", "pair1") in _taken(guest)


def _taken(guest: Guest) -> set[tuple[str, str]]:
    """Serial numbers of the pairs of drives of which the NVMe target keeps the data of the second in the memory
    of the first. It asks the kernel's rules too, and takes just those that are predicted.
    """
    with judged(guest):
        known = drives(guest)
        pairs = [
            [provider, drive]
            for provider in known.values()
            if guest.exists(f"/sys/bus/pci/devices/{provider}/p2pmem")
            for drive in known.values()
            if drive != provider
        ]
        assert len(pairs) == 15
        guest.modprobe("nvmet")
        try:
            guest.shell("mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config")
            refused = guest.call(target_takes, pairs)
        finally:
            guest.run("rmmod", "nvmet")
        takes = [not errno for errno in refused]
        print(f"{guest.kernel.release}, {guest.devices}: the target takes {sum(takes)} of {len(pairs)} pairs")
        assert set(refused) == {0, _EINVAL}
        assert predicted(guest, pairs) == takes
        names = {address: serial for serial, address in known.items()}
        found = {(names[one], names[other]) for (one, other), took in zip(pairs, takes, strict=True) if took}
        assert ("switch0", "switch1") in found
        return found


@pytest.mark.guest(kernels=("7.x",), devices="no-iommu")
def test_memory_of_a_drive(guest: Guest) -> None:
    """The CMB of QEMU's drive is memory for peers, and mapping some of it takes it away."""
    guest.modprobe("nvme")
    known = drives(guest)
    sizes = {
        name: int(guest.read(f"/sys/bus/pci/devices/{address}/p2pmem/size"))
        for name, address in known.items()
        if guest.exists(f"/sys/bus/pci/devices/{address}/p2pmem")
    }
    assert sizes == {"cmb": 64 << 20, "switch0": 16 << 20, "pair0": 16 << 20}
