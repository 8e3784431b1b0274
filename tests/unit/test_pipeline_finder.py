"""Scans and events that cross: what a scan saw before it left does not come back."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gpudaemon.discovery.inventory import Inventory
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.uevent import Uevent
from gpudaemon.pipeline import finder as module
from gpudaemon.pipeline.counts import Counts
from gpudaemon.pipeline.finder import Finder

_PATH = "devices/pci0000:00/0000:00:02.0/0000:01:00.0"


class Sampler:
    """Takes what the finder hands over."""

    def __init__(self) -> None:
        self.devices: list[list[str]] = []

    def set_devices(self, devices: Any) -> None:
        """Each scan's devices, by id."""
        self.devices.append(sorted(device.id for device in devices))

    def remove(self, id_: str) -> None:
        """An event said so."""

    def read_once(self, *_: Any) -> None:
        """Nothing is asked for here."""


def _gpu(path: str) -> Device:
    return Device(id=path.rsplit("/", 1)[-1], kind=DeviceKind.GPU, path=path, nodes=("card0",))


@pytest.mark.parametrize(
    "left, stays",
    [
        (_PATH, ["0000:00:03.0"]),
        ("devices/pci0000:00/0000:00:02.0", ["0000:00:03.0"]),
        ("devices/pci0000:00/0000:00:02", ["0000:00:03.0", "0000:01:00.0"]),
    ],
)
def test_device_that_left_during_a_scan_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, left: str, stays: list[str]
) -> None:
    sampler = Sampler()
    here = (_gpu(_PATH), _gpu("devices/pci0000:00/0000:00:03.0"))
    later = tuple(device for device in here if device.id in stays)
    scans = [here, here, later]

    async def run() -> None:
        finder = Finder(sampler, Inventory(), Counts(0.0), sysfs="/none", wanted=lambda _: True)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()

        def survey(*_: Any) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
            found = scans.pop(0)
            if len(scans) == 1:
                # The second scan has listed the device; now the kernel says that it went.
                event = Uevent("remove", f"/{left}", {"SUBSYSTEM": "pci"})
                asyncio.run_coroutine_threadsafe(_call(finder, event), loop).result(5.0)
            return found, ()

        monkeypatch.setattr(module, "survey", survey)
        task = asyncio.create_task(finder.run())
        async with asyncio.timeout(10.0):
            while len(sampler.devices) < 3:
                await asyncio.sleep(0.01)
                if len(sampler.devices) == 1:
                    finder.look_again("schedule")
        task.cancel()

    asyncio.run(run())
    assert sampler.devices == [["0000:00:03.0", "0000:01:00.0"], stays, stays]


@pytest.mark.parametrize("display", [True, False])
def test_gpu_between_two_drivers_is_there_all_the_time(monkeypatch: pytest.MonkeyPatch, display: bool) -> None:
    """It is an unclaimed function while it has no node; that stays so only where its class says so."""
    bare = replace(_gpu(_PATH), nodes=())
    classes = {"0000:01:00.0": 0x030000 if display else 0x028000}
    asked: list[Any] = []

    class Reader(Sampler):
        def read_once(self, device: Any, paths: Any, done: Any) -> None:
            asked.append((paths, done))

    sampler = Reader()

    def survey(_: str, known: dict[str, int], *__: Any) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
        if not sampler.devices:
            return (_gpu(_PATH),), ()
        value = known.get(bare.id)
        return ((replace(bare, pci_class=value),) if value == 0x030000 else ()), (bare,)

    async def run() -> None:
        finder = Finder(sampler, Inventory(), Counts(0.0), sysfs="/none", wanted=lambda _: True)  # type: ignore[arg-type]
        monkeypatch.setattr(module, "survey", survey)
        task = asyncio.create_task(finder.run())
        async with asyncio.timeout(10.0):
            while len(sampler.devices) < 1:
                await asyncio.sleep(0.01)
            finder.look_again("uevent")
            while not asked:
                await asyncio.sleep(0.01)
            ((path,), done) = asked[0]
            assert path == f"{_PATH}/class"
            done({path: f"{classes[bare.id]:#08x}\n".encode()})
            while len(sampler.devices) < 3:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(run())
    assert sampler.devices == [[bare.id], [bare.id], [bare.id] if display else []]


async def _call(finder: Finder, event: Uevent) -> None:
    finder._event(event)
