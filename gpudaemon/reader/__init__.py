"""The reader: the process that opens and reads kernel files, apart from the server.

A process with a read stuck in a driver can neither exit nor be killed, and its listening socket stays bound.
So every kernel file is opened and read here, in a child with no network, no decoder and no HTTP library.

    channel   what crosses between server and reader: shared memory per lane, small records
    engine    the contract of an engine: chains of reads, deadlines are the lanes' business
    uring     the engine on io_uring            threads   the engine on threads
    probe     whether io_uring is to be had here, tried in a child of its own
    lanes     one lane per device: power gate, open, read, quarantine, resumption
    process   the reader's main loop            launcher  starts readers, keeps the rights they need
    child     how every child of the launcher begins and ends
    clients   who has a GPU open    rights    capabilities: what each process keeps and drops
"""
