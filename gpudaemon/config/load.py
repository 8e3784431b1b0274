"""A file and flags become a Config; an error names where, the key, the value, what is allowed, what is near."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import msgspec

from gpudaemon.config.options import Config, Option, options, sections
from gpudaemon.errors import ConfigError

__all__ = ["DEFAULT_FILE", "Flag", "default_file", "load", "nearest"]

DEFAULT_FILE = "/etc/gpudaemon/gpudaemon.toml"
Flag = str | bool | Sequence[str]
"""What the command line gives for an option: text, several texts, or on and off."""

_LONGEST = 1 << 20
"""Bytes of a file; a longer one is not a configuration."""
_SHOWN = 60


def default_file() -> str:
    """The file that is read where none is named; empty where there is none."""
    directory = os.environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    path = os.path.join(directory, "gpudaemon.toml") if directory else DEFAULT_FILE
    return path if os.path.exists(path) else ""


def load(file: str = "", flags: Mapping[str, Flag] | None = None) -> Config:
    """The configuration of `file` (none where empty) with `flags` (by key) above it, checked.

    Raises ConfigError, one line, for what cannot be used.
    """
    values: dict[str, Any] = {}
    if file:
        for key, value in _flattened(_parsed(file), file):
            values[key] = _converted(_BY_KEY[key], value, f"{file}: {key}")
    for key, text in (flags or {}).items():
        option = _BY_KEY[key]
        values[key] = _converted(option, _from_flag(option, text), option.flag)
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return _settled(msgspec.convert(nested, Config))


_BY_KEY = {option.key: option for option in options()}


def nearest(word: str, known: Sequence[str]) -> str:
    """The word most like `word`, empty where none is."""
    found = difflib.get_close_matches(word, known, 1, 0.6)
    return found[0] if found else ""


def _parsed(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            raw = stream.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    if len(raw) > _LONGEST:
        raise ConfigError(f"{file}: longer than {_LONGEST} bytes, which is no configuration")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: line {line} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}{_line_of(raw.decode(), str(error))}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: not TOML: nested too deeply") from error


def _line_of(text: str, message: str) -> str:
    """The line that a TOML error speaks of."""
    found = re.search(r"line (\d+)", message)
    lines = text.splitlines()
    if found is None or not 0 < int(found.group(1)) <= len(lines):
        return ""
    return f": {_shown(lines[int(found.group(1)) - 1].strip())}"


def _flattened(parsed: Mapping[str, Any], file: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every known key. Raises ConfigError for the first unknown one."""
    for name, value in parsed.items():
        if name in sections():
            if not isinstance(value, dict):
                raise ConfigError(f"{file}: {name} = {_shown(value)}: it is a table, write [{name}]")
            for inner, inner_value in value.items():
                if f"{name}.{inner}" not in _BY_KEY:
                    raise _unknown(file, f"{name}.{inner}")
                yield f"{name}.{inner}", inner_value
        elif name in _BY_KEY:
            yield name, value
        else:
            raise _unknown(file, name)


def _unknown(file: str, key: str) -> ConfigError:
    """The error of a key that is none: with the nearest one, or those it may be."""
    section = key.rpartition(".")[0]
    known = list(_BY_KEY)
    near = nearest(key, [*known, *sections()]) or _elsewhere(key)
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    tables = [] if section else [f"[{name}]" for name in sections()]
    hint = f"did you mean {near}?" if near else f"allowed: {', '.join([*siblings, *tables])}"
    return ConfigError(f"{file}: unknown key {_shown(key, quote=False)}: {hint}")


def _elsewhere(key: str) -> str:
    """The key of another table with the same last word."""
    last = key.rpartition(".")[2]
    return next((known for known in _BY_KEY if known.rpartition(".")[2] == last), "")


def _from_flag(option: Option, text: Flag) -> Any:
    """What a flag's text says, as the file would say it; text that says nothing stays text."""
    if option.number and isinstance(text, str):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return tuple(text) if option.many and not isinstance(text, str | bool) else text


def _converted(option: Option, value: Any, where: str) -> Any:
    """`value` as the option's type. where: file and key, or the flag."""
    wrong = ConfigError(_wrong(option, value, where))
    if option.number and (isinstance(value, bool) or (isinstance(value, float) and isnan(value))):
        raise wrong
    try:
        converted = msgspec.convert(value, option.type)
    except (msgspec.ValidationError, OverflowError):
        raise wrong from None
    if option.regex:
        try:
            re.compile(converted)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"{_wrong(option, value, where)}: {error}") from None
    if "\0" in str(converted):
        raise wrong
    if option.directory and not os.path.isdir(converted):
        raise ConfigError(f"{_wrong(option, value, where)}: there is none")
    return converted


def _wrong(option: Option, value: Any, where: str) -> str:
    hint = ""
    if option.choices and isinstance(value, str) and (near := nearest(value, option.choices)):
        hint = f"; did you mean {near}?"
    return f"{where} = {_shown(value)}: allowed: {option.allowed}{hint}"


def _shown(value: Any, *, quote: bool = True) -> str:
    """A value as it stands in TOML, on one line and not too long."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = f'"{value}"' if quote else value
    elif isinstance(value, (tuple, list)):
        text = "[" + ", ".join(_shown(item) for item in value[:8]) + "]"
    else:
        text = str(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _settled(config: Config) -> Config:
    """With paths made absolute and directories filled in."""
    path = config.path
    replace = msgspec.structs.replace
    settled = replace(
        path,
        sysfs=_absolute(path.sysfs),
        procfs=_absolute(path.procfs),
        runtime=path.runtime or _runtime_directory(),
        state=path.state or os.environ.get("STATE_DIRECTORY", "").split(":")[0],
    )
    return replace(config, path=settled)


def _absolute(path: str) -> str:
    return os.path.abspath(path).rstrip("/")


def _runtime_directory() -> str:
    """Where notes survive a restart of the daemon but not of the host."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return given
    if os.geteuid() == 0:
        return "/run/gpudaemon"
    given = os.environ.get("XDG_RUNTIME_DIR", "").split(":")[0]
    return f"{given}/gpudaemon" if given else f"/tmp/gpudaemon-{os.geteuid()}"
