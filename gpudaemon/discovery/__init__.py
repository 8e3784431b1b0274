"""What is on this host and what changed: listing and links only, no file content of a device.

scan            sysfs as it stands -> devices
inventory       devices now against devices before: added, changed, removed, missing
expected        the GPUs there should be: configured, or learnt
inventory_file  what is learnt, across reboots
interfaces      the kernel interfaces this program uses or will use, and which of them are here
"""
