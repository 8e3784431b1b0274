"""The daemon on a real kernel: what it lists and serves is what the kernel shows."""

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest

pytestmark = pytest.mark.guest()

_DEVICES = ("nvme", "bochs", "virtio_gpu", "cxl_acpi", "cxl_pci", "cxl_port", "cxl_mem")


def _of_class(guest: Guest, pattern: str) -> set[str]:
    """PCI addresses the links of a class lead through, by the guest's own look."""

    def look(pattern: str) -> list[str]:
        import glob
        import os
        import re

        paths = [os.path.realpath(path) for path in glob.glob(pattern)]
        return [re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", path)[-1] for path in paths]

    return set(guest.call(look, pattern))


def test_engine_and_events_are_those_asked_for(
    guest: Guest, daemon: GuestDaemon, request: pytest.FixtureRequest
) -> None:
    engine = request.node.callspec.params["daemon"].split("-")[0]
    assert f"engine engine={engine}" in daemon.log


def test_gpus_are_those_with_nodes(guest: Guest, daemon: GuestDaemon) -> None:
    guest.modprobe(*_DEVICES)
    cards = _of_class(guest, "/sys/class/drm/card[0-9]")
    assert len(cards) >= 2
    daemon.until(lambda: {id_ for id_, device in daemon.devices().items() if device["kind"] == "gpu"} == cards)
    for card in cards:
        nodes = guest.shell(
            f"ls /sys/bus/pci/devices/{card}/drm /sys/bus/pci/devices/{card}/virtio*/drm 2>/dev/null || true"
        )
        there = {word for word in nodes.split() if word.startswith(("card", "render"))}
        # A GPU is known by its class before its driver has made the nodes.
        daemon.until(lambda card=card, there=there: set(daemon.devices()[card]["nodes"]) == there)


def test_sensors_are_those_of_the_kernel(guest: Guest, daemon: GuestDaemon) -> None:
    guest.modprobe(*_DEVICES)
    chips = guest.glob("/sys/class/hwmon/hwmon*/temp1_input")
    assert chips
    drives = _of_class(guest, "/sys/class/nvme/nvme*")
    daemon.until(lambda: drives <= daemon.devices().keys())
    for drive in drives:
        daemon.until(lambda drive=drive: daemon.metrics().states(drive) == ["ok"])
        (path,) = guest.glob(f"/sys/bus/pci/devices/{drive}/nvme/nvme*/hwmon*/temp1_input")
        page = daemon.metrics().of_device(drive)
        shown = [value for series, value in page.items() if "temperature_celsius" in series]
        assert int(guest.read(path)) / 1000 in shown


def _links(guest: Guest, devices: list[str]) -> dict[str, tuple[int, int] | None]:
    """Present and greatest width of PCI Express links, from the registers (PCI_EXP_LNKSTA, PCI_EXP_LNKCAP).

    None for what sits in the root complex: it has no link, whatever its registers say (PCI_EXP_TYPE_RC_END;
    pcie_cap_has_lnkctl in drivers/pci/access.c).
    """

    def look(devices: list[str]) -> dict[str, tuple[int, int] | None]:
        found: dict[str, tuple[int, int] | None] = {}
        for device in devices:
            with open(f"/sys/bus/pci/devices/{device}/config", "rb") as stream:
                config = stream.read(256)
            place = config[0x34]
            while place and config[place] != 0x10:
                place = config[place + 1]
            if place:
                found[device] = (
                    (config[place + 0x12] >> 4 | config[place + 0x13] << 4) & 0x3F,
                    (config[place + 0x0C] >> 4 | config[place + 0x0D] << 4) & 0x3F,
                )
                if config[place + 2] >> 4 == 9:
                    found[device] = None
        return found

    links = guest.call(look, devices)
    return {device: widths and (widths[0], widths[1]) for device, widths in links.items()}


def test_links_are_those_of_the_registers(guest: Guest, daemon: GuestDaemon) -> None:
    guest.modprobe(*_DEVICES)
    # virtio-gpu sits in a port; bochs-display in the root complex.
    daemon.until(lambda: any(device["kind"] == "pci" for device in daemon.devices().values()))
    found = daemon.devices()
    links = _links(guest, [id_ for id_, device in found.items() if device["kind"] in ("gpu", "pci")])
    assert any(found[id_]["kind"] == "pci" and widths for id_, widths in links.items()), links
    assert any(found[id_]["kind"] == "gpu" and widths is None for id_, widths in links.items()), links
    for name, widths in links.items():
        daemon.until(lambda name=name: daemon.metrics().states(name) == ["ok"])
        page = daemon.metrics()
        shown = [page.get(f'gpudaemon_pcie_link_{what}{{device="{name}"}}') for what in ("width", "max_width")]
        assert shown == list(widths or (None, None)), name


def test_nothing_malformed_and_nothing_broken(guest: Guest, daemon: GuestDaemon) -> None:
    guest.modprobe(*_DEVICES)
    daemon.until(lambda: len(daemon.devices()) > 3)
    page = daemon.metrics()
    broken = {
        series: value
        for series, value in page.items()
        if value
        and ('outcome="malformed"' in series or "decoder_failures" in series or "uevents_lost" in series)
    }
    assert not broken
