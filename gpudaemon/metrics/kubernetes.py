"""Rows of what the kubelet says of this host's devices."""

from gpudaemon.model.metric import Kind, Metric

__all__ = ["DEVICE_INFO", "KUBELET_UP"]

_API = "k8s.io/kubelet/pkg/apis/podresources/v1/api.proto: PodResourcesLister.List"

DEVICE_INFO = Metric(
    name="gpudaemon_kubernetes_device_info",
    kind=Kind.INFO,
    help=(
        "A device the kubelet gave to a container. device is empty where the id is no PCI address: join by the "
        "id. Pods that have ended may be listed."
    ),
    labels=("device", "id", "resource", "namespace", "pod", "container", "claim"),
    abi=_API,
)
KUBELET_UP = Metric(
    name="gpudaemon_kubernetes_kubelet_up",
    kind=Kind.GAUGE,
    help="1 while the kubelet answers, where it is asked (process.kubelet).",
    abi=_API,
)
