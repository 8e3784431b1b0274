"""The command line: arguments in, calls out, no logic of its own."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from gpudaemon import __version__
from gpudaemon.config import Config, Flag, default_file, load, nearest, options, sections
from gpudaemon.config.text import effective, help_text, manual, sample, table
from gpudaemon.errors import ConfigError, GpudaemonError
from gpudaemon.settings import control_socket

if TYPE_CHECKING:
    from gpudaemon.model.health import Report

__all__ = ["main"]

_T = TypeVar("_T")


class _Parser(argparse.ArgumentParser):
    """Names the nearest flag where one is unknown."""

    def error(self, message: str) -> NoReturn:
        before, _, words = message.partition("unrecognized arguments: ")
        if not before and words.startswith("--"):
            wrong = words.split()[0].partition("=")[0]
            near = nearest(wrong, sorted(set(_every_flag(self))))
            message += f" (did you mean {near}?)" if near else ""
        super().error(message)


def _every_flag(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _every_flag(inner)


def _daemon_flags(parser: argparse.ArgumentParser) -> None:
    """Every option as a flag; what is not given is not there."""
    parser.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        help="the configuration file (/etc/gpudaemon/gpudaemon.toml if it is there)",
    )
    groups = {"": parser.add_argument_group("reading")}
    for option in options():
        group = groups.get(option.section)
        if group is None:
            group = parser.add_argument_group(f"[{option.section}]", sections()[option.section])
            groups[option.section] = group
        more: dict[str, Any] = {}
        if option.boolean:
            more["action"] = argparse.BooleanOptionalAction
        else:
            more["metavar"] = option.metavar or "TEXT"
            if option.many:
                more["action"] = "append"
        group.add_argument(
            option.flag,
            dest=option.key,
            default=argparse.SUPPRESS,
            help=help_text(option).replace("%", "%%"),
            **more,
        )


_AddCommand = Callable[[str, str, Callable[[argparse.Namespace], int | None]], _Parser]


def _text_commands(command: _AddCommand) -> None:
    config = command("config", "the configuration in use, and texts about all options", _config_text)
    form = config.add_mutually_exclusive_group()
    for name, meaning in (
        ("sample", "the commented sample file"),
        ("table", "every flag, as Markdown"),
        ("manual", "the manual page"),
    ):
        form.add_argument(f"--{name}", action="store_true", help=meaning)
    _daemon_flags(config)

    metrics = command("metrics", "what is made from the metric table: reference, dashboard, rules", _metrics)
    made = metrics.add_mutually_exclusive_group()
    for name, meaning in (
        ("reference", "docs/metrics.md (this, where nothing is asked for)"),
        ("dashboard", "the Grafana dashboard of a host; needs the extra [dashboards]"),
        ("alerts", "Prometheus alerting rules"),
        ("recording", "Prometheus recording rules"),
    ):
        made.add_argument(f"--{name}", action="store_true", help=meaning)


def _mock_commands(commands: "argparse._SubParsersAction[_Parser]", *, load: bool) -> None:
    mock = commands.add_parser("mock", help="hosts that do not exist", allow_abbrev=False)
    if load:
        from gpudaemon.mock.command_line import add_actions

        add_actions(mock)


def _parser(given: Sequence[str] = ()) -> argparse.ArgumentParser:
    """given: the words of the command line; the actions of `mock` are only loaded where they are asked for."""
    parser = _Parser(
        prog="gpudaemon",
        description="Telemetry daemon for GPU hosts that a sick GPU cannot stall.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpudaemon {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, meaning: str, call: Callable[[argparse.Namespace], int | None]) -> _Parser:
        made: _Parser = commands.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        made.set_defaults(call=call)
        return made

    run = command("run", "read this host's devices and serve /metrics", _run)
    run.add_argument("--demo", action="store_true", help="serve a host that does not exist, its values moving")
    _daemon_flags(run)

    listing = command("list", "the devices of this host and how they answer", _list)
    listing.add_argument("--json", action="store_true", help="as JSON")
    _daemon_flags(listing)

    cxl = command("cxl", "the CXL bus: what is on it, how it is wired, what it is used for", _cxl)
    cxl.add_argument("--json", action="store_true", help="as JSON")
    _daemon_flags(cxl)

    topo = command("topo", "who can reach whom without the CPU: matrix, tree, one pair explained", _topo)
    shape = topo.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="as JSON")
    shape.add_argument("--dot", action="store_true", help="as a graph for Graphviz")
    shape.add_argument("--svg", action="store_true", help="the tree as a drawing")
    shape.add_argument("--why", nargs=2, metavar=("SRC", "DST"), help="explain one pair, step by step")
    _daemon_flags(topo)

    health = command("health", "whether this host's GPUs are fit for work: status 0, 1 not, 2 unknown", _health)
    which = health.add_mutually_exclusive_group()
    which.add_argument("--device", metavar="ID", help="this one only: a PCI address, cardN or renderDN")
    which.add_argument("--expect", type=int, default=0, metavar="N", help="not fit with fewer GPUs than this")
    health.add_argument("--strict", action="store_true", help="degraded is not fit either")
    health.add_argument("--json", action="store_true", help="as JSON")
    _daemon_flags(health)

    check = command("check", "check the configuration, and what this host's kernel offers", _check)
    check.set_defaults(unusable=1)
    check.add_argument("--json", action="store_true", help="as JSON")
    _daemon_flags(check)

    capture = command("capture", "record this host for a bug report or a test, without what names it", _capture)
    capture.add_argument(
        "to",
        metavar="DIR|FILE.tar.gz",
        help="a new directory, or one file with the daemon's log and metrics as well",
    )
    capture.add_argument("--host-only", action="store_true", help="nothing of the daemon in the one file")
    capture.add_argument(
        "--key", metavar="FILE", help="secret of the hash of serial numbers; drawn anew without it"
    )
    _daemon_flags(capture)

    forget = command("forget", "a missing GPU was taken out on purpose: expect it no more", _forget)
    forget.add_argument("device", metavar="ID", help="its PCI address")
    _daemon_flags(forget)

    pausing = command("pause", "have the running daemon read nothing for a while", _pause)
    pausing.add_argument(
        "--for", dest="seconds", type=float, default=3600.0, metavar="SECONDS", help="(%(default)g)"
    )
    _daemon_flags(pausing)
    for name, meaning in (
        ("resume", "have the running daemon read again"),
        ("reload", "have the running daemon read its configuration again"),
    ):
        _daemon_flags(command(name, meaning, partial(_tell, f"/{name}")))

    _text_commands(command)
    _mock_commands(commands, load=given[:1] == ["mock"])
    return parser


def _given(arguments: argparse.Namespace) -> dict[str, Flag]:
    """The options that stand on the command line, by key."""
    given = vars(arguments)
    return {option.key: given[option.key] for option in options() if option.key in given}


def _file(arguments: argparse.Namespace) -> str:
    return default_file() if arguments.config_file is None else arguments.config_file


def _config(arguments: argparse.Namespace) -> Config:
    return _usable(partial(load, _file(arguments), _given(arguments)), getattr(arguments, "unusable", 2))


def _usable(read: Callable[[], _T], status: int = 2) -> _T:
    """What `read` gives. One that only an edit can heal ends the program with a status of its own: the service
    manager need not try again."""
    try:
        return read()
    except ConfigError as error:
        print(f"gpudaemon: {error}", file=sys.stderr)
        sys.exit(status)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.demo:
        from gpudaemon.mock import Demo

        with Demo("mi300x8") as demo:
            above = {"path.sysfs": demo.sysfs, "path.procfs": demo.procfs, "uevent.source": "none"}
            _serve(partial(load, _file(arguments), {**_given(arguments), **above}))
    else:
        _serve(partial(load, _file(arguments), _given(arguments)))
    # Nothing of value is left; a thread in a slow system call must not hold the exit.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _serve(read: Callable[[], Config]) -> None:
    from gpudaemon.daemon import run
    from gpudaemon.log import set_up

    def announce(address: str) -> None:
        print(f"serving http://{address}/metrics", flush=True)

    config = _usable(read)
    set_up(config.log.level, config.log.format)
    run(config, load=read, announce=announce)


def _list(arguments: argparse.Namespace) -> None:
    from gpudaemon.daemon import look
    from gpudaemon.log import set_up
    from gpudaemon.pipeline.alone import without_output
    from gpudaemon.view.listing import as_json, as_table

    config = _config(arguments)
    set_up("error" if config.log.level == "info" else config.log.level)
    with without_output():
        devices = look(config)[0].devices
    if arguments.json:
        print(json.dumps(as_json(devices), indent=2))
    else:
        print(as_table(devices))


def _cxl(arguments: argparse.Namespace) -> None:
    from gpudaemon.daemon import look_at_cxl
    from gpudaemon.log import set_up
    from gpudaemon.pipeline.alone import without_output
    from gpudaemon.view import cxl

    # With all the rights this process has: start addresses are for root only.
    config = _usable(partial(load, _file(arguments), {**_given(arguments), "tier": "full"}))
    set_up("error" if config.log.level == "info" else config.log.level)
    with without_output():
        bus = look_at_cxl(config)
    print(json.dumps(cxl.as_json(bus), indent=2) if arguments.json else cxl.as_text(bus))


def _topo(arguments: argparse.Namespace) -> None:
    from gpudaemon.collectors.p2p.pairs import judge
    from gpudaemon.daemon import look_between
    from gpudaemon.log import set_up
    from gpudaemon.pipeline.alone import without_output
    from gpudaemon.view import topo, topo_graph

    # With all the rights this process has: who may read configuration space is told about ACS.
    config = _usable(partial(load, _file(arguments), {**_given(arguments), "tier": "full"}))
    set_up("error" if config.log.level == "info" else config.log.level)
    with without_output():
        topology, pairs = look_between(config)
    if arguments.why:
        ends = [_usable(partial(topo.find, topology, asked)) for asked in arguments.why]
        print(topo.why(topology, judge(topology, *ends)))
    elif arguments.json:
        print(json.dumps(topo.as_json(topology, pairs), indent=2))
    elif arguments.dot:
        print(topo_graph.as_dot(topology, pairs))
    elif arguments.svg:
        print(topo_graph.as_svg(topology))
    else:
        print(topo.as_text(topology, pairs))


def _check(arguments: argparse.Namespace) -> None:
    from gpudaemon.export.access import Access

    config = _config(arguments)
    if config.web.config_file:
        Access(config.web.config_file).close()
    print(_checked(arguments, config, as_json=arguments.json))


def _checked(arguments: argparse.Namespace, config: Config, *, as_json: bool) -> str:
    from gpudaemon.discovery.host import Host
    from gpudaemon.discovery.interface_probe import probe, remarks
    from gpudaemon.reader.probe import probe as try_io_uring
    from gpudaemon.view import check as view

    host = Host(sysfs=config.path.sysfs, procfs=config.path.procfs)
    found = probe(host, io_uring=try_io_uring())
    settings = {
        "configuration": _file(arguments) or "none, defaults and flags",
        "preset": f"{config.preset}, seconds: {', '.join(f'{period:g}' for period in config.periods)}",
        "collectors": ", ".join(sorted(config.collectors)),
        **{
            f"path.{name}": f"{path or '-'}, {_writable(path)}"
            for name, path in (("runtime", config.path.runtime), ("state", config.path.state))
        },
    }
    if as_json:
        return json.dumps(
            view.as_json(found, tier=config.tier, settings=settings, notes=remarks(host)), indent=2
        )
    return view.as_text(found, tier=config.tier, settings=settings, notes=remarks(host))


def _capture(arguments: argparse.Namespace) -> None:
    import secrets

    from gpudaemon import capture
    from gpudaemon.bundle import daemon_texts, gathered

    config = _config(arguments)
    one_file = arguments.to.endswith((".tar.gz", ".tgz"))
    try:
        if os.path.lexists(arguments.to) and (one_file or os.listdir(arguments.to)):
            raise GpudaemonError(f"{arguments.to}: is there already")
        if arguments.key:
            with open(arguments.key, "rb") as stream:
                key = stream.read(4096)
        else:
            key = secrets.token_bytes(32)
        path = config.path
        recording = capture.record(
            sysfs=path.sysfs, procfs=path.procfs, deadline=config.read.deadline, runtime=path.runtime
        )
        texts = {}
        if one_file and not arguments.host_only:
            texts = daemon_texts(control_socket(config)) | gathered(
                check_json=partial(_checked, arguments, config, as_json=True),
                config_toml=partial(effective, config),
            )
        made = capture.redacted(recording, key, texts)
        (capture.pack if one_file else capture.write)(made, arguments.to)
    except OSError as error:
        raise GpudaemonError(str(error)) from error
    print(capture.summary(made))
    if not one_file:
        place = os.path.abspath(arguments.to)
        print(f"gpudaemon run --path.sysfs {place}/sys --path.procfs {place}/proc --uevent.source none")


def _writable(path: str) -> str:
    if not path:
        return "nothing outlives a restart"
    while path != "/" and not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    return "writable" if os.access(path, os.W_OK) else "not writable"


def _health(arguments: argparse.Namespace) -> int:
    from gpudaemon.view import health as view

    report = _report(_config(arguments))
    if arguments.device:
        report = view.only(report, arguments.device)
    if arguments.expect:
        report = view.expecting(report, arguments.expect)
    print(json.dumps(view.as_json(report), indent=2) if arguments.json else view.as_text(report))
    return view.exit_status(report, strict=arguments.strict)


def _report(config: Config) -> "Report":
    """The running daemon's verdicts; where none runs, those of one look."""
    from gpudaemon.daemon import look
    from gpudaemon.errors import Malformed
    from gpudaemon.export.control import ControlError, NoDaemon, ask
    from gpudaemon.log import set_up
    from gpudaemon.pipeline.alone import Alone, CannotNote
    from gpudaemon.view.health import from_json, no_answer

    try:
        return from_json(ask(control_socket(config), "GET", "/health")[1])
    except NoDaemon:
        set_up("error")
        try:
            with Alone(config.path.runtime):
                return look(config)[1]
        except (CannotNote, TimeoutError) as error:
            return no_answer(str(error))
    except Malformed:
        return no_answer("the daemon that runs is of another version")
    except ControlError as error:
        return no_answer(str(error))


