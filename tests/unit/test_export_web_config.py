"""The web configuration: what it takes, and what it says of what it does not take."""

import re
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import ConfigError
from gpudaemon.export.web_config import RateLimit, TlsConfig, WebConfig, parse_web_config

HASH = "$2y$04$" + "." * 21 + "O" + "a" * 31
PAIR = "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n"
EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "web.yml"


def parsed(text: str) -> WebConfig:
    return parse_web_config(text, "/etc/x/web.yml")


def message(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "~", "tls_server_config:\nbasic_auth_users: {}\n"])
def test_nothing_is_plain_http_for_everybody(text: str) -> None:
    assert parsed(text) == WebConfig()


def test_everything_at_once() -> None:
    found = parsed(
        f"""\
tls_server_config:
  cert_file: tls/a.crt
  key_file: /abs/a.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [a.example, "10.0.0.1"]
  min_version: TLS12
  max_version: TLS12
  cipher_suites:
    - TLS_AES_128_GCM_SHA256
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    - TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
  prefer_server_cipher_suites: no
  curve_preferences: [X25519, CurveP256]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    Content-Security-Policy: ""
basic_auth_users:
  123: {HASH}
rate_limit: {{interval: 1m1.5s, burst: 3}}
"""
    )
    assert found.tls == TlsConfig(
        cert_file="/etc/x/tls/a.crt",
        key_file="/abs/a.key",
        client_auth_type="RequireAndVerifyClientCert",
        client_ca_file="/etc/x/ca.crt",
        client_allowed_sans=("a.example", "10.0.0.1"),
        max_version="TLS12",
        ciphers=("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        prefer_server_cipher_suites=False,
        curves=("X25519", "prime256v1"),
    )
    assert found.headers == {"X-Frame-Options": "deny", "Content-Security-Policy": ""}
    assert found.users == {"123": HASH}
    assert found.rate == RateLimit(61.5, 3)
    assert found.warnings == ()


def test_what_has_no_effect_is_said() -> None:
    assert "HTTP/2 is not spoken" in parsed("http_server_config: {http2: true}").warnings[0]
    assert "no certificate is asked for" in parsed(f"{PAIR}  client_auth_type: RequestClientCert\n").warnings[0]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "tls_server_confg: {}",
            ["line 1", "'tls_server_confg'", "did you mean tls_server_config?", "rate_limit"],
        ),
        (f"{PAIR}  key_fil: x", ["line 4", "'tls_server_config.key_fil'", "did you mean key_file?"]),
        (f"{PAIR}  min_version: TLS1.2", ["min_version: 'TLS1.2'", "did you mean TLS12?", "TLS12, TLS13"]),
        (f"{PAIR}  min_version: TLS10", ["TLS10", "RFC 8996", "TLS12, TLS13"]),
        (f"{PAIR}  min_version: TLS13\n  max_version: TLS12", ["min_version: TLS13 is above max_version"]),
        (f"{PAIR}  client_auth_type: RequireAndVerify", ["did you mean RequireAndVerifyClientCert?"]),
        (f"{PAIR}  client_auth_type: RequireAnyClientCert", ["unverified", "use RequireAndVerifyClientCert"]),
        (f"{PAIR}  client_auth_type: VerifyClientCertIfGiven", ["needs client_ca_file"]),
        (f"{PAIR}  client_ca_file: ca.crt", ["line 4", "RequireAndVerifyClientCert"]),
        (f"{PAIR}  client_allowed_sans: [a]", ["client_allowed_sans: needs client_auth_type"]),
        (f"{PAIR}  client_allowed_sans: a", ["a single value stands where a list is expected"]),
        (
            f"{PAIR}  cipher_suites: [TLS_ECDHE_RSA_AES_128_GCM_SHA256]",
            ["did you mean TLS_ECDHE_RSA_WITH_AES_128"],
        ),
        (f"{PAIR}  curve_preferences: [P-256]", ["'P-256'", "CurveP256"]),
        (f"{PAIR}  prefer_server_cipher_suites: maybe", ["'maybe' is not a boolean", "true, false"]),
        (f"{PAIR}  cert: pem", ["cert_file is given too"]),
        ("tls_server_config: {cert_file: a}", ["key_file is missing"]),
        ("tls_server_config: {key_file: a}", ["cert_file is missing"]),
        ("tls_server_config: [a]", ["a list stands where keys and values are expected"]),
        ("tls_server_config: {cert_file: {a: b}, key_file: c}", ["cert_file: a mapping stands where a string"]),
        (f"{PAIR}  cert_file: b", ["line 4", "'tls_server_config.cert_file': given twice"]),
        ("http_server_config: {headers: {X-Frame-Options: denied}}", ["'denied'", "did you mean deny?"]),
        ("http_server_config: {headers: {Server: x}}", ["unknown key 'http_server_config.headers.Server'"]),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}', ["one line of printable ASCII"]),
        ("basic_auth_users: {a: secret}", ["basic_auth_users.'a'", "not a bcrypt hash", "htpasswd"]),
        (f"basic_auth_users: {{'a:b': {HASH}}}", ["no colon"]),
        (f"basic_auth_users: {{a: {HASH.replace('$04$', '$16$')}}}", ["a cost of 16", "4 to 15"]),
        ("rate_limit: {interval: 5}", ["'5' is no duration"]),
        ("rate_limit: {interval: 1s}", ["burst", "at least 1"]),
        ("rate_limit: {interval: 1s, burst: -1}", ["'-1'"]),
        ("- a", ["a list stands where keys and values are expected"]),
        ("a: [", ["line", "not YAML"]),
        ("a: *b", ["not YAML"]),
        ("a: 1\n---\nb: 2", ["not YAML"]),
        ("\tx: 1", ["not YAML"]),
        ("? [a]\n: b", ["a key is a word, not a list"]),
        ("[" * 5000, ["not YAML"]),
        ("\x00", ["not YAML"]),
    ],
)
def test_errors_say_where_what_and_what_is_allowed(text: str, parts: list[str]) -> None:
    found = message(text)
    assert found.startswith("/etc/x/web.yml")
    assert "\n" not in found
    for part in parts:
        assert part in found


