"""A host, recorded: a tree of files that the daemon and its tests can read instead of the host.

    recording = record(sysfs="/sys", procfs="/proc", deadline=2.0, runtime="/run/gpudaemon")
    capture = redacted(recording, key)
    write(capture, "/tmp/host")            # or pack(capture, "/tmp/host.tar.gz")

`recording` says what is recorded, `redaction` what becomes of serial numbers, `archive` how it is laid down and
what the manifest says. docs/capture.md is the manual.
"""

from gpudaemon.capture.archive import Capture, LeftOver, load, pack, record, redacted, summary, write

__all__ = ["Capture", "LeftOver", "load", "pack", "record", "redacted", "summary", "write"]
