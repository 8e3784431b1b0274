"""The test GPU itself: what other tests take for granted of it. Any complaint of the kernel fails them."""

import time

import pytest

from tests.vm.guest import Guest, GuestError, GuestLate
from tests.vm.module.client import ENGINES, RINGS
from tests.vm.testgpu import MODULE, TestGpu, TestGpus, present

pytestmark = [pytest.mark.guest(devices="minimal")]

_JOBS = {"gfx": (5, 2000), "compute0": (3, 1000), "compute1": (2, 700), "copy": (7, 333)}
"""Ring -> jobs and microseconds of each."""


def _work(node: str, jobs: dict[str, list[int]]) -> dict[str, object]:
    from tests.vm.module.client import Client

    with Client(node) as client:
        for ring, (count, microseconds) in jobs.items():
            client.submit(ring, count=count, microseconds=microseconds)
        client.wait(30.0)
        return {"id": client.id, "fdinfo": client.fdinfo()}


def _busy(ring: str) -> int:
    count, microseconds = _JOBS[ring]
    return count * microseconds * 1000


@pytest.mark.parametrize("flavour", ["platform", "pci"])
def test_jobs_cost_their_duration_to_the_nanosecond(guest: Guest, flavour: str) -> None:
    with TestGpus(guest) as gpus:
        gpu = getattr(gpus, flavour)[0]
        done = guest.call(_work, gpu.node, _JOBS)
        counters = gpu.counters()
        for engine, rings in ENGINES.items():
            expected = sum(map(_busy, rings))
            assert done["fdinfo"][f"drm-engine-{engine}"] == f"{expected} ns"
            assert counters[f"engine.{engine}.busy_ns"] == expected
        for ring in RINGS:
            count = _JOBS[ring][0]
            assert [counters[f"ring.{ring}.{what}"] for what in ("queued", "run", "done")] == [count] * 3
            assert counters[f"ring.{ring}.busy_ns"] == _busy(ring)
        assert done["fdinfo"]["drm-engine-capacity-compute"] == "2"
        assert done["fdinfo"]["drm-client-id"] == str(done["id"])
        assert done["fdinfo"].get("drm-pdev") == (gpu.name if flavour == "pci" else None)
        assert counters["jobs"] == 0


def test_fdinfo_in_cycles(guest: Guest) -> None:
    with TestGpus(guest, fdinfo="cycles") as gpus:
        fdinfo = guest.call(_work, gpus[0].node, _JOBS)["fdinfo"]
    assert "drm-engine-gfx" not in fdinfo
    assert int(fdinfo["drm-cycles-gfx"]) == _busy("gfx") * 12 // 625
    assert int(fdinfo["drm-total-cycles-gfx"]) > int(fdinfo["drm-cycles-gfx"])


def test_memory_of_a_client(guest: Guest) -> None:
    def objects(node: str) -> dict[str, dict[str, str]]:
        import os

        from tests.vm.module.client import Client

        with Client(node) as client:
            first = client.bo("vram", 3 << 20)
            client.bo("vram", 4096, purgeable=True)
            client.bo("system", 1 << 20)
            pages = {"made": client.fdinfo()}
            shared = client.export(first)
            client.submit("gfx", microseconds=400_000, writes=first)
            pages["busy"] = client.fdinfo()
            client.wait(30.0)
            os.close(shared)
            client.close_bo(first)
            pages["closed"] = client.fdinfo()
            try:
                client.bo("vram", 1 << 30)
            except OSError as error:
                pages["refused"] = {"errno": str(error.errno)}
            return pages

    with TestGpus(guest) as gpus:
        pages = guest.call(objects, gpus[0].node)
        assert pages["made"]["drm-total-vram"] == "3076 KiB"
        assert pages["made"]["drm-resident-vram"] == "3076 KiB"
        assert pages["made"]["drm-purgeable-vram"] == "4 KiB"
        assert pages["made"]["drm-total-system"] == "1 MiB"
        assert pages["made"]["drm-shared-vram"] == "0"
        assert pages["busy"]["drm-shared-vram"] == "3 MiB"
        assert pages["busy"]["drm-active-vram"] == "3 MiB"
        assert pages["closed"]["drm-total-vram"] == "4 KiB"
        assert pages["refused"] == {"errno": "28"}
        counters = gpus[0].counters()
        assert (counters["vram.used_bytes"], counters["system.used_bytes"]) == (0, 0)


