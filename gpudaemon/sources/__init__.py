"""Streams of kernel events, each read in a thread of its own or in the reader, never on the event loop.

uevents    device events: from udev where it runs, else from the kernel, else from a socket (mock hosts)
processes  who has a GPU open: a scan of /proc/PID/fd
"""
