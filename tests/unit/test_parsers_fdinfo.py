"""DRM fdinfo: every driver's keys and the traps of their units."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.fdinfo import MEMORY_KINDS, client_id, drm_client
from tests.captures import capture

HEAD = b"pos:\t0\nflags:\t02100002\nmnt_id:\t24\nino:\t1204\ndrm-driver:\t%s\ndrm-client-id:\t7\n"


def captured(name: str) -> bytes:
    return Path(capture("fdinfo", name)).read_bytes()


def test_amdgpu_as_captured() -> None:
    client = drm_client(captured("amdgpu_ursulin_2024.txt"))
    assert client is not None
    assert (client.driver, client.identifier, client.address) == ("amdgpu", 30, "0000:04:00.0")
    assert {name: engine.busy for name, engine in client.engines.items()} == {"gfx": 39456116802}
    vram = client.memory["vram"]
    assert vram["total"] == vram["resident"] == 544428 << 10
    assert (vram["shared"], vram["active"], vram["requested"]) == (13584 << 10, 260356 << 10, 544428 << 10)
    assert client.memory["gtt"]["resident"] == 22 << 20
    assert client.memory["cpu"] == {"total": 0, "shared": 0, "active": 0, "resident": 0}


def test_panfrost_as_documented_has_time_cycles_and_frequency() -> None:
    client = drm_client(captured("panfrost_kernel_doc.txt"))
    assert client is not None
    fragment = client.engines["fragment"]
    assert (fragment.busy, fragment.cycles) == (1846584880, 1424359409)
    assert (fragment.max_hertz, fragment.clock_hertz) == (799999987, 799999987)
    assert client.memory["memory"]["resident"] == 36496 << 10


def test_msm_as_captured_has_no_pci_address() -> None:
    client = drm_client(captured("msm_clark_2022.txt"))
    assert client is not None
    assert client.address == ""
    assert client.engines["gpu"].max_hertz == 800_000_000


def test_xe_counts_cycles_against_a_clock() -> None:
    client = drm_client(
        HEAD
        % b"xe"
        + b"drm-pdev:\t0000:03:00.0\ndrm-cycles-rcs:\t28257900\ndrm-total-cycles-rcs:\t7655183225\n"
        b"drm-cycles-ccs:\t0\ndrm-total-cycles-ccs:\t7655183225\ndrm-engine-capacity-ccs:\t4\n"
        b"drm-total-vram0:\t0\n"
    )
    assert client is not None
    assert set(client.memory) == {"vram0"}, "drm-total-cycles-* is no memory"
    assert (client.engines["rcs"].cycles, client.engines["rcs"].total_cycles) == (28257900, 7655183225)
    assert client.engines["ccs"].capacity == 4
    assert client.engines["rcs"].busy is None


def test_i915_has_capacity_where_there_are_several() -> None:
    client = drm_client(
        HEAD % b"i915" + b"drm-engine-render:\t25662044495 ns\ndrm-engine-video:\t5 ns\n"
        b"drm-engine-capacity-video:\t2\ndrm-total-system0:\t132 MiB\ndrm-shared-system0:\t0\n"
    )
    assert client is not None
    assert set(client.engines) == {"render", "video"}
    assert (client.engines["video"].capacity, client.engines["render"].capacity) == (2, 1)
    assert client.memory["system0"] == {"total": 132 << 20, "shared": 0}


@pytest.mark.parametrize(
    ("value", "size"), [("0", 0), ("4095", 4095), ("4 KiB", 4096), ("1025 KiB", 1025 << 10), ("3 MiB", 3 << 20)]
)
def test_sizes_without_a_unit_are_bytes(value: str, size: int) -> None:
    client = drm_client(HEAD % b"xe" + f"drm-total-gtt:\t{value}\n".encode())
    assert client is not None
    assert client.memory["gtt"]["total"] == size


def test_the_old_word_for_resident_gives_way_to_the_new_one() -> None:
    client = drm_client(
        HEAD % b"amdgpu" + b"drm-memory-vram: \t8 KiB\ndrm-resident-vram:\t4 KiB\ndrm-memory-gtt: \t16 KiB\n"
    )
    assert client is not None
    assert client.memory == {"vram": {"resident": 4096}, "gtt": {"resident": 16384}}


def test_amdxdna_says_what_it_allocated() -> None:
    driver = b"amdxdna_accel_driver"
    client = drm_client(HEAD % driver + driver + b"-heap-alloc:\t64 MiB\n" + driver + b"-external-alloc:\t0\n")
    assert client is not None
    assert client.memory == {"heap": {"total": 64 << 20}, "external": {"total": 0}}


@pytest.mark.parametrize(
    "content", [b"", b"pos:\t0\nflags:\t02\n", b"size:\t16384\ncount:\t3\nexp_name:\tdrm\n"]
)
def test_other_descriptors_and_devices_that_went_have_no_client(content: bytes) -> None:
    assert drm_client(content) is None
    assert client_id(content) is None


@pytest.mark.parametrize(
    "line",
    [
        b"drm-engine-gfx:\t-1 ns",
        b"drm-engine-gfx:\t1 us",
        b"drm-engine-gfx:\t",
        b"drm-engine-gfx:\t" + b"9" * 30 + b" ns",
        b"drm-engine-:\t1 ns",
        b"drm-total-vram:\t1 GiB",
        b"drm-total-vram:\t1.5 KiB",
        "drm-cycles-rcs:\t\u0661".encode(),
        b"drm-maxfreq-gpu:\t1 furlong",
    ],
)
def test_what_has_not_the_documented_form_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        drm_client(HEAD % b"x" + line + b"\n")


def test_bounds() -> None:
    many = b"".join(b"drm-engine-e%d:\t1 ns\n" % number for number in range(65))
    with pytest.raises(Malformed, match="oversized"):
        drm_client(HEAD % b"x" + many)
    assert drm_client(HEAD % b"x" + b"drm-client-name:\t" + b"n" * 500 + b"\n").name == "n" * 64  # type: ignore[union-attr]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_content_gives_a_client_nothing_or_malformed(content: bytes) -> None:
    for text in (content, HEAD % b"x" + content):
        client_id(text)
        try:
            client = drm_client(text)
        except Malformed:
            continue
        if client is not None:
            assert all(kind in MEMORY_KINDS for kinds in client.memory.values() for kind in kinds)


_NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True).filter(lambda name: "capacity-" not in name)
_UNITS = st.sampled_from([("", 1), (" KiB", 1 << 10), (" MiB", 1 << 20)])


@settings(deadline=None)
@given(
    st.integers(0, 2**64 - 1),
    st.dictionaries(_NAMES, st.integers(0, 2**63), max_size=8),
    st.dictionaries(
        _NAMES.filter(lambda name: not name.startswith("cycles-")),
        st.tuples(st.integers(0, 2**40), _UNITS),
        max_size=8,
    ),
    st.sampled_from(["\t", " \t", "\t ", "  "]),
)
def test_what_the_kernel_prints_comes_back(
    identifier: int, engines: dict[str, int], memory: dict[str, tuple[int, tuple[str, int]]], gap: str
) -> None:
    lines = ["pos:\t0", f"drm-driver:{gap}amdgpu", f"drm-client-id:{gap}{identifier}"]
    lines += [f"drm-engine-{name}:{gap}{value} ns" for name, value in engines.items()]
    lines += [f"drm-total-{name}:{gap}{value}{unit}" for name, (value, (unit, _)) in memory.items()]
    content = ("\n".join(lines) + "\n").encode()
    client = drm_client(content)
    assert client is not None
    assert client.identifier == identifier == client_id(content)
    assert {name: engine.busy for name, engine in client.engines.items()} == engines
    assert {name: kinds["total"] for name, kinds in client.memory.items()} == {
        name: value * factor for name, (value, (_, factor)) in memory.items()
    }
