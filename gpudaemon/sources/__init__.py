"""Streams of kernel events, each read in a thread of its own or in the reader, never on the event loop.

uevents         device events: from udev where it runs, else from the kernel, else from a socket (mock hosts)
process_events  processes that begin and end, for the scout
own_processes   what the daemon's own processes cost
"""
