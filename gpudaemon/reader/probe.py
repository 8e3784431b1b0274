"""Whether io_uring is to be had on this host, tried in a child process.

A binding built for another processor ends its process with SIGILL, a seccomp filter may kill, an old kernel
says ENOSYS. None of that can be caught in the process that must live, so `probe` runs `python -m
gpudaemon.reader.probe` and reads its verdict. The child uses the ring as the engine does: an IOSQE_ASYNC read
of a kernel file, the completion, and the worker limits read back.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys

__all__ = ["probe"]

_SYSCTL = "/proc/sys/kernel/io_uring_disabled"
_TIMEOUT = 30.0
"""Seconds; a host whose processors are all busy takes more than ten to import the binding."""


def probe() -> tuple[bool, str]:
    """(usable, reason): the reason is one line for the log and the metric, whatever the verdict."""
    command = [sys.executable, "-P", "-m", "gpudaemon.reader.probe"]
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"the probe did not answer within {_TIMEOUT:.0f} s"
    except OSError as error:
        return False, f"the probe could not be started: {error.strerror}"
    if child.returncode < 0:
        with contextlib.suppress(ValueError):
            return False, f"the probe was ended by {signal.Signals(-child.returncode).name}"
    try:
        verdict = json.loads(child.stdout)
        return bool(verdict["usable"]), str(verdict["reason"])
    except (ValueError, KeyError, TypeError):
        last = child.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        return False, f"the probe failed with status {child.returncode}: {last[:160]}"


def _disabled() -> str:
    """What kernel.io_uring_disabled says (Documentation/admin-guide/sysctl/kernel.rst), if it forbids."""
    try:
        with open(_SYSCTL, encoding="ascii") as sysctl:
            value = sysctl.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f"kernel.io_uring_disabled is {value}" if value not in ("", "0") else ""


def _try() -> tuple[bool, str]:
    try:
        from gpudaemon.reader.binding import liburing
    except ImportError as error:
        return False, f"liburing cannot be imported: {error}"
    from gpudaemon.reader.uring import worker_limits

    ring, cqe = liburing.io_uring(), liburing.io_uring_cqe()
    try:
        liburing.io_uring_queue_init(8, ring)
    except OSError as error:
        why = _disabled() or "not in this kernel, or kept out by a seccomp filter"
        return False, f"io_uring_setup: {os.strerror(error.errno or 0)} ({why})"
    try:
        worker_limits(ring.ring_fd, 4, 4)
        if worker_limits(ring.ring_fd, 0, 0) != (4, 4):
            return False, "the worker limits did not read back"
    except OSError as error:
        return False, f"io_uring_register: {error.strerror}"
    buffer = bytearray(64)
    descriptor = os.open("/proc/self/comm", os.O_RDONLY | os.O_CLOEXEC)
    entry = liburing.io_uring_sqe()
    liburing.io_uring_prep_read(entry, descriptor, memoryview(buffer), len(buffer), 0)
    liburing.io_uring_sqe_set_flags(entry, 1 << 4)
    entry.user_data = 2
    liburing.io_uring_put_sqe(ring, entry)
    liburing.io_uring_submit_and_wait_timeout(ring, cqe, 1, liburing.timespec(2))
    if cqe.user_data != 2 or cqe.res <= 0:
        return False, f"a read through io_uring gave {cqe.res}"
    return True, "io_uring answers"


def _main() -> None:
    try:
        usable, reason = _try()
    except Exception as error:
        usable, reason = False, f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps({"usable": usable, "reason": reason}))
    sys.stdout.flush()
    # The ring has done its work; an orderly exit would only cost time.
    os._exit(0)


if __name__ == "__main__":
    _main()
