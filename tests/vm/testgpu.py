"""The test GPU in a guest: load its module, order trouble, read its witness counters.

    with TestGpus(guest, devices=2) as gpus:
        gpus[0].order("fault temp1_input hang")
        gpus[0].counters()["faults.held"]
        gpus[0].node                               # /dev/dri/renderD128

Of the two flavours, platform devices come first, in their order, then PCI functions by address. What the files
of debugfs say and take stands in tests/vm/module/README.md.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.vm.build import build
from tests.vm.guest import Guest
from tests.vm.store import ROOT, Store

__all__ = ["MODULE", "TestGpu", "TestGpus", "load", "unload"]

MODULE = "gpudaemon_test_gpu"
_SOURCE = Path(__file__).parent / "module"
_DEBUGFS = f"/sys/kernel/debug/{MODULE}"
_NEEDS = ("gpu-sched", "drm_shmem_helper", "drm")
_LOGS = itertools.count()


def module(guest: Guest) -> str:
    """Path of the module for the guest's kernel, built if it was not; the guest sees this host's files."""
    return str(build(Store(), guest.kernel.key, _SOURCE))


def load(guest: Guest, **parameters: object) -> None:
    """Insert the module; what it needs is loaded first."""
    guest.modprobe(*_NEEDS)
    guest.run("insmod", module(guest), *(f"{name}={value}" for name, value in parameters.items()))


def unload(guest: Guest) -> None:
    """Remove it; what it needed stays."""
    guest.run("rmmod", MODULE)


@dataclass(frozen=True, slots=True)
class TestGpu:
    """One of them. name: of its device, `gpudaemon_test_gpu.0` or a PCI address. path: of its folder."""

    __test__ = False

    guest: Guest
    name: str
    path: str
    card: str
    node: str
    hwmon: str

    def order(self, text: str, *, seconds: float = 20.0) -> None:
        """A line for its `control`."""
        self.guest.write(f"{_DEBUGFS}/{self.name}/control", text, seconds=seconds)

    def counters(self) -> dict[str, int]:
        """Its witness: neither wakes it nor counts as an access."""
        text = self.guest.read(f"{_DEBUGFS}/{self.name}/counters")
        return {key: int(value) for key, value in (line.split() for line in text.splitlines())}

    def clients(self) -> dict[int, dict[str, str]]:
        """Its open files by client id; 0 is the driver's own."""
        found: dict[int, dict[str, str]] = {}
        for paragraph in self.guest.read(f"{_DEBUGFS}/{self.name}/clients").split("\n\n"):
            lines = dict(line.split(" ", 1) for line in paragraph.splitlines())
            if lines:
                found[int(lines["client"])] = lines
        return found

    def power(self, name: str) -> str:
        """A file of power/: what the kernel itself says; it does not wake the device."""
        return self.guest.read(f"{self.path}/power/{name}").strip()

    def autosuspend(self, milliseconds: int) -> None:
        """Sleep when idle for so long; a negative number: never."""
        self.guest.write(f"{self.path}/power/autosuspend_delay_ms", str(milliseconds))

    def program(self, *words: str) -> "Running":
        """Start a client of its own process (see module/client.py)."""
        log = f"/run/testgpu-client-{next(_LOGS)}"
        command = [sys.executable, "-P", "-m", "tests.vm.module.client", self.node, *words]
        pid = self.guest.start(*command, log=log, environment={"PYTHONPATH": str(ROOT)})
        return Running(self.guest, pid, log)


@dataclass(frozen=True, slots=True)
class Running:
    """A client that runs."""

    guest: Guest
    pid: int
    log: str

    def said(self, seconds: float = 60.0) -> dict[str, Any]:
        """What its word `say` printed."""
        self.guest.until(lambda: "\n" in self.guest.read(self.log), seconds, "for the client")
        return dict(json.loads(self.guest.read(self.log).splitlines()[0]))

    def kill(self, seconds: float = 30.0) -> None:
        """SIGKILL, and wait for its end."""
        self.guest.run("kill", "-KILL", str(self.pid), check=False)
        self.guest.until(lambda: self.guest.ended(self.pid) is not None, seconds, "for the client's end")


def _look(module_name: str) -> list[list[str]]:
    import glob
    import os

    found = []
    for bus in ("platform", "pci"):
        for link in sorted(glob.glob(f"/sys/bus/{bus}/drivers/{module_name}/*")):
            nodes = glob.glob(f"{link}/drm/*")
            if not nodes:
                continue
            names = {os.path.basename(node) for node in nodes}
            card = next(name for name in names if name.startswith("card"))
            render = next(name for name in names if name.startswith("render"))
            hwmon = glob.glob(f"{link}/hwmon/hwmon*")[0]
            path = os.path.realpath(link)
            found.append([os.path.basename(link), path, card, f"/dev/dri/{render}", os.path.realpath(hwmon)])
    return found


def present(guest: Guest) -> list[TestGpu]:
    """Those that are bound now."""
    return [TestGpu(guest, *entry) for entry in guest.call(_look, MODULE)]


class TestGpus:
    """Context manager: the module loaded with these parameters, unloaded at the end."""

    __test__ = False

    def __init__(self, guest: Guest, **parameters: object) -> None:
        self.guest = guest
        self.parameters = parameters
        self._found: list[TestGpu] = []

    def __enter__(self) -> "TestGpus":
        load(self.guest, **self.parameters)
        self._found = present(self.guest)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        unload(self.guest)

    def __getitem__(self, number: int) -> TestGpu:
        return self._found[number]

    def __iter__(self) -> Iterator[TestGpu]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def platform(self) -> list[TestGpu]:
        """Without a bus."""
        return [gpu for gpu in self._found if gpu.name.startswith(MODULE)]

    @property
    def pci(self) -> list[TestGpu]:
        """On PCI functions."""
        return [gpu for gpu in self._found if not gpu.name.startswith(MODULE)]