def test_job_waits_for_what_it_depends_on(guest: Guest) -> None:
    def depend(node: str) -> list[float]:
        import time

        from tests.vm.module.client import Client

        with Client(node) as client:
            first = client.syncobj()
            began = time.monotonic()
            client.submit("gfx", microseconds=500_000, signal=first)
            client.submit("copy", microseconds=1000, after=first)
            early = client.fdinfo()["drm-engine-copy"]
            looked = time.monotonic() - began
            client.wait(30.0)
            return [early == "0 ns" or looked > 0.5, client.fdinfo()["drm-engine-copy"] == "1000000 ns"]

    with TestGpus(guest) as gpus:
        assert guest.call(depend, gpus[0].node) == [True, True]


def _hang_and_listen(node: str, control: str) -> dict[str, object]:
    """A job that hangs before four of another client; uevents of the time until all are freed."""
    import os
    import socket

    from tests.vm.module.client import Client

    uevents = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)
    uevents.bind((0, 1))
    uevents.settimeout(3.0)
    with Client(node) as guilty, Client(node) as innocent:
        guilty.submit("gfx", hang=True)
        innocent.submit("gfx", count=4, microseconds=1000)
        innocent.wait(30.0)
        guilty.wait(30.0)
        got = []
        try:
            while True:
                got.append(uevents.recv(8192).decode(errors="replace").split("\0"))
        except TimeoutError:
            pass
        return {
            "pid": os.getpid(),
            "innocent": innocent.fdinfo()["drm-engine-gfx"],
            "guilty": int(guilty.fdinfo()["drm-engine-gfx"].split()[0]),
            "features": guilty.features,
            "uevents": got,
        }


def test_hang_times_out_and_only_the_guilty_job_fails(guest: Guest) -> None:
    with TestGpus(guest, timeout_ms=1000) as gpus:
        gpu = gpus.pci[0]
        if guest.call(_work, gpu.node, {})["id"]:
            hung = guest.call(_hang_and_listen, gpu.node, "")
        counters = gpu.counters()
        names = ("queued", "done", "timed_out", "cancelled", "resubmitted")
        assert [counters[f"ring.gfx.{name}"] for name in names] == [5, 4, 1, 0, 3]
        assert (counters["resets"], counters["coredumps"], counters["jobs"]) == (1, 1, 0)
        assert hung["innocent"] == "4000000 ns"
        assert 1e9 <= hung["guilty"] < 10e9
        assert counters["ring.gfx.busy_ns"] == hung["guilty"] + 4_000_000

        dump = guest.shell("cat /sys/class/devcoredump/devcd*/data")
        assert f"device: {gpu.name}\nring: gfx\n" in dump and f"process: {hung['pid']} " in dump
        assert any("SUBSYSTEM=devcoredump" in uevent for uevent in hung["uevents"])
        wedged = [uevent for uevent in hung["uevents"] if "WEDGED=none" in uevent]
        assert len(wedged) == counters["wedged"] == (1 if hung["features"] & 4 else 0)
        for uevent in wedged:
            assert f"DEVNAME=dri/{gpu.card}" in uevent
            assert f"PID={hung['pid']}" in uevent
        guest.shell("echo 0 | tee /sys/class/devcoredump/devcd*/data")


