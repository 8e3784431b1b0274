"""Snapshot -> a person.

listing   the devices, as a table or as JSON
health    verdicts about GPUs, for schedulers, monitors and people
check     the kernel interfaces of a host
cxl       the CXL bus as a tree
topo      who reaches whom: matrix, tree, one pair explained        topo_graph  the same, drawn
"""
