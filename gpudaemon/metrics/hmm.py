"""Rows of memory that moves between system memory and the memory of GPUs (HMM), of any driver.

They come of probes on the kernel's own functions (mm/migrate_device.c, mm/hmm.c), through which every driver
goes that migrates pages of processes to a device: amdgpu, xe, nouveau. Which device it was they do not tell.
`direction` is to_device or to_system. `cause` is cpu_fault where a processor touched a page that was on the
device; driver for all that a driver does by itself: prefetch, a fault of the GPU, eviction of a range.
"""

from gpudaemon.model.metric import Kind, Metric, Unit, powers_of_two

_MIGRATE = "mm/migrate_device.c: migrate_vma_setup(), migrate_vma_pages(), migrate_vma_finalize()"

FIRST_POWER = 10
"""The first bucket ends at 2^10 ns."""

MIGRATED = Metric(
    name="gpudaemon_hmm_migrated_pages_total",
    kind=Kind.COUNTER,
    help=(
        "Pages of processes collected and handed to the driver to be moved, by whom they belong to. One that "
        "could not be moved in the end is in it."
    ),
    labels=("owner", "direction", "cause"),
    abi=_MIGRATE,
)
MIGRATIONS = Metric(
    name="gpudaemon_hmm_migrations_total",
    kind=Kind.COUNTER,
    help="Migrations: a driver moves what it can of one range of one process.",
    labels=("owner", "direction", "cause"),
    abi=_MIGRATE,
)
RANGE_PAGES = Metric(
    name="gpudaemon_hmm_range_pages_total",
    kind=Kind.COUNTER,
    help="Pages of the ranges of these migrations: those not migrated were elsewhere, pinned or not there.",
    labels=("direction", "cause"),
    abi=_MIGRATE,
)
SECONDS = Metric(
    name="gpudaemon_hmm_migration_seconds",
    kind=Kind.HISTOGRAM,
    unit=Unit.SECONDS,
    help="How long a migration took, from collecting the pages until the process could use them again.",
    labels=("direction", "cause"),
    abi=_MIGRATE,
    buckets=powers_of_two(FIRST_POWER, 33),
)
PROCESS_PAGES = Metric(
    name="gpudaemon_hmm_process_migrated_pages_total",
    kind=Kind.COUNTER,
    help=(
        "The same pages by process, for the first that are seen to migrate; pid is empty for all others, and "
        "for those for which nothing moved for a quarter of an hour."
    ),
    labels=("pid", "name", "direction"),
    abi=_MIGRATE,
)
THRASHED = Metric(
    name="gpudaemon_hmm_thrashed_pages_total",
    kind=Kind.COUNTER,
    help=(
        "Pages that moved to a device for a process while processors took as many back by faults within the "
        "same 10 s: memory that both sides want. It compares amounts, not the pages themselves."
    ),
    labels=("owner",),
    abi=_MIGRATE,
)
EVICTED = Metric(
    name="gpudaemon_hmm_device_range_pages_total",
    kind=Kind.COUNTER,
    help="Pages of ranges of device memory that drivers emptied, whosever they were.",
    abi="mm/migrate_device.c: migrate_device_pages()",
)
EVICTIONS = Metric(
    name="gpudaemon_hmm_device_ranges_total",
    kind=Kind.COUNTER,
    help="Ranges of device memory that drivers emptied.",
    abi="mm/migrate_device.c: migrate_device_pages()",
)
RANGE_FAULTS = Metric(
    name="gpudaemon_hmm_range_faults_total",
    kind=Kind.COUNTER,
    help=(
        "Looks of drivers at a process's page tables, with pages faulted in where asked for, by result: ok, or "
        "an errno; EBUSY is a range that changed meanwhile, which is tried again."
    ),
    labels=("result",),
    abi="mm/hmm.c: hmm_range_fault()",
)
DROPPED = Metric(
    name="gpudaemon_hmm_dropped_total",
    kind=Kind.COUNTER,
    help="Events for which the kernel's maps had no room; they are in no other figure.",
    abi="kernel/trace/tracing_map.c",
)