def test_no_secret_is_ever_quoted() -> None:
    assert "hunter2" not in message("basic_auth_users: {a: hunter2}")
    inline = "tls_server_config: {cert: c, key: hunter2, min_version: x}"
    assert "hunter2" not in message(inline)
    assert "hunter2" not in repr(parsed("tls_server_config: {cert: c, key: hunter2}"))
    assert HASH not in repr(parsed(f"basic_auth_users: {{a: {HASH}}}"))


_WORDS = st.sampled_from(
    [
        "tls_server_config", "http_server_config", "basic_auth_users", "rate_limit", "cert_file", "key_file",
        "client_ca_file", "headers", "interval", "burst", "TLS13", HASH, "1s", "5", "a", "", "*a", "&a", "<<",
        ":", "\n", "\n  ", "\n  - ", "- ", "{", "}", "[", "]", ",", "!!python/object:os.system ", "|", "'", '"',
    ]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=30).map(" ".join)))
def test_any_text_is_a_configuration_or_a_message(text: str) -> None:
    try:
        found = parsed(text)
    except ConfigError as error:
        assert re.fullmatch(r"/etc/x/web\.yml[^\n]*", str(error)), str(error)
    else:
        assert isinstance(found, WebConfig)


def test_aliases_are_not_multiplied() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 20)}]" for n in range(1, 20)]
    assert "unknown key 'a0'" in message("\n".join(lines))


def test_the_example_is_valid_and_its_password_is_the_one_it_names() -> None:
    text = EXAMPLE.read_text()
    found = parse_web_config(text, str(EXAMPLE))
    assert found.tls is not None
    assert (found.tls.cert_file, found.tls.min_version) == (str(EXAMPLE.parent / "server.crt"), "TLS13")
    assert bcrypt.checkpw(b"example", found.users["prometheus"].encode())
    assert found.warnings == ()


def test_every_line_of_the_example_can_be_used() -> None:
    """Commented keys are valid, too: uncommented they are refused for nothing but several values."""
    uncommented = re.sub(r"^( *)# ((?:  )?(?:- |[a-zA-Z_-]+:).*)$", r"\1\2", EXAMPLE.read_text(), flags=re.M)
    text = "\n".join(line for line in uncommented.splitlines() if not line.startswith("https:"))
    found = parse_web_config(text, "web.yml")
    assert found.tls is not None
    assert found.tls.client_auth_type == "RequireAndVerifyClientCert"
    assert found.tls.client_allowed_sans == ("prometheus.example.org",)
    assert found.tls.curves == ("X25519",)
    assert len(found.tls.ciphers) == 2
    assert len(found.headers) == 5
    assert found.rate == RateLimit(0.1, 50)
