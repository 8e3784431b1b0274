"""Every option there is, declared once: name, type, bounds, default and meaning.

A section is a struct, an option a field of it. The configuration file, the flags, `--help`, the sample, the
manual page and the README's table are all made from these declarations. Key `a.b_c` of the file is the flag
`--a.b-c`; an option that is true or false also has `--no-a.b-c`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "ENGINES",
    "PRESETS",
    "TIERS",
    "Config",
    "Option",
    "Periods",
    "options",
    "sections",
]

Engine = Literal["auto", "io_uring", "threads"]
_ONLY_WHERE_ASKED_FOR = ("dma_fence", "i915_request")
"""Collectors that cost by the event."""
Tier = Literal["base", "processes", "tracing", "full"]
Preset = Literal["scrape", "normal", "fast"]
ENGINES: tuple[str, ...] = get_args(Engine)
TIERS: tuple[str, ...] = get_args(Tier)

PRESETS: dict[str, tuple[float, float, float, float]] = {
    # static, slow, normal, fast: seconds
    "scrape": (600.0, 60.0, 15.0, 15.0),
    "normal": (600.0, 60.0, 1.0, 1.0),
    "fast": (600.0, 15.0, 1.0, 0.1),
}
"""Seconds between readings by cadence. A static file is read again every ten minutes in any case."""

_ADDRESS = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):[0-9]{1,5}$"
_PROCESSORS = r"^([0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$"
_UEVENTS = r"^(auto|udev|kernel|none|socket:/.+)$"


def _about(
    description: str,
    *,
    metavar: str = "",
    allowed: str = "",
    restart: bool = False,
    regex: bool = False,
    directory: bool = False,
    flag: str = "",
    **bounds: Any,
) -> Meta:
    """What stands beside a type.

    allowed: what may stand there, in words, where bounds and type do not say it. restart: a change takes
    effect at the next start only. regex: a regular expression. directory: one that must exist. flag: where
    the family of exporters has another name for it.
    """
    extra = {
        "metavar": metavar,
        "allowed": allowed,
        "restart": restart,
        "regex": regex,
        "directory": directory,
        "flag": flag,
    }
    return Meta(description=description, extra=extra, **bounds)


def _seconds(description: str, low: float, high: float) -> Meta:
    return _about(description, metavar="SECONDS", ge=low, le=high)


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Paths(_Section, frozen=True):
    """Where things are."""

    sysfs: Annotated[
        str, _about("sysfs to read", metavar="DIR", allowed="a directory", restart=True, directory=True)
    ] = "/sys"
    procfs: Annotated[
        str, _about("procfs to read", metavar="DIR", allowed="a directory", restart=True, directory=True)
    ] = "/proc"
    runtime: Annotated[
        str,
        _about(
            "notes that outlive the daemon, and its control socket; empty: $RUNTIME_DIRECTORY, else "
            "/run/gpudaemon or a directory of the user",
            metavar="DIR",
            allowed="a path",
            restart=True,
        ),
    ] = ""
    state: Annotated[
        str,
        _about(
            "what outlives a reboot: the expected devices; empty: $STATE_DIRECTORY, else none",
            metavar="DIR",
            allowed="a path",
            restart=True,
        ),
    ] = ""


class Web(_Section, frozen=True):
    """What is served, and to whom."""

    listen_address: Annotated[
        tuple[
            Annotated[str, Meta(pattern=_ADDRESS)],
            ...,
        ],
        _about(
            "address to serve on, repeatable; :PORT is every address. Sockets that systemd hands over are "
            "used instead",
            metavar="HOST:PORT",
            allowed="a list of HOST:PORT, :PORT or [IPV6]:PORT",
            min_length=1,
            max_length=16,
        ),
    ] = ("127.0.0.1:9836",)
    systemd_socket: Annotated[
        bool, _about("do not start without sockets from systemd (socket activation)", restart=True)
    ] = False
    config_file: Annotated[
        str,
        _about(
            "TLS and users, in the YAML of the Prometheus exporters; read again when it changes",
            metavar="FILE",
            allowed="a path",
            flag="--web.config.file",
            restart=True,
        ),
    ] = ""
    max_requests: Annotated[
        int, _about("most pages made at once; more are answered 503", metavar="N", ge=1, le=1000)
    ] = 8


class Read(_Section, frozen=True):
    """How devices are read."""

    deadline: Annotated[
        float, _seconds("a read that takes longer quarantines its device, in seconds", 0.05, 60)
    ] = 1.0


class CallOptions(_Section, frozen=True):
    """Calls into drivers and vendors' libraries, each kind in a process of its own."""

    deadline: Annotated[
        float, _seconds("a call that takes longer has its process ended, in seconds", 0.1, 600)
    ] = 5.0
    nvml: (
        Annotated[bool, _about("ask NVIDIA's NVML; without a word: where the module pynvml is installed")]
        | None
    ) = None
    drm_ras: (
        Annotated[bool, _about("ask for error counters by netlink (drm-ras); without a word: in tier full")]
        | None
    ) = None
    cxl_mailbox: (
        Annotated[
            bool, _about("ask CXL memory devices for their health; without a word: in every tier but base")
        ]
        | None
    ) = None
    rdma: (
        Annotated[
            bool, _about("ask for objects of RDMA devices by netlink; without a word: in all tiers but base")
        ]
        | None
    ) = None
    pmu: (
        Annotated[bool, _about("open perf counters of GPUs and CXL; without a word: in tiers tracing and full")]
        | None
    ) = None
    pmu_held: Annotated[
        bool,
        _about("open perf counters that keep the GPU awake while they are open (engines of xe) as well"),
    ] = False


