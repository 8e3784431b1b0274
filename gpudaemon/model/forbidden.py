"""Files whose reading or opening has side effects. They are never listed, planned or opened.

Both discovery (which hides them from plans) and the reader (which refuses to open them) use this constant.
A pattern is matched against the end of a path, component by component, with `fnmatch` wildcards.
"""

from fnmatch import fnmatchcase

__all__ = ["FORBIDDEN", "GATED", "is_forbidden"]

FORBIDDEN: tuple[tuple[str, str], ...] = (
    ("xgmi_error", "reading clears the error (amdgpu_xgmi.c, amdgpu_xgmi_show_error)"),
    ("psp_vbflash", "reading starts a flash of the VBIOS (amdgpu_psp.c)"),
    ("psp_vbflash_status", "belongs to the flash procedure (amdgpu_psp.c)"),
    ("pcie_bw", "sleeps a whole second in the driver (soc15.c, vi.c: msleep(1000))"),
    ("amdgpu_gpu_recover", "reading resets the GPU (amdgpu_fence.c)"),
    ("amdgpu_evict_vram", "reading evicts video memory (amdgpu_debugfs.c)"),
    ("amdgpu_evict_gtt", "reading evicts GTT memory (amdgpu_debugfs.c)"),
    ("amdgpu_test_ib", "reading parks the schedulers and runs test jobs (amdgpu_debugfs.c)"),
    ("amdgpu_pm_info", "resumes the device (amdgpu_pm.c)"),
    ("force_reset", "reading resets a GT (xe_gt_debugfs.c)"),
    ("force_reset_sync", "reading resets a GT (xe_gt_debugfs.c)"),
    ("forcewake_*", "opening holds the GT awake (xe_debugfs.c, intel_gt_pm_debugfs.c)"),
    ("i915_forcewake_user", "opening holds the GT awake (i915_debugfs.c)"),
    ("page_pool_shrink", "reading runs the shrinker (ttm_pool.c)"),
    ("tt_shrink", "reading swaps a buffer out (ttm_tt.c)"),
    ("devcoredump/*/data", "tens of megabytes, and a write deletes it (drivers/base/devcoredump.c)"),
    ("devcd*/data", "tens of megabytes, and a write deletes it (drivers/base/devcoredump.c)"),
    ("card*-*/*", "display connectors: reading status probes the display (drm_sysfs.c)"),
    ("rom", "enables the expansion ROM's decoder (drivers/pci/pci-sysfs.c)"),
    ("resource[0-9]*", "device memory itself (drivers/pci/pci-sysfs.c)"),
    ("config", "resumes a device in D3cold (drivers/pci/pci-sysfs.c); read once when it is planned, and gated"),
    ("trace_pipe", "consumes the administrator's trace (kernel/trace/trace.c)"),
    ("trace_pipe_raw", "consumes the administrator's trace (kernel/trace/trace.c)"),
)


GATED = "config"
"""The one exception: a fact about a PCI function, read when it is planned and only where its power state is a
file that is looked at first and says `active`. Never an attribute, so never again while nothing changes."""


def is_forbidden(path: str) -> bool:
    """True where the last components of `path` match a pattern of `FORBIDDEN`."""
    parts = path.split("/")
    for pattern, _ in FORBIDDEN:
        wanted = pattern.split("/")
        if len(parts) >= len(wanted) and all(
            fnmatchcase(part, want) for part, want in zip(parts[-len(wanted) :], wanted, strict=True)
        ):
            return True
    return False
