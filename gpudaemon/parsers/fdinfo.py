"""DRM client accounting: what /proc/PID/fdinfo/FD says of one open DRM or accel node.

Documentation/gpu/drm-usage-stats.rst, drivers/gpu/drm/drm_file.c (drm_show_fdinfo, drm_print_memory_stats).

The traps of the format:

* Some drivers put a blank before the tab (amdgpu `drm-memory-gtt: \\t`): both sides of the first colon are
  stripped.
* A memory size without a unit is bytes: the core divides by 1024 only while that leaves no rest.
* `drm-total-cycles-E` is a cycle count, `drm-total-R` a memory size; `drm-engine-capacity-E` no engine time.
* Memory keys come and go: 7.3 leaves out zeros, 6.12 prints them. What is not there is not known.
* `drm-memory-R` is the old word for resident.
* A device that was unplugged prints no key at all, and so does a driver without accounting.
* Client names are the client's own words.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed

__all__ = ["MEMORY_KINDS", "Client", "Engine", "client_id", "drm_client"]

MEMORY_KINDS = ("total", "shared", "active", "resident", "purgeable", "evicted", "requested")
"""What of a memory region a client can be said to have. The last two are amdgpu's."""

_MOST = 64
"""Engine classes, or memory regions, of one client."""
_LONGEST_NAME = 64
_LONGEST_NUMBER = 20
_SIZES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_HERTZ = {"": 1, "Hz": 1, "KHz": 1000, "kHz": 1000, "MHz": 1000_000}
_ID_KEY = b"\ndrm-client-id:"


@dataclass(slots=True)
class Engine:
    """One engine class of one client; None: the driver does not say.

    busy: nanoseconds all engines of the class worked for this client. cycles, total_cycles: the same in a clock
    of the GPU, and what that clock showed altogether. capacity: engines in the class.
    max_hertz, clock_hertz: highest and present frequency.
    """

    busy: int | None = None
    cycles: int | None = None
    total_cycles: int | None = None
    capacity: int = 1
    max_hertz: int | None = None
    clock_hertz: int | None = None


@dataclass(slots=True)
class Client:
    """What one descriptor says. identifier: drm-client-id. address: PCI address, empty where there is none.

    memory: region -> kind of `MEMORY_KINDS` -> bytes.
    """

    driver: str
    identifier: int
    address: str = ""
    name: str = ""
    engines: dict[str, Engine] = field(default_factory=dict)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)

    def engine(self, name: str) -> Engine:
        """The engine class of this name, made at its first key."""
        found = self.engines.get(name)
        if found is None:
            found = self.engines[_name(name, self.engines)] = Engine()
        return found

    def add_memory(self, region: str, kind: str, size: int) -> None:
        """Take one size; the first word on a kind counts."""
        kinds = self.memory.get(region)
        if kinds is None:
            kinds = self.memory[_name(region, self.memory)] = {}
        kinds.setdefault(kind, size)


def client_id(content: bytes) -> int | None:
    """The drm-client-id alone: enough to tell duplicates. None where there is none that can be read."""
    start = content.find(_ID_KEY)
    if start < 0:
        return None
    digits = content[start + len(_ID_KEY) :].split(b"\n", 1)[0].strip()
    return int(digits) if digits.isdigit() and len(digits) <= _LONGEST_NUMBER else None


def drm_client(content: bytes) -> Client | None:
    """What a descriptor's fdinfo says; None where it holds no DRM key. Raises Malformed."""
    made = Client("", -1)
    pairs: list[tuple[str, str]] = []
    for line in content.decode("utf-8", "replace").split("\n"):
        key, colon, value = line.partition(":")
        if colon and not _identity(made, key.strip(), value.strip()):
            pairs.append((key.strip(), value.strip()))
    if made.identifier < 0:
        if made.driver:
            raise Malformed("format")
        return None
    old: list[tuple[str, int]] = []
    for key, value in pairs:
        if key.startswith("drm-"):
            _drm_key(made, key[4:], value, old)
        elif key.startswith("amd-"):
            _amd_key(made, key[4:], value)
        elif key.endswith("-alloc") and made.driver and key.startswith(f"{made.driver}-"):
            # amdxdna_accel_driver-{heap,internal,external}-alloc (drivers/accel/amdxdna)
            made.add_memory(key[len(made.driver) + 1 : -len("-alloc")], "total", _size(value))
    for region, size in old:
        made.add_memory(region, "resident", size)
    return made


def _identity(made: Client, key: str, value: str) -> bool:
    """Take a key that says who the client is; False for any other key."""
    if key == "drm-driver":
        made.driver = value[:_LONGEST_NAME]
    elif key == "drm-client-id":
        made.identifier = _number(value)
    elif key == "drm-pdev":
        made.address = value[:_LONGEST_NAME]
    elif key == "drm-client-name":
        made.name = value[:_LONGEST_NAME]
    else:
        return False
    return True


def _drm_key(made: Client, key: str, value: str, old: list[tuple[str, int]]) -> None:
    for prefix, take in _ENGINE_KEYS:
        if key.startswith(prefix):
            take(made.engine(key[len(prefix) :]), value)
            return
    kind, _, region = key.partition("-")
    if not region:
        return
    if kind == "memory":
        old.append((region, _size(value)))
    elif kind in MEMORY_KINDS:
        made.add_memory(region, kind, _size(value))


def _amd_key(made: Client, key: str, value: str) -> None:
    """`amd-{memory,evicted,requested}-REGION` (drivers/gpu/drm/amd/amdgpu/amdgpu_fdinfo.c)."""
    kind, _, region = key.partition("-")
    if region and kind in ("memory", "evicted", "requested"):
        made.add_memory(region, "resident" if kind == "memory" else kind, _size(value))


def _busy(engine: Engine, value: str) -> None:
    engine.busy = _with_unit(value, {"ns": 1})


def _cycles(engine: Engine, value: str) -> None:
    engine.cycles = _number(value)


def _total_cycles(engine: Engine, value: str) -> None:
    engine.total_cycles = _number(value)


def _capacity(engine: Engine, value: str) -> None:
    engine.capacity = min(max(_number(value), 1), 4096)


def _max_hertz(engine: Engine, value: str) -> None:
    engine.max_hertz = _with_unit(value, _HERTZ)


def _clock_hertz(engine: Engine, value: str) -> None:
    engine.clock_hertz = _with_unit(value, _HERTZ)


_ENGINE_KEYS: tuple[tuple[str, Callable[[Engine, str], None]], ...] = (
    ("engine-capacity-", _capacity),
    ("engine-", _busy),
    ("cycles-", _cycles),
    ("total-cycles-", _total_cycles),
    ("maxfreq-", _max_hertz),
    ("curfreq-", _clock_hertz),
)


def _name(name: str, known: dict[str, Engine] | dict[str, dict[str, int]]) -> str:
    """A name of the driver's that can stand in a label; raises Malformed."""
    if not name or len(name) > _LONGEST_NAME or not name.isascii() or not name.isprintable():
        raise Malformed("format")
    if len(known) >= _MOST:
        raise Malformed("oversized")
    return name


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise Malformed("not_a_number")
    if len(value) > _LONGEST_NUMBER:
        raise Malformed("out_of_range")
    return int(value)


def _with_unit(value: str, units: dict[str, int]) -> int:
    number, _, unit = value.partition(" ")
    factor = units.get(unit.strip())
    if factor is None:
        raise Malformed("format")
    return _number(number) * factor


def _size(value: str) -> int:
    return _with_unit(value, _SIZES)
