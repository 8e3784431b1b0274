"""Names of pods, from the kubelet: which device it gave to which container.

The pod-resources API, service v1.PodResourcesLister (v1alpha1 on the oldest kubelets), over a Unix socket
(k8s.io/kubelet/pkg/apis/podresources/v1/api.proto). Devices of device plugins come as resource and ids, those
of dynamic resource allocation (DRA) as claim, driver, pool and device, or as CDI names only. The kubelet says
no UID of a pod and no id of a container, and lists pods that have ended as well.

grpc and protobuf are wanted only here (extra `kubernetes`), and imported when they are first needed.
"""

from typing import Any, NamedTuple

__all__ = ["Kubelet", "KubeletError", "Use"]

_SERVICES = ("v1.PodResourcesLister", "v1alpha1.PodResourcesLister")
_TIMEOUT = 2.0
_MOST = 4096
_LONGEST = 128
_CDI = "cdi"

# message -> fields as (number, name, type, repeated); of the kubelet's api.proto, as far as it is used here
_FIELDS: dict[str, tuple[tuple[int, str, str, bool], ...]] = {
    "Request": (),
    "Response": ((1, "pod_resources", "Pod", True),),
    "Pod": ((1, "name", "", False), (2, "namespace", "", False), (3, "containers", "Container", True)),
    "Container": (
        (1, "name", "", False),
        (2, "devices", "Devices", True),
        (5, "dynamic_resources", "Dynamic", True),
    ),
    "Devices": ((1, "resource_name", "", False), (2, "device_ids", "", True)),
    "Dynamic": (
        (2, "claim_name", "", False),
        (3, "claim_namespace", "", False),
        (4, "claim_resources", "Claim", True),
    ),
    "Claim": (
        (1, "cdi_devices", "Cdi", True),
        (2, "driver_name", "", False),
        (3, "pool_name", "", False),
        (4, "device_name", "", False),
    ),
    "Cdi": ((1, "name", "", False),),
}


class KubeletError(Exception):
    """What is wrong, in a few words."""


class Use(NamedTuple):
    """One device of one container. resource: a plugin's name for its kind, or the DRA driver. claim: of DRA."""

    identifier: str
    resource: str
    namespace: str
    pod: str
    container: str
    claim: str


def _messages() -> dict[str, Any]:
    """The classes of `_FIELDS`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="pods.proto", package="p", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            made = message.field.add(name=field, number=number)
            made.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            made.type = kinds.TYPE_MESSAGE if kind else kinds.TYPE_STRING
            if kind:
                made.type_name = f".p.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p.{name}")) for name in _FIELDS}


class Kubelet:
    """path: of the socket. It is connected to each time: a kubelet that restarts makes another one."""

    def __init__(self, path: str) -> None:
        """Raises KubeletError where the libraries are not installed."""
        try:
            import grpc

            self._grpc: Any = grpc
            self._types = _messages()
        except ImportError as error:
            raise KubeletError(f"not installed: {error.name} (extra kubernetes)") from None
        self._path = path

    def look(self) -> list[Use]:
        """What is in use; takes two seconds at most. Raises KubeletError."""
        grpc = self._grpc
        wrong = ""
        with grpc.insecure_channel(f"unix://{self._path}") as channel:
            for service in _SERVICES:
                ask = channel.unary_unary(
                    f"/{service}/List",
                    request_serializer=self._types["Request"].SerializeToString,
                    response_deserializer=self._types["Response"].FromString,
                )
                try:
                    return uses(ask(self._types["Request"](), timeout=_TIMEOUT))
                except grpc.RpcError as error:
                    wrong = error.code().name.lower()
                    if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                        break
        raise KubeletError(wrong)


def uses(response: Any) -> list[Use]:
    """Every device of every container, each once, at most `_MOST`."""
    found: dict[Use, None] = {}
    for pod in response.pod_resources:
        for container in pod.containers:
            for identifier, resource, claim in _of(container):
                if len(found) >= _MOST:
                    return list(found)
                words = (identifier, resource, pod.namespace, pod.name, container.name, claim)
                found[Use(*(word[:_LONGEST] for word in words))] = None
    return list(found)


def _of(container: Any) -> list[tuple[str, str, str]]:
    """(device, resource, claim) of one container."""
    found = []
    for devices in container.devices:
        # What several share is ID::REPLICA (NVIDIA's plugin).
        found += [(one.partition("::")[0], devices.resource_name, "") for one in devices.device_ids]
    for dynamic in container.dynamic_resources:
        claim = f"{dynamic.claim_namespace}/{dynamic.claim_name}"
        for resource in dynamic.claim_resources:
            if resource.device_name:
                found.append((f"{resource.pool_name}/{resource.device_name}", resource.driver_name, claim))
            else:
                found += [(cdi.name, _CDI, claim) for cdi in resource.cdi_devices]
    return found
