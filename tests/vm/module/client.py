"""A program of the test GPU: opens a node, submits jobs, holds memory, migrates pages. Standard library only.

In a function that runs in a guest:

    from tests.vm.module.client import Client
    with Client("/dev/dri/renderD128") as client:
        client.submit("gfx", count=5, microseconds=2000)
        client.wait(10.0)
        client.fdinfo()["drm-engine-gfx"] == "10000000 ns"

As a process of its own, that lives until it is killed or its standard input ends:

    python -m tests.vm.module.client /dev/dri/renderD128 submit gfx 100 2000 bo vram 1048576 say hold

Words are done one after the other: `submit RING COUNT US`, `hang RING`, `bo REGION BYTES`, `name TEXT`,
`migrate BYTES`, `touch PAGES` (of those migrated last, from the first on), `back` (what is left of them),
`threads COUNT PAGES` (each migrates so many and touches them), `storm COUNT PAGES` (the same without end),
`flood PAGES` (the same by one thread, as fast as it goes, without a look at what comes back),
`where` (has the driver look at those migrated last), `wait SECONDS`, `say` (its process and client id as JSON,
then a flush), `hold`.
Structures are those of gpudaemon_test_gpu.h.
"""

import ctypes
import fcntl
import json
import mmap
import os
import sys
import threading
from types import TracebackType

__all__ = ["ENGINES", "HMM", "P2P", "RINGS", "WEDGED", "Client", "Pages"]

RINGS = ("gfx", "compute0", "compute1", "copy")
ENGINES = {"gfx": ("gfx",), "compute": ("compute0", "compute1"), "copy": ("copy",)}
HMM, P2P, WEDGED = 1, 2, 4
"""Bits of `Client.features`."""

_REGIONS = {"vram": 0, "system": 1}
_PAGE = mmap.PAGESIZE


def _structure(name: str, *fields: tuple[str, str]) -> type[ctypes.Structure]:
    kinds = {"u64": ctypes.c_uint64, "u32": ctypes.c_uint32, "i32": ctypes.c_int32}
    return type(name, (ctypes.Structure,), {"_fields_": [(field, kinds[kind]) for field, kind in fields]})


_Info = _structure("Info", ("client_id", "u64"), ("vram_size", "u64"), ("rings", "u32"), ("features", "u32"))
_Submit = _structure(
    "Submit",
    *(("duration_ns", "u64"), ("ring", "u32"), ("count", "u32"), ("flags", "u32")),
    *(("in_sync", "u32"), ("out_sync", "u32"), ("bo", "u32")),
)
_Wait = _structure("Wait", ("timeout_ns", "u64"))
_BoCreate = _structure(
    "BoCreate", ("size", "u64"), ("region", "u32"), ("flags", "u32"), ("handle", "u32"), ("pad", "u32")
)
_Migrate = _structure(
    "Migrate", ("addr", "u64"), ("size", "u64"), ("direction", "u32"), ("pad", "u32"), ("migrated", "u64")
)
_Range = _structure(
    "Range",
    *(("addr", "u64"), ("size", "u64"), ("value", "u64"), ("flags", "u32"), ("pad", "u32")),
    *(("device", "u64"), ("system", "u64")),
)
# include/uapi/drm/drm.h
_SyncobjCreate = _structure("SyncobjCreate", ("handle", "u32"), ("flags", "u32"))
_GemClose = _structure("GemClose", ("handle", "u32"), ("pad", "u32"))
_PrimeHandle = _structure("PrimeHandle", ("handle", "u32"), ("flags", "u32"), ("fd", "i32"))
_SetClientName = _structure("SetClientName", ("name_len", "u64"), ("name", "u64"))

_WRITE, _READ = 1, 2
_COMMAND_BASE = 0x40


def _request(direction: int, number: int, structure: type[ctypes.Structure]) -> int:
    """_IOC('d', number) of include/uapi/asm-generic/ioctl.h."""
    return direction << 30 | ctypes.sizeof(structure) << 16 | ord("d") << 8 | number