def test_load_moves_the_sensors_and_energy_is_exact(guest: Guest) -> None:
    def look(hwmon: str, counters: str) -> list[object]:
        """Energy between two looks at the witness."""

        def witness() -> dict[str, int]:
            with open(counters, encoding="ascii") as file:
                return {key: int(value) for key, value in (line.split() for line in file)}

        values = [witness()]
        for name in ("energy1_input", "power1_average", "temp1_input"):
            with open(f"{hwmon}/{name}", encoding="ascii") as file:
                values.append(int(file.read()))
        return [*values, witness()]

    def energy(witness: dict[str, int]) -> float:
        busy = sum(witness[f"engine.{engine}.busy_ns"] for engine in ENGINES)
        return witness["pm.awake_ns"] * 30e-3 + busy * 70e-3  # watts by nanoseconds in microjoules

    with TestGpus(guest) as gpus:
        gpu = gpus[0]
        counters = f"/sys/kernel/debug/{MODULE}/{gpu.name}/counters"
        guest.call(look, gpu.hwmon, counters)
        time.sleep(1.0)
        idle = guest.call(look, gpu.hwmon, counters)
        for ring in RINGS[:2]:
            gpu.order(f"load {ring} 60 20000")
        time.sleep(3.0)
        loaded = guest.call(look, gpu.hwmon, counters)
        for ring in RINGS[:2]:
            gpu.order(f"load {ring} 0 20000")
        for before, measured, *_, after in (idle, loaded):
            assert energy(before) - 2 <= measured <= energy(after)
        assert idle[2] == pytest.approx(30e6, rel=0.001)
        assert 40e6 < loaded[2] < 180e6
        assert loaded[3] > idle[3]
        guest.until(lambda: gpu.counters()["jobs"] == 0)
        rest = gpu.counters()
        assert rest["ring.gfx.busy_ns"] == rest["ring.gfx.done"] * 20_000_000 > 0


def _state(guest: Guest, pid: int) -> str:
    return guest.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]


def test_faults_of_attributes(guest: Guest) -> None:
    with TestGpus(guest, devices=2) as gpus:
        gpu, other = gpus[0], gpus[1]
        temperature = f"{gpu.hwmon}/temp1_input"
        gpu.order("fault temp1_input error 61")
        with pytest.raises(GuestError) as refused:
            guest.read(temperature)
        assert refused.value.errno == 61
        gpu.order("fault temp1_input slow 700")
        began = time.monotonic()
        guest.read(temperature)
        assert time.monotonic() - began >= 0.7
        gpu.order("fault temp1_input off")
        guest.read(temperature)

        gpu.order("fault temp1_input hang")
        reader = guest.start("cat", temperature, log="/run/reader")
        guest.until(lambda: gpu.counters()["faults.held"] == 1)
        guest.until(lambda: _state(guest, reader) == "D")
        guest.run("kill", "-KILL", str(reader))
        time.sleep(0.5)
        assert guest.ended(reader) is None and _state(guest, reader) == "D"
        # Others are not held: neither another device, nor what is outside the lock of hwmon's core.
        guest.read(f"{other.hwmon}/temp1_input", seconds=5.0)
        guest.read(f"{gpu.path}/busy_percent", seconds=5.0)
        try:
            guest.read(f"{gpu.hwmon}/fan1_input", seconds=1.5)
            lock = "none"
        except GuestLate:
            lock = "a device"
        print(f"{guest.kernel.release}: lock of hwmon's core: {lock}")
        gpu.order("release")
        guest.until(lambda: guest.ended(reader) == -9)
        assert gpu.counters()["faults.held"] == 0


def test_what_a_fault_may_be(guest: Guest) -> None:
    with TestGpus(guest) as gpus:
        for wrong in (
            "fault temp1_input",
            "fault x slow",
            "fault x error 0",
            "fault x sideways 1",
            "load x 1 1",
        ):
            with pytest.raises(GuestError) as refused:
                gpus[0].order(wrong)
            assert refused.value.errno in (22, 34), wrong


