"""Identity of GPUs and partitions."""

from gpudaemon.collectors import collectors
from gpudaemon.model.device import Device, DeviceKind

GPU = collectors()["gpu"]


def info(device: Device, facts: dict[str, bytes | None]) -> tuple[str, dict[str, str]]:
    ((series, value),) = GPU.constants(device, facts)
    assert value == 1.0
    return series.metric.name, dict(zip(series.metric.labels, series.values, strict=True))


def test_card_numbers_and_names_live_in_the_info_row() -> None:
    device = Device(
        id="0000:03:00.0",
        kind=DeviceKind.GPU,
        path="devices/pci0000:00/0000:03:00.0",
        subsystem="pci",
        driver="amdgpu",
        nodes=("card0", "renderD128"),
        names=frozenset({"vendor", "unique_id", "product_name"}),
    )
    assert set(GPU.needs(device)) == {"vendor", "unique_id", "product_name"}
    name, labels = info(device, {"vendor": b"0x1002\n", "unique_id": b"", "product_name": b"AMD \xff\n"})
    assert name == "gpudaemon_gpu_info"
    wanted = {
        "device": "0000:03:00.0",
        "card": "card0",
        "render": "renderD128",
        "vendor": "amd",
        "vendor_id": "0x1002",
    }
    assert wanted.items() <= labels.items()
    assert labels["unique_id"] == "" and labels["product_name"] == "AMD \N{REPLACEMENT CHARACTER}"


def test_two_cards_on_one_device_are_one_gpu() -> None:
    device = Device(id="x", kind=DeviceKind.GPU, path="devices/x", nodes=("card0", "card1"))
    assert info(device, {})[1]["card"] == "card0,card1"


def test_a_partition_is_no_gpu() -> None:
    device = Device(
        id="amdgpu_xcp_1",
        kind=DeviceKind.PARTITION,
        path="devices/platform/amdgpu_xcp_1",
        nodes=("card3", "renderD130"),
        parents=("0000:0a:00.0",),
    )
    assert GPU.wants(device) and list(GPU.attributes(device, {})) == [] and list(GPU.needs(device)) == []
    name, labels = info(device, {})
    assert name == "gpudaemon_gpu_partition_info"
    assert labels == {
        **{"device": "amdgpu_xcp_1", "card": "card3", "render": "renderD130"},
        "parent": "0000:0a:00.0",
    }