class Pages:
    """Anonymous memory of this process, whole pages, filled with a pattern of 64-bit words."""

    def __init__(self, pages: int) -> None:
        self.size = pages * _PAGE
        self._memory = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._words = (ctypes.c_uint64 * (self.size // 8)).from_buffer(self._memory)

    def fill(self, seed: int) -> None:
        """Every word another one."""
        for place in range(0, self.size // 8, 512):
            self._words[place : place + 512] = list(range(seed + place, seed + place + 512))

    def touch(self) -> None:
        """Read a byte of every page, as fast as this language can."""
        self._memory[::_PAGE]

    def wrong(self, seed: int, pages: int | None = None) -> int:
        """How many pages do not hold what `fill(seed)` put there; touches them, from the first on."""
        end = self.size // 8 if pages is None else pages * 512
        return sum(
            self._words[place : place + 512] != list(range(seed + place, seed + place + 512))
            for place in range(0, end, 512)
        )


class Client:
    """An open file of a test GPU. node: /dev/dri/cardN or renderDN. Raises OSError where the driver refuses."""

    def __init__(self, node: str) -> None:
        self.fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        info = self._driver(_READ, 0x00, _Info())
        self.id: int = info.client_id
        self.vram_size: int = info.vram_size
        self.features: int = info.features

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what it queued is dropped after a moment."""
        os.close(self.fd)

    def submit(
        self,
        ring: str,
        *,
        count: int = 1,
        microseconds: int = 0,
        hang: bool = False,
        after: int = 0,
        signal: int = 0,
        writes: int = 0,
    ) -> None:
        """Queue jobs. after, signal: syncobjs to wait for and to signal. writes: an object."""
        args = (microseconds * 1000, RINGS.index(ring), count, int(hang), after, signal, writes)
        self._driver(_WRITE, 0x01, _Submit(*args))

    def wait(self, seconds: float) -> None:
        """Until every job of this file is freed. Raises OSError ETIME."""
        self._driver(_WRITE, 0x02, _Wait(int(seconds * 1e9)))

    def bo(self, region: str, size: int, *, purgeable: bool = False) -> int:
        """Make an object; its handle."""
        made = self._driver(_READ | _WRITE, 0x03, _BoCreate(size, _REGIONS[region], int(purgeable), 0, 0))
        return int(made.handle)

    def close_bo(self, handle: int) -> None:
        """DRM_IOCTL_GEM_CLOSE."""
        self._core(_WRITE, 0x09, _GemClose(handle, 0))

    def export(self, handle: int) -> int:
        """A dma-buf of an object: its descriptor."""
        return int(self._core(_READ | _WRITE, 0x2D, _PrimeHandle(handle, os.O_CLOEXEC, -1)).fd)

    def syncobj(self) -> int:
        """DRM_IOCTL_SYNCOBJ_CREATE: a handle for `after` and `signal`."""
        return int(self._core(_READ | _WRITE, 0xBF, _SyncobjCreate(0, 0)).handle)

    def name(self, text: str) -> None:
        """DRM_IOCTL_SET_CLIENT_NAME; kernels of 2024 and before refuse."""
        data = ctypes.create_string_buffer(text.encode())
        self._core(_READ | _WRITE, 0xD1, _SetClientName(len(data.value), ctypes.addressof(data)))

    def to_device(self, pages: Pages) -> int:
        """Migrate; how many pages went."""
        return int(self._driver(3, 0x04, _Migrate(pages.address, pages.size, 0, 0, 0)).migrated)

    def to_system(self, pages: Pages) -> int:
        """Migrate back; how many pages went."""
        return int(self._driver(3, 0x04, _Migrate(pages.address, pages.size, 1, 0, 0)).migrated)

    def where(self, pages: Pages, *, fault: bool = False, add: int | None = None) -> tuple[int, int]:
        """hmm_range_fault(): pages on the device and in system memory. add: to each word on the device."""
        flags = int(fault) | (2 if add is not None else 0)
        asked = _Range(pages.address, pages.size, add or 0, flags, 0, 0, 0)
        found = self._driver(3, 0x05, asked)
        return int(found.device), int(found.system)

    def fdinfo(self) -> dict[str, str]:
        """/proc/self/fdinfo of the file: keys and values."""
        with open(f"/proc/self/fdinfo/{self.fd}", encoding="utf-8") as file:
            lines = (line.partition(":") for line in file)
            return {key.strip(): value.strip() for key, _, value in lines}

    def _driver(self, direction: int, number: int, data: ctypes.Structure):  # type: ignore[no-untyped-def]
        return self._core(direction, _COMMAND_BASE + number, data)

    def _core(self, direction: int, number: int, data: ctypes.Structure):  # type: ignore[no-untyped-def]
        fcntl.ioctl(self.fd, _request(direction, number, type(data)), data)
        return data


class Program:
    """The words of a command line, done on a client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept: list[Pages] = []

    def run(self, words: list[str]) -> None:
        """Do them all. Raises KeyError for a word that is none."""
        rest = iter(words)
        steps = {
            "submit": lambda: self._client.submit(
                next(rest), count=int(next(rest)), microseconds=int(next(rest))
            ),
            "hang": lambda: self._client.submit(next(rest), hang=True),
            "bo": lambda: self._client.bo(next(rest), int(next(rest))),
            "name": lambda: self._client.name(next(rest)),
            "migrate": lambda: self._migrate(int(next(rest))),
            "touch": lambda: self._touch(int(next(rest))),
            "back": lambda: self._client.to_system(self._kept[-1]),
            "threads": lambda: self._threads(int(next(rest)), int(next(rest)), endless=False),
            "storm": lambda: self._threads(int(next(rest)), int(next(rest)), endless=True),
            "where": lambda: self._client.where(self._kept[-1]),
            "flood": lambda: self._flood(int(next(rest))),
            "wait": lambda: self._client.wait(float(next(rest))),
            "say": self._say,
            "hold": lambda: sys.stdin.read() or signal_pause(),
        }
        for word in rest:
            steps[word]()

    def _migrate(self, size: int) -> None:
        pages = Pages(size // _PAGE)
        pages.fill(1)
        self._client.to_device(pages)
        self._kept.append(pages)

    def _touch(self, pages: int) -> None:
        if self._kept[-1].wrong(1, pages):
            raise ValueError("what came back is not what went")

    def _threads(self, count: int, pages: int, *, endless: bool) -> None:
        begin = threading.Barrier(count)
        wrong = [0] * count

        def work(number: int) -> None:
            memory = Pages(pages)
            memory.fill(number)
            begin.wait()
            while True:
                self._client.to_device(memory)
                wrong[number] += memory.wrong(number)
                if not endless:
                    break

        workers = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for worker in workers:
            worker.start()
        if endless:
            return
        for worker in workers:
            worker.join()
        if any(wrong):
            raise ValueError("what came back is not what went")

    def _flood(self, pages: int) -> None:
        memory = Pages(pages)
        memory.fill(1)

        def work() -> None:
            while True:
                self._client.to_device(memory)
                memory.touch()

        threading.Thread(target=work).start()

    def _say(self) -> None:
        print(json.dumps({"pid": os.getpid(), "client": self._client.id}), flush=True)


def signal_pause() -> None:
    """Wait to be killed."""
    import signal

    signal.pause()


if __name__ == "__main__":
    Program(Client(sys.argv[1])).run(sys.argv[2:])
