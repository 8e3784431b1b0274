"""The command line: arguments in, calls out, no logic of its own."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from gpudaemon import __version__
from gpudaemon.config import ENGINES, PRESETS, TIERS, Config
from gpudaemon.errors import GpudaemonError

__all__ = ["main"]


def _daemon_flags(parser: argparse.ArgumentParser, *, listen: bool) -> None:
    default = Config()
    add = parser.add_argument
    add("--path.sysfs", dest="sysfs", default=default.sysfs, metavar="DIR", help="sysfs to read (%(default)s)")
    add("--path.procfs", dest="procfs", default=default.procfs, metavar="DIR", help="procfs (%(default)s)")
    add("--path.runtime", dest="runtime_directory", default="", metavar="DIR", help="notes across restarts")
    if listen:
        add(
            "--web.listen-address",
            dest="listen",
            action="append",
            metavar="HOST:PORT",
            help=f"address to serve on, repeatable ({default.listen[0]})",
        )
        add(
            "--web.max-requests",
            dest="scrapes",
            type=int,
            default=default.scrapes,
            metavar="N",
            help="most pages made at once; more are answered 503 (%(default)s)",
        )
        add("--demo", action="store_true", help="serve a built-in host that does not exist, its values moving")
    add("--engine", choices=ENGINES, default=default.engine, help="what reads (%(default)s)")
    add("--tier", choices=TIERS, default=default.tier, help="rights of the reader (%(default)s)")
    add("--preset", choices=tuple(PRESETS), default=default.preset, help="how often to read (%(default)s)")
    add(
        "--read.deadline",
        dest="deadline",
        type=float,
        default=default.deadline,
        metavar="SECONDS",
        help="a read that takes longer quarantines its device (%(default)s)",
    )
    add(
        "--no-resting",
        dest="resting",
        action="store_false",
        help="read idle devices too, which keeps them from falling asleep",
    )
    add(
        "--collector",
        dest="collectors",
        action="append",
        metavar="NAME",
        help="use this collector only, repeatable (all)",
    )
    add(
        "--uevent.source",
        dest="uevents",
        default=default.uevents,
        metavar="SOURCE",
        help="auto, udev, kernel, none or socket:PATH (%(default)s)",
    )
    add(
        "--log.level",
        dest="log_level",
        choices=("debug", "info", "warning", "error"),
        default=default.log_level,
        help="(%(default)s)",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpudaemon", description="Telemetry daemon for GPU hosts that a sick GPU cannot stall."
    )
    parser.add_argument("--version", action="version", version=f"gpudaemon {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="read this host's devices and serve /metrics")
    _daemon_flags(run, listen=True)
    run.set_defaults(call=_run)

    listing = commands.add_parser("list", help="the devices of this host and how they answer")
    _daemon_flags(listing, listen=False)
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(call=_list, log_level="error", listen=None, scrapes=1)

    metrics = commands.add_parser("metrics", help="the metric reference, generated from the metric table")
    metrics.set_defaults(call=_metrics)

    mock = commands.add_parser("mock", help="hosts that do not exist")
    actions = mock.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="write a host as ordinary files below a directory")
    build.add_argument("profile", help="see `gpudaemon mock profiles`")
    build.add_argument("directory")
    build.add_argument("--gpus", type=int, default=None, metavar="N", help="number of GPUs")
    build.set_defaults(call=_mock_build)
    actions.add_parser("profiles", help="list the profiles").set_defaults(call=_mock_profiles)
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    return Config(
        sysfs=arguments.sysfs,
        procfs=arguments.procfs,
        listen=tuple(arguments.listen or Config().listen),
        engine=arguments.engine,
        tier=arguments.tier,
        preset=arguments.preset,
        deadline=arguments.deadline,
        resting=arguments.resting,
        scrapes=arguments.scrapes,
        collectors=tuple(arguments.collectors) if arguments.collectors else None,
        uevents=arguments.uevents,
        runtime_directory=arguments.runtime_directory,
        log_level=arguments.log_level,
    )


def _run(arguments: argparse.Namespace) -> None:
    from gpudaemon.log import set_up

    set_up(arguments.log_level)

    def announce(address: str) -> None:
        print(f"serving http://{address}/metrics", flush=True)

    if arguments.demo:
        from gpudaemon.mock import Demo

        with Demo("mi300x8") as demo:
            arguments.sysfs, arguments.procfs = demo.sysfs, demo.procfs
            arguments.uevents = "none"
            _serve(_config(arguments), announce)
    else:
        _serve(_config(arguments), announce)
    # Nothing of value is left; a thread in a slow system call must not hold the exit.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _serve(config: Config, announce: Callable[[str], None]) -> None:
    from gpudaemon.daemon import run

    run(config.checked(), announce=announce)


def _list(arguments: argparse.Namespace) -> None:
    from gpudaemon.daemon import look
    from gpudaemon.log import set_up
    from gpudaemon.view.listing import as_json, as_table

    set_up(arguments.log_level)
    devices = look(_config(arguments).checked())
    if arguments.json:
        print(json.dumps(as_json(devices), indent=2))
    else:
        print(as_table(devices))


def _metrics(_: argparse.Namespace) -> None:
    from gpudaemon.export.reference import reference
    from gpudaemon.metrics import table

    print(reference(table()), end="")


def _mock_build(arguments: argparse.Namespace) -> None:
    from gpudaemon.mock import build, profiles

    if arguments.profile not in profiles():
        raise GpudaemonError(f"no profile {arguments.profile!r}: there are {', '.join(profiles())}")
    try:
        build(arguments.profile, arguments.directory, arguments.gpus)
    except (ValueError, OSError) as error:
        raise GpudaemonError(str(error)) from error
    directory = os.path.abspath(arguments.directory)
    print(f"gpudaemon run --path.sysfs {directory}/sys --path.procfs {directory}/proc --uevent.source none")


def _mock_profiles(_: argparse.Namespace) -> None:
    from gpudaemon.mock import profiles

    for name, profile in profiles().items():
        print(f"{name:16} {profile.title}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; exit status 0, 1 for an error with its message, 2 for wrong arguments."""
    parsed = _parser().parse_args(arguments)
    try:
        parsed.call(parsed)
    except GpudaemonError as error:
        print(f"gpudaemon: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