class Periods(_Section, frozen=True):
    """Seconds between readings, where they are to differ from the preset's."""

    static: (
        Annotated[float, _seconds("of what changes only with the device or its driver", 10, 86400)] | None
    ) = None
    slow: Annotated[float, _seconds("of limits, modes and error counters", 1, 86400)] | None = None
    normal: Annotated[float, _seconds("of loads and sensors", 0.1, 3600)] | None = None
    fast: (
        Annotated[float, _seconds("of power, clocks and what else changes many times a second", 0.02, 3600)]
        | None
    ) = None


class Collectors(_Section, frozen=True):
    """What is collected."""

    disable_defaults: Annotated[bool, _about("use only the collectors that are named")] = False
    cxl: Annotated[bool, _about("the CXL bus: memory devices, ports, decoders, regions")] | None = None
    dma_buf: (
        Annotated[
            bool,
            _about("buffers that drivers share, from debugfs, every ten minutes; without a word: in tier full"),
        ]
        | None
    ) = None
    dma_fence: (
        Annotated[
            bool, _about("threads that wait for GPUs, by tracing: two events a wait; only where asked for")
        ]
        | None
    ) = None
    drm_sched: (
        Annotated[
            bool,
            _about("jobs of GPUs' rings, by tracing; in tiers base and processes only where asked for"),
        ]
        | None
    ) = None
    drm_client: (
        Annotated[
            bool,
            _about("whose work GPUs do, by cgroup; in tier base only where asked for, and of own processes"),
        ]
        | None
    ) = None
    gpu: Annotated[bool, _about("load, memory, clocks, errors and identity of GPUs")] | None = None
    gpudirect: (
        Annotated[bool, _about("GPUDirect Storage (nvidia-fs) and peer memory clients of RDMA devices")] | None
    ) = None
    hmm: (
        Annotated[bool, _about("memory that moves: between nodes, tiers and GPUs, and how scarce it is")] | None
    ) = None
    i915_request: (
        Annotated[bool, _about("requests of i915, by tracing: two and more events each; only where asked for")]
        | None
    ) = None
    io_uring: (
        Annotated[
            bool, _about("rings of io_uring by cgroup; in tier base only where asked for, and of own processes")
        ]
        | None
    ) = None
    kfd: Annotated[bool, _about("what AMD's compute driver sees: nodes, memory banks, links")] | None = None
    memory_tiers: (
        Annotated[bool, _about("NUMA nodes and GPUs as memory: tier, size, use, bandwidth, latency")] | None
    ) = None
    nvme: Annotated[bool, _about("state and identity of NVMe controllers")] | None = None
    p2p: Annotated[bool, _about("who can reach whom without the CPU, and memory for it")] | None = None
    pcie: Annotated[bool, _about("links and errors of PCI Express")] | None = None
    power: Annotated[bool, _about("power, temperature, fans and voltages of GPUs and host")] | None = None
    rdma: Annotated[bool, _about("state, rate and counters of RDMA ports")] | None = None
    runtime_power: Annotated[bool, _about("which devices sleep, and for how long")] | None = None
    trouble: Annotated[bool, _about("resets, hangs, errors, lost GPUs: one family for every vendor")] | None = (
        None
    )


