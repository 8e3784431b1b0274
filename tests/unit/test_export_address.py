"""Listen addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import ConfigError
from gpudaemon.export.address import ListenAddress, parse_listen_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":9835", "", 9835),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("localhost:65535", "localhost", 65535),
        ("[::1]:9835", "::1", 9835),
        ("[::]:0", "::", 0),
        ("gpu-7.example:80", "gpu-7.example", 80),
    ],
)
def test_good(text: str, host: str, port: int) -> None:
    address = parse_listen_address(text)
    assert address == ListenAddress(host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no port"),
        ("localhost", "no port"),
        ("9835", "no port"),
        ("localhost:", "'' is not a port"),
        ("localhost:http", "'http' is not a port"),
        (":65536", "'65536' is not a port"),
        (":-1", "'-1' is not a port"),
        (":٣", "is not a port"),
        ("::1:80", "in brackets"),
        ("[::1", "in brackets"),
        ("[::g]:80", "not an IPv6 address"),
        ("[127.0.0.1]:80", "not an IPv6 address"),
        ("a b:80", "not a host"),
        ("http://x:80", "in brackets"),
        ("x/y:80", "not a host"),
    ],
)
def test_bad(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_listen_address(text)
    assert why in str(raised.value)
    assert repr(text) in str(raised.value)


@given(st.text())
def test_anything_parses_or_is_a_config_error(text: str) -> None:
    try:
        address = parse_listen_address(text)
    except ConfigError:
        return
    assert parse_listen_address(str(address)) == address
