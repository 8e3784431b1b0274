"""What is on this host and what changed: listing and links only, no file content.

scan       sysfs as it stands -> devices
inventory  devices now against devices before: added, changed, removed, missing
"""
