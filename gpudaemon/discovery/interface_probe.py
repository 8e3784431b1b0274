"""Which of the catalogue's interfaces this process can use on this host; if not, why not and what would help.

The order of the questions: is it switched off at run time; is it there; may this process use it; was the kernel
built with it; is its module loaded, on disk, nowhere; and if all that is well there is no device for it.
Nothing is opened but what `host.Host` opens.
"""

import enum
import importlib.util
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpudaemon.discovery.host import Host
from gpudaemon.discovery.interfaces import CATALOGUE, Interface, Use

__all__ = ["Found", "Presence", "probe", "remarks"]


class Presence(enum.Enum):
    """How an interface stands; all but the first are reasons why it cannot be used."""

    OK = "ok"
    DENIED = "permission"
    DISABLED = "disabled"
    NO_CONFIG = "kernel_config"
    NO_MODULE = "no_module"
    NO_DEVICE = "no_device"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one interface. why: one line, empty where all is well; fix: what would help."""

    interface: Interface
    presence: Presence
    why: str = ""
    fix: str = ""


def probe(host: Host, *, io_uring: tuple[bool, str] | None = None) -> tuple[Found, ...]:
    """Every interface of the catalogue, in its order.

    io_uring: verdict of a real attempt (`reader.probe`), which this module does not make itself.
    """
    return tuple(_probe(interface, host, io_uring) for interface in CATALOGUE)


def remarks(host: Host) -> tuple[str, ...]:
    """What to know when reading the answers."""
    found = []
    if os.geteuid() == 0:
        found.append("looked at as root: a service that runs as another user may see less")
    if not host.knows_options:
        found.append("the kernel's configuration is not readable (/proc/config.gz, /boot/config-*)")
    return tuple(found)


def _probe(interface: Interface, host: Host, io_uring: tuple[bool, str] | None) -> Found:
    special = None
    if interface.check == "io_uring" and io_uring is not None:
        special = _tried(interface, host, *io_uring)
    elif interface.check:
        special = _RULES[interface.check](interface, host)
    if special is not None:
        return special
    here = [path for pattern in interface.paths for path in host.find(pattern)]
    if not here:
        return _absent(interface, host)
    denied = host.denied(here, interface.access)
    if denied:
        return _refused(interface, f"{denied[0]} may not be used", len(denied), len(here))
    if interface.capability and not host.holds(interface.capability):
        return _refused(interface, f"needs {interface.capability}", 0, 0)
    return Found(interface, Presence.OK)


def _refused(interface: Interface, why: str, denied: int, here: int) -> Found:
    more = f" ({denied} of {here})" if here > 1 else ""
    if interface.use is Use.NEVER:
        fix = "nothing: gpudaemon never needs it"
    elif interface.tier == "base":
        fix = "let the service's user read it"
    else:
        capability = f" ({interface.capability})" if interface.capability else ""
        fix = f"tier {interface.tier}{capability}"
    return Found(interface, Presence.DENIED, why + more, fix)


def _absent(interface: Interface, host: Host) -> Found:
    """Why something is not there: the kernel's configuration, a module, or no device that would have it."""
    unset = [option for option in interface.config if host.option(option) == "n"]
    if unset:
        return Found(interface, Presence.NO_CONFIG, f"built without {', '.join(unset)}", _kernel(unset))
    if interface.modules:
        states = {name: host.module(name) for name in interface.modules}
        if not {"loaded", "builtin"} & set(states.values()):
            return _no_module(interface, states)
    elif interface.config and not host.knows_options:
        why = f"{interface.absent}; or built without {', '.join(interface.config)}"
        return Found(interface, Presence.UNKNOWN, why)
    elif not interface.config:
        return Found(interface, Presence.DISABLED, interface.absent)
    return Found(interface, Presence.NO_DEVICE, interface.absent)


def _no_module(interface: Interface, states: dict[str, str]) -> Found:
    on_disk = [name for name, state in states.items() if state == "available"]
    if on_disk:
        why = f"{on_disk[0]} is on disk, not loaded: {interface.absent}"
        return Found(interface, Presence.NO_MODULE, why, f"modprobe {on_disk[0]}, if there is a device for it")
    names = ", ".join(states)
    if "none" in states.values():
        return Found(interface, Presence.NO_MODULE, f"{names} is not installed", f"install {names}")
    return Found(interface, Presence.NO_MODULE, f"{names} is not loaded: {interface.absent}")


def _kernel(options: Iterable[str]) -> str:
    return f"a kernel with {', '.join(options)}"


# Rules of their own: an answer, or None where the ordinary questions decide.

_THREADS = "nothing: threads are used instead"


def _tried(interface: Interface, host: Host, usable: bool, reason: str) -> Found:
    """An attempt knows better than any rule; where it failed, a rule may say what to do about it."""
    if usable:
        return Found(interface, Presence.OK)
    found = _io_uring(interface, host)
    if found is not None and found.presence is not Presence.UNKNOWN:
        return found
    return Found(interface, Presence.DISABLED, reason, _THREADS)


