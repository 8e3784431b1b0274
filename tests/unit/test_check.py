"""Which interfaces a host has and why not, on trees; nothing but plain text files is ever opened."""

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudaemon.config import TIERS
from gpudaemon.discovery import interface_probe
from gpudaemon.discovery.host import Host
from gpudaemon.discovery.interface_probe import Found, Presence, probe, remarks
from gpudaemon.discovery.interfaces import CATALOGUE, Use
from gpudaemon.metrics import table
from gpudaemon.mock import build
from gpudaemon.model.forbidden import is_forbidden
from gpudaemon.model.rights import TIERS as READER_TIERS
from gpudaemon.view.check import as_json, as_text

ALL = sorted({option for one in CATALOGUE for option in one.config})
FULL = "CapEff:\t000001ffffffffff\nSeccomp:\t0\n"


class Tree:
    """A host as files: `tree.put("sys/…", "text")`; a name that ends in `/` is a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.put("proc/self/status", FULL)
        self.config(**dict.fromkeys((option.removeprefix("CONFIG_") for option in ALL), "y"))

    def put(self, *names: str, text: str = "") -> None:
        for name in names[:-1] if len(names) > 1 else names:
            path = self.root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(names[-1] if len(names) > 1 else text)

    def config(self, **options: str) -> None:
        lines = [
            f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"
            for name, value in options.items()
        ]
        (self.root / "proc").mkdir(parents=True, exist_ok=True)
        (self.root / "proc/config.gz").write_bytes(gzip.compress("\n".join(lines).encode()))

    def without(self, *options: str) -> None:
        self.config(**{option.removeprefix("CONFIG_"): "n" if option in options else "y" for option in ALL})

    def host(self) -> Host:
        root = str(self.root)
        return Host(sysfs=f"{root}/sys", procfs=f"{root}/proc", root=root, release="7.3.0")

    def found(self, name: str, **more: Any) -> Found:
        return next(one for one in probe(self.host(), **more) if one.interface.name == name)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_the_catalogue_is_in_order() -> None:
    names = [one.name for one in CATALOGUE]
    assert len(set(names)) == len(names)
    for one in CATALOGUE:
        assert one.tier in TIERS
        assert one.capability == "" or one.capability in READER_TIERS[one.tier]
        assert one.what and one.doc and one.absent
        assert one.check == "" or one.check in interface_probe._RULES
        assert one.paths or one.check == "config"
        assert one.use is not Use.NOW or one.cost
        assert all(option.startswith("CONFIG_") for option in one.config)
        assert all(path.split("/")[0] in ("sys", "proc", "dev", "root") for path in one.paths)
    assert tuple(READER_TIERS) == TIERS


def test_what_is_said_to_be_used_gives_metrics() -> None:
    sources = " ".join(row.abi for row in table())
    for name in ("pci", "pcie-aer", "runtime-pm", "hwmon", "amdgpu", "i915", "xe", "habanalabs", "intel_vpu"):
        interface = next(one for one in CATALOGUE if one.name == name)
        assert interface.use is Use.NOW
        assert interface.doc.rsplit("/", 1)[0] in sources


def test_present(tree: Tree) -> None:
    tree.put("sys/class/hwmon/hwmon0/name", "amdgpu")
    assert tree.found("hwmon") == Found(tree.found("hwmon").interface, Presence.OK)


def test_no_device(tree: Tree) -> None:
    found = tree.found("hwmon")
    assert (found.presence, found.why) == (Presence.NO_DEVICE, "no chip with a driver")


def test_kernel_config(tree: Tree) -> None:
    tree.without("CONFIG_HWMON")
    found = tree.found("hwmon")
    assert found.presence is Presence.NO_CONFIG
    assert "CONFIG_HWMON" in found.why
    assert found.fix == "a kernel with CONFIG_HWMON"


def test_kernel_config_from_boot(tree: Tree) -> None:
    (tree.root / "proc/config.gz").unlink()
    assert tree.found("accel").presence is Presence.UNKNOWN
    assert any("configuration" in remark for remark in remarks(tree.host()))
    tree.put("boot/config-7.3.0", "# CONFIG_DRM_ACCEL is not set\n")
    assert tree.found("accel").presence is Presence.NO_CONFIG
    assert not any("configuration" in remark for remark in remarks(tree.host()))


@pytest.mark.parametrize(
    ("name", "text", "presence", "fix"),
    [
        ("modules.dep", "kernel/drivers/amdgpu.ko.xz: kernel/x.ko", Presence.NO_MODULE, "modprobe amdgpu"),
        ("modules.dep", "kernel/drivers/other.ko:", Presence.NO_MODULE, "install amdgpu"),
        ("modules.dep", "", Presence.NO_MODULE, ""),
        ("modules.builtin", "kernel/drivers/amdgpu.ko", Presence.NO_DEVICE, ""),
        ("../../../sys/module/amdgpu/refcnt", "0", Presence.NO_DEVICE, ""),
    ],
)
def test_modules(tree: Tree, name: str, text: str, presence: Presence, fix: str) -> None:
    tree.put("lib/modules/7.3.0/")
    tree.put(f"lib/modules/7.3.0/{name}", text)
    found = tree.found("amdgpu")
    assert found.presence is presence
    assert found.fix.startswith(fix) and bool(fix) == bool(found.fix)


def test_modules_with_a_dash(tree: Tree) -> None:
    tree.put("lib/modules/7.3.0/modules.dep", "kernel/drivers/gpu/drm/scheduler/gpu-sched.ko:")
    assert "modprobe gpu_sched" in tree.found("trace-gpu-scheduler").fix


def test_permission(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.put("sys/class/hwmon/hwmon0/", "sys/class/hwmon/hwmon1/", "")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: "hwmon1" not in path and real(path, mode))
    found = tree.found("hwmon")
    assert found.presence is Presence.DENIED
    assert "hwmon1" in found.why and "(1 of 2)" in found.why


def test_capabilities(tree: Tree) -> None:
    tree.put("sys/bus/pci/devices/0000:03:00.0/config", "")
    assert tree.found("pci-config").presence is Presence.OK
    tree.put("proc/self/status", "CapEff:\t0000000000000000\n")
    found = tree.found("pci-config")
    assert (found.presence, found.fix) == (Presence.DENIED, "tier full (CAP_SYS_ADMIN)")
    assert tree.found("drm-ras").fix == "tier full (CAP_NET_ADMIN)"


@pytest.mark.parametrize(
    ("value", "capabilities", "presence"),
    [("0", "0", Presence.OK), ("1", "0", Presence.DISABLED), ("1", "200000", Presence.OK),
     ("2", "1ffffffffff", Presence.DISABLED)],
)  # fmt: skip
def test_io_uring(tree: Tree, value: str, capabilities: str, presence: Presence) -> None:
    tree.put("proc/sys/kernel/io_uring_disabled", value)
    tree.put("proc/self/status", f"CapEff:\t{capabilities}\n")
    assert tree.found("io_uring").presence is presence


def test_an_attempt_knows_better(tree: Tree) -> None:
    tree.put("proc/self/status", FULL.replace("Seccomp:\t0", "Seccomp:\t2"))
    tree.put("proc/sys/kernel/")
    assert tree.found("io_uring").presence is Presence.UNKNOWN
    assert tree.found("io_uring", io_uring=(True, "io_uring answers")).presence is Presence.OK
    failed = tree.found("io_uring", io_uring=(False, "liburing cannot be imported"))
    assert (failed.presence, failed.why) == (Presence.DISABLED, "liburing cannot be imported")
    tree.put("proc/sys/kernel/io_uring_disabled", "2")
    assert "sysctl" in tree.found("io_uring", io_uring=(False, "io_uring_setup: EPERM")).fix


def test_tracefs(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.put("sys/kernel/tracing/")
    assert "mount -t tracefs" in tree.found("trace-dma-fence").fix
    tree.put("sys/kernel/tracing/events/dma_fence/")
    assert tree.found("trace-dma-fence").presence is Presence.OK
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: "tracing" not in path and real(path, mode))
    assert tree.found("trace-dma-fence").presence is Presence.DENIED
    tree.without("CONFIG_DMA_SHARED_BUFFER")
    monkeypatch.undo()
    assert tree.found("trace-migrate").presence is Presence.NO_DEVICE


@pytest.mark.parametrize(
    ("paranoid", "capabilities", "presence"),
    [("0", "0", Presence.OK), ("-1", "0", Presence.OK), ("2", "0", Presence.DENIED),
     ("2", "4000000000", Presence.OK), ("", "0", Presence.DENIED)],
)  # fmt: skip
def test_counters(tree: Tree, paranoid: str, capabilities: str, presence: Presence) -> None:
    tree.put("sys/bus/event_source/devices/xe_0000_03_00.0/")
    tree.put("proc/sys/kernel/perf_event_paranoid", paranoid)
    tree.put("proc/self/status", f"CapEff:\t{capabilities}\n")
    assert tree.found("pmu-xe").presence is presence


def test_other_peoples_processes(tree: Tree) -> None:
    tree.put("proc/self/fd/", "proc/self/fdinfo/", "")
    tree.put("proc/self/mountinfo", "22 1 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible\n")
    assert tree.found("fdinfo").presence is Presence.OK  # CAP_SYS_PTRACE sees through hidepid
    tree.put("proc/self/status", "CapEff:\t0\n")
    assert "hidepid=invisible" in tree.found("fdinfo").why
    tree.put("proc/self/mountinfo", "22 1 0:21 / /proc rw,relatime - proc proc rw\n")
    found = tree.found("fdinfo")
    assert (found.why, found.fix) == ("needs CAP_SYS_PTRACE", "tier processes (CAP_SYS_PTRACE)")
    assert tree.found("clients").presence is Presence.OK


def test_kmsg(tree: Tree) -> None:
    tree.put("dev/kmsg", "")
    tree.put("proc/self/status", "CapEff:\t0\n")
    tree.put("proc/sys/kernel/dmesg_restrict", "1")
    assert tree.found("kmsg").presence is Presence.DENIED
    tree.put("proc/sys/kernel/dmesg_restrict", "0")
    assert tree.found("kmsg").presence is Presence.OK


def test_cgroups(tree: Tree) -> None:
    assert tree.found("dmem").presence is Presence.DISABLED
    tree.put("sys/fs/cgroup/cgroup.controllers", "cpu memory dmem\n")
    assert tree.found("dmem").presence is Presence.NO_DEVICE
    tree.put("sys/fs/cgroup/dmem.capacity", "")
    assert tree.found("dmem").presence is Presence.OK
    tree.without("CONFIG_CGROUP_DMEM")
    os.unlink(tree.root / "sys/fs/cgroup/dmem.capacity")
    assert tree.found("dmem").presence is Presence.NO_CONFIG


def test_debugfs_is_never_needed(tree: Tree) -> None:
    tree.put("sys/kernel/debug/")
    found = tree.found("debugfs-dri")
    assert (found.presence, found.fix) == (Presence.DISABLED, "nothing: gpudaemon never needs it")


OPENED = ("/proc/self/", "/proc/sys/kernel/", "/proc/config.gz", "/boot/config-", "/lib/modules/")


@pytest.mark.parametrize("profile", ["mi300x8", "mixed", "rx7900xtx"])
def test_nothing_of_a_device_is_opened(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(profile, str(tmp_path))
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kmsg")
    os.mkfifo(tmp_path / "dev/kfd")
    opened: list[str] = []
    real = os.open

    def watched(path: str, flags: int, *more: Any, **named: Any) -> int:
        opened.append(str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", watched)
    found = probe(Host(sysfs=f"{tmp_path}/sys", procfs=f"{tmp_path}/proc", root=str(tmp_path)))
    names = {one.interface.name for one in found if one.presence is Presence.OK}
    assert {"pci", "pcie-aer", "runtime-pm", "hwmon"} <= names
    assert opened
    for path in opened:
        assert not is_forbidden(path)
        below = path.removeprefix(str(tmp_path))
        assert below.startswith(OPENED) or below.startswith("/sys/fs/cgroup/"), path


def test_pipes_and_directories_in_the_place_of_files_hold_nobody_up(tree: Tree) -> None:
    (tree.root / "proc/config.gz").unlink()
    for name in ("proc/config.gz", "boot/config-7.3.0", "proc/sys/kernel/io_uring_disabled"):
        (tree.root / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tree.root / name)
    (tree.root / "proc/self/status").unlink()
    tree.put("proc/self/status/", "lib/modules/7.3.0/modules.dep/", "")
    assert len(probe(tree.host())) == len(CATALOGUE)


NAMES = sorted(
    {path.replace("*", "x") for one in CATALOGUE for path in one.paths}
    | {"proc/self/status", "proc/self/mountinfo", "proc/config.gz", "boot/config-7.3.0", "sys/kernel/tracing"}
    | {"lib/modules/7.3.0/modules.dep", "proc/sys/kernel/io_uring_disabled", "sys/fs/cgroup/cgroup.controllers"}
    | {"proc/sys/kernel/perf_event_paranoid", "sys/module/amdgpu"}
)
KINDS = st.one_of(st.binary(max_size=200), st.sampled_from(["directory", "dangling", "itself", "gzip"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), KINDS))
def test_any_tree_gives_an_answer(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes | str]
) -> None:
    root = tmp_path_factory.mktemp("garbage")
    for name, kind in content.items():
        path = root / name.replace("root/", "")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "directory":
                path.mkdir(exist_ok=True)
            elif kind == "gzip":
                path.write_bytes(gzip.compress(b"CONFIG_X=y\n\xff")[:-3])
            elif isinstance(kind, bytes):
                path.write_bytes(kind)
            else:
                path.symlink_to("nowhere" if kind == "dangling" else path.name)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP):
                raise
            # another name has this place already
    host = Host(sysfs=f"{root}/sys", procfs=f"{root}/proc", root=str(root), release="7.3.0")
    found = probe(host)
    assert [one.interface for one in found] == list(CATALOGUE)
    assert all((one.presence is Presence.OK) == (not one.why) for one in found)
    for tier in TIERS:
        text = as_text(found, tier=tier, notes=remarks(host))
        assert all(sum(line.startswith(f"{one.name} ") for line in text.split("\n")) == 1 for one in CATALOGUE)
        json.dumps(as_json(found, tier=tier))


def test_the_table(tree: Tree) -> None:
    tree.put("sys/bus/pci/devices/0000:03:00.0/config", "")
    tree.put("sys/bus/pci/devices/0000:03:00.0/vendor", "")
    text = as_text(probe(tree.host()), tier="base", settings={"file": "/etc/x\n"}, notes=["a note"])
    usable, dearer, missing = (text.index(title) for title in ("usable in tier base", "here, but", "missing:"))
    assert text.startswith("file  /etc/x\\n\n")
    assert usable < text.index("\npci ") < dearer < text.index("\npci-config ") < missing
    assert text.index("\nhwmon ") > missing
    assert text.endswith("\n\na note")
    full = as_text(probe(tree.host()), tier="full")
    assert "here, but" not in full


def test_the_object(tree: Tree) -> None:
    tree.put("sys/bus/pci/devices/0000:03:00.0/config", "")
    found = as_json(probe(tree.host()), tier="base", settings={"tier": "base"})
    by_name = {one["interface"]: one for one in found["interfaces"]}
    assert list(by_name) == [one.name for one in CATALOGUE]
    assert by_name["pci-config"]["state"] == "ok"
    assert by_name["pci-config"]["usable"] is False
    assert by_name["pci-config"]["fix"] == "tier full (CAP_SYS_ADMIN)"
    assert by_name["hwmon"]["state"] == "no_device"
    assert found["settings"] == {"tier": "base"}
