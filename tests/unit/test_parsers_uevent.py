"""uevents as the kernel sends them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.uevent import LONGEST, uevent

WORD = st.from_regex(r"[A-Z][A-Z_]{0,20}", fullmatch=True)
VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(
    st.sampled_from(["add", "remove", "change", "bind", "unbind"]),
    st.from_regex(r"/devices/[a-z0-9:./]{1,60}", fullmatch=True),
    st.dictionaries(WORD, VALUE, max_size=12),
)
def test_datagrams_come_back(action: str, path: str, properties: dict[str, str]) -> None:
    pairs = "".join(f"{key}={value}\0" for key, value in properties.items())
    found = uevent(f"{action}@{path}\0{pairs}".encode())
    assert (found.action, found.devpath, found.properties) == (action, path, properties)


def test_a_wedged_gpu() -> None:
    found = uevent(
        b"change@/devices/pci0000:00/0000:03:00.0/drm/card0\0ACTION=change\0SUBSYSTEM=drm\0"
        b"WEDGED=none\0PID=4711\0TASK=weird=name \xff\0SEQNUM=5\0"
    )
    assert found.properties["WEDGED"] == "none"
    assert found.properties["TASK"] == "weird=name \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"libudev\0\xfe\xed\xca\xfe",
        b"add@devices/x\0",
        b"explode@/devices/x\0",
        b"add@/devices/x\0NOEQUALS\0",
        b"add@/devices/x\0=value\0",
        b"add@/devices/x\0" + b"A=" + b"b" * LONGEST,
    ],
)
def test_other_datagrams_are_malformed(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        uevent(datagram)


@given(st.binary(max_size=300))
def test_any_bytes(datagram: bytes) -> None:
    for content in (datagram, b"add@/devices/" + datagram):
        try:
            uevent(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS
