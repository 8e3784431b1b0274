"""What is written about the options, all from their declarations: sample file, tables, manual page."""

from collections.abc import Iterable
from typing import Any

from gpudaemon.config.options import PRESETS, Config, Option, options, sections

__all__ = ["effective", "help_text", "manual", "sample", "table"]

_WIDTH = 100
_PLACEHOLDERS = {"inventory.expect": ["0000:03:00.0", "0000:83:00.0"]}


def help_text(option: Option) -> str:
    """One line for `--help`, with the default."""
    shown = _default(option)
    return f"{option.description} ({shown})" if shown else option.description


def sample() -> str:
    """The commented sample of the configuration file: every option with its default."""
    lines = [
        "# gpudaemon: every option with its default. Made by `gpudaemon config --sample`.",
        "# Belongs to /etc/gpudaemon/gpudaemon.toml. Each option is also a flag, which wins.",
        "# `systemctl reload gpudaemon` reads it again; what is marked (restart) waits for the next start.",
        "# `gpudaemon check` says what is wrong with it.",
        "",
    ]
    section = ""
    for option in options():
        if option.section != section:
            section = option.section
            lines += ["", f"[{section}]", f"# {sections()[section]}", ""]
        lines += _wrapped(f"{option.description}{' (restart)' if option.restart else ''}", "# ")
        lines += _wrapped(f"Allowed: {option.allowed}. Flag: {option.flag}", "# ")
        lines += [f"#{option.key.rpartition('.')[2]} = {_toml(_shown_value(option))}", ""]
    return "\n".join(lines)


def table() -> str:
    """Markdown: flag, default, meaning."""
    lines = ["| flag | default | |", "|---|---|---|"]
    for option in options():
        flag = f"`{option.flag}`" + (f", `--no-{option.flag[2:]}`" if option.boolean else "")
        shown = _default(option)
        lines.append(f"| {flag} | {f'`{shown}`' if shown else ''} | {_cell(option.description)} |")
    return "\n".join(lines) + "\n"


def effective(config: Config) -> str:
    """The whole configuration in use, as TOML."""
    lines: list[str] = []
    section = ""
    for option in options():
        value: Any = config
        for part in option.key.split("."):
            value = getattr(value, part)
        if option.section != section:
            section = option.section
            lines += ["", f"[{section}]"]
        if value is not None:
            lines.append(f"{option.key.rpartition('.')[2]} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def manual(commands: Iterable[tuple[str, str]], version: str) -> str:
    """The manual page in roff: commands (name, meaning), then every option."""
    parts = [
        f'.TH GPUDAEMON 8 "" "gpudaemon {version}" "System Administration"',
        ".SH NAME\ngpudaemon \\- telemetry daemon for GPU hosts that a sick GPU cannot stall",
        ".SH SYNOPSIS\n.B gpudaemon\n.I COMMAND\n[\n.I FLAGS\n]",
        ".SH COMMANDS",
        *(f".TP\n.B {_roff(name)}\n{_roff(text)}" for name, text in commands),
        ".SH OPTIONS\nEach option is a key of the configuration file and a flag; the flag wins. Those marked "
        "(restart) take effect at the next start, all others at a reload.\n"
        ".TP\n.B \\-\\-config.file FILE\nthe configuration file",
    ]
    section = ""
    for option in options():
        if option.section != section:
            section = option.section
            parts.append(f".SS [{section}]\n{_roff(sections()[section])}")
        flag = option.flag if not option.boolean else f"{option.flag}, --no-{option.flag[2:]}"
        restart = " (restart)" if option.restart else ""
        parts.append(
            f".TP\n.B {_roff(flag)}{f' {_roff(option.metavar)}' if option.metavar else ''}\n"
            f"{_roff(option.description)}{restart}\n.br\nAllowed: {_roff(option.allowed)}."
            + (f" Default: {_roff(shown)}." if (shown := _default(option)) else "")
        )
    parts += [
        ".SH FILES\n.TP\n.I /etc/gpudaemon/gpudaemon.toml\nthe configuration\n"
        ".TP\n.I /run/gpudaemon\nnotes that outlive the daemon, and its control socket\n"
        ".TP\n.I /var/lib/gpudaemon\nthe expected devices",
        ".SH SIGNALS\n.TP\n.B SIGHUP\nread the configuration again; counters go on\n"
        ".TP\n.B SIGTERM, SIGINT\nend within two seconds, whatever hangs",
        ".SH EXIT STATUS\n0: done. 1: an error, with its message; of\n.BR health : not healthy.\n"
        "2: wrong arguments or options; of\n.BR health : not known.",
    ]
    return "\n".join(parts) + "\n"


def _default(option: Option) -> str:
    value = option.default
    if option.boolean:
        return {True: "on", False: "off", None: "on"}[value]
    if value is None:
        number = ("static", "slow", "normal", "fast").index(option.key.rpartition(".")[2])
        return ", ".join(f"{periods[number]:g} in {name}" for name, periods in PRESETS.items())
    if option.many:
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown_value(option: Option) -> Any:
    if option.key in _PLACEHOLDERS:
        return _PLACEHOLDERS[option.key]
    if option.default is None:
        if option.boolean:
            return True
        return PRESETS[Config().preset][
            ("static", "slow", "normal", "fast").index(option.key.rpartition(".")[2])
        ]
    return option.default


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if not c.isprintable() else c for c in value.replace("\\", "\\\\"))
        return '"' + escaped.replace('"', '\\"') + '"'
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(text: str, before: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, _WIDTH, initial_indent=before, subsequent_indent=before, break_on_hyphens=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