class Devices(_Section, frozen=True):
    """Which devices are looked at; an expression must match the whole id (0000:03:00.0)."""

    include: Annotated[str, _about("devices to look at, all where empty", metavar="REGEX", regex=True)] = ""
    exclude: Annotated[str, _about("devices never to look at", metavar="REGEX", regex=True)] = ""


class Metrics(_Section, frozen=True):
    """Which metrics are served; an expression must match the whole name."""

    include: Annotated[str, _about("metrics to serve, all where empty", metavar="REGEX", regex=True)] = ""
    exclude: Annotated[
        str,
        _about(
            "metrics not to serve; a file that is needed for nothing else is not read",
            metavar="REGEX",
            regex=True,
        ),
    ] = ""
    limit: Annotated[
        int,
        _about(
            "most series of one device; gpudaemon_daemon_series_dropped says what is beyond",
            metavar="N",
            ge=10,
            le=1_000_000,
        ),
    ] = 5000


class InventoryOptions(_Section, frozen=True):
    """Which GPUs there should be."""

    expect: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[0-9A-Za-z_.:-]{1,64}$")], ...],
        _about(
            "ids of the GPUs that must be there, repeatable",
            metavar="ID",
            allowed="a list of ids such as 0000:03:00.0",
            max_length=1024,
        ),
    ] = ()
    learn: Annotated[bool, _about("remember the GPUs that were here, in path.state")] = True


class ProcessOptions(_Section, frozen=True):
    """Who uses the GPUs."""

    period: Annotated[float, _seconds("between looks at processes and what they use", 1, 600)] = 5.0
    owners: Annotated[
        int,
        _about(
            "most owners (cgroups) told apart on one device; the rest goes together as `others`",
            metavar="N",
            ge=1,
            le=10_000,
        ),
    ] = 256
    top: Annotated[
        int,
        _about(
            "processes shown by themselves on each device, those that use it most; 0: none, cgroups only",
            metavar="N",
            ge=0,
            le=1000,
        ),
    ] = 0
    files: Annotated[
        int,
        _about("most files of clients read on one device", metavar="N", ge=16, le=65536),
    ] = 4096
    events: Annotated[
        bool, _about("have the kernel tell of new processes where it does; else names in /proc are compared")
    ] = True
    kubelet: Annotated[
        str,
        _about(
            "socket of the kubelet's pod-resources API, for names of pods: "
            "/var/lib/kubelet/pod-resources/kubelet.sock; empty: not asked",
            metavar="PATH",
            allowed="a path",
        ),
    ] = ""


class TracingOptions(_Section, frozen=True):
    """What is watched by tracing: collectors drm_sched and others."""

    period: Annotated[float, _seconds("between looks at what was traced", 0.1, 60)] = 1.0
    in_kernel: Annotated[
        bool, _about("have the kernel add up jobs where it can, instead of reading each one's events")
    ] = True
    buffer: Annotated[
        int,
        _about("memory of the ring buffer on each processor, in KiB", metavar="KIB", ge=16, le=65536),
    ] = 512
    hang: Annotated[
        float, _seconds("a job on a GPU that makes no progress for so long is trouble", 0.5, 3600)
    ] = 10.0


class Processors(_Section, frozen=True):
    """On which processors the daemon runs; empty: on all it may."""

    server: Annotated[
        str,
        _about(
            "processors of server and launcher",
            metavar="LIST",
            allowed="processors such as 0-3,8",
            pattern=_PROCESSORS,
        ),
    ] = ""
    reader: Annotated[
        str,
        _about(
            "processors of the reader and of its io_uring workers in the kernel",
            metavar="LIST",
            allowed="processors such as 0-3,8",
            pattern=_PROCESSORS,
        ),
    ] = ""


class Uevents(_Section, frozen=True):
    """Where news of devices come from."""

    source: Annotated[
        str,
        _about(
            "udev's messages, the kernel's, or none",
            metavar="SOURCE",
            allowed="auto, udev, kernel, none or socket:PATH",
            restart=True,
            pattern=_UEVENTS,
        ),
    ] = "auto"


