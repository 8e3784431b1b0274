"""The scout: a process of its own that finds out who uses the GPUs of this host, and its rings of io_uring.

Links, names and small files of /proc, /sys/fs/cgroup and KFD's list of processes are looked at here; what
enters a GPU driver is not: fdinfo of GPU clients is read by the reader, in the lane of its device.

    table     processes and what they have open        rings   io_uring of each process that has rings
    kfd       KFD's processes and their GPUs           memory  device memory by cgroup (dmem)
    process   the scout's main loop: when what is looked at, what the server is told
"""
