"""Rows of GPU clients: whose work the engines do and whose memory it is.

A client is one open of a node by a program (struct drm_file), whoever holds it now: descriptors that are
duplicates, inherited or passed on count once. `owner` is whom the process works for, by its cgroup, and
`gpudaemon_owner_info` says who that is.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "CLIENTS",
    "CLIENTS_SEEN",
    "DESCRIPTORS",
    "DMEM",
    "DMEM_CAPACITY",
    "ENGINE_BUSY",
    "ENGINE_CAPACITY",
    "ENGINE_CYCLES",
    "ENGINE_MAX_HERTZ",
    "ENGINE_RATIO",
    "KFD_CU_OCCUPANCY",
    "KFD_EVICTED",
    "KFD_FAULTS",
    "KFD_PAGES",
    "KFD_PROCESSES",
    "KFD_QUEUES",
    "KFD_SDMA",
    "KFD_VRAM",
    "OWNER_CLIENTS",
    "OWNER_ENGINE_BUSY",
    "OWNER_ENGINE_RATIO",
    "OWNER_INFO",
    "OWNER_MEMORY",
    "PROCESS_ENGINE_BUSY",
    "PROCESS_INFO",
    "PROCESS_MEMORY",
]

_STATS = "Documentation/gpu/drm-usage-stats.rst"
_KFD = "/sys/class/kfd/kfd/proc/PID (drivers/gpu/drm/amd/amdkfd/kfd_process.c)"
_DMEM = "Documentation/admin-guide/cgroup-v2.rst"

CLIENTS = Metric(
    name="gpudaemon_drm_clients",
    kind=Kind.GAUGE,
    help="Clients that have the GPU open now and are accounted for by its driver.",
    labels=("device",),
    abi=f"{_STATS}: drm-client-id",
)
CLIENTS_SEEN = Metric(
    name="gpudaemon_drm_clients_seen_total",
    kind=Kind.COUNTER,
    help="Clients seen since the daemon began; one that opens and closes between two looks is not.",
    labels=("device",),
    abi=f"{_STATS}: drm-client-id",
)
DESCRIPTORS = Metric(
    name="gpudaemon_drm_open_descriptors",
    kind=Kind.GAUGE,
    help="Open descriptors of the GPU's nodes; all there is where a driver accounts for nothing.",
    labels=("device", "owner"),
    abi="/proc/PID/fd (proc_pid_fd(5))",
)
ENGINE_BUSY = Metric(
    name="gpudaemon_drm_engine_busy_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help=(
        "Time the engines of a class worked for clients, as far as it was seen; several engines add up. The "
        "time of clients that ended stays. Work of KFD's user queues (ROCm) is not in it."
    ),
    labels=("device", "engine"),
    abi=f"{_STATS}: drm-engine-*, drm-cycles-*, drm-total-cycles-*, drm-maxfreq-*",
)
ENGINE_RATIO = Metric(
    name="gpudaemon_drm_engine_busy_ratio",
    kind=Kind.GAUGE,
    unit=Unit.RATIO,
    help="Share of the capacity of an engine class that clients used between the last two looks.",
    labels=("device", "engine"),
    abi=f"{_STATS}: drm-engine-*, drm-engine-capacity-*, drm-cycles-*, drm-total-cycles-*",
)
ENGINE_CAPACITY = Metric(
    name="gpudaemon_drm_engine_capacity",
    kind=Kind.GAUGE,
    help="Engines of a class.",
    labels=("device", "engine"),
    abi=f"{_STATS}: drm-engine-capacity-*, 1 where it is not given",
)
ENGINE_CYCLES = Metric(
    name="gpudaemon_drm_engine_cycles_total",
    kind=Kind.COUNTER,
    help="Clock cycles the engines of a class worked for clients; against the highest frequency it is use.",
    labels=("device", "engine"),
    abi=f"{_STATS}: drm-cycles-*",
)
ENGINE_MAX_HERTZ = Metric(
    name="gpudaemon_drm_engine_max_hertz",
    kind=Kind.GAUGE,
    unit=Unit.HERTZ,
    help="Highest frequency of an engine class.",
    labels=("device", "engine"),
    abi=f"{_STATS}: drm-maxfreq-*",
)

OWNER_INFO = Metric(
    name="gpudaemon_owner_info",
    kind=Kind.INFO,
    help="Who an owner is: a pod and container, a container, a Slurm job, a machine or a systemd unit.",
    labels=("owner", "kind", "unit", "container", "runtime", "pod", "qos", "job", "step", "machine", "cgroup"),
    abi="/proc/PID/cgroup (cgroups(7))",
)
OWNER_CLIENTS = Metric(
    name="gpudaemon_drm_owner_clients",
    kind=Kind.GAUGE,
    help="Clients of an owner that have the GPU open now.",
    labels=("device", "owner"),
    abi=f"{_STATS}: drm-client-id",
)
OWNER_ENGINE_BUSY = Metric(
    name="gpudaemon_drm_owner_engine_busy_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help=(
        "Time the engines of a class worked for an owner's clients, those that ended included. It ends a "
        "quarter of an hour after the owner's last client."
    ),
    labels=("device", "owner", "engine"),
    abi=f"{_STATS}: drm-engine-*, drm-cycles-*, drm-total-cycles-*",
)
OWNER_ENGINE_RATIO = Metric(
    name="gpudaemon_drm_owner_engine_busy_ratio",
    kind=Kind.GAUGE,
    unit=Unit.RATIO,
    help="Share of the capacity of an engine class that an owner used between the last two looks.",
    labels=("device", "owner", "engine"),
    abi=f"{_STATS}: drm-engine-*, drm-engine-capacity-*",
)
OWNER_MEMORY = Metric(
    name="gpudaemon_drm_owner_memory_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help=(
        "Memory of an owner's clients by region. What is shared counts in full for each client that has it: "
        "total and resident of several clients may be more than there is."
    ),
    labels=("device", "owner", "region", "kind"),
    abi=f"{_STATS}: drm-total-*, drm-shared-*, drm-active-*, drm-resident-*, drm-purgeable-*, drm-memory-*",
)

PROCESS_INFO = Metric(
    name="gpudaemon_drm_process_info",
    kind=Kind.INFO,
    help="A process that uses a GPU, where processes are asked for (process.top).",
    labels=("device", "pid", "name", "owner"),
    abi="/proc/PID/stat (proc_pid_stat(5))",
)
PROCESS_ENGINE_BUSY = Metric(
    name="gpudaemon_drm_process_engine_busy_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help=(
        "Time the engines of a class worked for a process that still runs; pid is empty for those that are not "
        "among the first, together."
    ),
    labels=("device", "pid", "engine"),
    abi=f"{_STATS}: drm-engine-*, drm-cycles-*, drm-total-cycles-*",
)
PROCESS_MEMORY = Metric(
    name="gpudaemon_drm_process_memory_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Memory of a process's clients by region; pid is empty for all that are not among the first.",
    labels=("device", "pid", "region", "kind"),
    abi=f"{_STATS}: drm-total-*, drm-shared-*, drm-active-*, drm-resident-*, drm-purgeable-*, drm-memory-*",
)

KFD_PROCESSES = Metric(
    name="gpudaemon_kfd_owner_processes",
    kind=Kind.GAUGE,
    help="Processes of an owner that have amdgpu's compute driver open and use this GPU.",
    labels=("device", "owner"),
    abi=_KFD,
)
KFD_VRAM = Metric(
    name="gpudaemon_kfd_owner_vram_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Video memory that an owner's processes hold through KFD.",
    labels=("device", "owner"),
    abi=f"{_KFD}: vram_*",
)
KFD_SDMA = Metric(
    name="gpudaemon_kfd_owner_sdma_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time the SDMA engines copied for an owner's KFD processes, as far as it was seen.",
    labels=("device", "owner"),
    abi=f"{_KFD}: sdma_*",
)
KFD_EVICTED = Metric(
    name="gpudaemon_kfd_owner_evicted_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time an owner's KFD processes stood still with their queues evicted, as far as it was seen.",
    labels=("device", "owner"),
    abi=f"{_KFD}: stats_*/evicted_ms",
)
KFD_CU_OCCUPANCY = Metric(
    name="gpudaemon_kfd_owner_compute_units",
    kind=Kind.GAUGE,
    help="Compute units that an owner's KFD processes occupied at the moment of reading.",
    labels=("device", "owner"),
    abi=f"{_KFD}: stats_*/cu_occupancy",
)
KFD_FAULTS = Metric(
    name="gpudaemon_kfd_owner_faults_total",
    kind=Kind.COUNTER,
    help="GPU page faults of an owner's KFD processes in shared virtual memory, as far as they were seen.",
    labels=("device", "owner"),
    abi=f"{_KFD}: counters_*/faults",
)
KFD_PAGES = Metric(
    name="gpudaemon_kfd_owner_migrated_pages_total",
    kind=Kind.COUNTER,
    help="Pages that moved to the GPU (in) and back (out) for an owner's KFD processes, as far as it was seen.",
    labels=("device", "owner", "direction"),
    abi=f"{_KFD}: counters_*/page_in, counters_*/page_out",
)
KFD_QUEUES = Metric(
    name="gpudaemon_kfd_owner_queues",
    kind=Kind.GAUGE,
    help="User queues of an owner's KFD processes by type.",
    labels=("device", "owner", "type"),
    abi=f"{_KFD}: queues/*/type",
)

DMEM = Metric(
    name="gpudaemon_cgroup_dmem_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Device memory of an owner's cgroups, as the kernel charges it: now, at most so far, and its limits.",
    labels=("device", "owner", "region", "kind"),
    abi=f"{_DMEM}: dmem.current, dmem.peak, dmem.min, dmem.low, dmem.max",
)
DMEM_CAPACITY = Metric(
    name="gpudaemon_cgroup_dmem_capacity_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Device memory that cgroups can be charged for.",
    labels=("device", "region"),
    abi=f"{_DMEM}: dmem.capacity",
)