class Logging(_Section, frozen=True):
    """What is logged, to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], _about("least level that is logged")] = (
        "info"
    )
    format: Annotated[Literal["logfmt", "json"], _about("form of a line")] = "logfmt"


class Config(_Section, frozen=True):
    """The daemon's configuration."""

    preset: Annotated[
        Preset, _about("how often to read: all each 15 s, each second, or what changes fast 10 times a second")
    ] = "normal"
    engine: Annotated[Engine, _about("what reads: io_uring where it works, else threads", restart=True)] = (
        "auto"
    )
    tier: Annotated[Tier, _about("rights of the reader", restart=True)] = "base"
    resting: Annotated[bool, _about("leave idle devices alone long enough to fall asleep")] = True
    path: Paths = Paths()
    web: Web = Web()
    read: Read = Read()
    call: CallOptions = CallOptions()
    period: Periods = Periods()
    collector: Collectors = Collectors()
    device: Devices = Devices()
    metric: Metrics = Metrics()
    inventory: InventoryOptions = InventoryOptions()
    process: ProcessOptions = ProcessOptions()
    tracing: TracingOptions = TracingOptions()
    cpu: Processors = Processors()
    uevent: Uevents = Uevents()
    log: Logging = Logging()

    @property
    def periods(self) -> tuple[float, float, float, float]:
        """Seconds between readings: static, slow, normal, fast."""
        static, slow, normal, fast = PRESETS[self.preset]
        own = self.period
        return (
            static if own.static is None else own.static,
            slow if own.slow is None else own.slow,
            normal if own.normal is None else own.normal,
            fast if own.fast is None else own.fast,
        )

    @property
    def collectors(self) -> frozenset[str]:
        """Names of the collectors in use."""
        given = {name: getattr(self.collector, name) for name in Collectors.__struct_fields__[1:]}
        default = not self.collector.disable_defaults
        if given["dma_buf"] is None:
            given["dma_buf"] = default and self.tier == "full"
        for name in _ONLY_WHERE_ASKED_FOR:
            given[name] = bool(given[name])
        return frozenset(name for name, wanted in given.items() if (default if wanted is None else wanted))

    @property
    def calls(self) -> dict[str, bool | None]:
        """Kinds of calls: wanted, not wanted, or None where it depends on what there is."""
        return {name: getattr(self.call, name) for name in CallOptions.__struct_fields__[1:]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    key: dotted, as in the file. flag: with its dashes. type: what a value is converted to; many: a list.
    default: its value where nothing is given, None where that is decided elsewhere. allowed: what may stand
    there, in words. restart: a change takes effect at the next start only.
    """

    key: str
    flag: str
    type: Any
    boolean: bool
    many: bool
    number: bool
    default: Any
    description: str
    metavar: str
    choices: tuple[str, ...]
    allowed: str
    restart: bool
    regex: bool
    directory: bool

    @property
    def section(self) -> str:
        """Name of its table in the file, empty for the top."""
        return self.key.rpartition(".")[0]


@cache
def options() -> tuple[Option, ...]:
    """All options in the order of the file."""
    return tuple(_options(Config, ""))


@cache
def sections() -> dict[str, str]:
    """Every table of the file with its meaning; the top is not among them."""
    hints = get_type_hints(Config)
    return {name: (hint.__doc__ or "").strip() for name, hint in hints.items() if _is_section(hint)}


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, _Section)


def _options(cls: type[Struct], before: str) -> Iterator[Option]:
    hints = get_type_hints(cls, include_extras=True)
    for field in msgspec.structs.fields(cls):
        hint = hints[field.name]
        if _is_section(hint):
            yield from _options(hint, f"{before}{field.name}.")
        else:
            yield _option(before + field.name, hint, field.default)


def _option(key: str, hint: Any, default: Any) -> Option:
    # Of `Annotated[...] | None` the first part says all; None stands for "not given".
    annotated = hint if get_origin(hint) is Annotated else get_args(hint)[0]
    kind, meta = get_args(annotated)
    extra = meta.extra
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    allowed = extra["allowed"] or _allowed(meta, kind, choices)
    return Option(
        key=key,
        flag=extra["flag"] or "--" + key.replace("_", "-"),
        type=annotated,
        boolean=kind is bool,
        many=get_origin(kind) is tuple,
        number=kind in (int, float),
        default=default,
        description=meta.description,
        metavar=extra["metavar"] or ("{" + ",".join(choices) + "}" if choices else ""),
        choices=choices,
        allowed="a regular expression (Python's re)" if extra["regex"] else allowed,
        restart=extra["restart"],
        regex=extra["regex"],
        directory=extra["directory"],
    )


def _allowed(meta: Meta, kind: Any, choices: tuple[str, ...]) -> str:
    if kind is bool:
        return "true or false"
    if choices:
        return ", ".join(choices)
    if meta.ge is not None and meta.le is not None:
        return f"{'whole numbers' if kind is int else 'numbers'} from {meta.ge:.10g} to {meta.le:.10g}"
    return "text"