@pytest.mark.parametrize("flavour", ["platform", "pci"])
def test_sleep_and_who_wakes(guest: Guest, flavour: str) -> None:
    with TestGpus(guest) as gpus:
        gpu: TestGpu = getattr(gpus, flavour)[0]
        assert gpu.power("runtime_status") == "active"
        gpu.autosuspend(200)
        guest.until(lambda: gpu.power("runtime_status") == "suspended")
        asleep = gpu.counters()
        assert (asleep["pm.suspends"], asleep["pm.resumes"]) == (1, 0)
        assert gpu.counters()["pm.awake_ns"] == asleep["pm.awake_ns"]

        guest.read(f"{gpu.hwmon}/temp1_input")
        woken = gpu.counters()
        assert (woken["pm.resumes"], woken["wake.hwmon"], woken["access.hwmon"]) == (1, 1, 1)
        guest.until(lambda: gpu.power("runtime_status") == "suspended")

        gpu.order("reads refuse")
        with pytest.raises(GuestError) as refused:
            guest.read(f"{gpu.hwmon}/temp1_input")
        assert refused.value.errno == 1
        assert gpu.power("runtime_status") == "suspended"
        assert gpu.counters()["pm.refused"] == 1

        fdinfo = guest.call(_work, gpu.node, {"gfx": [1, 1000]})["fdinfo"]
        assert fdinfo["drm-engine-gfx"] == "1000000 ns"
        assert gpu.counters()["wake.open"] == 1


def test_pages_go_to_the_device_and_come_back(guest: Guest) -> None:
    def migrate(node: str) -> dict[str, object]:
        from tests.vm.module.client import HMM, Client, Pages

        with Client(node) as client:
            if not client.features & HMM:
                try:
                    client.to_device(Pages(1))
                except OSError as error:
                    return {"errno": error.errno}
            pages = Pages(200)
            pages.fill(7)
            found: dict[str, object] = {"went": client.to_device(pages), "there": client.where(pages)}
            found["wrong by fault"] = pages.wrong(7, 10)
            found["then"] = client.where(pages)
            client.where(pages, add=1)
            found["back"] = client.to_system(pages)
            found["first words"] = [pages.wrong(7, 10), pages.wrong(8), pages.wrong(8, 10)]
            found["again"] = client.to_device(pages)
            return {**found, "at last": client.where(pages)}

    with TestGpus(guest) as gpus:
        found = guest.call(migrate, gpus.pci[0].node)
        if "errno" in found:
            assert found == {"errno": 95}
            pytest.skip("CONFIG_DEVICE_PRIVATE is not set")
        # The CPU touched ten pages, which came back before the device added one to all that were there.
        assert (found["went"], found["there"], found["wrong by fault"]) == (200, [200, 0], 0)
        assert (found["then"], found["back"]) == ([190, 10], 190)
        assert found["first words"] == [0, 10, 10]
        assert (found["again"], found["at last"]) == (200, [200, 0])
        counters = gpus.pci[0].counters()
        assert counters["hmm.to_device_pages"] == 400
        assert (counters["hmm.cpu_faults"], counters["hmm.to_system_pages"]) == (10, 190)
        assert counters["hmm.used_pages"] == 0


def test_pages_survive_the_driver(guest: Guest) -> None:
    def outlive(node: str, module: str) -> dict[str, int]:
        import subprocess

        from tests.vm.module.client import HMM, Client, Pages

        pages = Pages(300)
        pages.fill(11)
        with Client(node) as client:
            went = client.to_device(pages) if client.features & HMM else 0
        subprocess.run(["rmmod", module], check=True)
        return {"went": went, "wrong": pages.wrong(11)}

    gpus = TestGpus(guest).__enter__()
    assert guest.call(outlive, gpus[0].node, MODULE)["wrong"] == 0
    assert not guest.exists(f"/sys/module/{MODULE}")


