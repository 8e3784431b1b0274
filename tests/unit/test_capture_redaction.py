"""What names a specimen is replaced everywhere, in every spelling, always by the same, and nothing else is."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.capture.redaction import Redactor
from gpudaemon.model.identifiers import Form, form_of

DEVICE = "sys/devices/pci0000:00/0000:03:00.0"


def learnt(path: str, content: bytes, key: bytes = b"key") -> Redactor:
    redactor = Redactor(key)
    redactor.learn_file(path, content)
    return redactor


_numbers = st.integers(1 << 24, (1 << 64) - 2).filter(lambda number: number & (number + 1))


@given(_numbers, st.binary(min_size=1, max_size=8))
def test_a_unique_id_is_replaced_in_each_spelling_by_the_same_number(number: int, key: bytes) -> None:
    redactor = learnt(f"{DEVICE}/unique_id", f"{number:016x}\n".encode(), key)
    fake = int(redactor.file(f"{DEVICE}/unique_id", f"{number:016x}\n".encode()), 16)
    assert fake != number
    assert len(f"{fake:x}") == len(f"{number:x}")
    for text in ("unique_id {:d}\nvendor_id 4098\n", "id 0x{:x}", "GPU {:016x}, up", "/sys/x-{:016x}/y"):
        assert redactor.text(text.format(number)) == text.format(fake)
        assert redactor.leftovers(text.format(number)) != []
        assert redactor.leftovers(text.format(fake)) == []


@given(_numbers)
def test_kfd_and_sysfs_agree_whichever_is_read_first(number: int) -> None:
    spelled = {
        f"{DEVICE}/unique_id": f"{number:016x}\n",
        "sys/x/properties": f"simd_count 4\nunique_id {number}\n",
    }
    results = []
    for order in (list(spelled), list(reversed(spelled))):
        redactor = Redactor(b"key")
        for path in order:
            redactor.learn_file(path, spelled[path].encode())
        results.append([redactor.file(path, text.encode()) for path, text in spelled.items()])
    assert results[0] == results[1]
    hexadecimal, properties = results[0]
    assert properties == b"simd_count 4\nunique_id %d\n" % int(hexadecimal, 16)


_serials = st.text(string.ascii_letters + string.digits, min_size=1, max_size=24).filter(
    lambda text: text.strip("0") and text.lower() not in ("null", "none", "unknown", "unavailable")
)


@given(_serials)
def test_a_serial_number_keeps_its_kind_of_characters(serial: str) -> None:
    redactor = learnt(f"{DEVICE}/serial_number", f"{serial}\n".encode())
    fake = redactor.file(f"{DEVICE}/serial_number", f"{serial}\n".encode()).decode()[:-1]
    shape = [(c.isdigit(), c.isupper()) for c in serial]
    if not serial.startswith(("0x", "0X")):
        assert fake != serial
        assert [(c.isdigit(), c.isupper()) for c in fake] == shape


@given(st.lists(_serials, min_size=2, max_size=20, unique=True))
def test_two_specimens_stay_two(serials: list[str]) -> None:
    redactor = Redactor(b"key")
    for serial in serials:
        redactor.learn_file(f"{DEVICE}/serial", serial.encode())
    fakes = [redactor.file(f"{DEVICE}/serial", serial.encode()) for serial in serials]
    long = [fake for fake, serial in zip(fakes, serials, strict=True) if len(serial) > 3]
    assert len(set(long)) == len(long)


@pytest.mark.parametrize(
    "text",
    [
        "GPU UUID: \t GPU-1f3c0a52-8e2d-4b6a-9c11-0d2e4f6a8b1c",
        "0::/kubepods.slice/kubepods-pod6f1c2c3e_77d0_4c1e_9b1b_2f0e4f5a6b7c.slice",
        "cri-containerd-" + "9c2f" * 16 + ".scope",
        "default via 52:54:00:ab:cd:ef dev enx525400abcdef",
        "node 0002:c903:00fe:d5b0",
        "gid fe80:0000:0000:0000:0002:c903:00fe:d5b1",
        "Device Serial Number 00-1b-21-ff-ff-a7-b2-c4",
        'gpudaemon_gpu_info{device="0000:03:00.0",serial_number="692345000101",unique_id="6e2a91c0de000000"} 1',
        "E: ID_SERIAL_SHORT=S6X00000001",
    ],
)
def test_what_looks_like_an_identifier_is_one_wherever_it_stands(text: str) -> None:
    redactor = Redactor(b"key")
    redactor.learn_text(text)
    changed = redactor.text(text)
    assert changed != text
    assert len(changed) == len(text)
    assert (
        re.sub(r"[0-9a-fA-F]", "", changed.lower()) == re.sub(r"[0-9a-fA-F]", "", text.lower())
        or "SERIAL" in text
    )
    assert redactor.leftovers(changed) == []


@pytest.mark.parametrize(
    "text",
    [
        "0000:03:00.0",
        "PCI_SLOT_NAME=0000:c4:00.0\nMODALIAS=pci:v00001002d000074A1sv00001002sd000074A1bc12sc00i00\n",
        "0x0000380000000000 0x0000383fffffffff 0x000000000014220c\n",
        "ffffffff,ffffffff,00000000\n",
        "16.0 GT/s PCIe\n",
        "drm-engine-gfx:\t7437362911 ns\n",
        "2210 (gnome-shell) S 1 2210 2210 0 -1 4194560 0 0 0 0 731 118\n",
        "../../../../bus/pci/drivers/amdgpu",
    ],
)
def test_what_the_kernel_says_of_every_specimen_stays(text: str) -> None:
    redactor = Redactor(b"key")
    redactor.learn_text(text)
    assert redactor.text(text) == text
    assert redactor.counts == {}


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"0\n", b"0000000000000000\n", b"ffffffffffffffff\n", b"N/A\n"]
)
def test_what_stands_for_no_serial_number_stays(content: bytes) -> None:
    for name in ("unique_id", "serial_number", "serial"):
        if name != "unique_id" and content.startswith(b"ffff"):
            continue
        assert learnt(f"{DEVICE}/{name}", content).file(f"{DEVICE}/{name}", content) == content


def test_a_table_of_the_firmware_is_searched_for_the_number_too() -> None:
    number = 0x6E2A91C0DE000001
    redactor = learnt(f"{DEVICE}/unique_id", f"{number:016x}\n".encode())
    table = b"\0\x01" + number.to_bytes(8, "little") + b"\0" * 4
    changed = redactor.file(f"{DEVICE}/gpu_metrics", table)
    assert len(changed) == len(table)
    assert number.to_bytes(8, "little") not in changed


def test_another_key_gives_another_number_and_the_same_key_the_same() -> None:
    path, content = f"{DEVICE}/serial_number", b"692345000101\n"
    first, again, other = (learnt(path, content, key).file(path, content) for key in (b"a", b"a", b"b"))
    assert first == again != other


def test_the_name_of_the_host_is_replaced_as_a_word_only() -> None:
    redactor = Redactor(b"key")
    redactor.learn_word("node17", "host name")
    text = redactor.log("node17 kernel: node170 is not node17.example.com\n")
    assert "node170" in text
    assert len(re.findall(r"\bnode17\b", text)) == 0


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (f"{DEVICE}/unique_id", Form.HEX),
        (f"{DEVICE}/nvme/nvme0/serial", Form.TEXT),
        ("sys/devices/x/net/eth0/address", Form.HEX),
        ("sys/class/infiniband/mlx5_0/ports/1/gids/0", Form.HEX),
        (f"{DEVICE}/vendor", None),
        (f"{DEVICE}/address", None),
        (f"{DEVICE}/xgmi_physical_id", None),
    ],
)
def test_files_that_hold_an_identifier(path: str, form: Form | None) -> None:
    assert form_of(path) is form
