"""NVIDIA's management library, NVML: load, memory, power, clocks, errors, links of GPUs of the nvidia driver.

The binding is nvidia-ml-py (module `pynvml`), NVIDIA's own; it loads `libnvidia-ml.so.1`, which belongs to the
driver. Only functions that ask are used, none that sets.

nvmlInit opens /dev/nvidiactl, and with a GPU's first handle its /dev/nvidiaN: an open node keeps a GPU
initialised, and one with coarse runtime power management awake. So NVML is held only while some GPU that may
be read has questions open; a GPU that is asleep or shall fall asleep has none (`Caller.let_go`), and the
session is ended and begun anew without it. nvmlDeviceGetHandleByPciBusId initialises that one GPU, the
functions by index would initialise all of them.

An answer is words in a fixed order, `-` where NVML does not support or know one, or lines of such words that
are separated by tabs. Their meaning is in `gpudaemon.drivers.nvidia`.
"""

import contextlib
import errno
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["ERRNO", "QUESTIONS", "TABLES", "Nvml", "caller"]

ERRNO = {
    1: errno.EAGAIN,  # UNINITIALIZED: the session was ended under us
    2: errno.EINVAL,
    3: errno.EOPNOTSUPP,
    4: errno.EACCES,
    6: errno.ENOENT,  # NOT_FOUND
    8: errno.EIO,  # INSUFFICIENT_POWER: a power cable is not plugged in
    9: errno.ENOENT,  # DRIVER_NOT_LOADED
    10: errno.ETIMEDOUT,
    11: errno.EIO,  # IRQ_ISSUE
    12: errno.ENOENT,  # LIBRARY_NOT_FOUND
    13: errno.ENOSYS,  # FUNCTION_NOT_FOUND: an older library
    14: errno.EIO,  # CORRUPTED_INFOROM
    15: errno.ENODEV,  # GPU_IS_LOST: fell off the bus
    16: errno.EIO,  # RESET_REQUIRED
    17: errno.EACCES,  # OPERATING_SYSTEM: a device cgroup, for example
    18: errno.EPROTO,  # LIB_RM_VERSION_MISMATCH: library and driver are of different releases
    19: errno.EBUSY,
    20: errno.ENOMEM,
    21: errno.ENODATA,
    22: errno.EOPNOTSUPP,
    25: errno.ENOSYS,  # ARGUMENT_VERSION_MISMATCH
    26: errno.EOPNOTSUPP,  # DEPRECATED
    27: errno.EAGAIN,
    28: errno.ENODEV,  # GPU_NOT_FOUND
}
"""errno of an nvmlReturn_t, by which it is one of the outcomes of a read; EIO for any other."""

_UNKNOWN = frozenset({2, 3, 6, 13, 21, 22, 25, 26})
"""Answers that say of one value that there is none; others say it of the GPU."""
_ALL_LINKS = 0xFFFFFFFF
_MOST_FANS, _MOST_LINKS, _MOST_MIG = 16, 36, 16

Words = Sequence[object]


