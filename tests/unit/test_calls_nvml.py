"""NVML's caller on NVIDIA's own binding: every answer and every error of the library, and what is held open."""

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")

from gpudaemon.calls import nvml as calls
from gpudaemon.calls.engine import Questions
from gpudaemon.collectors import collectors
from gpudaemon.model.attribute import Attribute
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.outcome import Outcome, of_open_errno, of_read_errno
from gpudaemon.reader.channel import OPEN_ERROR

STANDIN = Path(__file__).resolve().parents[1] / "standin_nvml/pynvml.py"
GPU, OTHER = "0000:10:00.0", "0000:20:00.0"
PLANNED = {
    one.path.removeprefix("nvml/"): one
    for name in ("gpu", "power")
    for one in collectors()[name].attributes(Device(id=GPU, kind=DeviceKind.GPU, path="x", driver="nvidia"), {})
    if one.call == "nvml"
}
EVERYTHING: dict[str, Any] = {
    "fans": [30, 45], "links": [[1, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]],
    "fields": {"186": 312000, "185": 298500, "82": 61, "197": 5, "198": 6, "138": 7, "139": 8},
    "mig": [{"instance": 3, "compute": 0, "uuid": "MIG-3", "name": "1g.10gb", "memory": [10, 1, 0],
             "multiprocessors": 16}],
}  # fmt: skip


class Bench:
    """The caller with the stand-in behind it."""

    def __init__(self, directory: Path, module: ModuleType) -> None:
        self.path = directory / "nvml.json"
        self.nvml = calls.Nvml(module)

    def say(self, gpus: dict[str, Any], *faults: dict[str, Any]) -> None:
        self.path.write_text(json.dumps({"gpus": gpus, "faults": faults}))

    @property
    def called(self) -> list[str]:
        log = Path(f"{self.path}.log")
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("GPUDAEMON_STANDIN_NVML", str(tmp_path / "nvml.json"))
    monkeypatch.delitem(sys.modules, "_real_pynvml", raising=False)
    spec = importlib.util.spec_from_file_location("standin_pynvml", STANDIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = Bench(tmp_path, module)
    made.say({GPU: EVERYTHING, OTHER: {}})
    yield made


@pytest.mark.parametrize("question", sorted(PLANNED))
def test_every_answer_is_understood(bench: Bench, question: str) -> None:
    planned = PLANNED[question]
    answer = bench.nvml.open(GPU, question).ask()
    assert len(answer) < planned.limit
    found = list(planned.decode(answer))
    assert found and any(value is not None for value in found)
    if isinstance(planned, Attribute):
        assert len(found) == len(planned.series)


def test_numbers_come_to_base_units(bench: Bench) -> None:
    def values(question: str) -> list[Any]:
        return list(PLANNED[question].decode(bench.nvml.open(GPU, question).ask()))

    assert values("power") == [312.0, 298.5]
    assert values("energy") == [4321.0]
    assert values("utilization") == [0.37, 0.12]
    assert values("engines") == [0.0, 0.05, None, None]
    assert values("clocks") == [1.98e9, 1.98e9, 2.619e9, 1.545e9]
    assert values("temperature_limits") == [92, 95, 87, 95]
    assert values("nvlink_traffic") == [7 * 1024, 8 * 1024]
    assert values("clock_reasons") == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


ERRORS = {
    "unsupported": [2, 3, 13, 21, 22, 25, 26],
    "absent": [6, 9, 12],
    "denied": [4, 17],
    "gone": [15, 28],
    "transient": [1, 8, 10, 11, 14, 16, 18, 19, 20, 27, 29, 999],
}
"""What each nvmlReturn_t comes to."""


@pytest.mark.parametrize(("outcome", "number"), [(o, n) for o, numbers in ERRORS.items() for n in numbers])
def test_every_error_has_an_outcome(bench: Bench, outcome: str, number: int) -> None:
    questions = Questions(bench.nvml)
    opened = questions.open(GPU, b"nvml/energy")
    assert opened > 0
    bench.say({GPU: {}}, {"function": "nvmlDeviceGetTotalEnergyConsumption", "error": number})
    length = questions.ask(opened, memoryview(bytearray(64)))
    found = of_open_errno(-length - OPEN_ERROR) if length <= -OPEN_ERROR else of_read_errno(-length)
    assert found is Outcome(outcome), f"{number}: {length}"


def test_errors_of_the_binding_are_all_known() -> None:
    import pynvml

    names = {name: value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
    known = {number for numbers in ERRORS.values() for number in numbers}
    assert set(names.values()) - known - {0} <= {5, 7, 23, 24, 30}  # of functions that set or fill a buffer


def test_a_gpu_without_a_driver_or_a_library_is_absent(bench: Bench) -> None:
    for number, expected in (
        (9, Outcome.ABSENT),
        (12, Outcome.ABSENT),
        (4, Outcome.DENIED),
        (999, Outcome.TRANSIENT),
    ):
        bench.say({GPU: {}}, {"function": "nvmlInitWithFlags", "error": number})
        opened = Questions(bench.nvml).open(GPU, b"nvml/energy")
        assert of_open_errno(-opened) is expected


def test_what_is_not_supported_costs_its_own_value_only(bench: Bench) -> None:
    bench.say({GPU: {"temperature": None, "fields": {"82": 61}}})
    assert bench.nvml.open(GPU, "temperatures").ask() == b"- 61"


def test_one_gpu_is_initialised_and_not_its_neighbour(bench: Bench) -> None:
    bench.nvml.open(GPU, "energy").ask()
    assert not [line for line in bench.called if OTHER in line]


def _wait(done: Callable[[], bool]) -> None:
    for _ in range(200):
        if done():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not within 2 s")


def test_the_last_question_of_a_gpu_ends_the_session_and_the_next_begins_one(bench: Bench) -> None:
    first, second = bench.nvml.open(GPU, "energy"), bench.nvml.open(GPU, "power")
    other = bench.nvml.open(OTHER, "energy")
    first.close()
    assert "nvmlShutdown " not in bench.called
    second.close()
    _wait(lambda: "nvmlShutdown " in bench.called)
    before = len(bench.called)
    assert other.ask() == b"4321000"
    assert bench.called[before:] == [
        "nvmlInitWithFlags ",
        f"nvmlDeviceGetHandleByPciBusId {OTHER}",
        f"nvmlDeviceGetTotalEnergyConsumption {OTHER}",
    ]


def test_after_a_lost_gpu_its_handle_is_fetched_anew(bench: Bench) -> None:
    question = bench.nvml.open(GPU, "energy")
    bench.say({GPU: {}}, {"function": "nvmlDeviceGetTotalEnergyConsumption", "error": 15})
    with pytest.raises(OSError):
        question.ask()
    bench.say({GPU: {}})
    before = len(bench.called)
    assert question.ask() == b"4321000"
    assert f"nvmlDeviceGetHandleByPciBusId {GPU}" in bench.called[before:]


def test_an_answer_that_does_not_fit_fills_its_buffer(bench: Bench) -> None:
    questions = Questions(bench.nvml)
    number = questions.open(GPU, b"nvml/identity")
    assert questions.ask(number, memoryview(bytearray(8))) == 8


def test_a_bug_costs_its_question_only(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    questions = Questions(bench.nvml)
    number = questions.open(GPU, b"nvml/clocks")
    bench.say({GPU: {"clocks": []}})  # the stand-in fails with an IndexError
    for _ in range(3):
        assert questions.ask(number, memoryview(bytearray(64))) < 0
    assert capfd.readouterr().err.count("IndexError") == 1
