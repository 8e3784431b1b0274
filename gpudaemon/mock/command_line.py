"""`gpudaemon mock ...`: hosts that do not exist, from the command line.

`build` writes one as files, `live` mounts one; every other action is a command to one that is mounted, made
from `gpudaemon.mock.command_table`.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial

from gpudaemon.errors import GpudaemonError
from gpudaemon.mock.command_table import COMMANDS, FAULTS, Command
from gpudaemon.mock.control import Control

__all__ = ["add_actions"]

Add = Callable[[str, str], argparse.ArgumentParser]


def add_actions(mock: argparse.ArgumentParser) -> None:
    """Give the parser of `gpudaemon mock` its actions."""
    actions = mock.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, meaning: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(
            name, help=meaning, description=meaning, allow_abbrev=False
        )
        return made

    _add_build(add)
    _add_live(add)
    add("profiles", "list the profiles").set_defaults(call=_profiles)
    for command in COMMANDS.values():
        if command.name != "contents":
            _add_command(add, command)


def _add_build(add: Add) -> None:
    build = add("build", "write a host as ordinary files below a directory")
    build.add_argument("profile", help="see `gpudaemon mock profiles`")
    build.add_argument("directory", metavar="DIR")
    build.add_argument("--gpus", type=int, default=None, metavar="N", help="number of GPUs")
    build.set_defaults(call=_build)


def _add_live(add: Add) -> None:
    from gpudaemon.mock.host import add_arguments

    live = add("live", "mount a host that lives and can be made to fail; ends at Ctrl-C")
    live.add_argument("profile", nargs="?", help="see `mock profiles`; else the scenario's, or mi300x8")
    live.add_argument("directory", metavar="DIR", help="sys and proc appear below it; made where it is missing")
    live.add_argument("--control", metavar="SOCKET", help="control socket (DIR.control)")
    live.add_argument(
        "--uevents",
        metavar="SOCKET",
        help="socket to which uevents go (DIR.uevents), or `netlink`: over netlink, in a network namespace",
    )
    add_arguments(live)
    live.set_defaults(call=_live)


def _add_command(add: Add, command: Command) -> None:
    parser = add(command.name.replace("_", "-"), command.meaning)
    parser.add_argument("host", metavar="DIR", help="of the live host, or its control socket")
    if command.name == "fault":
        parser.add_argument("path", help=command.arguments[0].meaning)
        parser.add_argument("kind", choices=list(FAULTS))
        parser.add_argument("value", nargs="?", help="seconds, errno, content or bytes, as the kind needs it")
    else:
        for argument in command.arguments:
            if argument.name in ("keys", "names"):
                parser.add_argument(argument.name, nargs="*", metavar="NAME=VALUE", help=argument.meaning)
            elif argument.needed:
                parser.add_argument(argument.name, help=argument.meaning)
            elif argument.name == "count":
                parser.add_argument(argument.name, nargs="?", help=argument.meaning)
            else:
                parser.add_argument(f"--{argument.name}", help=argument.meaning)
    parser.set_defaults(call=partial(_command, command))


def _command(command: Command, options: argparse.Namespace) -> None:
    given = {
        argument.name: value
        for argument in command.arguments
        if (value := getattr(options, argument.name, None)) not in (None, [])
    }
    if command.name == "fault":
        given |= _fault_value(options)
    try:
        arguments = command.values(given)
    except ValueError as error:
        raise GpudaemonError(str(error)) from None
    with Control(_socket(options.host)) as control:
        result = control.request(command.name, **arguments)
    if command.asks or isinstance(result, dict):
        print(json.dumps(result, indent=2))
    elif result is not None:
        print(f"{result:.3f}" if isinstance(result, float) else result)


def _fault_value(options: argparse.Namespace) -> dict[str, object]:
    """The value of a fault under the name that its kind gives it."""
    wanted = FAULTS[options.kind]
    if wanted is None and options.value is not None:
        raise GpudaemonError(f"{options.kind} has no value")
    if wanted is not None and options.value is None:
        raise GpudaemonError(f"{options.kind} needs {wanted[0]}")
    return {} if wanted is None else {wanted[0]: options.value}


def _socket(host: str) -> str:
    """The control socket of a host that is named by its directory or by that socket."""
    return host.rstrip("/") + ".control" if os.path.isdir(host) else host


def _build(options: argparse.Namespace) -> None:
    from gpudaemon.mock import build, profiles

    if options.profile not in profiles():
        raise GpudaemonError(f"no profile {options.profile!r}: there are {', '.join(profiles())}")
    try:
        build(options.profile, options.directory, options.gpus)
    except (ValueError, OSError) as error:
        raise GpudaemonError(str(error)) from error
    directory = os.path.abspath(options.directory)
    print(f"gpudaemon run --path.sysfs {directory}/sys --path.procfs {directory}/proc --uevent.source none")


def _live(options: argparse.Namespace) -> None:
    from gpudaemon.mock.host import serve
    from gpudaemon.mock.netlink import NETLINK

    directory = os.path.abspath(options.directory)
    options.control = options.control or f"{directory}.control"
    options.uevents = options.uevents or f"{directory}.uevents"
    source, enter = f"socket:{options.uevents}", ""
    if options.uevents == NETLINK:
        source, enter = "kernel", f"nsenter --net=/proc/{os.getpid()}/ns/net "
    paths = f"--path.sysfs {directory}/sys --path.procfs {directory}/proc"

    def good() -> None:
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise GpudaemonError(f"{directory}: {error.strerror}") from error
        print(f"{enter}gpudaemon run {paths} --uevent.source {source}", flush=True)

    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    serve(options, options.profile, good)


def _profiles(_: argparse.Namespace) -> None:
    from gpudaemon.mock import profiles

    for name, profile in profiles().items():
        print(f"{name:11} Linux {profile.kernel:5} {profile.title}", file=sys.stdout)
