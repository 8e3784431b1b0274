"""Mounting and unmounting a FUSE file system: mount(2) as root, fusermount3 for everybody else.

Kernel side: fs/fuse/inode.c (fuse_parse_param); fusermount3 hands the opened /dev/fuse over a socket named by
_FUSE_COMMFD (libfuse, util/fusermount.c).
"""

import array
import ctypes
import os
import shutil
import socket
import stat
import subprocess

from gpudaemon.errors import GpudaemonError

__all__ = ["available", "mount", "unmount"]

_DEVICE = "/dev/fuse"
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MNT_DETACH = 2


def available() -> bool:
    """True where this process may be able to mount: /dev/fuse is usable and it is root or has fusermount3."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    return os.geteuid() == 0 or shutil.which("fusermount3") is not None


def mount(directory: str) -> int:
    """Mount at `directory`, which must exist; returns the non-blocking descriptor of /dev/fuse.

    Mounted read-only, with the kernel checking permissions, and for all users where mount(2) is allowed.
    Raises GpudaemonError.
    """
    if os.geteuid() == 0:
        try:
            return _mount_directly(directory)
        except PermissionError:
            pass  # root without CAP_SYS_ADMIN: a container, perhaps with a setuid fusermount3
        except OSError as error:
            raise GpudaemonError(f"cannot mount a FUSE file system at {directory}: {error}") from error
    return _mount_by_program(directory)


def _mount_directly(directory: str) -> int:
    descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    options = f"fd={descriptor},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0,allow_other,default_permissions"
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if libc.mount(b"gpudaemon-mock", os.fsencode(directory), b"fuse.gpudaemon", flags, options.encode()) != 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, os.strerror(number))
    return descriptor


def _mount_by_program(directory: str) -> int:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            result = subprocess.run(
                [
                    "fusermount3",
                    "-o",
                    "ro,nosuid,nodev,default_permissions,fsname=gpudaemon-mock",
                    "--",
                    directory,
                ],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GpudaemonError(f"cannot run fusermount3: {error}") from error
        if result.returncode != 0:
            raise GpudaemonError(f"fusermount3: {result.stderr.strip()}")
        descriptors = array.array("i")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(descriptors.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: descriptors.itemsize])
    if not descriptors:
        raise GpudaemonError("fusermount3 did not hand over /dev/fuse")
    os.set_blocking(descriptors[0], False)
    return descriptors[0]


def unmount(directory: str) -> None:
    """Unmount lazily: the name is free at once, open files stay open. Silent where nothing is mounted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(directory), _MNT_DETACH) != 0 and shutil.which("fusermount3") is not None:
        subprocess.run(["fusermount3", "-uzq", "--", directory], capture_output=True, timeout=30, check=False)
