"""The file of `--web.config.file`: TLS, users, headers and a rate limit, in the YAML of exporter-toolkit.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md

Text -> `WebConfig`. Nothing is guessed: a key that is not known, given twice or of the wrong type is a
ConfigError that names file, line, key, value and what is allowed. Contents of secret keys are never quoted.
Relative paths are relative to the file.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import yaml

from gpudaemon.errors import ConfigError

__all__ = ["CIPHERS", "CURVES", "LARGEST", "RateLimit", "TlsConfig", "WebConfig", "parse_web_config"]

LARGEST = 256 * 1024
"""Bytes of a file that is still read."""

CIPHERS: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
"""TLS 1.2 suites by IANA name -> the name OpenSSL has for them."""

_ALWAYS = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Suites of TLS 1.3, which are on whatever is configured, as in Go."""

CURVES: Mapping[str, str] = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}

_CLIENT_AUTH = ("NoClientCert", "RequestClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
_UNVERIFIED = ("RequireAnyClientCert", "RequireClientCert")
_VERSIONS = ("TLS12", "TLS13")
_OLD_VERSIONS = ("TLS10", "TLS11")

_HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_COSTS = range(4, 16)
"""Cost of a hash: each step doubles the time; 15 takes one to two seconds."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """`tls_server_config`. Of each pair `x`, `x_file` one is filled; files are absolute or as the caller is.

    ciphers: OpenSSL's names, empty for the default. curves: OpenSSL's names, empty for the default.
    """

    cert: str = ""
    cert_file: str = ""
    key: str = field(default="", repr=False)
    key_file: str = ""
    client_ca: str = ""
    client_ca_file: str = ""
    client_auth_type: str = "NoClientCert"
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curves: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Files whose content matters."""
        return tuple(name for name in (self.cert_file, self.key_file, self.client_ca_file) if name)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`rate_limit`: one request each `interval` seconds, after a burst of so many."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The whole file. users: name -> bcrypt hash. headers: to add to answers, an empty value removes ours.

    warnings: what was accepted and has no effect, one line each.
    """

    tls: TlsConfig | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: RateLimit | None = None
    warnings: tuple[str, ...] = ()


def parse_web_config(text: str, path: str) -> WebConfig:
    """Parse the content of the file `path`. Raises ConfigError; opens nothing."""
    try:
        root = yaml.compose(text, yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not YAML: {error.problem or 'syntax error'}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {_one_line(str(error))}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {type(error).__name__}") from None
    file = _File(path)
    sections = file.mapping(
        root, "", ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
    )
    tls = sections.get("tls_server_config")
    users = sections.get("basic_auth_users")
    http = sections.get("http_server_config")
    rate = sections.get("rate_limit")
    return WebConfig(
        tls=_tls(file, tls) if tls is not None and not _empty(tls) else None,
        users=_users(file, users),
        headers=_http(file, http),
        rate=_rate(file, rate),
        warnings=tuple(file.warnings),
    )


class _File:
    """Takes nodes of one file apart and says precisely what is wrong with them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory = os.path.dirname(path)
        self.warnings: list[str] = []

    def error(self, node: yaml.Node | None, key: str, text: str) -> ConfigError:
        line = f", line {node.start_mark.line + 1}" if node is not None and node.start_mark else ""
        return ConfigError(f"{self.path}{line}: {key + ': ' if key else ''}{text}")

    def mapping(self, node: yaml.Node | None, key: str, allowed: Sequence[str] = ()) -> dict[str, yaml.Node]:
        """The nodes of a mapping by key; `allowed` empty takes every key. Nothing is an empty mapping."""
        if node is None or _empty(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, key, f"{_kind(node)} stands where keys and values are expected")
        found: dict[str, yaml.Node] = {}
        for name_node, value in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                raise self.error(name_node, key, f"a key is a word, not {_kind(name_node)}")
            name = str(name_node.value)
            full = f"{key}.{name}" if key else name
            if name in found:
                raise self.error(name_node, _quoted(full), "given twice")
            if allowed and name not in allowed:
                raise self.error(name_node, "", f"unknown key {_quoted(full)}; {_nearest(name, allowed)}")
            found[name] = value
        return found

    def text(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, key, f"{_kind(node)} stands where a string is expected")
        return "" if _empty(node) else str(node.value)

    def word(self, node: yaml.Node, key: str, allowed: Sequence[str]) -> str:
        value = self.text(node, key)
        if value not in allowed:
            raise self.error(node, key, f"{_quoted(value)} is not known; {_nearest(value, allowed)}")
        return value

    def words(self, node: yaml.Node, key: str) -> list[tuple[yaml.Node, str]]:
        if _empty(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(node, key, f"{_kind(node)} stands where a list is expected")
        return [(item, self.text(item, key)) for item in node.value]

    def boolean(self, node: yaml.Node, key: str) -> bool:
        value = self.text(node, key).lower()
        if value in ("true", "yes", "on"):
            return True
        if value in ("false", "no", "off"):
            return False
        raise self.error(node, key, f"{_quoted(value)} is not a boolean; allowed are true, false")

    def file(self, node: yaml.Node, key: str) -> str:
        name = self.text(node, key)
        if "\0" in name:
            raise self.error(node, key, "a path has no NUL")
        return os.path.join(self.directory, name) if name else ""


def _tls(file: _File, node: yaml.Node) -> TlsConfig:
    section = "tls_server_config"
    readers: dict[str, Callable[[yaml.Node, str], object]] = {
        "cert": file.text, "cert_file": file.file, "key": file.text, "key_file": file.file,
        "client_ca": file.text, "client_ca_file": file.file, "client_auth_type": file.text,
        "client_allowed_sans": lambda node, key: tuple(text for _, text in file.words(node, key)),
        "min_version": lambda node, key: _version(file, node, key),
        "max_version": lambda node, key: _version(file, node, key),
        "cipher_suites": lambda node, key: _ciphers(file, node, key),
        "prefer_server_cipher_suites": file.boolean,
        "curve_preferences": lambda node, key: _curves(file, node, key),
    }  # fmt: skip
    nodes = file.mapping(node, section, tuple(readers))
    values = {name: readers[name](value, f"{section}.{name}") for name, value in nodes.items()}
    for inline in ("cert", "key", "client_ca"):
        if values.get(inline) and values.get(f"{inline}_file"):
            raise file.error(nodes[inline], f"{section}.{inline}", f"{inline}_file is given too; one of them")
    for needed in ("cert", "key"):
        if not (values.get(needed) or values.get(f"{needed}_file")):
            raise file.error(node, section, f"{needed}_file is missing")
    auth = str(values.pop("client_auth_type", "") or "NoClientCert")
    _client_auth(file, nodes, auth, values)
    named = {"cipher_suites": "ciphers", "curve_preferences": "curves"}
    made = TlsConfig(
        client_auth_type=auth,
        **{named.get(name, name): value for name, value in values.items()},  # type: ignore[arg-type]
    )
    if _VERSIONS.index(made.min_version) > _VERSIONS.index(made.max_version):
        raise file.error(
            nodes["min_version"], f"{section}.min_version", f"{made.min_version} is above max_version"
        )
    return made


def _client_auth(file: _File, nodes: Mapping[str, yaml.Node], auth: str, values: Mapping[str, object]) -> None:
    key = "tls_server_config.client_auth_type"
    node = nodes.get("client_auth_type") or nodes.get("client_ca_file") or nodes.get("client_ca")
    if auth in _UNVERIFIED:
        raise file.error(
            node, key, f"{auth} would take any certificate unverified; use RequireAndVerifyClientCert"
        )
    if auth not in _CLIENT_AUTH:
        allowed = (*_CLIENT_AUTH, _UNVERIFIED[0])
        raise file.error(node, key, f"{_quoted(auth)} is not known; {_nearest(auth, allowed)}")
    authorities = bool(values.get("client_ca") or values.get("client_ca_file"))
    verifies = auth in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
    if verifies and not authorities:
        raise file.error(node, key, f"{auth} needs client_ca_file")
    if authorities and auth == "NoClientCert":
        raise file.error(node, key, "client_ca_file is given, so it must say RequireAndVerifyClientCert")
    if values.get("client_allowed_sans") and auth != "RequireAndVerifyClientCert":
        raise file.error(
            nodes["client_allowed_sans"],
            "tls_server_config.client_allowed_sans",
            "needs client_auth_type: RequireAndVerifyClientCert",
        )
    if auth == "RequestClientCert":
        file.warnings.append(f"{key}: RequestClientCert verifies nothing, so no certificate is asked for")


def _version(file: _File, node: yaml.Node, key: str) -> str:
    value = file.text(node, key)
    if value in _OLD_VERSIONS:
        raise file.error(node, key, f"{value} is broken (RFC 8996) and not spoken; allowed are TLS12, TLS13")
    return file.word(node, key, _VERSIONS)


def _ciphers(file: _File, node: yaml.Node, key: str) -> tuple[str, ...]:
    found = []
    for item, name in file.words(node, key):
        if name in _ALWAYS:
            continue
        if name not in CIPHERS:
            text = f"{_quoted(name)} is not known; {_nearest(name, (*CIPHERS, *_ALWAYS))}"
            raise file.error(item, key, text)
        found.append(CIPHERS[name])
    return tuple(found)


def _curves(file: _File, node: yaml.Node, key: str) -> tuple[str, ...]:
    found = []
    for item, name in file.words(node, key):
        if name not in CURVES:
            raise file.error(item, key, f"{_quoted(name)} is not known; {_nearest(name, tuple(CURVES))}")
        found.append(CURVES[name])
    return tuple(dict.fromkeys(found))


def _http(file: _File, node: yaml.Node | None) -> dict[str, str]:
    section = "http_server_config"
    nodes = file.mapping(node, section, ("http2", "headers"))
    if "http2" in nodes and file.boolean(nodes["http2"], f"{section}.http2"):
        file.warnings.append(f"{section}.http2: HTTP/2 is not spoken; clients get HTTP/1.1")
    headers = {}
    for name, value in file.mapping(nodes.get("headers"), f"{section}.headers", tuple(_HEADERS)).items():
        key = f"{section}.headers.{name}"
        text = file.text(value, key)
        if not text.isprintable() or not text.isascii():
            raise file.error(value, key, "a header is one line of printable ASCII")
        if text and _HEADERS[name] and text not in _HEADERS[name]:
            raise file.error(value, key, f"{_quoted(text)} is not known; {_nearest(text, _HEADERS[name])}")
        headers[name] = text
    return headers


def _users(file: _File, node: yaml.Node | None) -> dict[str, str]:
    users = {}
    for name, value in file.mapping(node, "basic_auth_users").items():
        key = f"basic_auth_users.{_quoted(name)}"
        if not name or ":" in name:
            raise file.error(value, key, "a user name is not empty and has no colon (RFC 7617)")
        found = _HASH.fullmatch(file.text(value, key))
        if not found:
            raise file.error(
                value, key, "not a bcrypt hash; expected $2y$COST$ and 53 characters, as of `htpasswd -nBC 10`"
            )
        if int(found.group(1)) not in _COSTS:
            raise file.error(
                value, key, f"a cost of {found.group(1)}; allowed are {_COSTS.start} to {_COSTS.stop - 1}"
            )
        users[name] = found.group()
    return users


def _rate(file: _File, node: yaml.Node | None) -> RateLimit | None:
    nodes = file.mapping(node, "rate_limit", ("interval", "burst"))
    interval, burst = 0.0, 0
    if "interval" in nodes:
        text = file.text(nodes["interval"], "rate_limit.interval")
        parts = _DURATION.findall(text)
        if text not in ("", "0") and (not parts or "".join(number + unit for number, unit in parts) != text):
            raise file.error(
                nodes["interval"],
                "rate_limit.interval",
                f"{_quoted(text)} is no duration such as 1s, 100ms",
            )
        interval = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "burst" in nodes:
        text = file.text(nodes["burst"], "rate_limit.burst")
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            raise file.error(
                nodes["burst"], "rate_limit.burst", f"{_quoted(text)} is not a number from 1 to 999999"
            )
        burst = int(text)
    if interval and not burst:
        raise file.error(node, "rate_limit.burst", "0 would refuse every request; at least 1")
    return RateLimit(interval, burst) if interval else None


def _empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in ("", "~", "null")


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _nearest(value: str, allowed: Sequence[str]) -> str:
    """What is allowed, and which of it may have been meant."""
    near = difflib.get_close_matches(value[:100], allowed, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}allowed are {', '.join(allowed)}"


def _quoted(text: str) -> str:
    """A value as it can stand in a line of a log: printable, and not longer than it helps."""
    shown = text if text.isprintable() else text.encode("unicode_escape", "replace").decode()
    return repr(shown if len(shown) <= 80 else f"{shown[:80]}...")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