class _Gpu:
    """One GPU's handle, and how it is asked. nvml: the module. Raises its NVMLError."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml = nvml
        self.handle = handle

    def __call__(self, name: str, *arguments: Any, of: Any = None) -> Any:
        """Call `nvmlDevice<name>` with the handle, or with that of a MIG device `of`."""
        function = getattr(self.nvml, f"nvmlDevice{name}", None)
        if function is None:
            raise self.nvml.NVMLError(13)
        return function(self.handle if of is None else of, *arguments)

    def maybe(self, name: str, *arguments: Any, of: Any = None) -> Any:
        """The same, None where NVML says that there is no such value."""
        try:
            return self(name, *arguments, of=of)
        except self.nvml.NVMLError as error:
            if error.value in _UNKNOWN:
                return None
            raise

    def fields(self, *numbers: int | tuple[int, int]) -> list[int | None]:
        """Values of NVML_FI_* fields; None where one is not supported."""
        found: list[int | None] = []
        for one in self("GetFieldValues", list(numbers)):
            # nvmlValueType_t: double, unsigned int, unsigned long, unsigned long long, long long, int, short
            names = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
            known = one.nvmlReturn == 0 and 0 <= one.valueType < len(names)
            found.append(int(getattr(one.value, names[one.valueType])) if known else None)
        return found

    def maybe_fields(self, *numbers: int | tuple[int, int]) -> list[int | None]:
        """The same; all None where the library has no such function."""
        try:
            return self.fields(*numbers)
        except self.nvml.NVMLError as error:
            if error.value in _UNKNOWN:
                return [None] * len(numbers)
            raise


def _utilization(gpu: _Gpu) -> Words:
    found = gpu("GetUtilizationRates")
    return found.gpu, found.memory


def _engines(gpu: _Gpu) -> Words:
    names = ("GetEncoderUtilization", "GetDecoderUtilization", "GetJpgUtilization", "GetOfaUtilization")
    return [found[0] if found is not None else None for found in map(gpu.maybe, names)]


def _memory(gpu: _Gpu) -> Words:
    """used, total, reserved; then BAR1 used, total. Version 2 alone tells what the driver reserves."""
    found = gpu.maybe("GetMemoryInfo", getattr(gpu.nvml, "nvmlMemory_v2", None))
    if found is None:
        found = gpu("GetMemoryInfo")
    bar1 = gpu.maybe("GetBAR1MemoryInfo")
    window = (bar1.bar1Used, bar1.bar1Total) if bar1 is not None else (None, None)
    return found.used, found.total, getattr(found, "reserved", None), *window


def _power(gpu: _Gpu) -> Words:
    """mW now and averaged; nvmlDeviceGetPowerUsage is the one or the other, by generation."""
    instant, average = gpu.maybe_fields(186, 185)
    return instant if instant is not None else gpu("GetPowerUsage"), average


def _power_limits(gpu: _Gpu) -> Words:
    """mW: in force, default, least, highest."""
    least, most = gpu.maybe("GetPowerManagementLimitConstraints") or (None, None)
    return gpu.maybe("GetEnforcedPowerLimit"), gpu.maybe("GetPowerManagementDefaultLimit"), least, most


def _energy(gpu: _Gpu) -> Words:
    return (gpu("GetTotalEnergyConsumption"),)


def _temperatures(gpu: _Gpu) -> Words:
    return gpu.maybe("GetTemperature", 0), *gpu.maybe_fields(82)


def _temperature_limits(gpu: _Gpu) -> Words:
    """slowdown, shutdown and maximum of the GPU, maximum of its memory."""
    return [gpu.maybe("GetTemperatureThreshold", number) for number in (1, 0, 3, 2)]


def _clocks(gpu: _Gpu) -> Words:
    return [gpu.maybe("GetClockInfo", number) for number in range(4)]


def _clock_limits(gpu: _Gpu) -> Words:
    return [gpu.maybe("GetMaxClockInfo", number) for number in range(4)]


def _clock_reasons(gpu: _Gpu) -> Words:
    found = gpu.maybe("GetCurrentClocksEventReasons")
    return (found if found is not None else gpu("GetCurrentClocksThrottleReasons"),)


def _state(gpu: _Gpu) -> Words:
    """performance state, persistence mode, ECC mode, MIG mode."""
    ecc, mig = gpu.maybe("GetEccMode"), gpu.maybe("GetMigMode")
    return (
        gpu.maybe("GetPerformanceState"),
        gpu.maybe("GetPersistenceMode"),
        ecc[0] if ecc is not None else None,
        mig[0] if mig is not None else None,
    )


def _errors(gpu: _Gpu) -> Words:
    """Since the driver was loaded: corrected and uncorrected of each place; then both in the GPU's lifetime."""
    places = [gpu.maybe("GetMemoryErrorCounter", kind, 0, place) for place in range(8) for kind in (0, 1)]
    return [*places, *(gpu.maybe("GetTotalEccErrors", kind, 1) for kind in (0, 1))]


def _bad_memory(gpu: _Gpu) -> Words:
    """Rows remapped after corrected and uncorrected errors, pending, failed; or pages retired, pending."""
    rows = gpu.maybe("GetRemappedRows")
    if rows is not None:
        return *rows, None, None, None
    pages = [gpu.maybe("GetRetiredPages", cause) for cause in (0, 1)]
    counts = [len(found) if found is not None else None for found in pages]
    return None, None, None, None, *counts, gpu.maybe("GetRetiredPagesPendingStatus")


