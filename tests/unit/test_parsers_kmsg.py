"""Records of /dev/kmsg and what drivers say in them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.model.trouble import KINDS, Severity
from gpudaemon.parsers.kmsg import LONGEST, PROCESS, Said, kmsg, said

CORRECTED, RECOVERED = Severity.CORRECTED, Severity.RECOVERED
UNCORRECTED, FATAL = Severity.UNCORRECTED, Severity.FATAL


def test_a_record() -> None:
    """Documentation/ABI/testing/dev-kmsg, its own example."""
    one = kmsg(
        b"7,160,424069,-;pci_root PNP0A03:00: host bridge window [io  0x0000-0x0cf7] (ignored)\n"
        b" SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n"
    )
    assert (one.facility, one.level, one.sequence) == (0, 7, 160)
    assert one.text == "pci_root PNP0A03:00: host bridge window [io  0x0000-0x0cf7] (ignored)"
    assert kmsg(b"30,1,2,-,caller=T12;systemd[1]: hello\n").facility == 3


@pytest.mark.parametrize(
    "content,reason",
    [
        (b"", "empty"),
        (b"x" * (LONGEST + 1), "oversized"),
        (b"6,1;text\n", "format"),
        (b"6,1,2,- text\n", "format"),
        (b"-6,1,2,-;text\n", "format"),
    ],
)
def test_what_is_no_record(content: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as raised:
        kmsg(content)
    assert raised.value.reason == reason


@given(st.binary(max_size=300))
def test_any_record(content: bytes) -> None:
    try:
        one = kmsg(content)
    except Malformed:
        return
    assert "\n" not in one.text and 0 <= one.level < 8
    said(one.text)


def test_this_hosts_own_log() -> None:
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(log, 0, os.SEEK_SET)
    except OSError as error:
        pytest.skip(f"/dev/kmsg: {error.strerror}")
    numbers = []
    try:
        while len(numbers) < 500:
            numbers.append(kmsg(os.read(log, LONGEST)).sequence)
    except BlockingIOError:
        assert numbers
    finally:
        os.close(log)
    assert numbers == sorted(set(numbers))


UNKNOWN = "pid='<unknown>', name=<unknown>, "
XIDS = [
    # docs.nvidia.com/deploy/xid-errors: its own example
    ("(0000:03:00): 14, Channel 00000001", ("0000:03:00", 14, CORRECTED, 0, "")),
    ("(0001:00): 13, 0005 00000000 0000502d", ("0000:01:00", 13, RECOVERED, 0, "")),
    ("(PCI:0000:01:00): 31, Ch 00000009, engmask 00000101", ("0000:01:00", 31, RECOVERED, 0, "")),
    ("(PCI:0000:01:00): 79, pid=1122, GPU has fallen off the bus.", ("0000:01:00", 79, FATAL, 1122, "")),
    (
        f"(PCI:0000:cb:00): 13, {UNKNOWN}Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0)",
        ("0000:cb:00", 13, RECOVERED, 0, ""),
    ),
    (
        "(PCI:0000:cb:00): 109, pid=1797828, name=pt_main_thread, Ch 00000008, errorString CTX SWITCH TIMEOUT",
        ("0000:cb:00", 109, FATAL, 1797828, "pt_main_thread"),
    ),
    (
        "(PCI:0000:00:06): 31, pid=79749, name=exe, Ch 0000000a, intr 00000000. MMU Fault: ENGINE GRAPHICS",
        ("0000:00:06", 31, RECOVERED, 79749, "exe"),
    ),
    (
        "(PCI:0000:41:00 GPU-I:05): 45, pid=7, name=a, Ch 00000008 caused by previous Xid 31",
        ("0000:41:00", 45, RECOVERED, 7, "a"),
    ),
    (
        "(PCI:0000:41:00 GPU-I:05 GPU-CI:00): 94, pid=7, name=a, Contained: SM",
        ("0000:41:00", 94, RECOVERED, 7, "a"),
    ),
    (
        f"(PCI:0009:01:00): 48, {UNKNOWN}DBE (double bit error) ECC Error",
        ("0009:01:00", 48, UNCORRECTED, 0, ""),
    ),
    ("(PCI:0018:01:00): 149, NETIR Fatal   XC0 i0 Link 08 (0x004505c6)", ("0018:01:00", 149, FATAL, 0, "")),
    (
        "(PCI:0018:01:00): 145, RLW_REMAP Nonfatal XC1 i0 Link 02 (0x00000004)",
        ("0018:01:00", 145, UNCORRECTED, 0, ""),
    ),
    (
        "(PCI:0000:89:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
        ("0000:89:00", 154, FATAL, 0, ""),
    ),
    (
        "(PCI:0000:89:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
        ("0000:89:00", 154, RECOVERED, 0, ""),
    ),
    (
        f"(PCI:0000:3b:00): 63, {UNKNOWN}Row Remapper: New row marked for remapping",
        ("0000:3b:00", 63, CORRECTED, 0, ""),
    ),
    ("(PCI:0000:3b:00): 999, ", ("0000:3b:00", 999, UNCORRECTED, 0, "")),
]


@pytest.mark.parametrize("line,meant", XIDS)
def test_an_xid(line: str, meant: tuple[str, int, Severity, int, str]) -> None:
    one = said(f"NVRM: Xid {line}")
    assert one is not None and one.kind == "xid"
    assert (one.address, one.code, one.severity, one.pid, one.task) == meant
    assert "pid=" not in one.text and "name=" not in one.text
    assert Said.unpacked(one.packed()) == one


def test_instances_of_mig() -> None:
    found = [said(f"NVRM: Xid {line}") for line, _ in XIDS if "GPU-I" in line]
    assert [one.instance for one in found if one is not None] == ["05", "05/00"]


SWITCH = "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, "


@pytest.mark.parametrize(
    "rest,severity",
    [
        ("Non-fatal, Link 32 egress non-posted PRIV error (First)", UNCORRECTED),
        ("Fatal, Link 28 sourcetrack timeout error (First)", FATAL),
        # These two follow each of those (_nvswitch_dump_error_entry) and are no further errors.
        ("Severity 0 Engine instance 60 Sub-engine instance 00", None),
        ("Data {0x0000003c, 0x0000003c, 0x00000000}", None),
    ],
)
def test_an_sxid(rest: str, severity: Severity | None) -> None:
    one = said(SWITCH + rest)
    assert (one and one.severity) == severity
    if one is not None:
        assert (one.kind, one.address, one.code) == ("sxid", "0000:05:00.0", 12028)


NEW, MIDDLE = "amdgpu 0000:03:00.0: ", "amdgpu 0000:03:00.0: amdgpu: "
OLD = "[drm:amdgpu_job_timedout [amdgpu]] *ERROR* "


@pytest.mark.parametrize("start", [NEW, MIDDLE, OLD, "amdgpu 0000:03:00.0: [drm] *ERROR* "])
@pytest.mark.parametrize(
    "rest,kind,severity",
    [
        ("ring gfx_0.0.0 timeout, signaled seq=164679963, emitted seq=164679966", "hang", RECOVERED),
        ("ring sdma0 timeout, but soft recovered", "hang", RECOVERED),
        ("Ring comp_1.0.1 reset succeeded", "reset", RECOVERED),
        ("Ring comp_1.0.1 reset success", "reset", RECOVERED),
        ("GPU reset(2) succeeded!", "reset", RECOVERED),
        ("GPU reset(3) failed", "wedged", FATAL),
        ("GPU reset(3) failed with error -62 ", "wedged", FATAL),
        ("GPU reset begin!", None, None),
        ("GPU reset begin!. Source:  1", None, None),
        ("GPU reset succeeded, trying to resume", None, None),
        ("Ring comp_1.0.1 reset failed", None, None),
        ("ring gfx uses VM inv eng 0 on hub 0", None, None),
    ],
)
def test_amdgpu(start: str, rest: str, kind: str | None, severity: Severity | None) -> None:
    one = said(start + rest)
    if kind is None:
        assert one is None
        return
    assert one is not None and (one.kind, one.severity) == (kind, severity)
    assert one.address == ("" if start == OLD else "0000:03:00.0")


@pytest.mark.parametrize(
    "line",
    [
        OLD + "Process information: process Xorg pid 3513 thread Xorg:cs0 pid 3514",
        MIDDLE + "Process information: process Xorg pid 3513 thread Xorg:cs0 pid 3514",
        MIDDLE + " Process Xorg pid 3513 thread Xorg:cs0 pid 3514",
    ],
)
def test_whose_ring_it_was(line: str) -> None:
    one = said(line)
    assert one is not None and (one.kind, one.pid, one.task) == (PROCESS, 3513, "Xorg")


@pytest.mark.parametrize(
    "line",
    [
        # A name (at most 15 bytes) that makes the line end in words of its own.
        MIDDLE + " Process p pid 5 thread a pid 1 thread  pid 7",
        MIDDLE + " Process x pid 9 thread  pid 100 thread x pid 101",
    ],
)
def test_a_name_that_blames_another_blames_nobody(line: str) -> None:
    assert said(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "python[7]: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",
        # A process of that name (15 bytes) of which the kernel says something.
        "NVRM: Xid (1:2)[44]: segfault at 0 ip 0000000000000000",
        "NVRM: Xid (PCI:: page allocation failure: order:0",
        "NVRM: Xid (PCI:0000:01:00) 31, Ch 00000010",
        "NVRM: Xid (PCI:0000:01:00): many, Ch 00000010",
        "NVRM: Xid (ffff:00): 13, a bus of more than 8 bits",
        "NVRM: GPU at PCI:0000:01:00: GPU-8ba16ede-b303-d769-7297-d266d9383b89",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): garbled, Fatal",
        "amdgpu: GPU reset(3) failed",
    ],
)
def test_what_says_nothing(line: str) -> None:
    assert said(line) is None


@given(
    st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}", fullmatch=True),
    st.integers(0, 999),
    st.integers(1, 2**22),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=15),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=300),
)
def test_no_name_and_no_text_changes_whose_xid_it_is(
    address: str, code: int, pid: int, name: str, text: str
) -> None:
    """Both may come from a process: what stands before them is the driver's."""
    one = said(f"NVRM: Xid (PCI:{address}): {code}, pid={pid}, name={name}, {text}")
    assert one is not None and (one.address, one.code, one.pid) == (address, code, pid)
    assert len(one.text) <= 200 and len(one.task) <= 64


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    for start in ("", "NVRM: Xid (", "NVRM: Xid (PCI:0000:01:00): 1", SWITCH, NEW, OLD, MIDDLE + " Process "):
        one = said(start + text)
        assert one is None or one.kind in KINDS or one.kind == PROCESS
