"""Files that the kernel's cores print from memory: reading them neither wakes a device nor enters its driver.

What a sleeping device may be asked: `gpudaemon capture` records these of it and no others, the mock host counts
every other read as one that reached the device.
"""

__all__ = ["CORE_FILES", "reaches_device"]

CORE_FILES = frozenset(
    {
        *(
            "uevent",
            "class",
            "vendor",
            "device",
            "subsystem_vendor",
            "subsystem_device",
            "revision",
            "modalias",
        ),
        *(
            "numa_node",
            "local_cpus",
            "local_cpulist",
            "enable",
            "power_state",
            "irq",
            "resource",
            "rom",
            "boot_vga",
        ),
        *("d3cold_allowed", "msi_bus", "broken_parity_status", "ari_enabled"),
        *("dma_mask_bits", "consistent_dma_mask_bits"),
        *("aer_dev_correctable", "aer_dev_nonfatal", "aer_dev_fatal"),
        *("aer_rootport_total_err_cor", "aer_rootport_total_err_fatal", "aer_rootport_total_err_nonfatal"),
    }
)
"""Files of a PCI device that the core prints from memory (drivers/pci/pci-sysfs.c, drivers/pci/pcie/aer.c)."""


def reaches_device(path: str) -> bool:
    """True where reading `path`, relative to the device's directory, may reach the device or its driver.

    Everything does but what the PCI, PM, DRM and hwmon cores print from memory. A real driver has a few more
    files it serves from memory; counting those too keeps a reader honest.
    """
    parts = path.split("/")
    if "power" in parts[:-1] or parts[0] == "xgmi_hive_info":
        # The hive's id is a number the driver keeps (amdgpu_xgmi.c, amdgpu_xgmi_show_attrs).
        return False
    if len(parts) == 1:
        return parts[0] not in CORE_FILES
    if parts[0] in ("drm", "accel", "hwmon") and len(parts) == 3:
        return parts[2] not in ("dev", "uevent", "name")
    return True
