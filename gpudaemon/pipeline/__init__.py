"""Where the parts meet: a device becomes a plan, a plan a lane, its readings a snapshot.

plan      device and facts -> files to read and the series they give (pure)
policy    what a failed or slow read does to a file's cadence (pure)
rest      when an idle device is left alone so that it can fall asleep (pure)
lane      one device on the server's side: takes readings, keeps values and their age
link      the reader process: started, heard, replaced
holders   who still holds a stuck device, across restarts of the daemon
sampler   all lanes: facts, plans, records in, retries
finder    scans and events -> which devices there are
calls     the processes that make calls, a lane each device
processes the scout (scout), its table as files of the reader (roster), whose work it is (clients), rings, pods
topology  what lies between devices        trouble   what went wrong, counted and remembered
following derived, windows: what is made of readings over time
health    a verdict a GPU (pure)
publish   lanes and the daemon's own figures -> snapshot
"""
