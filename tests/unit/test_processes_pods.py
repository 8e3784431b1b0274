"""Names of pods from a kubelet that is none: a gRPC server on a socket, its messages made by hand."""

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.pipeline.pods import Pods
from gpudaemon.processes.pods import Kubelet, KubeletError, Use

grpc = pytest.importorskip("grpc", reason="the extra `kubernetes` is not installed")
pytest.importorskip("google.protobuf", reason="the extra `kubernetes` is not installed")


def field(number: int, content: bytes | str) -> bytes:
    """A length-delimited field: https://protobuf.dev/programming-guides/encoding/."""
    content = content.encode() if isinstance(content, str) else content
    length, size = b"", len(content)
    while True:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return bytes([number << 3 | 2]) + length + content


def devices(resource: str, *ids: str) -> bytes:
    return field(2, field(1, resource) + b"".join(field(2, one) for one in ids) + field(3, b""))


def container(name: str, *parts: bytes) -> bytes:
    # cpu_ids, packed, and a field that is not known yet
    return field(3, field(1, name) + b"".join(parts) + field(3, b"\x01\x02") + field(15, "later"))


def pod(name: str, namespace: str, *containers: bytes) -> bytes:
    return field(1, field(1, name) + field(2, namespace) + b"".join(containers))


DRA = field(
    5,
    field(1, "class")
    + field(2, "train-gpus")
    + field(3, "ml")
    + field(
        4,
        field(1, field(1, "amd.com/gpu=0"))
        + field(2, "gpu.amd.com")
        + field(3, "node-a")
        + field(4, "gpu-0-1"),
    ),
)
OLD_DRA = field(5, field(2, "c") + field(3, "ml") + field(4, field(1, field(1, "nvidia.com/gpu=GPU-1"))))
ANSWER = (
    pod("train-0", "ml", container("main", devices("amd.com/gpu", "0000:03:00.0", "0000:43:00.0")))
    + pod("infer", "web", container("a", devices("nvidia.com/gpu.shared", "GPU-5b1::3")), container("b"))
    + pod("dra", "ml", container("c", DRA), container("d", OLD_DRA))
)


class FakeKubelet:
    """services: those it has. Answers with `answer`, or with the status `fails`."""

    def __init__(self, path: Path, answer: bytes = ANSWER, services: tuple[str, ...] = ("v1",)) -> None:
        self.answer = answer
        self.fails: Any = None
        self.asked = 0
        self.server = grpc.server(futures.ThreadPoolExecutor(2))

        def list_(request: bytes, context: Any) -> bytes:
            self.asked += 1
            assert request == b""
            if self.fails is not None:
                context.abort(self.fails, "no")
            return self.answer

        for service in services:
            handler = grpc.unary_unary_rpc_method_handler(list_)
            name = f"{service}.PodResourcesLister"
            self.server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(name, {"List": handler}),)
            )
        self.server.add_insecure_port(f"unix://{path}")
        self.server.start()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kubelet.sock"


@pytest.fixture
def kubelet(path: Path) -> Iterator[FakeKubelet]:
    fake = FakeKubelet(path)
    yield fake
    fake.server.stop(None).wait()


EXPECTED = [
    Use("0000:03:00.0", "amd.com/gpu", "ml", "train-0", "main", ""),
    Use("0000:43:00.0", "amd.com/gpu", "ml", "train-0", "main", ""),
    Use("GPU-5b1", "nvidia.com/gpu.shared", "web", "infer", "a", ""),
    Use("node-a/gpu-0-1", "gpu.amd.com", "ml", "dra", "c", "ml/train-gpus"),
    Use("nvidia.com/gpu=GPU-1", "cdi", "ml", "dra", "d", "ml/c"),
]


def test_plugins_and_dra(kubelet: FakeKubelet, path: Path) -> None:
    assert Kubelet(str(path)).look() == EXPECTED


def test_the_oldest_kubelets_have_another_service(path: Path) -> None:
    fake = FakeKubelet(path, services=("v1alpha1",))
    assert Kubelet(str(path)).look() == EXPECTED
    fake.server.stop(None).wait()


def test_nobody_there_and_somebody_else_there(path: Path, kubelet: FakeKubelet) -> None:
    with pytest.raises(KubeletError, match=r"unavailable|deadline"):
        Kubelet(str(path) + ".not").look()
    kubelet.fails = grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(KubeletError, match="resource_exhausted"):
        Kubelet(str(path)).look()
    assert kubelet.asked == 1, "no second service is asked then"
    kubelet.fails, kubelet.answer = None, b"\x0a\xff\xff"
    with pytest.raises(KubeletError):
        Kubelet(str(path)).look()


def test_a_kubelet_that_restarts_is_asked_again(path: Path, kubelet: FakeKubelet) -> None:
    asks = Kubelet(str(path))
    asks.look()
    kubelet.server.stop(None).wait()
    path.unlink(missing_ok=True)
    other = FakeKubelet(path, answer=b"")
    assert asks.look() == []
    other.server.stop(None).wait()


def lines(pods: Pods, now: float) -> dict[str, float]:
    part = pods.samples(now)
    return (
        {}
        if part is None
        else {prefix.strip(): value for found in part.rows.values() for prefix, value in found}
    )


def test_a_family_by_device_and_never_a_label_of_others() -> None:
    now = 100.0
    pods = Pods({"0000:03:00.0"}, clock=lambda: now)
    assert pods.samples(now) is None
    pods.message({"pods": [list(use) for use in EXPECTED[:3]]})
    pods.message({"cycle": 1, "pods": True, "kubelet": ""})
    found = lines(pods, now)
    assert found["gpudaemon_kubernetes_kubelet_up"] == 1
    assert (
        'gpudaemon_kubernetes_device_info{device="0000:03:00.0",id="0000:03:00.0",resource="amd.com/gpu",'
        'namespace="ml",pod="train-0",container="main",claim=""}' in found
    )
    assert sum('device=""' in line for line in found) == 2
    pods.message({"cycle": 2, "pods": False, "kubelet": ""})
    assert lines(pods, now + 90) == found
    assert lines(pods, now + 101) == {}
    pods.message({"cycle": 3, "pods": True, "kubelet": "unavailable"})
    assert lines(pods, now) == {"gpudaemon_kubernetes_kubelet_up": 0}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.text(max_size=20), min_size=6, max_size=6), max_size=5))
def test_any_names_are_lines_of_their_own(told: list[list[str]]) -> None:
    pods = Pods((), clock=lambda: 1.0)
    pods.message({"pods": told})
    pods.message({"cycle": 1, "pods": True, "kubelet": ""})
    found = lines(pods, 1.0)
    assert all("\n" not in line for line in found)
    assert len(found) <= 1 + len(told)
