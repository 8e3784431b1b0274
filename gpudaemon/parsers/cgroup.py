"""/proc/PID/cgroup: who a process works for: a Kubernetes pod, a container, a Slurm job, a machine, a unit.

cgroups(7), kernel/cgroup/cgroup.c (proc_cgroup_show). One line of version 2, `0::/path`, and on hosts that
still have version 1 a line a hierarchy, `N:controllers:/path`. A path is relative to the root of the reader's
cgroup namespace and begins with `/..` outside of it; ` (deleted)` follows one that is gone. Names never hold a
line feed (cgroup_mkdir refuses it), anything else they may.

The names runtimes give, each from its own source: kubelet pkg/kubelet/cm/cgroup_manager_linux.go; runc
libcontainer/cgroups/systemd; containerd's CRI plugin (getCgroupsPath); CRI-O internal/config/cgmgr; Docker
daemon/oci_linux.go; Podman libpod (CgroupfsDefaultCgroupParent, `libpod-`); LXC src/lxc/cgroups/cgfsng.c;
systemd-nspawn(1); Slurm https://slurm.schedmd.com/cgroup_v2.html and its cgroup/v1 plugin.
"""

import re
from dataclasses import dataclass

from gpudaemon.errors import Malformed

__all__ = ["NOBODY", "Owner", "cgroup_owner", "cgroup_paths", "owner_of"]

_ID = r"[0-9a-f]{64}"
_POD = re.compile(
    r"(?:^|[-/])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=$|[:/])"
)
_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "libpod-payload": "podman",
}
_MONITOR = re.compile(r"(?:crio|libpod)-conmon-")
_PREFIXED = re.compile(
    rf"(?:^|:)(docker|cri-containerd|nerdctl|crio|libpod|libpod-payload)[-:]({_ID})(?:\.scope)?$"
)
_BARE = re.compile(_ID)
_JOB = re.compile(r"job_(\d{1,20})")
_STEP = re.compile(r"step_(\w{1,32})")
_SLURM = re.compile(r"(?:.*_)?slurmstepd\.scope|slurm(?:_.*)?")
_MACHINE = re.compile(r"machine-(.+)\.scope|systemd-nspawn@(.+)\.service")
_LXC = re.compile(r"(?:lxc|incus)\.payload\.(.+)")
_UNIT = re.compile(r".+\.(?:service|scope)")
_USER = re.compile(r"user@(\d{1,10})\.service")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_LONGEST = 128
_MOST_LINES = 64
_RANK = {"kubernetes": 0, "slurm": 1, "container": 2, "machine": 3, "unit": 4, "cgroup": 5}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a cgroup belongs to.

    key: short and unique on this host, the value of the label `owner`. kind: kubernetes, slurm, container,
    machine, unit, cgroup. path: the cgroup. The others are empty where they do not apply. unit: systemd's; of
    what a user's own manager started, with the user's number before it.
    """

    key: str
    kind: str
    path: str = ""
    unit: str = ""
    container: str = ""
    runtime: str = ""
    pod: str = ""
    qos: str = ""
    job: str = ""
    step: str = ""
    machine: str = ""


NOBODY = Owner("unknown", "cgroup")
"""Of a process whose cgroup could not be read."""


def cgroup_paths(content: bytes) -> tuple[str, ...]:
    """The distinct paths of a process, that of version 2 first; raises Malformed where there is none."""
    unified: list[str] = []
    named: list[str] = []
    for line in content.decode("utf-8", "replace").split("\n")[:_MOST_LINES]:
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not number.isdigit() or not colon or not path.startswith("/"):
            continue
        path = path.removesuffix(" (deleted)")
        (unified if not controllers else named).append(path)
    if not unified and not named:
        raise Malformed("empty" if not content.strip() else "format")
    return tuple(dict.fromkeys((*unified, *named)))


def cgroup_owner(content: bytes) -> Owner:
    """The owner that the most telling of a process's paths names; raises Malformed.

    On hosts with version 1, controllers may differ: Slurm leaves some of them to its own daemon's unit.
    """
    owners = [owner_of(path) for path in cgroup_paths(content)]
    return min(owners, key=lambda owner: (_RANK[owner.kind], owner.path == "/"))


def owner_of(path: str) -> Owner:
    """What one path says."""
    parts = [part for part in path.split("/") if part and part != ".."]
    place = next((place for place, part in enumerate(parts) if _POD.search(part)), None)
    if place is not None:
        return _pod(path, parts, place)
    for place, part in enumerate(parts):
        if _SLURM.fullmatch(part):
            owner = _job(path, parts[place + 1 :])
            if owner is not None:
                return owner
        container, runtime = _container(parts, place)
        if container:
            unit = _unit(parts[:place]) if part.startswith("libpod-payload-") else ""
            key = f"{runtime or 'container'}/{container[:12]}"
            return Owner(key, "container", path, unit=unit, container=container, runtime=runtime)
        machine = _machine(parts, place)
        if machine:
            return Owner(f"machine/{machine}"[:_LONGEST], "machine", path, machine=machine)
    unit = _unit(parts)
    if unit:
        return Owner(f"unit/{unit}"[:_LONGEST], "unit", path, unit=unit)
    return Owner(f"cgroup/{'/'.join(parts)}"[:_LONGEST], "cgroup", path)


def _pod(path: str, parts: list[str], place: int) -> Owner:
    """A pod, and its container where the path goes on to one. Without a word on quality it is guaranteed."""
    # The deepest slice names the pod; a kubelet's own root stands before it as a prefix.
    while place + 1 < len(parts) and _POD.search(parts[place + 1]):
        place += 1
    found = _POD.search(parts[place])
    assert found is not None
    uid = found.group(1).replace("_", "-")
    before = "/".join(parts[: place + 1])
    qos = next((word for word in ("burstable", "besteffort") if word in before), "guaranteed")
    container, runtime = "", ""
    for later in range(place, len(parts)):
        container, runtime = _container(parts, later)
        if container:
            # Without a prefix it is the cgroupfs driver's form, as containerd writes it.
            runtime = runtime or "containerd"
            break
    key = f"pod/{uid}/{container[:12]}" if container else f"pod/{uid}"
    return Owner(key, "kubernetes", path, container=container, runtime=runtime, pod=uid, qos=qos)


def _container(parts: list[str], place: int) -> tuple[str, str]:
    """(id, runtime) where this component is a container's, else empty. Monitors are none."""
    part = parts[place]
    if _MONITOR.search(part):
        return "", ""
    found = _PREFIXED.search(part)
    if found is not None:
        return found.group(2), _RUNTIMES[found.group(1)]
    if _BARE.fullmatch(part):
        return part, "docker" if place and parts[place - 1] == "docker" else ""
    return "", ""


