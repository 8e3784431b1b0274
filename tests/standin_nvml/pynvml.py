"""NVIDIA's binding with a library behind it that is made of Python: for tests, on hosts without a GPU.

A directory that comes first in PYTHONPATH puts this module in the place of nvidia-ml-py's, which it loads and
gives a `libnvidia-ml.so.1` of its own: the binding's functions, structures and errors are the real ones. The
library does what the JSON file $GPUDAEMON_STANDIN_NVML says, read anew when it changes, and writes each call to
the file beside it whose name ends in `.log`:

    gpus     PCI address -> values that differ from DEFAULTS
    faults   [{"gpu": address or "", "function": name, "do": hang | freeze | crash, or "error": nvmlReturn_t}]

With $GPUDAEMON_STANDIN_QUIET set it neither looks at the file again nor writes: what is left is the binding's
cost.

hang: does not come back, as a call that waits for a lock. freeze: nor lets the interpreter go. crash: SIGSEGV.
"""

import ctypes
import importlib.util
import json
import os
import sys
import time

STATE = os.environ.get("GPUDAEMON_STANDIN_NVML", "")
QUIET = bool(os.environ.get("GPUDAEMON_STANDIN_QUIET"))
_HERE = os.path.dirname(os.path.abspath(__file__))


def _real():
    """nvidia-ml-py's module, from the rest of the path."""
    for directory in sys.path:
        path = os.path.join(directory, "pynvml.py")
        if os.path.abspath(directory or ".") != _HERE and os.path.exists(path):
            spec = importlib.util.spec_from_file_location("_real_pynvml", path)
            module = importlib.util.module_from_spec(spec)
            sys.modules["_real_pynvml"] = module
            spec.loader.exec_module(module)
            return module
    raise ImportError("nvidia-ml-py is not installed")


_real = _real()
globals().update({name: value for name, value in vars(_real).items() if not name.startswith("__")})

DEFAULTS = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-00000000-0000-0000-0000-0000000000{minor:02x}",
    "serial": "1650922000{minor}",
    "part_number": "692-2G520-0200-000",
    "vbios": "96.00.74.00.01",
    "utilization": [37, 12],
    "engines": [0, 5, None, None],
    "memory": [85899345920, 32212254720, 536870912],
    "bar1": [137438953472, 4194304],
    "power": 311250,
    "fields": {"186": 312000, "185": 298500, "82": 61, "197": 123456789, "198": 987654321},
    "power_limits": [700000, 700000, 200000, 700000],
    "energy": 4321000,
    "temperature": 54,
    "temperature_limits": {"0": 95, "1": 92, "2": 95, "3": 87},
    "clocks": [1980, 1980, 2619, 1545],
    "max_clocks": [1980, 1980, 2619, 1545],
    "clock_reasons": 0x4,
    "performance_state": 0,
    "persistence": 1,
    "ecc": 1,
    "errors": {"0 2": 3, "1 2": 0, "0 7": 0, "1 7": 1},
    "lifetime": [9, 2],
    "rows": [1, 0, 0, 0],
    "pages": None,
    "throughput": [1200, 3400],
    "replays": 7,
    "fans": [],
    "links": [],
    "mig": None,
}