def _io_uring(interface: Interface, host: Host) -> Found | None:
    if host.option("CONFIG_IO_URING") == "n":
        return Found(interface, Presence.NO_CONFIG, "built without CONFIG_IO_URING", _THREADS)
    value = host.text("proc/sys/kernel/io_uring_disabled")
    if value == "2" or (value == "1" and not host.holds("CAP_SYS_ADMIN")):
        fix = "sysctl kernel.io_uring_disabled=0" + (", or kernel.io_uring_group" if value == "1" else "")
        return Found(interface, Presence.DISABLED, f"kernel.io_uring_disabled is {value}", fix)
    if host.filtered:
        why = "a seccomp filter is in force and may forbid it"
        return Found(interface, Presence.UNKNOWN, why, "allow io_uring_setup, _enter, _register")
    return None


def _tracefs(interface: Interface, host: Host) -> Found | None:
    """tracefs is mounted by hand or by systemd, and is root's alone unless remounted with gid and mode."""
    if any(host.option(option) == "n" for option in interface.config):
        return None
    if not host.find("sys/kernel/tracing"):
        return None
    if host.denied(host.find("sys/kernel/tracing"), "rx"):
        fix = f"tier {interface.tier}, and a group that may use tracefs (mount option gid=)"
        return Found(interface, Presence.DENIED, "tracefs is root's", fix)
    if not host.find("sys/kernel/tracing/events"):
        fix = "mount -t tracefs tracefs /sys/kernel/tracing"
        return Found(interface, Presence.DISABLED, "tracefs is not mounted", fix)
    return None


def _debugfs(interface: Interface, host: Host) -> Found | None:
    never = "nothing: gpudaemon never needs it"
    directory = host.find("sys/kernel/debug")
    if directory and host.denied(directory, "rx"):
        return Found(interface, Presence.DENIED, "debugfs is root's", never)
    if directory and not host.find("sys/kernel/debug/*"):
        return Found(interface, Presence.DISABLED, "debugfs is not mounted", never)
    return None


def _perf(interface: Interface, host: Host) -> Found | None:
    """Counters of a whole device want CAP_PERFMON unless kernel.perf_event_paranoid is 0 or less."""
    here = [path for pattern in interface.paths for path in host.find(pattern)]
    if not here:
        return None
    try:
        paranoid = int(host.text("proc/sys/kernel/perf_event_paranoid") or "")
    except ValueError:
        return None
    if paranoid <= 0 and not host.denied(here, interface.access):
        return Found(interface, Presence.OK)
    return None


def _processes(interface: Interface, host: Host) -> Found | None:
    hidden = [options for place, options in host.mounted("proc").items() if place == "/proc"]
    words = [word for options in hidden for word in options.split(",") if word.startswith("hidepid=")]
    if words and words[-1] not in ("hidepid=0", "hidepid=off") and not host.holds("CAP_SYS_PTRACE"):
        fix = f"tier {interface.tier} ({interface.capability})"
        return Found(interface, Presence.DENIED, f"/proc is mounted with {words[-1]}", fix)
    return None


def _kmsg(interface: Interface, host: Host) -> Found | None:
    """/dev/kmsg asks for CAP_SYSLOG only where kernel.dmesg_restrict is set; its mode counts in any case."""
    here = host.find("dev/kmsg")
    if here and not host.denied(here, "r") and host.text("proc/sys/kernel/dmesg_restrict") == "0":
        return Found(interface, Presence.OK)
    return None


def _cgroup(interface: Interface, host: Host) -> Found | None:
    """The root has its files at /sys/fs/cgroup, or below `unified` on hosts with both versions."""
    for place in ("sys/fs/cgroup/cgroup.controllers", "sys/fs/cgroup/unified/cgroup.controllers"):
        controllers = host.text(place)
        if controllers is not None and "dmem" in controllers.split():
            return None
    if not host.find("sys/fs/cgroup/cgroup.controllers") and host.option("CONFIG_CGROUP_DMEM") != "n":
        fix = "boot with systemd.unified_cgroup_hierarchy=1"
        return Found(interface, Presence.DISABLED, "no cgroup v2 at /sys/fs/cgroup", fix)
    return None


def _nvml(interface: Interface, host: Host) -> Found | None:
    """The library comes with the driver, its binding is an extra of this package."""
    if host.find(interface.paths[0]) and importlib.util.find_spec("pynvml") is None:
        fix = "pip install 'gpudaemon[nvml]'"
        return Found(interface, Presence.DISABLED, "the Python module pynvml is not installed", fix)
    return None


def _config(interface: Interface, host: Host) -> Found | None:
    """What has no name in any file system: only the kernel's configuration tells."""
    unset = [option for option in interface.config if host.option(option) == "n"]
    if unset:
        return Found(interface, Presence.NO_CONFIG, f"built without {', '.join(unset)}", _kernel(unset))
    if not host.knows_options:
        return Found(interface, Presence.UNKNOWN, f"whether {', '.join(interface.config)} is set is not known")
    if not host.holds(interface.capability):
        return _refused(interface, f"needs {interface.capability}", 0, 0)
    return Found(interface, Presence.OK)


_RULES: dict[str, Callable[[Interface, Host], Found | None]] = {
    "cgroup": _cgroup,
    "config": _config,
    "debugfs": _debugfs,
    "io_uring": _io_uring,
    "kmsg": _kmsg,
    "nvml": _nvml,
    "perf": _perf,
    "processes": _processes,
    "tracefs": _tracefs,
}
