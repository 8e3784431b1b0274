"""The commands of a live host as data: what the command line offers and what a scenario may say.

One row a command of `Commands` and `DeviceCommands`, one entry an argument; kinds of argument say how text is
turned into a value and what a value in a scenario must be.
"""

import contextlib
import difflib
import errno
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["COMMANDS", "FAULTS", "Argument", "Command", "Kind", "error_number", "nearest"]


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` where a known word is close, else nothing."""
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def error_number(value: object) -> int:
    """An errno from its number or its name (EIO). Raises ValueError."""
    if isinstance(value, str) and not value.isdigit():
        number = getattr(errno, value, None)
        if not isinstance(number, int) or not value.startswith("E"):
            raise ValueError(f"{value}: no errno of that name{nearest(value, list(errno.errorcode.values()))}")
        return number
    number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else 0
    if not 0 < number < 4096:
        raise ValueError(f"{value}: an errno is 1 to 4095 or a name like EIO")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r}: text is wanted")
    return value


def _number(value: object) -> float:
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r}: a number is wanted")
    return number


def _count(value: object) -> int:
    number = _number(value)
    if number != int(number) or number < 0:
        raise ValueError(f"{value!r}: a whole number, 0 or more, is wanted")
    return int(number)


def _delay(value: object) -> int | None:
    return None if value == "on" else _count(value)


def _keys(value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {_text(name): str(text) for name, text in value.items()}
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r}: a table of names and texts is wanted")
    made: dict[str, str] = {}
    for word in value:
        name, equal, text = str(word).partition("=")
        if not (name and equal):
            raise ValueError(f"{word}: NAME=VALUE is wanted")
        made[name] = text
    return made


Kind = Callable[[object], Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. needed: stands alone on the command line; others are flags. meaning: for people."""

    name: str
    kind: Kind
    meaning: str
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """One command. asks: it only looks, a scenario has no use for it."""

    name: str
    meaning: str
    arguments: tuple[Argument, ...] = ()
    asks: bool = False

    def values(self, given: Mapping[str, object]) -> dict[str, Any]:
        """The arguments as values. Raises ValueError that names the argument, and the nearest where unknown."""
        known = {argument.name: argument for argument in self.arguments}
        made: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                allowed = ", ".join(known) or "none"
                raise ValueError(f"{self.name} has no {name} (it has {allowed}){nearest(name, list(known))}")
            try:
                made[name] = known[name].kind(value)
            except ValueError as error:
                raise ValueError(f"{name} = {error}") from None
        for name, argument in known.items():
            if argument.needed and name not in made:
                raise ValueError(f"{self.name} needs {name}: {argument.meaning}")
        return made


FAULTS: Mapping[str, tuple[str, Kind] | None] = {
    "latency": ("seconds", _number),
    "jitter": ("seconds", _number),
    "hang": None,
    "open_errno": ("errno", error_number),
    "read_errno": ("errno", error_number),
    "content": ("content", str),
    "garbage": None,
    "truncate": ("bytes", _count),
    "ones": None,
    "vanish": None,
}
"""kind of fault -> its argument, if it has one"""


def _fault_kind(value: object) -> str:
    kind = _text(value)
    if kind not in FAULTS:
        raise ValueError(f"{kind}: there are {', '.join(FAULTS)}{nearest(kind, list(FAULTS))}")
    return kind


_PATH = Argument("path", _text, "path below the mount, wildcards allowed; or a device, for all that reaches it")
_DEVICE = Argument("device", _text, "PCI address, cardN or renderDN")
_SECONDS = Argument("seconds", _number, "for how long", needed=False)

_ROWS = (
    Command(
        "fault",
        "put a fault on files; kinds add up",
        (
            _PATH,
            Argument("kind", _fault_kind, ", ".join(FAULTS)),
            Argument("seconds", _number, "of latency and jitter", needed=False),
            Argument("errno", error_number, "of open_errno and read_errno: EIO, or its number", needed=False),
            Argument("content", str, "what is read instead", needed=False),
            Argument("bytes", _count, "of truncate: how many are left", needed=False),
        ),
    ),
    Command("release", "take the faults off files, answer reads that wait", (_PATH,)),
    Command("clear", "take every fault off every file"),
    Command("suspend", "put a device to sleep until its next access", (_DEVICE,)),
    Command("resume", "wake a device", (_DEVICE,)),
    Command(
        "autosuspend",
        "after how many idle milliseconds a device falls asleep",
        (_DEVICE, Argument("delay", _delay, "milliseconds, or `on` to keep it awake")),
    ),
    Command("remove", "take a device away", (_DEVICE,)),
    Command("restore", "bring a removed device back, cold and its counters at zero", (_DEVICE,)),
    Command("unbind", "take the driver off a device", (_DEVICE,)),
    Command(
        "bind",
        "give a device its driver again, with the lowest free numbers",
        (_DEVICE, Argument("names", _keys, "card=card9 renderD=renderD137 hwmon=hwmon9", needed=False)),
    ),
    Command(
        "rebind",
        "unbind and bind while the old nodes are held: other numbers",
        (_DEVICE, Argument("names", _keys, "card=card9 renderD=renderD137 hwmon=hwmon9", needed=False)),
    ),
    Command(
        "reset",
        "reset a GPU: its driver refuses, then firmware counters start anew and an event is sent",
        (
            _DEVICE,
            _SECONDS,
            Argument("wedged", str, "methods of the WEDGED event (none); empty for no event", needed=False),
            Argument("keys", _keys, "more of the event: PID=4242 TASK=python3", needed=False),
        ),
    ),
    Command(
        "change",
        "send a change event of a device's DRM card",
        (_DEVICE, Argument("keys", _keys, "WEDGED=rebind,bus-reset and the like")),
    ),
    Command("workload", "have a GPU, or `all`, do something else", (_DEVICE, Argument("name", _text, "which"))),
    Command(
        "errors",
        "have errors happen",
        (
            _DEVICE,
            Argument(
                "counter",
                _text,
                "corrected, uncorrected, deferred, replays, recoveries, aer_corrected, aer_nonfatal, aer_fatal",
            ),
            Argument("count", _count, "how many (1)", needed=False),
        ),
    ),
    Command(
        "wrap",
        "bring the firmware's 32-bit counters close to their wrap",
        (_DEVICE, Argument("lead", _number, "seconds at half load until then (5)", needed=False)),
    ),
    Command(
        "host_sleep",
        "system sleep: nothing answers, events are lost, clocks go on",
        (
            Argument("seconds", _number, "for how long nothing answers"),
            Argument("passed", _number, "what the clocks go on by, where it is not the same", needed=False),
        ),
    ),
    Command("clock_step", "set the host's wall clock", (Argument("seconds", _number, "forward, or back"),)),
    Command("stats", "reads, what waits, how devices were used", asks=True),
    Command("accesses", "opens and reads of files", (_PATH,), asks=True),
    Command(
        "truth",
        "what is true of a GPU",
        (
            _DEVICE,
            Argument("since", _number, "CLOCK_MONOTONIC; ranges begin there", needed=False),
            Argument("until", _number, "CLOCK_MONOTONIC instead of now", needed=False),
        ),
        asks=True,
    ),
    Command(
        "contents",
        "what files could have said",
        (_PATH, Argument("since", _number, "CLOCK_MONOTONIC"), Argument("until", _number, "CLOCK_MONOTONIC")),
        asks=True,
    ),
)

COMMANDS: Mapping[str, Command] = {command.name: command for command in _ROWS}
"""name -> command"""
