"""`TlsConfig` -> what Python's ssl does of it: the context of new connections, and the names of their clients.

Everything here may open files and belongs in a thread once the daemon runs.
"""

import ipaddress
import os
import ssl
import stat
from asyncio import sslproto
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from gpudaemon.errors import ConfigError
from gpudaemon.export.web_config import CURVES, TlsConfig

__all__ = ["allowed_name", "make_context", "open_to_others", "small_buffers"]

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_BUFFER = 16 * 1024


def make_context(config: TlsConfig, path: str) -> ssl.SSLContext:
    """The context these settings describe. `path` is the configuration, for messages.

    Raises ConfigError naming the key whose file or value cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.min_version]
    context.maximum_version = _VERSIONS[config.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if config.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if config.ciphers:
        with _complains(path, "cipher_suites"):
            context.set_ciphers(":".join(config.ciphers))
    _set_curves(context, config.curves, path)
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, config, path)
    if config.client_auth_type in _VERIFY:
        key = "client_ca_file" if config.client_ca_file else "client_ca"
        with _complains(path, key, config.client_ca_file):
            context.load_verify_locations(cafile=config.client_ca_file or None, cadata=config.client_ca or None)
        context.verify_mode = _VERIFY[config.client_auth_type]
    return context


def allowed_name(certificate: Mapping[str, object] | None, allowed: Sequence[str]) -> bool:
    """Whether one of the subject's alternative names (DNS, IP, e-mail, URI) is exactly one that is allowed."""
    names: Iterable[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())  # type: ignore[assignment]
    return any((_address(name) if kind == "IP Address" else name) in allowed for kind, name in names)


def _address(text: str) -> str:
    """An address as it is usually written: OpenSSL prints those of IPv6 in capitals and in full."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return text


def open_to_others(path: str) -> bool:
    """Whether anybody on the host may read this key."""
    try:
        return bool(path) and bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def small_buffers() -> None:
    """Give TLS connections of this process 16 KiB of buffer, one record, where asyncio takes 256 KiB each.

    What they receive are requests of a few hundred bytes. There is no parameter for it; where the constant
    should be gone one day, connections are merely larger.
    """
    if getattr(sslproto.SSLProtocol, "max_size", 0) > _BUFFER:
        sslproto.SSLProtocol.max_size = _BUFFER


def _set_curves(context: ssl.SSLContext, curves: Sequence[str], path: str) -> None:
    if not curves:
        return
    with _complains(path, "curve_preferences"):
        if hasattr(context, "set_groups"):  # Python 3.15
            context.set_groups(":".join(curves))
        elif len(curves) == 1:
            context.set_ecdh_curve(curves[0])
        else:
            raise ConfigError(
                f"{path}: tls_server_config.curve_preferences: this Python's ssl takes one curve, not"
                f" {len(curves)}; name one of {', '.join(CURVES)}, or leave the key out for OpenSSL's choice"
            )


def _load_pair(context: ssl.SSLContext, config: TlsConfig, path: str) -> None:
    """The certificate with its key. Both are opened first, so that the message says which one is missing."""
    for key, name in (("cert_file", config.cert_file), ("key_file", config.key_file)):
        if name:
            with _complains(path, key, name), open(name, "rb"):
                pass
    key = "cert_file, key_file" if config.cert_file else "cert, key"
    names = f"{config.cert_file} {config.key_file}".strip()

    def no_passphrase() -> str:
        raise ConfigError(f"{path}: tls_server_config.{key}: {names}: a key with a passphrase cannot be used")

    with (
        _complains(path, key, names),
        _as_file(config.cert_file, config.cert) as cert,
        _as_file(config.key_file, config.key) as private,
    ):
        context.load_cert_chain(cert, private, no_passphrase)


@contextmanager
def _as_file(name: str, content: str) -> Iterator[str]:
    """The file itself, or one in memory with this content: OpenSSL takes a certificate from files only."""
    if name:
        yield name
        return
    memory = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(memory, content.encode())
        yield f"/proc/self/fd/{memory}"
    finally:
        os.close(memory)


@contextmanager
def _complains(path: str, key: str, value: str = "") -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise ConfigError(_message(path, key, value, _reason(error))) from None
    except OSError as error:
        raise ConfigError(_message(path, key, value, error.strerror or str(error))) from None
    except ValueError as error:
        raise ConfigError(_message(path, key, value, str(error))) from None


def _message(path: str, key: str, value: str, why: str) -> str:
    return f"{path}: tls_server_config.{key}: {value + ': ' if value else ''}{why}"


_REASONS: Mapping[str, str] = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "NO_START_LINE": "not PEM",
    "EE_KEY_TOO_SMALL": "the key is too small for this OpenSSL",
    "CA_MD_TOO_WEAK": "the signature is too weak for this OpenSSL",
    "NO_CERTIFICATE_OR_CRL_FOUND": "holds no certificate",
}


def _reason(error: ssl.SSLError) -> str:
    if error.reason:
        return _REASONS.get(error.reason, error.reason.replace("_", " ").lower())
    return "not PEM, or the wrong kind of PEM"