def _forget(arguments: argparse.Namespace) -> None:
    from gpudaemon.discovery.expected import full_id
    from gpudaemon.discovery.inventory_file import InventoryFile, machine
    from gpudaemon.export.control import NoDaemon

    config = _config(arguments)
    try:
        _tell(f"/inventory/forget?device={arguments.device}", arguments)
    except NoDaemon:
        file = InventoryFile(config.path.state, machine(), sysfs=config.path.sysfs)
        if not file.forget(full_id(arguments.device)):
            raise GpudaemonError(file.problem or f"{arguments.device}: not remembered") from None


def _pause(arguments: argparse.Namespace) -> None:
    _tell(f"/pause?seconds={arguments.seconds:g}", arguments)


def _tell(target: str, arguments: argparse.Namespace) -> None:
    """Ask the running daemon for something that it answers with yes or with an error."""
    from gpudaemon.export.control import ask

    status, answer = ask(control_socket(_config(arguments)), "POST", target)
    if status != 200:
        raise GpudaemonError(answer["error"])


def _config_text(arguments: argparse.Namespace) -> None:
    if arguments.sample:
        print(sample(), end="")
    elif arguments.table:
        print(table(), end="")
    elif arguments.manual:
        print(_manual(), end="")
    else:
        print(effective(_config(arguments)), end="")


def _manual() -> str:
    commands: list[tuple[str, str]] = []
    for action in _parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = [(choice.dest, choice.help or "") for choice in action._choices_actions]
    return manual(commands, __version__)


def _metrics(arguments: argparse.Namespace) -> None:
    from gpudaemon.export.provenance import claims, rows
    from gpudaemon.export.reference import reference

    if arguments.dashboard:
        try:
            from gpudaemon.export.dashboard import host_dashboard
        except ImportError as error:
            raise GpudaemonError(f"{error}: pip install 'gpudaemon[dashboards]'") from error
        print(host_dashboard(), end="")
    elif arguments.alerts or arguments.recording:
        from gpudaemon.export.alerts import alerting_rules, recording_rules

        print(alerting_rules() if arguments.alerts else recording_rules(), end="")
    else:
        print(reference(rows(), claims()), end="")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; exit status 0, 1 for an error with its message, 2 for wrong arguments, options."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parsed = _parser(words).parse_args(words)
    try:
        status = parsed.call(parsed)
    except GpudaemonError as error:
        print(f"gpudaemon: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
