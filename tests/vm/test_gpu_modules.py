"""GPU and NPU drivers of stock kernels, loaded where there is no hardware of theirs: nothing of ours raises."""

import json
import sys
import time
from pathlib import Path

import pytest

from tests.vm.guest import Guest

pytestmark = pytest.mark.campaign

TOP = Path(__file__).parents[2]
MODULES = ("amdgpu", "i915", "xe", "nouveau", "habanalabs")
"""Debian's amd64 kernels have all of them (drivers/gpu/drm, drivers/accel)."""
NPUS = ("intel_vpu", "amdxdna", "qaic")
"""Those a kernel may lack."""

SURVEY = """
import json, sys
from dataclasses import replace
from gpudaemon.drivers import drivers
from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Attribute
from gpudaemon.pipeline.finder import survey
from gpudaemon.pipeline.plan import facts_needed, make_plan

def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(65536)
    except OSError:
        return None

found, _ = survey("/sys", {}, ())
said, values, malformed = [], 0, []
for device in found:
    said.append([device.id, device.kind.value, device.driver])
    base = f"/sys/{device.path}"
    facts = {path: read(f"{base}/{path}") for path in facts_needed(device)}
    make_plan(device, facts)
    for name, driver in drivers().items():  # each driver's file on every device, whoever drives it
        other = replace(device, driver=name)
        facts = {path: read(f"{base}/{path}") for path in driver.needs(other)}
        driver.constants(other, facts)
        for planned in driver.attributes(other, facts):
            content = read(f"{base}/{planned.path}")
            if content is None:
                continue
            try:
                values += len(list(planned.decode(content)))
            except Malformed as error:
                malformed.append([name, planned.path, error.reason])
print(json.dumps({"devices": said, "values": values, "malformed": malformed, "drivers": sorted(drivers())}))
"""


@pytest.mark.guest(fresh=True)
@pytest.mark.timeout(1800)
def test_modules_without_hardware(guest: Guest) -> None:
    environment = {"PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1"}
    guest.modprobe("virtio-gpu", "vgem", seconds=300)
    loaded = []
    for module in (*MODULES, *NPUS):
        began = time.monotonic()
        done = guest.run("modprobe", module, check=module in MODULES, seconds=600)
        if done.status == 0:
            loaded.append(f"{module} in {time.monotonic() - began:.0f} s")
    present = set(guest.shell("ls /sys/module").split())
    assert set(MODULES) <= present
    assert {"i915", "xe", "amdgpu"} <= set(guest.shell("ls /sys/bus/pci/drivers").split())

    said = json.loads(guest.run(sys.executable, "-c", SURVEY, environment=environment, seconds=400).stdout)
    print(f"{guest.kernel.release}: loaded {', '.join(loaded)}; {said['values']} values of {said['devices']}")
    drivers = {driver for _, kind, driver in said["devices"] if kind == "gpu"}
    assert "virtio-pci" in drivers
    assert said["malformed"] == []
    assert {"amdgpu", "i915", "xe", "nouveau", "habanalabs"} <= set(said["drivers"])

    command = [sys.executable, "-m", "gpudaemon.cli"]
    check = guest.run(*command, "check", check=False, environment=environment, seconds=400)
    assert check.status == 0 and "Traceback" not in check.stderr, check.stderr
    listed = guest.run(*command, "list", "--json", environment=environment, seconds=400)
    assert any(entry["driver"] == "virtio-pci" for entry in json.loads(listed.stdout))
