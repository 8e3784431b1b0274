"""Addresses to listen on: `HOST:PORT`, `:PORT` (every address) and `[IPV6]:PORT`."""

import ipaddress
from dataclasses import dataclass

from gpudaemon.errors import ConfigError

__all__ = ["ListenAddress", "parse_listen_address"]


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """host: a name or an address without brackets, empty for every address. port: 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Parse one listen address. Raises ConfigError, naming what is wrong, for anything else."""

    def wrong(why: str) -> ConfigError:
        return ConfigError(f"listen address {text!r}: {why}; expected HOST:PORT, :PORT or [IPV6]:PORT")

    host, colon, port = text.rpartition(":")
    if not colon:
        raise wrong("no port")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise wrong(f"{port!r} is not a port (0 to 65535)")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise wrong(f"{host!r} is not an IPv6 address") from None
    elif ":" in host:
        raise wrong("an IPv6 address stands in brackets")
    elif not all(character.isalnum() or character in "-._" for character in host):
        raise wrong(f"{host!r} is not a host")
    return ListenAddress(host, int(port))