class _Library:
    """The functions of libnvidia-ml.so.1 that are used, with their C signatures; anything else is missing."""

    def __init__(self):
        self._read_at = None
        self._state = {}
        self._begun = False

    def __getattr__(self, name):
        for own in (name, name.removesuffix("_v2")):
            method = getattr(type(self), f"_{own}", None)
            if method is not None:
                return lambda *arguments: self._called(own, method, arguments)
        raise AttributeError(name)

    def _called(self, name, method, arguments):
        state = self.state()
        gpu = _number(arguments[0]) if name.startswith("nvmlDevice") and arguments else None
        if name == "nvmlDeviceGetHandleByPciBusId":
            address = arguments[0].value.decode()
        else:
            address = self._addresses()[gpu >> 8] if gpu is not None else ""
        self._log(f"{name} {address}")
        for fault in state.get("faults", []):
            if fault["function"] in (name, "") and fault.get("gpu", "") in (address, ""):
                if "error" in fault:
                    return fault["error"]
                _suffer(fault["do"])
        if not self._begun and not name.startswith("nvmlInit"):
            return 1
        return method(self, *arguments) or 0

    def state(self):
        if QUIET and self._state:
            return self._state
        changed = os.stat(STATE).st_mtime_ns
        if changed != self._read_at:
            with open(STATE, encoding="ascii") as file:
                self._state = json.load(file)
            self._read_at = changed
        return self._state

    def _addresses(self):
        return list(self.state()["gpus"])

    def _of(self, handle, what):
        minor = _number(handle) >> 8
        own = self.state()["gpus"][self._addresses()[minor]]
        value = own.get(what, DEFAULTS[what])
        return value.format(minor=minor) if isinstance(value, str) else value

    @staticmethod
    def _log(line):
        if QUIET:
            return
        descriptor = os.open(f"{STATE}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    # The library itself

    def _nvmlInitWithFlags(self, flags):
        self._begun = True

    def _nvmlShutdown(self):
        self._begun = False

    def _nvmlSystemGetDriverVersion(self, buffer, _length):
        buffer.value = b"570.86.15"

    def _nvmlSystemGetNVMLVersion(self, buffer, _length):
        buffer.value = b"12.570.86.15"

    def _nvmlDeviceGetHandleByPciBusId(self, address, handle):
        addresses = self._addresses()
        wanted = address.value.decode()
        if wanted not in addresses:
            return 6
        _point(handle, addresses.index(wanted) << 8)
        return 0

    # One GPU

    def _text(self, handle, what, buffer):
        buffer.value = self._of(handle, what).encode()

    def _nvmlDeviceGetName(self, handle, buffer, _length):
        mig = self._mig_of(handle)
        if mig is not None:
            buffer.value = mig["name"].encode()
            return 0
        return self._text(handle, "name", buffer)

    def _nvmlDeviceGetUUID(self, handle, buffer, _length):
        mig = self._mig_of(handle)
        if mig is not None:
            buffer.value = mig["uuid"].encode()
            return 0
        return self._text(handle, "uuid", buffer)

    def _nvmlDeviceGetSerial(self, handle, buffer, _length):
        return self._text(handle, "serial", buffer)

    def _nvmlDeviceGetBoardPartNumber(self, handle, buffer, _length):
        return self._text(handle, "part_number", buffer)

    def _nvmlDeviceGetVbiosVersion(self, handle, buffer, _length):
        return self._text(handle, "vbios", buffer)

    def _nvmlDeviceGetUtilizationRates(self, handle, found):
        values = self._of(handle, "utilization")
        if values is None:
            return 3
        found._obj.gpu, found._obj.memory = values
        return 0

    def _engine(self, handle, number, found):
        value = self._of(handle, "engines")[number]
        if value is None:
            return 3
        found._obj.value = value
        return 0

    def _nvmlDeviceGetEncoderUtilization(self, handle, found, _period):
        return self._engine(handle, 0, found)

    def _nvmlDeviceGetDecoderUtilization(self, handle, found, _period):
        return self._engine(handle, 1, found)

    def _nvmlDeviceGetJpgUtilization(self, handle, found, _period):
        return self._engine(handle, 2, found)

    def _nvmlDeviceGetOfaUtilization(self, handle, found, _period):
        return self._engine(handle, 3, found)

    def _nvmlDeviceGetMemoryInfo(self, handle, found):
        mig = self._mig_of(handle)
        total, used, reserved = mig["memory"] if mig is not None else self._of(handle, "memory")
        found._obj.total, found._obj.used, found._obj.free = total, used, total - used
        if hasattr(found._obj, "reserved"):
            found._obj.reserved = reserved
        return 0

    def _nvmlDeviceGetBAR1MemoryInfo(self, handle, found):
        found._obj.bar1Total, found._obj.bar1Used = self._of(handle, "bar1")

    def _nvmlDeviceGetFieldValues(self, handle, count, values):
        known = self._of(handle, "fields")
        for place in range(_plain(count)):
            one = values._obj[place]
            value = known.get(str(one.fieldId))
            one.nvmlReturn = 3 if value is None else 0
            if value is not None:
                one.valueType = 3
                one.value.ullVal = value
        return 0

    def _number_of(self, handle, what, found):
        value = self._of(handle, what)
        if value is None:
            return 3
        found._obj.value = value
        return 0

    def _nvmlDeviceGetPowerUsage(self, handle, found):
        return self._number_of(handle, "power", found)

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle, found):
        return self._number_of(handle, "energy", found)

    def _nvmlDeviceGetTemperature(self, handle, _sensor, found):
        return self._number_of(handle, "temperature", found)

    def _nvmlDeviceGetTemperatureV(self, handle, found):
        found._obj.temperature = self._of(handle, "temperature")

    def _nvmlDeviceGetTemperatureThreshold(self, handle, threshold, found):
        value = self._of(handle, "temperature_limits").get(str(_plain(threshold)))
        if value is None:
            return 3
        found._obj.value = value
        return 0

    def _nvmlDeviceGetEnforcedPowerLimit(self, handle, found):
        found._obj.value = self._of(handle, "power_limits")[0]

    def _nvmlDeviceGetPowerManagementDefaultLimit(self, handle, found):
        found._obj.value = self._of(handle, "power_limits")[1]

    def _nvmlDeviceGetPowerManagementLimitConstraints(self, handle, least, most):
        least._obj.value, most._obj.value = self._of(handle, "power_limits")[2:]

    def _nvmlDeviceGetClockInfo(self, handle, clock, found):
        found._obj.value = self._of(handle, "clocks")[_plain(clock)]

    def _nvmlDeviceGetMaxClockInfo(self, handle, clock, found):
        found._obj.value = self._of(handle, "max_clocks")[_plain(clock)]

    def _nvmlDeviceGetCurrentClocksEventReasons(self, handle, found):
        return self._number_of(handle, "clock_reasons", found)

    def _nvmlDeviceGetPerformanceState(self, handle, found):
        return self._number_of(handle, "performance_state", found)

    def _nvmlDeviceGetPersistenceMode(self, handle, found):
        return self._number_of(handle, "persistence", found)

    def _nvmlDeviceGetEccMode(self, handle, current, pending):
        value = self._of(handle, "ecc")
        if value is None:
            return 3
        current._obj.value = pending._obj.value = value
        return 0

    def _nvmlDeviceGetMemoryErrorCounter(self, handle, kind, _counter, place, found):
        value = self._of(handle, "errors").get(f"{_plain(kind)} {_plain(place)}")
        if value is None:
            return 3
        found._obj.value = value
        return 0

    def _nvmlDeviceGetTotalEccErrors(self, handle, kind, _counter, found):
        values = self._of(handle, "lifetime")
        if values is None:
            return 3
        found._obj.value = values[_plain(kind)]
        return 0

    def _nvmlDeviceGetRemappedRows(self, handle, *found):
        values = self._of(handle, "rows")
        if values is None:
            return 3
        for one, value in zip(found, values, strict=True):
            one._obj.value = value
        return 0

    def _nvmlDeviceGetRetiredPages(self, handle, cause, count, addresses):
        pages = self._of(handle, "pages")
        if pages is None:
            return 3
        number = pages[_plain(cause)]
        room, count._obj.value = count._obj.value, number
        if addresses is None or room < number:
            return 7 if number else 0
        return 0

    def _nvmlDeviceGetRetiredPagesPendingStatus(self, handle, found):
        pages = self._of(handle, "pages")
        if pages is None:
            return 3
        found._obj.value = pages[2]
        return 0

    def _nvmlDeviceGetPcieThroughput(self, handle, counter, found):
        found._obj.value = self._of(handle, "throughput")[_plain(counter)]

    def _nvmlDeviceGetPcieReplayCounter(self, handle, found):
        return self._number_of(handle, "replays", found)

    def _nvmlDeviceGetNumFans(self, handle, found):
        found._obj.value = len(self._of(handle, "fans"))

    def _nvmlDeviceGetFanSpeed(self, handle, fan, found):
        found._obj.value = self._of(handle, "fans")[_plain(fan)]

    def _nvmlDeviceGetNvLinkState(self, handle, link, found):
        links = self._of(handle, "links")
        if _plain(link) >= len(links):
            return 2
        found._obj.value = links[_plain(link)][0]
        return 0

    def _nvmlDeviceGetNvLinkErrorCounter(self, handle, link, counter, found):
        found._obj.value = self._of(handle, "links")[_plain(link)][1 + _plain(counter)]

    # MIG

    def _mig_of(self, handle):
        number = _number(handle) & 0xFF
        return self._of(handle, "mig")[number - 1] if number else None

    def _nvmlDeviceGetMigMode(self, handle, current, pending):
        mig = self._of(handle, "mig")
        if mig is None:
            return 3
        current._obj.value = pending._obj.value = int(bool(mig))
        return 0

    def _nvmlDeviceGetMaxMigDeviceCount(self, _handle, found):
        found._obj.value = 7

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index, found):
        place = _plain(index)
        if place >= len(self._of(handle, "mig")):
            return 6
        _point(found, _number(handle) | (place + 1))
        return 0

    def _nvmlDeviceGetGpuInstanceId(self, handle, found):
        found._obj.value = self._mig_of(handle)["instance"]

    def _nvmlDeviceGetComputeInstanceId(self, handle, found):
        found._obj.value = self._mig_of(handle)["compute"]

    def _nvmlDeviceGetAttributes(self, handle, found):
        found._obj.multiprocessorCount = self._mig_of(handle)["multiprocessors"]
        found._obj.gpuInstanceSliceCount = 1


def _plain(argument):
    """The binding passes numbers as they are or as ctypes objects."""
    return getattr(argument, "value", argument)


def _number(handle):
    """A handle is a pointer; here it points nowhere and is the GPU's number << 8, and a MIG device's."""
    return (ctypes.cast(handle, ctypes.c_void_p).value or 0) - 0x100000


def _point(handle, number):
    value = ctypes.c_void_p(0x100000 + number)
    ctypes.memmove(ctypes.addressof(handle._obj), ctypes.addressof(value), ctypes.sizeof(value))


def _suffer(what):
    if what == "hang":
        time.sleep(3600)
    elif what == "freeze":
        # PyDLL keeps the interpreter: no other thread of this process runs either.
        ctypes.PyDLL(None).sleep(3600)
    elif what == "crash":
        ctypes.string_at(8)


_real.nvmlLib = _Library()