def _pcie(gpu: _Gpu) -> Words:
    """Bytes sent and received since the driver was loaded; where that is not counted, kB/s over 20 ms each."""
    sent, received = gpu.maybe_fields(197, 198)
    if sent is not None or received is not None:
        return sent, received, None, None
    return None, None, *(gpu.maybe("GetPcieThroughput", number) for number in (0, 1))


def _pcie_replays(gpu: _Gpu) -> Words:
    return (gpu("GetPcieReplayCounter"),)


def _nvlink_traffic(gpu: _Gpu) -> Words:
    """KiB sent and received over all links, without protocol."""
    return gpu.fields((138, _ALL_LINKS), (139, _ALL_LINKS))


def _fans(gpu: _Gpu) -> Iterator[Words]:
    """Number and percent of full speed of each."""
    for fan in range(min(gpu("GetNumFans"), _MOST_FANS)):
        yield fan, gpu.maybe("GetFanSpeed_v2", fan)


def _nvlinks(gpu: _Gpu) -> Iterator[Words]:
    """Number, whether it is up, then errors: replay, recovery, CRC of flits, CRC of data, ECC of data."""
    for link in range(_MOST_LINKS):
        up = gpu.maybe("GetNvLinkState", link)
        if up is None:
            if link == 0:
                raise gpu.nvml.NVMLError(3)
            return
        yield link, up, *(gpu.maybe("GetNvLinkErrorCounter", link, counter) for counter in range(5))


def _mig_devices(gpu: _Gpu) -> Iterator[tuple[Any, Words]]:
    """Handle, and GPU instance and compute instance, of each MIG device."""
    mode = gpu.maybe("GetMigMode")
    if mode is None:
        raise gpu.nvml.NVMLError(3)
    if not mode[0]:
        return
    for number in range(min(gpu("GetMaxMigDeviceCount"), _MOST_MIG)):
        handle = gpu.maybe("GetMigDeviceHandleByIndex", number)
        if handle is not None:
            yield handle, (gpu("GetGpuInstanceId", of=handle), gpu("GetComputeInstanceId", of=handle))


def _mig(gpu: _Gpu) -> Iterator[Words]:
    """GPU instance, compute instance, UUID, name, multiprocessors."""
    for handle, ids in _mig_devices(gpu):
        about = gpu.maybe("GetAttributes_v2", of=handle)
        share = about.multiprocessorCount if about is not None else None
        yield *ids, gpu.maybe("GetUUID", of=handle), gpu.maybe("GetName", of=handle), share


def _mig_memory(gpu: _Gpu) -> Iterator[Words]:
    """GPU instance, compute instance, bytes used, bytes."""
    for handle, ids in _mig_devices(gpu):
        found = gpu.maybe("GetMemoryInfo", of=handle)
        if found is not None:
            yield *ids, found.used, found.total


def _identity(gpu: _Gpu) -> Iterator[Words]:
    """Name, UUID, serial number, part number, VBIOS; then versions of driver and library."""
    names = ("GetName", "GetUUID", "GetSerial", "GetBoardPartNumber", "GetVbiosVersion")
    yield *map(gpu.maybe, names), gpu.nvml.nvmlSystemGetDriverVersion(), gpu.nvml.nvmlSystemGetNVMLVersion()


QUESTIONS: dict[str, Callable[[_Gpu], Words]] = {
    "utilization": _utilization,
    "engines": _engines,
    "memory": _memory,
    "power": _power,
    "power_limits": _power_limits,
    "energy": _energy,
    "temperatures": _temperatures,
    "temperature_limits": _temperature_limits,
    "clocks": _clocks,
    "clock_limits": _clock_limits,
    "clock_reasons": _clock_reasons,
    "state": _state,
    "errors": _errors,
    "bad_memory": _bad_memory,
    "pcie": _pcie,
    "pcie_replays": _pcie_replays,
    "nvlink_traffic": _nvlink_traffic,
}
"""What can be asked and is answered in one line; a name is a question of `gpudaemon.drivers.nvidia`."""
TABLES: dict[str, Callable[[_Gpu], Iterator[Words]]] = {
    "fans": _fans,
    "nvlinks": _nvlinks,
    "mig": _mig,
    "mig_memory": _mig_memory,
    "identity": _identity,
}
"""What is answered in lines."""


