"""What a daemon could have left behind in a guest's tracefs, and how to kill it so that nobody tidies up."""

from tests.vm.guest import Guest

__all__ = ["ROOT", "contents", "kill_all", "tracer"]

ROOT = "/sys/kernel/tracing"


def contents(guest: Guest) -> dict[str, str]:
    """What of tracefs a daemon could have changed: all of it but the contents of buffers."""

    def look(root: str) -> dict[str, str]:
        import glob
        import os

        found = {"instances": " ".join(sorted(os.listdir(f"{root}/instances")))}
        for name in ("dynamic_events", "kprobe_events", "synthetic_events", "set_event", "trace_clock"):
            path = f"{root}/{name}"
            if os.path.exists(path):
                with open(path) as stream:
                    found[name] = stream.read()
        for name in ("tracing_on", "current_tracer", "buffer_size_kb", "events/enable"):
            with open(f"{root}/{name}") as stream:
                found[name] = stream.read()
        found["groups"] = " ".join(sorted(glob.glob(f"{root}/events/gpudaemon*")))
        return found

    return dict(guest.call(look, ROOT))


def kill_all(pid: int) -> int:
    """In the guest: SIGKILL for a daemon and all its processes, none of which sees another go; how many."""
    import contextlib
    import os
    import signal as signals

    import psutil

    one = psutil.Process(pid)
    pids = [one.pid, *(child.pid for child in one.children(recursive=True))]
    for number in (signals.SIGSTOP, signals.SIGKILL):
        for each in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)
    return len(pids)


def tracer(pid: int) -> int:
    """In the guest: process id of the tracer of a daemon."""
    import psutil

    (found,) = (
        child.pid
        for child in psutil.Process(pid).children(recursive=True)
        if "gpudaemon.tracing.process" in child.cmdline()
    )
    return int(found)