def _job(path: str, parts: list[str]) -> Owner | None:
    """`[uid_U/]job_J[/step_S/...]`; what belongs to Slurm's own step daemon (`system`) is the step's all the
    same."""
    job = next((found.group(1) for part in parts[:2] if (found := _JOB.fullmatch(part))), "")
    if not job:
        return None
    step = next((found.group(1) for part in parts[:3] if (found := _STEP.fullmatch(part))), "")
    key = f"slurm/{job}/{step}" if step else f"slurm/{job}"
    return Owner(key, "slurm", path, job=job, step=step)


def _machine(parts: list[str], place: int) -> str:
    found = _MACHINE.fullmatch(parts[place]) or _LXC.fullmatch(parts[place])
    if found is not None:
        name = next(group for group in found.groups() if group)
    elif place and parts[place - 1] in ("lxc", "lxc.payload", "incus.payload"):
        name = parts[place]
    else:
        return ""
    return _ESCAPED.sub(lambda escape: chr(int(escape.group(1), 16)), name)[:_LONGEST]


def _unit(parts: list[str]) -> str:
    """The deepest unit; `init.scope` of a user's manager is that manager."""
    user, unit = "", ""
    for part in parts:
        if not _UNIT.fullmatch(part):
            continue
        manager = _USER.fullmatch(part)
        if manager is not None:
            user, unit = manager.group(1), part
        elif not (part == "init.scope" and user):
            unit = f"{user}/{part}" if user else part
    return unit[:_LONGEST]
