"""What is on this host and what changed: listing and links only, no file content of a device.

scan            sysfs as it stands -> devices
inventory       devices now against devices before: added, changed, removed, missing
expected        the GPUs there should be: configured, or learnt
inventory_file  what is learnt, across reboots
cxl, kfd        the CXL bus and KFD's topology, each as one device
memory_tiers    NUMA nodes and memory tiers as one device
trouble         which uevents tell of trouble
wedged          GPUs whose driver gave them up
interfaces      the kernel interfaces this program uses or will use
host            what may be seen of a host without touching a device
interface_probe which interfaces are here, and why not
"""
