"""Snapshot -> a person.

listing   the devices, as a table or as JSON
health    verdicts about GPUs, for schedulers, monitors and people
check     the kernel interfaces of a host
"""
