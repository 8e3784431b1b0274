"""Owners of processes by cgroup path: a table of real paths, each with where it was seen or is specified."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.cgroup import Owner, cgroup_owner, cgroup_paths, owner_of

POD = "kubepods-burstable-pod55c6c714_b240_4dec_9a45_57b61696ab6e.slice"
UID = "55c6c714-b240-4dec-9a45-57b61696ab6e"
A = "2032491dcae31e6746f47daa0ac74564f2843a1bd847c5e6c4eb501ca132ac36"
B = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d"


def pod(uid: str, container: str, runtime: str, qos: str) -> dict[str, str]:
    key = f"pod/{uid}/{container[:12]}" if container else f"pod/{uid}"
    found = {"kind": "kubernetes", "key": key, "pod": uid, "qos": qos}
    return found | ({"container": container, "runtime": runtime} if container else {})


def contained(container: str, runtime: str, **more: str) -> dict[str, str]:
    found = {"kind": "container", "key": f"{runtime or 'container'}/{container[:12]}", "container": container}
    return found | ({"runtime": runtime} if runtime else {}) | more


TABLE: list[tuple[str, str, dict[str, str]]] = [
    # Kubernetes, systemd cgroup driver
    (
        "netdata/netdata#4868 (containerd)",
        f"/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{A}.scope",
        pod(UID, A, "containerd", "burstable"),
    ),
    (
        "netdata/netdata#4868 (static pod: the UID is a hash)",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8daa50c3a64c9ff60bb9eab7b44b56fd.slice/"
        f"cri-containerd-{A}.scope",
        pod("8daa50c3a64c9ff60bb9eab7b44b56fd", A, "containerd", "burstable"),
    ),
    (
        "opencontainers/runc#4620 (CRI-O)",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda5c1f8d5_1919_434d_add7_4afaafdaef89.slice/"
        "crio-5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c.scope",
        pod(
            "a5c1f8d5-1919-434d-add7-4afaafdaef89",
            "5eed917563583925ffdbd40a64efb2aaffe58638e57add8becaf460fe74f5b1c",
            "cri-o",
            "burstable",
        ),
    ),
    (
        "CRI-O internal/config/cgmgr (a child of the scope)",
        f"/kubepods.slice/kubepods-burstable.slice/{POD}/crio-{A}.scope/container",
        pod(UID, A, "cri-o", "burstable"),
    ),
    (
        "CRI-O internal/config/cgmgr (its monitor is no container)",
        f"/kubepods.slice/kubepods-burstable.slice/{POD}/crio-conmon-{A}.scope",
        pod(UID, "", "", "burstable"),
    ),
    (
        "kontena/pharos-cluster#440 (Docker)",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod9692aa0e_748e_11e8_8dfa_76d458035df6.slice/"
        "docker-abddff03dfd7710c79a750ce3e730365cbb2c8247a974170c1062683bc3e9152.scope",
        pod(
            "9692aa0e-748e-11e8-8dfa-76d458035df6",
            "abddff03dfd7710c79a750ce3e730365cbb2c8247a974170c1062683bc3e9152",
            "docker",
            "besteffort",
        ),
    ),
    (
        "kubelet pkg/kubelet/cm/cgroup_manager_linux.go (guaranteed pods have no slice of their own)",
        f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{A}.scope",
        pod(UID, A, "containerd", "guaranteed"),
    ),
    (
        "containerd/nri#227 (kind: another root of the kubelet)",
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
        f"kubelet-kubepods-besteffort-pod1e597579_417e_482f_bf65_5fe170c3aebd.slice/cri-containerd-{A}.scope",
        pod("1e597579-417e-482f-bf65-5fe170c3aebd", A, "containerd", "besteffort"),
    ),
    (
        "kubernetes/minikube#11280 (a node that is a container itself)",
        f"/docker/{B}/kubepods.slice/kubepods-besteffort.slice/"
        f"kubepods-besteffort-pod2ca4a155_3599_498d_bb9d_4446693fa3ea.slice/crio-{A}.scope",
        pod("2ca4a155-3599-498d-bb9d-4446693fa3ea", A, "cri-o", "besteffort"),
    ),
    (
        "systemd.special(7) (systemd inside a pod)",
        f"/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{A}.scope/system.slice/sshd.service",
        pod(UID, A, "containerd", "burstable"),
    ),
    (
        "Docker inside a pod",
        f"/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{A}.scope/docker/{B}",
        pod(UID, A, "containerd", "burstable"),
    ),
    (
        "the pod's slice itself",
        f"/kubepods.slice/kubepods-burstable.slice/{POD}",
        pod(UID, "", "", "burstable"),
    ),
    # Kubernetes, cgroupfs driver
    (
        "Qard/container-info test/fixtures/result.js",
        "/kubepods/besteffort/pod74c13223-5a00-11e9-b385-42010a80018d/"
        "34dc0b5e626f2c5c4c5170e34b10e7654ce36f0fcd532739f4445baabea03376",
        pod(
            "74c13223-5a00-11e9-b385-42010a80018d",
            "34dc0b5e626f2c5c4c5170e34b10e7654ce36f0fcd532739f4445baabea03376",
            "containerd",
            "besteffort",
        ),
    ),
    ("CRI-O, cgroupfs", f"/kubepods/burstable/pod{UID}/crio-{A}", pod(UID, A, "cri-o", "burstable")),
    (
        "CRI-O, cgroupfs: its monitor",
        f"/kubepods/burstable/pod{UID}/crio-conmon-{A}",
        pod(UID, "", "", "burstable"),
    ),
    ("kubelet, cgroupfs, guaranteed", f"/kubepods/pod{UID}/{A}", pod(UID, A, "containerd", "guaranteed")),
    (
        "duckdb/duckdb#16608 (containerd, systemd-style parent with SystemdCgroup off)",
        "/kubepods-burstable-podb96a7488_3ee1_4bdc_9c98_155cc887b417.slice:cri-containerd:"
        "6ef14b5a76df7b5d24285e3a04ccbc6fd323620272b3787b5dc440fc1b75d294",
        pod(
            "b96a7488-3ee1-4bdc-9c98-155cc887b417",
            "6ef14b5a76df7b5d24285e3a04ccbc6fd323620272b3787b5dc440fc1b75d294",
            "containerd",
            "burstable",
        ),
    ),
    (
        "open-telemetry/opentelemetry-java#4507 (the same below the unit of the runtime)",
        "/system.slice/containerd.service/kubepods-besteffort-pod0125ec2f_b64a_4868_8f5b_94b56cbab864.slice:"
        "cri-containerd:ee4b20e90ac7f42a10bd004d05646b13d8ab5e2c5e7cbc01abf8006bac016459",
        pod(
            "0125ec2f-b64a-4868-8f5b-94b56cbab864",
            "ee4b20e90ac7f42a10bd004d05646b13d8ab5e2c5e7cbc01abf8006bac016459",
            "containerd",
            "besteffort",
        ),
    ),
    # Docker
    (
        "neuvector/neuvector share/system/cgroup_test.go",
        f"/system.slice/docker-{B}.scope",
        contained(B, "docker"),
    ),
    (
        "moby/moby#9902, d2iq-archive/kubernetes-mesos#565",
        "/docker/611a8d133d2c636e777745e4dbb1d5866a068fe0f6cc87033e52fe139fca5ba1",
        contained("611a8d133d2c636e777745e4dbb1d5866a068fe0f6cc87033e52fe139fca5ba1", "docker"),
    ),
    ("neuvector/neuvector share/system/cgroup_test.go (no word on the runtime)", f"/{B}", contained(B, "")),
    (
        "systemd inside Docker",
        f"/system.slice/docker-{B}.scope/system.slice/nginx.service",
        contained(B, "docker"),
    ),
    (
        "rootless Docker",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{B}.scope",
        contained(B, "docker"),
    ),
    # containerd without Kubernetes
    ("nerdctl, systemd", f"/system.slice/nerdctl-{A}.scope", contained(A, "containerd")),
    (
        "containerd/cri#290",
        f"/system.slice/system-getty.slice/cri-containerd-{A}.scope",
        contained(A, "containerd"),
    ),
    # Podman
    (
        "podman #13673 (a pod's infra container)",
        "/machine.slice/machine-libpod_pod_ddf44d54b520f0b4469fcd01c3155ca49e6911dc2175471eb3a7b789187a7a89.slice/"
        "libpod-1dadda571b14eefb3158a15d0fff7e0089f9dd92f922679ed0116cccdfe8bb0f.scope/container",
        contained("1dadda571b14eefb3158a15d0fff7e0089f9dd92f922679ed0116cccdfe8bb0f", "podman"),
    ),
    (
        "podman #6400 (rootless)",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
        contained(A, "podman"),
    ),
    (
        "podman #16589 (quadlet, --cgroups=split)",
        "/system.slice/quadlet-minimal.service/libpod-payload-"
        "91c57c2ae87a8d57123bbb3083b3e158b911c4fd485da131f636f83f979b092c",
        contained(
            "91c57c2ae87a8d57123bbb3083b3e158b911c4fd485da131f636f83f979b092c",
            "podman",
            unit="quadlet-minimal.service",
        ),
    ),
    (
        "podman #16589 (its monitor)",
        "/system.slice/quadlet-minimal.service/runtime",
        {"kind": "unit", "key": "unit/quadlet-minimal.service", "unit": "quadlet-minimal.service"},
    ),
    (
        "opencontainers/runc#2163 (cgroupfs)",
        "/libpod_parent/libpod-00b78ede55a4d847e53ddfe1e4c1b5498db0175ab22339705883f6b0dc136734",
        contained("00b78ede55a4d847e53ddfe1e4c1b5498db0175ab22339705883f6b0dc136734", "podman"),
    ),
    (
        "podman: a monitor is no container",
        f"/machine.slice/libpod-conmon-{A}.scope",
        {"kind": "unit", "key": f"unit/libpod-conmon-{A}.scope", "unit": f"libpod-conmon-{A}.scope"},
    ),
    (
        "containers/crun#376 (podman unshare)",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-6696.scope",
        {"kind": "unit", "key": "unit/1000/podman-6696.scope", "unit": "1000/podman-6696.scope"},
    ),
    # machines
    (
        "systemd/systemd#18104 (systemd-nspawn)",
        "/machine.slice/machine-web.scope/payload/system.slice/nginx.service",
        {"kind": "machine", "key": "machine/web", "machine": "web"},
    ),
    (
        "systemd-nspawn(1), names are escaped",
        "/machine.slice/machine-my\\x2dhost.scope/payload",
        {"kind": "machine", "key": "machine/my-host", "machine": "my-host"},
    ),
    (
        "machinectl(1)",
        "/machine.slice/systemd-nspawn@db.service/payload/init.scope",
        {"kind": "machine", "key": "machine/db", "machine": "db"},
    ),
    (
        "lxc/lxc#4384",
        "/lxc.payload.node-ct/system.slice/ssh.service",
        {"kind": "machine", "key": "machine/node-ct", "machine": "node-ct"},
    ),
    (
        "lxc/lxc#4384 (its monitor)",
        "/lxc.monitor.node-ct",
        {"kind": "cgroup", "key": "cgroup/lxc.monitor.node-ct"},
    ),
    (
        "netdata/netdata#3199 (LXC before 3.1)",
        "/lxc/deloittedigi/init.scope",
        {"kind": "machine", "key": "machine/deloittedigi", "machine": "deloittedigi"},
    ),
    (
        "mensfeld/code-on-incus#740",
        "/incus.payload/web1/system.slice",
        {"kind": "machine", "key": "machine/web1", "machine": "web1"},
    ),
    # Slurm
    (
        "slurm.schedmd.com/cgroup_v2.html",
        "/system.slice/slurmstepd.scope/job_3385/step_0/user/task_0",
        {"kind": "slurm", "key": "slurm/3385/0", "job": "3385", "step": "0"},
    ),
    (
        "slurm.schedmd.com/cgroup_v2.html, batch",
        "/system.slice/slurmstepd.scope/job_3385/step_batch/user/task_special",
        {"kind": "slurm", "key": "slurm/3385/batch", "job": "3385", "step": "batch"},
    ),
    (
        "rackslab/FireHPC#6 (several slurmd)",
        "/system.slice/cn1_slurmstepd.scope/job_7/step_extern/user/task_special",
        {"kind": "slurm", "key": "slurm/7/extern", "job": "7", "step": "extern"},
    ),
    (
        "slurm.schedmd.com/cgroup_v2.html (Slurm's own)",
        "/system.slice/slurmstepd.scope/system",
        {"kind": "unit", "key": "unit/slurmstepd.scope", "unit": "slurmstepd.scope"},
    ),
    (
        "rstudio/rstudio#13690 (version 1)",
        "/slurm/uid_2687/job_13759490/step_batch/task_0",
        {"kind": "slurm", "key": "slurm/13759490/batch", "job": "13759490", "step": "batch"},
    ),
    (
        "plazonic/cgroup_exporter#5 (version 1, several slurmd)",
        "/slurm_node1/uid_0/job_12/step_0/task_1",
        {"kind": "slurm", "key": "slurm/12/0", "job": "12", "step": "0"},
    ),
    # systemd
    (
        "galaxyproject/galaxy#4862",
        "/system.slice/slurmd.service",
        {"kind": "unit", "key": "unit/slurmd.service", "unit": "slurmd.service"},
    ),
    (
        "podman #20910 (a terminal)",
        "/user.slice/user-10000.slice/user@10000.service/app.slice/app-org.gnome.Terminal.slice/"
        "vte-spawn-f22f14d2-3d44-4304-9879-3fdd0df7b08e.scope",
        {
            "kind": "unit",
            "key": "unit/10000/vte-spawn-f22f14d2-3d44-4304-9879-3fdd0df7b08e.scope",
            "unit": "10000/vte-spawn-f22f14d2-3d44-4304-9879-3fdd0df7b08e.scope",
        },
    ),
    (
        "podman #14851",
        "/user.slice/user-1000.slice/session-1.scope",
        {"kind": "unit", "key": "unit/session-1.scope", "unit": "session-1.scope"},
    ),
    (
        "pam_systemd(8)",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        {"kind": "unit", "key": "unit/user@1000.service", "unit": "user@1000.service"},
    ),
    # none of these
    ("cgroups(7)", "/", {"kind": "cgroup", "key": "cgroup/"}),
    (
        "cgroup_namespaces(7)",
        "/../../system.slice/x.service",
        {"kind": "unit", "key": "unit/x.service", "unit": "x.service"},
    ),
]


@pytest.mark.parametrize(("source", "path", "expected"), TABLE, ids=[source for source, _, _ in TABLE])
def test_real_paths(source: str, path: str, expected: dict[str, str]) -> None:
    owner = owner_of(path)
    found = {name: value for name in Owner.__slots__ if name != "path" and (value := getattr(owner, name))}
    assert found == expected
    assert cgroup_owner(f"0::{path}\n".encode()) == owner
    assert cgroup_owner(f"0::{path} (deleted)\n".encode()) == owner


def test_version_1_tells_by_the_hierarchy_that_knows_most() -> None:
    content = (
        b"10:perf_event:/\n8:memory:/slurm/uid_0/job_4/step_0/task_0\n7:freezer:/slurm/uid_0/job_4/step_0\n"
        b"1:name=systemd:/system.slice/slurmd.service\n0::/\n"
    )
    assert cgroup_owner(content).key == "slurm/4/0"


def test_hybrid_hosts_have_the_unit_in_the_named_hierarchy() -> None:
    assert cgroup_owner(b"4:pids:/\n1:name=systemd:/system.slice/a.service\n0::/\n").unit == "a.service"
    assert cgroup_paths(b"1:name=systemd:/a\n0::/b\n") == ("/b", "/a")


@pytest.mark.parametrize("content", [b"", b"\n", b"0:/\n", b"x::/\n", b"0::relative\n"])
def test_what_is_no_cgroup_file_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        cgroup_paths(content)


_PARTS = st.lists(
    st.one_of(
        st.text(
            st.characters(blacklist_characters="/\n", blacklist_categories=("Cs",)), min_size=1, max_size=40
        ),
        st.sampled_from(
            [
                POD,
                f"docker-{A}.scope",
                f"libpod-{B}.scope",
                "job_1",
                "slurm",
                "step_\u0661",
                "pod",
                ".slice",
                "lxc",
                "lxc.payload.",
                "machine-.scope",
                "machine-\\xzz.scope",
                "user@.service",
                "..",
                ":",
            ]
        ),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(_PARTS)
def test_any_path_has_one_bounded_owner(parts: list[str]) -> None:
    owner = owner_of("/" + "/".join(parts))
    assert owner.key
    assert all(len(getattr(owner, name)) <= 128 for name in Owner.__slots__ if name != "path")


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_content_gives_an_owner_or_malformed(content: bytes) -> None:
    for text in (content, b"0::/" + content):
        with suppress(Malformed):
            cgroup_owner(text)
