"""The catalogue of kernel interfaces: what each gives, what it takes to have it, and what it costs. Data only.

`interface_probe` says which are here, `gpudaemon check` shows it. `use` is honest: `now` is used by this
version, `planned` is not, `never` is listed because people ask for it. Costs are measured (docs/benchmarks.md)
or not given.

The first word of a path, `sys`, `proc`, `dev` or `root`, is the root it is below; `*` matches within one name.
"""

import enum
from dataclasses import dataclass

__all__ = ["CATALOGUE", "Interface", "Use"]


class Use(enum.Enum):
    """Whether gpudaemon uses an interface."""

    NOW = "now"
    PLANNED = "planned"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One kernel interface.

    paths: any of them shows that it is here. access: what this process must be allowed there: `r` read, `x`
    enter, `w` write; empty: nothing. config: options that must be set in the kernel. modules: any of them
    brings it. tier: the least tier with which it is of use. capability: what the kernel asks for, empty for
    none. absent: what it means that it is not here although the kernel has it. cost: of one use. wakes: what it
    does to a sleeping device, empty where nothing. check: name of a rule of its own in `interface_probe`.
    """

    name: str
    what: str
    paths: tuple[str, ...]
    doc: str
    use: Use
    access: str = "r"
    config: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    tier: str = "base"
    capability: str = ""
    absent: str = "no such device"
    cost: str = ""
    wakes: str = ""
    check: str = ""


_NOW, _PLANNED, _NEVER = Use.NOW, Use.PLANNED, Use.NEVER
_READ = "6 to 8 us CPU a read (bench_steady)"
_GATED = "left asleep, its power state is read first"
_CALLS = "0.7 % of a core for 8 GPUs each second, its process 14 MiB (bench_calls)"
_SCAN = "29 us CPU a process, every 2 s while a GPU rests"
_TRACED = "docs/drm-scheduler.md; nothing while no job is given to a GPU"
_TRACING = ("CONFIG_EVENT_TRACING",)

_DEVICES = (
    Interface(
        name="drm", what="GPUs and their nodes", paths=("sys/class/drm/card*", "sys/class/drm/renderD*"),
        access="", config=("CONFIG_DRM",), modules=("drm",), use=_NOW, absent="no GPU with a driver",
        cost="listed when something changes, no file read", doc="Documentation/gpu/drm-uapi.rst",
    ),
    Interface(
        name="accel", what="accelerators without graphics", paths=("sys/class/accel/accel*",), access="",
        config=("CONFIG_DRM_ACCEL",), use=_NOW, absent="no accelerator with a driver",
        cost="listed when something changes, no file read", doc="Documentation/accel/introduction.rst",
    ),
    Interface(
        name="pci", what="identity, links, NUMA node, SR-IOV", paths=("sys/bus/pci/devices/*/vendor",),
        config=("CONFIG_PCI",), use=_NOW, absent="no PCI bus (or none in this guest)", cost=_READ,
        wakes=_GATED, doc="Documentation/ABI/testing/sysfs-bus-pci",
    ),
    Interface(
        name="pcie-aer", what="PCIe error counters", paths=("sys/bus/pci/devices/*/aer_dev_correctable",),
        config=("CONFIG_PCIEAER",), use=_NOW, cost=_READ,
        absent="no function has AER, or firmware keeps it (no _OSC grant)",
        doc="Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats",
    ),
    Interface(
        name="runtime-pm", what="whether a device sleeps",
        paths=("sys/bus/pci/devices/*/power/runtime_status",),
        config=("CONFIG_PM",), use=_NOW, absent="no PCI device", cost=_READ,
        doc="Documentation/ABI/testing/sysfs-devices-power",
    ),
    Interface(
        name="hwmon", what="temperatures, power, fans, voltages", paths=("sys/class/hwmon/hwmon*",), access="x",
        config=("CONFIG_HWMON",), use=_NOW, absent="no chip with a driver", cost=_READ, wakes=_GATED,
        doc="Documentation/hwmon/sysfs-interface.rst",
    ),
    Interface(
        name="amdgpu", what="load, memory, clocks, RAS, partitions", paths=("sys/bus/pci/drivers/amdgpu/*:*",),
        access="x", config=("CONFIG_DRM_AMDGPU",), modules=("amdgpu",), use=_NOW,
        absent="no GPU bound to amdgpu",
        cost=_READ, wakes=_GATED, doc="Documentation/gpu/amdgpu/driver-misc.rst",
    ),
    Interface(
        name="amdgpu-kfd", what="compute topology: links, caches, memory banks",
        paths=("sys/class/kfd/kfd/topology/nodes",), access="x", config=("CONFIG_HSA_AMD",),
        modules=("amdgpu",),
        use=_NOW, absent="no GPU bound to amdgpu", doc="drivers/gpu/drm/amd/amdkfd/kfd_topology.c",
        cost="read once, then one number; nothing asks a device",
    ),
    Interface(
        name="amdgpu-kfd-smi", what="KFD events: page migration, throttling, reset", paths=("dev/kfd",),
        access="rw", config=("CONFIG_HSA_AMD",), modules=("amdgpu",), tier="full", use=_PLANNED,
        absent="no GPU bound to amdgpu", wakes="opening it makes a KFD process",
        doc="include/uapi/linux/kfd_ioctl.h",
    ),
    Interface(
        name="i915", what="Intel clocks, throttling, idle residency", paths=("sys/bus/pci/drivers/i915/*:*",),
        access="x", config=("CONFIG_DRM_I915",), modules=("i915",), use=_NOW, absent="no GPU bound to i915",
        cost=_READ, wakes=_GATED, doc="drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c",
    ),
    Interface(
        name="xe", what="Intel clocks, throttling, idle residency, SR-IOV, health",
        paths=("sys/bus/pci/drivers/xe/*:*",),
        access="x", config=("CONFIG_DRM_XE",), modules=("xe",), use=_NOW, absent="no GPU bound to xe",
        cost=_READ, wakes=_GATED, doc="drivers/gpu/drm/xe/xe_gt_freq.c",
    ),
    Interface(
        name="habanalabs", what="Gaudi status, clocks, resets, firmware",
        paths=("sys/bus/pci/drivers/habanalabs/*:*",),
        access="x", config=("CONFIG_DRM_ACCEL_HABANALABS",), modules=("habanalabs",), use=_NOW,
        absent="no accelerator bound to habanalabs", cost=_READ,
        doc="Documentation/ABI/testing/sysfs-driver-habanalabs",
    ),
    Interface(
        name="intel_vpu", what="busy time, memory and clocks of Intel NPUs",
        paths=("sys/bus/pci/drivers/intel_vpu/*:*",),
        access="x", config=("CONFIG_DRM_ACCEL_IVPU",), modules=("intel_vpu",), use=_NOW,
        absent="no NPU bound to intel_vpu", cost=_READ, doc="Documentation/ABI/testing/sysfs-driver-ivpu",
    ),
    Interface(
        name="devfreq", what="clocks of GPUs of a system on chip", paths=("sys/class/devfreq/*",), access="x",
        config=("CONFIG_PM_DEVFREQ",), use=_NOW, absent="no device with a frequency scaler", cost=_READ,
        doc="Documentation/ABI/testing/sysfs-class-devfreq",
    ),
    Interface(
        name="nvidia-proc", what="NVIDIA driver version and model names", paths=("proc/driver/nvidia/gpus",),
        access="x", modules=("nvidia",), use=_NOW, cost="read once when the GPU comes",
        absent="no GPU bound to nvidia, or the service does not see it (docs/nvidia.md)",
        wakes="reading a GPU's information wakes it", doc="NVIDIA open-gpu-kernel-modules, nv-procfs.c",
    ),
    Interface(
        name="nvml", what="NVIDIA load, memory, power, clocks, temperatures, throttling, ECC, NVLink, MIG",
        paths=("dev/nvidiactl",), access="rw", modules=("nvidia",), use=_NOW, check="nvml", cost=_CALLS,
        absent="no GPU bound to nvidia, or its nodes are not shown to the service (docs/nvidia.md)",
        wakes="keeps a GPU it has open initialised: let go while one rests or sleeps",
        doc="docs.nvidia.com/deploy/nvml-api",
    ),
    Interface(
        name="devcoredump", what="that a driver dumped a crashed GPU", paths=("sys/class/devcoredump",),
        access="x",
        config=("CONFIG_DEV_COREDUMP",), use=_NOW, absent="no driver that dumps is loaded",
        cost="nothing: its uevent says so, the dump is not read",
        doc="drivers/base/devcoredump.c",
    ),
    Interface(
        name="pci-config", what="ACS, ReBAR, DVSEC: config space beyond 64 bytes",
        paths=("sys/bus/pci/devices/*/config",), access="", config=("CONFIG_PCI",), tier="full",
        capability="CAP_SYS_ADMIN", use=_NOW, absent="no PCI device",
        cost="once when a function comes or changes",
        wakes="resumes a device in D3cold: seldom, gated", doc="drivers/pci/pci-sysfs.c (pci_read_config)",
    ),
    Interface(
        name="p2pdma", what="peer-to-peer memory of PCI devices", paths=("sys/bus/pci/devices/*/p2pmem",),
        access="x", config=("CONFIG_PCI_P2PDMA",), use=_NOW, absent="no device offers memory to peers",
        cost=_READ,
        doc="Documentation/ABI/testing/sysfs-bus-pci (p2pmem)",
    ),
    Interface(
        name="cxl", what="CXL memory devices, ports, regions", paths=("sys/bus/cxl/devices/*",), access="x",
        config=("CONFIG_CXL_BUS",), modules=("cxl_core",), use=_NOW, absent="no CXL device",
        cost="read when the bus changes, looked at again each minute",
        doc="Documentation/ABI/testing/sysfs-bus-cxl",
    ),
    Interface(
        name="cxl-mailbox", what="health of CXL memory: life, temperature, errors, alerts",
        paths=("dev/cxl/mem*",), access="r", config=("CONFIG_CXL_MEM",), modules=("cxl_pci",),
        tier="processes", use=_NOW,
        absent="no CXL memory, or its nodes are not shown to the service (docs/cxl.md)",
        cost="four commands a device each minute, in a process of its own",
        doc="include/uapi/linux/cxl_mem.h",
    ),
    Interface(
        name="memory-tiers", what="NUMA nodes and tiers: size, use, bandwidth, latency",
        paths=("sys/bus/memory_tiering/devices/*",), access="x", config=("CONFIG_NUMA", "CONFIG_MIGRATION"),
        use=_NOW, absent="no NUMA node with memory", cost=_READ,
        doc="Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers",
    ),
    Interface(
        name="rdma", what="RDMA port counters and errors", paths=("sys/class/infiniband/*",), access="x",
        config=("CONFIG_INFINIBAND",), modules=("ib_core",), use=_NOW, absent="no RDMA device", cost=_READ,
        doc="Documentation/ABI/stable/sysfs-class-infiniband",
    ),
    Interface(
        name="rdma-netlink", what="objects of RDMA devices and whose they are", paths=(),
        config=("CONFIG_INFINIBAND",), tier="processes", capability="CAP_SYS_PTRACE", use=_NOW, check="config",
        cost="eight requests a device each minute, in a process of its own",
        doc="include/uapi/rdma/rdma_netlink.h",
    ),
    Interface(
        name="nvidia-fs", what="GPUDirect Storage", paths=("proc/driver/nvidia-fs/stats",), use=_NOW,
        absent="nvidia-fs is not loaded", cost=_READ, doc="https://github.com/NVIDIA/gds-nvidia-fs",
    ),
    Interface(
        name="peer-memory", what="GPU memory registered with RDMA devices",
        paths=("sys/kernel/mm/memory_peers/*/num_reg_bytes",), use=_NOW,
        absent="no peer memory client: MLNX_OFED only, dma-buf needs none", cost=_READ,
        doc="docs/p2p.md",
    ),
    Interface(
        name="dma-buf", what="buffers that drivers share", paths=("sys/kernel/debug/dma_buf/bufinfo",),
        config=("CONFIG_DMA_SHARED_BUFFER", "CONFIG_DEBUG_FS"), tier="full", capability="CAP_DAC_READ_SEARCH",
        use=_NOW, absent="debugfs is not mounted", cost="every ten minutes, in a lane of its own",
        doc="drivers/dma-buf/dma-buf.c",
    ),
    Interface(
        name="nvme", what="NVMe controllers and their place (temperatures come by hwmon)",
        paths=("sys/class/nvme/nvme*",), access="x", config=("CONFIG_BLK_DEV_NVME",), modules=("nvme",),
        use=_NOW, cost=_READ, absent="no NVMe controller", doc="Documentation/ABI/testing/sysfs-nvme",
    ),
)  # fmt: skip

_PROCESSES = (
    Interface(
        name="clients", what="which processes have a GPU open, own user's", paths=("proc/self/fd",), access="x",
        config=("CONFIG_PROC_FS",), use=_NOW, absent="no procfs",
        cost=_SCAN,
        doc="Documentation/filesystems/proc.rst",
    ),
    Interface(
        name="clients-others", what="which processes have a GPU open, all users'", paths=("proc/self/fd",),
        access="x", config=("CONFIG_PROC_FS",), tier="processes", capability="CAP_SYS_PTRACE", use=_NOW,
        absent="no procfs", cost=_SCAN, check="processes",
        doc="Documentation/filesystems/proc.rst (hidepid), ptrace(2)",
    ),
    Interface(
        name="fdinfo", what="engine time and memory of each process", paths=("proc/self/fdinfo",), access="x",
        config=("CONFIG_PROC_FS",), tier="processes", capability="CAP_SYS_PTRACE", use=_NOW,
        absent="no procfs", check="processes", wakes=f"xe resumes the device: {_GATED}",
        cost="0.7 % of a core with 5,000 processes and 200 clients, every 5 s (bench_processes)",
        doc="Documentation/gpu/drm-usage-stats.rst",
    ),
    Interface(
        name="process-events", what="processes that begin and end, without looking at /proc", paths=(),
        access="", config=("CONFIG_PROC_EVENTS",), tier="full", capability="CAP_NET_ADMIN", use=_NOW,
        check="config", cost="4 us an event, taken once a cycle (bench_processes)",
        doc="Documentation/driver-api/connector.rst",
    ),
    Interface(
        name="kfd-processes", what="memory, copies, evictions and queues of ROCm processes",
        paths=("sys/class/kfd/kfd/proc",), access="x", config=("CONFIG_HSA_AMD",), modules=("amdgpu",),
        tier="processes", use=_NOW, absent="no GPU bound to amdgpu", cost=_READ, wakes=_GATED,
        doc="drivers/gpu/drm/amd/amdkfd/kfd_process.c",
    ),
    Interface(
        name="io_uring-rings", what="rings of each process: depth, overflow, threads",
        paths=("proc/self/fdinfo",), access="x", config=("CONFIG_IO_URING",), tier="processes",
        capability="CAP_SYS_PTRACE", use=_NOW,
        cost="70 us CPU a ring, 130 with 64 entries waiting, every 15 s", absent="no procfs", check="processes",
        wakes="takes a ring's lock for as long as its text takes",
        doc="io_uring/fdinfo.c",
    ),
    Interface(
        name="dmem", what="GPU memory by cgroup", paths=("sys/fs/cgroup/dmem.capacity",), tier="processes",
        config=("CONFIG_CGROUP_DMEM",), use=_NOW, cost=_READ, check="cgroup",
        absent="the controller is off, or no driver registers memory",
        doc="Documentation/admin-guide/cgroup-v2.rst (DMEM)",
    ),
    Interface(
        name="psi", what="how long work waits for memory, CPU, I/O", paths=("proc/pressure/memory",),
        config=("CONFIG_PSI",), use=_NOW, absent="switched off: boot with psi=1", cost=_READ,
        doc="Documentation/accounting/psi.rst",
    ),
    Interface(
        name="vmstat", what="memory migrated, demoted, promoted, by node where the kernel counts so",
        paths=("sys/devices/system/node/node*/vmstat",), config=("CONFIG_NUMA",), use=_NOW,
        absent="no NUMA nodes in sysfs", cost=_READ, doc="mm/vmstat.c",
    ),
    Interface(
        name="zoneinfo", what="memory of devices that the memory manager has pages for",
        paths=("proc/zoneinfo",), config=("CONFIG_PROC_FS", "CONFIG_ZONE_DEVICE"), use=_NOW, absent="no procfs",
        cost=_READ, doc="Documentation/mm/memory-model.rst (ZONE_DEVICE)",
    ),
)  # fmt: skip

_EVENTS = (
    Interface(
        name="uevents", what="devices that come, go, are given up", paths=("sys/kernel/uevent_seqnum",),
        config=("CONFIG_NET",), use=_NOW, absent="no sysfs", cost="nothing while nothing happens",
        doc="Documentation/core-api/kobject.rst (uevents)",
    ),
    Interface(
        name="udev", what="the same after udev has named the devices", paths=("root/run/udev/control",),
        access="",
        use=_NOW, absent="no udev, as in most containers: kernel events or rescans instead",
        cost="nothing while nothing happens", doc="systemd-udevd.service(8)",
    ),
    Interface(
        name="trace-gpu-scheduler", what="queue wait and run time of GPU jobs",
        paths=("sys/kernel/tracing/events/gpu_scheduler",), access="x", config=(*_TRACING, "CONFIG_DRM_SCHED"),
        modules=("gpu_sched",), tier="tracing", capability="CAP_DAC_OVERRIDE", use=_NOW, check="tracefs",
        absent="no driver that uses the scheduler is loaded", cost=_TRACED,
        doc="drivers/gpu/drm/scheduler/gpu_scheduler_trace.h",
    ),
    Interface(
        name="trace-in-kernel", what="the same added up by the kernel, for a look each second",
        paths=("sys/kernel/tracing/dynamic_events",), access="",
        config=(*_TRACING, "CONFIG_FPROBE_EVENTS", "CONFIG_HIST_TRIGGERS", "CONFIG_SYNTH_EVENTS"),
        tier="tracing", capability="CAP_DAC_OVERRIDE", use=_NOW, check="tracefs", cost=_TRACED,
        absent="events are read one by one instead", doc="Documentation/trace/fprobetrace.rst, histogram.rst",
    ),
    Interface(
        name="trace-dma-fence", what="time blocked on a GPU", paths=("sys/kernel/tracing/events/dma_fence",),
        access="x", config=(*_TRACING, "CONFIG_DMA_SHARED_BUFFER"), tier="tracing",
        capability="CAP_DAC_OVERRIDE", use=_NOW, check="tracefs", absent="no GPU driver",
        cost="two events a wait; only with --collector.dma-fence", doc="include/trace/events/dma_fence.h",
    ),
    Interface(
        name="trace-i915", what="requests of i915, which has a scheduler of its own",
        paths=("sys/kernel/tracing/events/i915/i915_request_add",), access="x",
        config=(*_TRACING, "CONFIG_DRM_I915"), modules=("i915",), tier="tracing", capability="CAP_DAC_OVERRIDE",
        use=_NOW, check="tracefs", absent="no GPU bound to i915",
        cost="two and more events a request; only with --collector.i915-request",
        doc="drivers/gpu/drm/i915/i915_trace.h",
    ),
    Interface(
        name="trace-migrate", what="pages migrated to and from device memory (HMM), by probes of our own",
        paths=("sys/kernel/tracing/dynamic_events",), access="",
        config=(*_TRACING, "CONFIG_DEVICE_PRIVATE", "CONFIG_FPROBE_EVENTS", "CONFIG_HIST_TRIGGERS"),
        tier="tracing", use=_NOW, check="tracefs", absent="no such events", doc="Documentation/mm/hmm.rst",
        cost="nothing while nothing migrates; then the kernel adds up, and no event is read",
    ),
    Interface(
        name="trace-cxl", what="CXL media and error events", paths=("sys/kernel/tracing/events/cxl",),
        access="x", config=(*_TRACING, "CONFIG_CXL_BUS"), modules=("cxl_core",), tier="tracing",
        capability="CAP_DAC_OVERRIDE", use=_NOW, check="tracefs", absent="no CXL device",
        cost="nothing while nothing happens", doc="drivers/cxl/core/trace.h",
    ),
    Interface(
        name="kmsg", what="driver messages: Xid, resets, hangs", paths=("dev/kmsg",), config=("CONFIG_PRINTK",),
        tier="full", capability="CAP_SYSLOG", use=_NOW, absent="no /dev/kmsg, as in most containers",
        cost="each record read once, at most twice a second, by the scout", check="kmsg",
        doc="Documentation/ABI/testing/dev-kmsg",
    ),
    Interface(
        name="drm-ras", what="RAS error counters by netlink", paths=(), config=("CONFIG_DRM_RAS",), tier="full",
        capability="CAP_NET_ADMIN", use=_NOW, check="config",
        cost="three requests a GPU each minute, in a process of its own",
        doc="Documentation/netlink/specs/drm_ras.yaml",
    ),
)  # fmt: skip

_PMU = "sys/bus/event_source/devices"
_COUNTERS = (
    Interface(
        name="pmu-i915", what="engine time", paths=(f"{_PMU}/i915*",), access="x",
        config=("CONFIG_PERF_EVENTS", "CONFIG_DRM_I915"), modules=("i915",), tier="tracing",
        capability="CAP_PERFMON", use=_NOW, check="perf", absent="no GPU bound to i915",
        cost="a read(2) an engine, in a process of its own", doc="drivers/gpu/drm/i915/i915_pmu.c",
    ),
    Interface(
        name="pmu-xe", what="engine time, with --call.pmu-held", paths=(f"{_PMU}/xe_*",), access="x",
        config=("CONFIG_PERF_EVENTS", "CONFIG_DRM_XE"), modules=("xe",), tier="tracing",
        capability="CAP_PERFMON",
        use=_NOW, check="perf", absent="no GPU bound to xe, or a kernel before its counters",
        cost="two read(2) an engine, in a process of its own",
        wakes="an open counter keeps the GPU awake: on request only",
        doc="drivers/gpu/drm/xe/xe_pmu.c",
    ),
    Interface(
        name="pmu-amdgpu", what="data fabric and xGMI counters of Vega20 and later",
        paths=(f"{_PMU}/amdgpu_*",), access="x", config=("CONFIG_PERF_EVENTS", "CONFIG_DRM_AMDGPU"),
        modules=("amdgpu",), tier="tracing", capability="CAP_PERFMON", use=_PLANNED, check="perf",
        absent="no GPU with such counters", doc="drivers/gpu/drm/amd/amdgpu/amdgpu_pmu.c",
    ),
    Interface(
        name="pmu-cxl", what="CXL transactions and clocks", paths=(f"{_PMU}/cxl_pmu_*",), access="x",
        config=("CONFIG_PERF_EVENTS", "CONFIG_CXL_PMU"), modules=("cxl_pmu",), tier="tracing",
        capability="CAP_PERFMON", use=_NOW, check="perf", absent="no CXL device with counters",
        cost="a read(2) a counter, in a process of its own",
        doc="Documentation/admin-guide/perf/cxl.rst",
    ),
    Interface(
        name="debugfs-dri", what="a driver's debugging files; several act when read",
        paths=("sys/kernel/debug/dri",), access="x", config=("CONFIG_DEBUG_FS",), tier="full", use=_NEVER,
        check="debugfs", absent="no GPU with a driver", doc="Documentation/filesystems/debugfs.rst",
    ),
    Interface(
        name="io_uring", what="the engine that never waits for a driver", paths=("proc/sys/kernel",), access="",
        config=("CONFIG_IO_URING",), use=_NOW, check="io_uring", absent="threads are used instead",
        cost="8 us CPU a read, threads 6 (bench_steady); at most one worker a device",
        doc="Documentation/admin-guide/sysctl/kernel.rst (io_uring_disabled)",
    ),
)  # fmt: skip

CATALOGUE: tuple[Interface, ...] = (*_DEVICES, *_PROCESSES, *_EVENTS, *_COUNTERS)
"""Every interface, in the order in which it is shown."""