def test_peer_to_peer_memory_and_distance(guest: Guest) -> None:
    question = f"/sys/kernel/debug/{MODULE}/p2p_distance"
    with TestGpus(guest) as gpus:
        alone, first, second = gpus.pci
        guest.write(question, f"{first.name} {second.name}")
        if not guest.exists(f"{first.path}/p2pmem"):
            with pytest.raises(GuestError) as refused:
                guest.read(question)
            assert refused.value.errno == 95
            pytest.skip("CONFIG_PCI_P2PDMA is not set")
        assert guest.read(f"{first.path}/p2pmem/size") == f"{16 << 20}\n"
        assert guest.read(f"{first.path}/p2pmem/published") == "1\n"
        first.order(f"p2p {1 << 20}")
        assert guest.read(f"{first.path}/p2pmem/available") == f"{15 << 20}\n"
        assert first.counters()["p2p.allocated_bytes"] == 1 << 20

        # Below one switch: two steps up and two down. Across the root complex: QEMU's is on no list.
        assert guest.read(question) == f"{first.name} {second.name} 4\n"
        guest.write(question, f"{alone.name} {first.name}")
        assert guest.read(question) == f"{alone.name} {first.name} -1\n"
        guest.write(question, f"{first.name} {first.name}")
        assert guest.read(question) == f"{first.name} {first.name} 0\n"


def test_killed_client_leaves_nothing(guest: Guest) -> None:
    with TestGpus(guest) as gpus:
        gpu = gpus[0]
        client = gpu.program("bo", "vram", "1048576", "submit", "gfx", "100", "100000", "say", "hold")
        said = client.said()
        mine = gpu.clients()[said["client"]]
        assert (mine["pid"], mine["ring.gfx.queued"]) == (str(said["pid"]), "100")
        client.kill()
        guest.until(lambda: gpu.counters()["jobs"] == 0)
        rest = gpu.counters()
        assert rest["ring.gfx.cancelled"] > 50
        assert rest["ring.gfx.done"] + rest["ring.gfx.cancelled"] == 100
        assert rest["ring.gfx.busy_ns"] == rest["ring.gfx.done"] * 100_000_000
        assert rest["vram.used_bytes"] == 0
        assert list(gpu.clients()) == [0]


def test_unbinding_a_busy_device(guest: Guest) -> None:
    def fdinfo_of(pid: int) -> str:
        import glob

        texts = []
        for path in glob.glob(f"/proc/{pid}/fdinfo/*"):
            with open(path, encoding="ascii") as file:
                texts.append(file.read())
        return "\n".join(texts)

    with TestGpus(guest, devices=2) as gpus:
        gpu = gpus.pci[0]
        client = gpu.program("hang", "gfx", "submit", "gfx", "50", "100000", "say", "hold")
        pid = client.said()["pid"]
        assert "drm-engine-gfx" in guest.call(fdinfo_of, pid)
        gpu.order("fault temp1_input hang")
        reader = guest.start("cat", f"{gpu.hwmon}/temp1_input", log="/run/reader")
        guest.until(lambda: gpu.counters()["faults.held"] == 1)

        began = time.monotonic()
        guest.write(f"/sys/bus/pci/drivers/{MODULE}/unbind", gpu.name)
        took = time.monotonic() - began
        guest.until(lambda: guest.ended(reader) == 1)
        assert took < 10, took
        assert [one.name for one in present(guest)] == [one.name for one in gpus if one is not gpu]
        # The file is still open, and says nothing of a device that is gone.
        assert "drm-engine-gfx" not in guest.call(fdinfo_of, pid)
        client.kill()

        guest.write(f"/sys/bus/pci/drivers/{MODULE}/bind", gpu.name)
        again = next(one for one in present(guest) if one.name == gpu.name)
        assert guest.call(_work, again.node, _JOBS)["fdinfo"]["drm-engine-gfx"] == f"{_busy('gfx')} ns"
