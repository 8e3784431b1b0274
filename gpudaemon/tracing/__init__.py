"""The tracer: a process of its own that watches the kernel through tracefs and adds up what it sees.

It makes one instance, `gpudaemon`, and probes in one group, `gpudaemon`, and removes both when it ends; what
a killed one left is removed by the next. The top-level instance, its clock, its switches and whatever else is
traced on the host are not touched: `tracefs.py` has no function that could.
"""