def _text(words: Words) -> str:
    """Words that may hold blanks stand in lines, separated by tabs."""
    return "\t".join("-" if word is None else " ".join(str(word).split()) for word in words)


class _Session:
    """NVML while it is initialised. Calls share it; to end it takes that none is under way.

    using: calls under way. ending: no further one begins until the session is over.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._free = threading.Condition()
        self._using = 0
        self._ending = False
        self._begun = False
        self._beginning = threading.Lock()
        self._handles: dict[str, Any] = {}

    @contextlib.contextmanager
    def gpu(self, device: str) -> Iterator[_Gpu]:
        """The GPU at this PCI address, in a session. Raises OSError."""
        with self._free:
            self._free.wait_for(lambda: not self._ending)
            self._using += 1
        try:
            yield _Gpu(self._nvml, self._handle(device))
        except self._nvml.NVMLError as error:
            if error.value not in _UNKNOWN:
                self._handles.pop(device, None)  # after a reset it is another one
            if error.value == 1:
                self._begun = False
            raise OSError(ERRNO.get(error.value, errno.EIO), str(error)) from None
        finally:
            with self._free:
                self._using -= 1
                self._free.notify_all()

    def _handle(self, device: str) -> Any:
        with self._beginning:
            if not self._begun:
                self._nvml.nvmlInit()
                self._begun = True
                self._handles.clear()
        handle = self._handles.get(device)
        if handle is None:
            handle = self._handles[device] = self._nvml.nvmlDeviceGetHandleByPciBusId(device.encode())
        return handle

    def end(self) -> None:
        """End the session soon, on a thread of its own: it may hang."""
        threading.Thread(target=self._end, name="nvmlShutdown", daemon=True).start()

    def _end(self) -> None:
        with self._free:
            self._ending = True
            self._free.wait_for(lambda: self._using == 0)
            try:
                if self._begun:
                    self._begun = False
                    self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                pass  # it was over already
            finally:
                self._ending = False
                self._free.notify_all()


class _Question:
    """One question about one GPU."""

    def __init__(self, nvml: "Nvml", device: str, ask: Callable[[_Gpu], bytes]) -> None:
        self._nvml = nvml
        self._device = device
        self._ask = ask

    def ask(self) -> bytes:
        with self._nvml.session.gpu(self._device) as gpu:
            return self._ask(gpu)

    def close(self) -> None:
        self._nvml.closed(self._device)


class Nvml:
    """See the module."""

    let_go = True

    def __init__(self, nvml: Any) -> None:
        self.session = _Session(nvml)
        self.about = "nvidia-ml-py" + (f" {version}" if (version := _version()) else "")
        self._lock = threading.Lock()
        self._open: dict[str, int] = {}

    def open(self, device: str, question: str) -> _Question:
        """Prepare one of QUESTIONS. Raises OSError: ENOENT where there is no library, driver or question."""
        if question in QUESTIONS:
            line = QUESTIONS[question]
            made = _Question(self, device, lambda gpu: _one_line(line(gpu)))
        elif question in TABLES:
            table = TABLES[question]
            made = _Question(
                self, device, lambda gpu: "".join(f"{_text(row)}\n" for row in table(gpu)).encode()
            )
        else:
            raise OSError(errno.ENOENT, f"nvml: no question {question}")
        with self.session.gpu(device):
            # What fails here fails for all questions: it is said once, at the open.
            pass
        with self._lock:
            self._open[device] = self._open.get(device, 0) + 1
        return made

    def closed(self, device: str) -> None:
        """A question was closed; with the last one of a GPU, that GPU is let go."""
        with self._lock:
            self._open[device] -= 1
            if self._open[device]:
                return
            del self._open[device]
        self.session.end()


def _one_line(words: Words) -> bytes:
    if all(word is None for word in words):
        raise OSError(errno.EOPNOTSUPP, "nothing of it is supported")
    return " ".join("-" if word is None else str(word) for word in words).encode()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nvidia-ml-py")
    except PackageNotFoundError:
        return ""


def caller() -> Nvml:
    """The caller of this kind. Raises ImportError where pynvml is not installed."""
    return Nvml(importlib.import_module("pynvml"))
