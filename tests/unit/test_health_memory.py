"""Memory across restarts, and one look at a time."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpudaemon.discovery.expected import LEARN_AFTER, Expected
from gpudaemon.discovery.inventory import Inventory
from gpudaemon.discovery.inventory_file import InventoryFile
from gpudaemon.metrics import gpu
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.health import Severity
from gpudaemon.model.metric import Series
from gpudaemon.model.outcome import Outcome
from gpudaemon.model.snapshot import Block
from gpudaemon.pipeline.alone import Alone, CannotNote
from gpudaemon.pipeline.health import Health, info_prefix, labels_of
from gpudaemon.pipeline.memory import Memory

GPU = Device(id="0000:03:00.0", kind=DeviceKind.GPU, path="devices/pci0000:00/0000:03:00.0", driver="amdgpu")
INFO = dict.fromkeys(gpu.INFO.labels, "") | {
    "device": GPU.id,
    "product_name": 'Card "X"',
    "serial_number": "s1",
    "vendor_id": "0x1002",
    "device_id": "0x1",
}


def entry(device: Device) -> SimpleNamespace:
    """As much of the sampler's entry as is looked at here."""
    block = Block((Series(gpu.INFO, tuple(INFO.values())).prefix(),), (0,))
    lane = SimpleNamespace(plan=SimpleNamespace(blocks={gpu.INFO: block}), hung_file="", hung_since=0.0)
    return SimpleNamespace(device=device, lane=lane, shown=lane, facts={}, held=None, told=1, state=Outcome.OK)


class Run:
    """One run of a daemon that keeps its state in `directory`."""

    def __init__(self, directory: Path, *, keep: bool = True) -> None:
        self.now = 0.0
        self.inventory = Inventory(Expected(clock=lambda: self.now))
        self.entries = {GPU.id: entry(GPU)}
        self.file = InventoryFile(str(directory), "m")
        self.memory = Memory(
            self.inventory,
            self.file,
            self.entries,  # type: ignore[arg-type]
            keep=keep,
            clock=lambda: self.now,
        )

    def attend(self, *, scanned: bool = True, after: float = 0.0) -> None:
        self.now += after
        asyncio.run(self.memory.attend(scanned=scanned))

    def learn(self) -> None:
        self.inventory.update([GPU])
        self.attend()
        self.attend(after=LEARN_AFTER)


def test_a_gpu_learnt_in_one_run_is_missed_and_named_in_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Run(tmp_path).learn()
    run = Run(tmp_path)
    run.entries.clear()
    run.attend(scanned=False)
    assert run.inventory.missing == {}
    assert not run.memory.compared
    run.attend()
    assert run.memory.compared
    run.attend()
    assert set(run.inventory.missing) == {GPU.id}
    assert [record.message for record in caplog.records].count("device is missing") == 1
    known = run.inventory.expected.known[GPU.id]
    assert labels_of(info_prefix(known.info)) == INFO
    report = Health().report({}, {}, run.inventory, 0.0)
    assert [(one.device, one.name, one.present) for one in report.verdicts] == [(GPU.id, 'Card "X"', False)]
    assert report.severity is Severity.FAILED
    assert "serial s1" in report.verdicts[0].findings[0].text


def test_forgetting_lasts(tmp_path: Path) -> None:
    Run(tmp_path).learn()
    run = Run(tmp_path)
    run.attend()
    assert not asyncio.run(run.memory.forget("0000:ff:00.0"))
    assert asyncio.run(run.memory.forget("03:00.0"))
    assert run.inventory.missing == {}
    again = Run(tmp_path)
    again.attend()
    assert again.inventory.missing == {}


def test_a_look_writes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", keep=False)
    run.learn()
    assert run.inventory.expected.learnt()
    assert not (tmp_path / "state").exists()
    assert run.memory.problem == ""


def test_a_disk_that_fails_is_tried_again_later_and_shown(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    run = Run(tmp_path / "state")
    run.learn()
    assert "cannot be written" in run.memory.problem
    report = Health().report({}, {}, run.inventory, 0.0, not_kept=run.memory.problem)
    assert [finding.reason for finding in report.host] == ["inventory_not_kept"]
    (tmp_path / "state").unlink()
    run.attend(after=59)
    assert not (tmp_path / "state").exists()
    run.attend(after=1)
    assert (tmp_path / "state/inventory.json").exists()
    assert run.memory.problem == ""


def test_what_is_here_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.learn()
    report = Health().report(run.entries, {}, run.inventory, 0.0)  # type: ignore[arg-type]
    assert [(one.device, one.present) for one in report.verdicts] == [(GPU.id, True)]
    # amdgpu without a node: the entry says so
    assert [finding.reason for finding in report.verdicts[0].findings] == ["no_node"]


def test_one_look_at_a_time(tmp_path: Path) -> None:
    directory = str(tmp_path / "run")
    order: list[str] = []
    with Alone(directory):
        with pytest.raises(TimeoutError), Alone(directory, wait=0.1):
            pass

        def second() -> None:
            with Alone(directory, wait=5):
                order.append("second")

        other = threading.Thread(target=second)
        other.start()
        order.append("first")
    other.join(5)
    assert order == ["first", "second"]


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = "import os; from gpudaemon.pipeline.alone import Alone; "
    code += f"Alone({str(tmp_path)!r}).__enter__(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with Alone(str(tmp_path), wait=0):
        pass


def test_without_a_place_for_notes_nobody_looks(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(CannotNote, match="cannot be written"), Alone(str(tmp_path / "run")):
        pass
    os.mkfifo(tmp_path / "look.lock")
    with Alone(str(tmp_path), wait=0):  # a pipe can be locked as well; nobody waits for its other end
        pass


def test_what_is_left_behind_holds_nobodys_pipe(tmp_path: Path) -> None:
    """A shell's $(...) waits for every writer: here for one that sleeps on after the program has ended."""
    code = (
        "import subprocess, sys\n"
        "from gpudaemon.pipeline.alone import Alone\n"
        f"with Alone({str(tmp_path)!r}):\n"
        "    left = subprocess.Popen(['sleep', '20'])\n"
        "    print('nobody hears this', flush=True)\n"
        "print(left.pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout.strip().isdigit() and done.stderr == ""
    os.kill(int(done.stdout), 9)
