"""Rows of the host's memory that moves: between nodes and tiers, under pressure, and memory of devices.

`node` is a NUMA node; it is empty where the kernel counts for the host only, and then no series of a node is
there beside it. Pages are base pages, `gpudaemon_memory_page_size_bytes` each. None of the counters here counts
what goes to the memory of a GPU (HMM): mm/migrate_device.c touches none of them.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

_VMSTAT = "/proc/vmstat and /sys/devices/system/node/node*/vmstat (mm/vmstat.c)"
_PSI = "Documentation/accounting/psi.rst: /proc/pressure/memory"

PAGE_SIZE = Metric(
    name="gpudaemon_memory_page_size_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Size of a base page of this host.",
    abi="getpagesize(2)",
)
MIGRATED = Metric(
    name="gpudaemon_memory_migrated_pages_total",
    kind=Kind.COUNTER,
    help="Pages that migrate_pages() moved, or could not: compaction, NUMA balancing, tiers, hotplug, mbind.",
    labels=("node", "result"),
    abi=f"{_VMSTAT}: pgmigrate_success, pgmigrate_fail",
)
HUGE_MIGRATED = Metric(
    name="gpudaemon_memory_huge_page_migrations_total",
    kind=Kind.COUNTER,
    help="Transparent huge pages that were moved whole, could not be, or were split for it.",
    labels=("node", "result"),
    abi=f"{_VMSTAT}: thp_migration_success, thp_migration_fail, thp_migration_split",
)
DEMOTED = Metric(
    name="gpudaemon_memory_demoted_pages_total",
    kind=Kind.COUNTER,
    help="Pages that reclaim moved from this node to a lower tier instead of freeing them, by who reclaimed.",
    labels=("node", "by"),
    abi=f"{_VMSTAT}: pgdemote_kswapd, pgdemote_direct, pgdemote_khugepaged, pgdemote_proactive",
)
PROMOTED = Metric(
    name="gpudaemon_memory_promoted_pages_total",
    kind=Kind.COUNTER,
    help="Pages that NUMA balancing moved up to this node from a lower tier.",
    labels=("node",),
    abi=f"{_VMSTAT}: pgpromote_success",
)
PROMOTION_CANDIDATES = Metric(
    name="gpudaemon_memory_promotion_candidate_pages_total",
    kind=Kind.COUNTER,
    help="Pages found hot enough for promotion; unlimited: taken without the rate limit, as memory was free.",
    labels=("node", "kind"),
    abi=f"{_VMSTAT}: pgpromote_candidate, pgpromote_candidate_nrl",
)
NUMA_MIGRATED = Metric(
    name="gpudaemon_memory_numa_migrated_pages_total",
    kind=Kind.COUNTER,
    help="Pages that NUMA balancing moved, those it promoted included.",
    labels=("node",),
    abi=f"{_VMSTAT}: numa_pages_migrated",
)
HINT_FAULTS = Metric(
    name="gpudaemon_memory_numa_hint_faults_total",
    kind=Kind.COUNTER,
    help="Faults by which NUMA balancing learns who uses a page.",
    labels=("node",),
    abi=f"{_VMSTAT}: numa_hint_faults",
)
LOCAL_HINT_FAULTS = Metric(
    name="gpudaemon_memory_numa_hint_faults_local_total",
    kind=Kind.COUNTER,
    help="Those of them where the page was on the node of the CPU that used it.",
    labels=("node",),
    abi=f"{_VMSTAT}: numa_hint_faults_local",
)
PTE_UPDATES = Metric(
    name="gpudaemon_memory_numa_pte_updates_total",
    kind=Kind.COUNTER,
    help="Page table entries that NUMA balancing marked for a hint fault.",
    labels=("node",),
    abi=f"{_VMSTAT}: numa_pte_updates",
)
HUGE_PTE_UPDATES = Metric(
    name="gpudaemon_memory_numa_huge_pte_updates_total",
    kind=Kind.COUNTER,
    help="Entries of transparent huge pages that NUMA balancing marked.",
    labels=("node",),
    abi=f"{_VMSTAT}: numa_huge_pte_updates",
)
ALLOCATED = Metric(
    name="gpudaemon_memory_numa_allocated_pages_total",
    kind=Kind.COUNTER,
    help="Allocations by where they were wanted and where they came from: kinds overlap, as the kernel's do.",
    labels=("node", "kind"),
    abi=f"{_VMSTAT}: numa_hit, numa_miss, numa_foreign, numa_interleave, numa_local, numa_other "
    "(Documentation/admin-guide/numastat.rst)",
)
SWAPPED = Metric(
    name="gpudaemon_memory_swapped_pages_total",
    kind=Kind.COUNTER,
    help="Pages read from swap (in) and written to it (out).",
    labels=("node", "direction"),
    abi=f"{_VMSTAT}: pswpin, pswpout",
)
WORKINGSET = Metric(
    name="gpudaemon_memory_workingset_pages_total",
    kind=Kind.COUNTER,
    help="Pages that came back after reclaim (refault), those of them used so lately that they were activated, "
    "and those that had been active before (restore): what too little memory looks like.",
    labels=("node", "event", "type"),
    abi=f"{_VMSTAT}: workingset_refault_*, workingset_activate_*, workingset_restore_*",
)
FAULTS = Metric(
    name="gpudaemon_memory_page_faults_total",
    kind=Kind.COUNTER,
    help="Page faults of CPUs, those that bring a page back from a GPU among them.",
    labels=("node",),
    abi=f"{_VMSTAT}: pgfault",
)
MAJOR_FAULTS = Metric(
    name="gpudaemon_memory_major_page_faults_total",
    kind=Kind.COUNTER,
    help="Page faults that waited for storage.",
    labels=("node",),
    abi=f"{_VMSTAT}: pgmajfault",
)
COMPACTIONS = Metric(
    name="gpudaemon_memory_compactions_total",
    kind=Kind.COUNTER,
    help="Compaction: an allocation had to wait for it (stall) and it brought a page (success) or not (fail); "
    "kcompactd woke (daemon_wake).",
    labels=("node", "event"),
    abi=f"{_VMSTAT}: compact_stall, compact_success, compact_fail, compact_daemon_wake",
)
COMPACTED = Metric(
    name="gpudaemon_memory_compaction_pages_total",
    kind=Kind.COUNTER,
    help="Pages that compaction looked at to move (migrate_scanned), or to move to (free_scanned), and took.",
    labels=("node", "kind"),
    abi=f"{_VMSTAT}: compact_migrate_scanned, compact_free_scanned, compact_isolated",
)
GPU_PAGES = Metric(
    name="gpudaemon_memory_gpu_pages",
    kind=Kind.GAUGE,
    help="System pages that GPU drivers (TTM) use, or keep in their pools and give back under pressure.",
    labels=("node", "state"),
    abi=f"{_VMSTAT}: nr_gpu_active, nr_gpu_reclaim",
)
ZONE_DEVICE = Metric(
    name="gpudaemon_memory_zone_device_pages",
    kind=Kind.GAUGE,
    help="Pages of the zone for memory of devices. Of memory that the CPU cannot reach (device private) the "
    "addresses are made up, and spanned includes the holes between them.",
    labels=("node", "kind"),
    abi="/proc/zoneinfo: zone Device (mm/vmstat.c, zoneinfo_show_print)",
)
PRESSURE = Metric(
    name="gpudaemon_memory_pressure_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time in which some task, or every one that was not idle (full), waited for memory.",
    labels=("kind",),
    abi=f"{_PSI}: total",
)
PRESSURE_RATIO = Metric(
    name="gpudaemon_memory_pressure_ratio",
    kind=Kind.GAUGE,
    unit=Unit.RATIO,
    help="Share of that time over a window, as the kernel averages it.",
    labels=("kind", "window"),
    abi=f"{_PSI}: avg10, avg60, avg300",
)
CGROUP_EVENTS = Metric(
    name="gpudaemon_cgroup_memory_events_total",
    kind=Kind.COUNTER,
    help=(
        "What the memory controller counts of an owner's cgroups that have GPU clients, under its own names: "
        "pages demoted, promoted, migrated, refaulted, swapped; page faults. As far as it was seen."
    ),
    labels=("owner", "event"),
    abi="Documentation/admin-guide/cgroup-v2.rst: memory.stat",
)
CGROUP_NODE = Metric(
    name="gpudaemon_cgroup_memory_node_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help=(
        "Memory of an owner's cgroups that have GPU clients, by NUMA node. Pages that are in the memory of a "
        "GPU (device private) still count as anon here."
    ),
    labels=("owner", "node", "kind"),
    abi="Documentation/admin-guide/cgroup-v2.rst: memory.numa_stat",
)
CGROUP_PRESSURE = Metric(
    name="gpudaemon_cgroup_memory_pressure_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time in which some task, or every one (full), of an owner's cgroups waited for memory.",
    labels=("owner", "kind"),
    abi="Documentation/admin-guide/cgroup-v2.rst: memory.pressure",
)
