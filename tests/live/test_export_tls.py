"""TLS and users on a real server: who gets in, what changes without a restart, what bad clients cost."""

import asyncio
import base64
import http.client
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import bcrypt
import pytest
import trustme

from gpudaemon.errors import ConfigError
from gpudaemon.export.http import Limits
from tests.live.test_export_http import Host, running, snapshot, values

pytestmark = pytest.mark.live

NAME = "localhost"


class Files:
    """A directory with a web configuration, certificates and their authority."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.path = directory / "web.yml"
        self.new_certificate()

    def new_certificate(self) -> str:
        """Write another certificate with its key; returns its serial number."""
        made = self.authority.issue_cert(NAME, "127.0.0.1")
        made.private_key_pem.write_to_path(self.directory / "server.key")
        (self.directory / "server.key").chmod(0o600)
        (self.directory / "server.crt").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return str(ssl._ssl._test_decode_cert(str(self.directory / "server.crt"))["serialNumber"])

    def configure(self, tls: str = "", rest: str = "", plain: bool = False) -> str:
        """Write the configuration; returns its path. tls: further keys of tls_server_config."""
        section = "" if plain else f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{tls}"
        self.path.write_text(f"{section}\n{rest}\n")
        return str(self.path)

    def client(self, certificate: trustme.LeafCert | None = None, **versions: ssl.TLSVersion) -> ssl.SSLContext:
        """What a client that trusts the authority uses."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        for name, value in versions.items():
            setattr(context, name, value)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def user(name: str, password: bytes, cost: int = 4) -> str:
    return f"basic_auth_users:\n  {name}: {bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode()}"


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@contextmanager
def connected(host: Host, context: ssl.SSLContext | None) -> Iterator[http.client.HTTPConnection]:
    address = ("127.0.0.1", host.port)
    connection = (
        http.client.HTTPConnection(*address, timeout=10)
        if context is None
        else http.client.HTTPSConnection(*address, timeout=10, context=context)
    )
    with closing(connection):
        yield connection


def ask(
    connection: http.client.HTTPConnection, path: str = "/metrics", **headers: str
) -> tuple[int, http.client.HTTPResponse, bytes]:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer, answer.read()


def status(host: Host, context: ssl.SSLContext | None, path: str = "/metrics", **headers: str) -> int:
    with connected(host, context) as connection:
        return ask(connection, path, **headers)[0]


def serial(connection: http.client.HTTPConnection) -> str:
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])


def server_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(("passwords", "compress"))]


# TLS


def test_pages_over_tls(files: Files) -> None:
    with running(web_config=files.configure()) as host, connected(host, files.client()) as connection:
        code, answer, body = ask(connection)
        assert (code, values(body.decode())) == (200, [1.0, 1.0, 1.0])
        assert isinstance(connection.sock, ssl.SSLSocket)
        assert connection.sock.version() == "TLSv1.3"
        assert answer.headers["Server"] == "gpudaemon"
        first = connection.sock
        assert ask(connection)[0] == 200
        assert connection.sock is first


def test_a_large_page_over_tls_is_whole(files: Files) -> None:
    big = snapshot(1, 60_000)
    with (
        running(lambda: big, web_config=files.configure()) as host,
        connected(host, files.client()) as connection,
    ):
        assert len(values(ask(connection)[2].decode())) == 60_000


def test_plain_http_to_tls_is_told_so(files: Files) -> None:
    with running(web_config=files.configure()) as host:
        code, answer, body = ask(http.client.HTTPConnection("127.0.0.1", host.port, timeout=10))
        assert (code, body) == (400, b"this port speaks HTTPS\n")
        assert answer.headers["Server"] == "gpudaemon"
        assert host.own("requests_total", code="400") == 1


@pytest.mark.parametrize(
    ("server", "client", "version"),
    [
        ("min_version: TLS13", {"maximum_version": ssl.TLSVersion.TLSv1_2}, None),
        ("max_version: TLS12", {"minimum_version": ssl.TLSVersion.TLSv1_3}, None),
        ("max_version: TLS12", {}, "TLSv1.2"),
        ("min_version: TLS13", {}, "TLSv1.3"),
        ("", {"maximum_version": ssl.TLSVersion.TLSv1_2}, "TLSv1.2"),
    ],
)
def test_versions(files: Files, server: str, client: dict[str, ssl.TLSVersion], version: str | None) -> None:
    context = files.client(**client)
    with running(web_config=files.configure(f"  {server}\n")) as host, connected(host, context) as connection:
        if version is None:
            with pytest.raises(ssl.SSLError):
                connection.connect()
        else:
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            assert connection.sock.version() == version


def test_cipher_suites_and_whose_order_counts(files: Files) -> None:
    ours = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    theirs = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    for preferred, expected in (("true", "AES256"), ("false", "AES128")):
        tls = f"  cipher_suites: [{', '.join(ours)}]\n  prefer_server_cipher_suites: {preferred}\n"
        context = files.client(maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(theirs)
        with running(web_config=files.configure(tls)) as host, connected(host, context) as connection:
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            assert expected in (connection.sock.cipher() or ("",))[0]


def test_a_curve(files: Files) -> None:
    with running(web_config=files.configure("  curve_preferences: [CurveP384]\n")) as host:
        context = files.client()
        context.set_ecdh_curve("prime256v1")
        with connected(host, context) as connection, pytest.raises(ssl.SSLError):
            connection.connect()
        context.set_ecdh_curve("secp384r1")
        assert status(host, context) == 200


def test_certificate_and_key_in_the_file_itself(files: Files) -> None:
    def indented(name: str) -> str:
        return "".join(f"    {line}\n" for line in (files.directory / name).read_text().splitlines())

    text = f"tls_server_config:\n  cert: |\n{indented('server.crt')}  key: |\n{indented('server.key')}"
    files.path.write_text(text)
    with running(web_config=str(files.path)) as host:
        assert status(host, files.client()) == 200


# Client certificates


def test_client_certificates(files: Files) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(files.directory / "clients.crt")
    good, stranger = clients.issue_cert("prometheus.example"), trustme.CA().issue_cert("prometheus.example")
    tls = "  client_ca_file: clients.crt\n  client_auth_type: "
    with running(web_config=files.configure(f"{tls}RequireAndVerifyClientCert\n")) as host:
        assert status(host, files.client(good)) == 200
        for refused in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                status(host, files.client(refused))
    with running(web_config=files.configure(f"{tls}VerifyClientCertIfGiven\n")) as host:
        assert status(host, files.client(good)) == 200
        assert status(host, files.client()) == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            status(host, files.client(stranger))
        assert host.own("failed_total") == 1


@pytest.mark.parametrize("names", [["a.example"], ["10.1.2.3"], ["2001:db8::1"], ["a@b.example", "x.example"]])
def test_names_of_client_certificates(files: Files, names: list[str]) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(files.directory / "clients.crt")
    tls = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.crt\n"
    tls += "  client_allowed_sans:\n"
    with running(web_config=files.configure(f"{tls}    - '{names[-1]}'\n    - y\n")) as host:
        assert status(host, files.client(clients.issue_cert(*names))) == 200
        for other in ("b.example", "xa.example", "10.1.2.4"):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                status(host, files.client(clients.issue_cert(other)))


# Changes without a restart


def changed(host: Host) -> bool:
    return host.run(host.serving.refresh())


def test_a_new_certificate_while_connections_live(files: Files) -> None:
    with running(web_config=files.configure()) as host, connected(host, files.client()) as kept:
        ask(kept)
        old, port = serial(kept), host.port
        assert not changed(host)
        new = files.new_certificate()
        assert changed(host)
        assert not changed(host)
        with connected(host, files.client()) as connection:
            assert ask(connection)[0] == 200
            assert serial(connection) == new != old
        first = kept.sock
        assert ask(kept)[0] == 200
        assert (kept.sock, serial(kept), host.port) == (first, old, port)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda files: files.path.write_text("tls_server_confg: {}"), "did you mean tls_server_config"),
        (lambda files: (files.directory / "server.key").write_text("x"), "not PEM"),
        (lambda files: (files.directory / "server.crt").unlink(), "No such file"),
        (lambda files: files.path.unlink(), "No such file"),
        (
            lambda files: (
                trustme.CA().issue_cert("x").private_key_pem.write_to_path(files.directory / "server.key")
            ),
            "the key does not belong to the certificate",
        ),
        (
            lambda files: files.configure(
                "  client_ca_file: no\n  client_auth_type: VerifyClientCertIfGiven\n"
            ),
            "no:",
        ),
    ],
    ids=["yaml", "key", "certificate", "file", "mismatch", "authority"],
)
def test_what_cannot_be_used_changes_nothing_until_it_is_mended(
    files: Files, spoil: Callable[[Files], object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(web_config=files.configure(rest=user("ann", b"pw"))) as host, caplog.at_level(logging.INFO):
        assert host.serving.web_error == ""
        spoil(files)
        for _ in range(3):
            assert not changed(host)
            assert said in host.serving.web_error
            assert str(files.directory) in host.serving.web_error
        assert status(host, files.client(), **basic("ann", "pw")) == 200
        assert status(host, files.client(), **basic("ann", "no")) == 401
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
        files.new_certificate()
        files.configure(rest=user("ann", b"pw2"))
        assert changed(host)
        assert host.serving.web_error == ""
        assert status(host, files.client(), **basic("ann", "pw2")) == 200
        assert status(host, files.client(), **basic("ann", "pw")) == 401
    assert "pw" not in caplog.text.replace(str(files.directory), "")
    assert "$2" not in caplog.text


def test_what_was_missing_is_found_when_it_comes(files: Files) -> None:
    with running(web_config=files.configure()) as host:
        files.path.write_text("tls_server_config: {cert_file: later.crt, key_file: later.key}\n")
        assert not changed(host)
        for kind in ("crt", "key"):
            shutil.copy(files.directory / f"server.{kind}", files.directory / f"later.{kind}")
        assert changed(host)


def test_from_plain_http_to_tls_and_back(files: Files) -> None:
    with running(web_config=files.configure(plain=True)) as host, connected(host, None) as plain:
        assert ask(plain)[0] == 200
        files.configure()
        assert changed(host)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(plain)
        with connected(host, files.client()) as secret:
            assert ask(secret)[0] == 200
            files.configure(plain=True)
            assert changed(host)
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                ask(secret)
        assert status(host, None) == 200


def test_connections_of_clients_that_may_no_longer_connect_are_closed(files: Files) -> None:
    old, new = trustme.CA(), trustme.CA()
    old.cert_pem.write_to_path(files.directory / "clients.crt")
    tls = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.crt\n"
    client = files.client(old.issue_cert("a.example"))
    with running(web_config=files.configure(tls)) as host, connected(host, client) as connection:
        assert ask(connection)[0] == 200
        new.cert_pem.write_to_path(files.directory / "clients.crt")
        assert changed(host)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            ask(connection)


def test_a_look_that_hangs_holds_up_nobody(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    back = threading.Event()
    with running(web_config=files.configure()) as host:
        monkeypatch.setattr(host.serving._access, "_look", lambda: back.wait(20) and None)
        hanging = asyncio.run_coroutine_threadsafe(host.serving.refresh(), host.loop)
        time.sleep(0.1)
        assert not changed(host)
        assert status(host, files.client()) == 200
        back.set()
        assert not hanging.result(10)


def test_at_the_start_it_is_an_error_and_nothing_listens(files: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as spare:
        free = spare.getsockname()[1]
    path = files.configure("  min_version: TLS14\n")
    with (
        pytest.raises(ConfigError, match="did you mean TLS13"),
        running(web_config=path, addresses=(f"127.0.0.1:{free}",)),
    ):
        pass
    socket.create_server(("127.0.0.1", free)).close()


def test_a_key_everybody_may_read_is_a_warning(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    (files.directory / "server.key").chmod(0o644)
    with running(web_config=files.configure()):
        pass
    assert "everybody on this host may read" in caplog.text


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(files: Files) -> None:
    key = files.directory / "server.key"
    locked = subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret"], check=True, capture_output=True
    )
    key.write_bytes(locked.stdout)
    with pytest.raises(ConfigError, match="passphrase"), running(web_config=files.configure()):
        pass


# Users


def test_every_path_wants_a_password(files: Files) -> None:
    with running(web_config=files.configure(plain=True, rest=user("ann", b"pw"))) as host:
        for path in ("/", "/metrics", "/-/healthy", "/-/ready", "/api/v1/devices", "/nothing"):
            answer, body = host.get(path)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
            assert b"gpudaemon" not in body
        assert server_threads() == []  # nobody's password was checked yet
        assert status(host, None, **basic("ann", "pw")) == 200
        assert status(host, None, **basic("ann", "PW")) == 401
        assert status(host, None, **basic("bob", "pw")) == 401
        assert status(host, None, Authorization="Basic nonsense") == 401
        assert host.own("requests_total", code="401") == 9


def test_a_scraper_that_is_known_gets_through_while_passwords_are_tried(files: Files) -> None:
    with running(web_config=files.configure(plain=True, rest=user("ann", b"pw", 10))) as host:
        assert status(host, None, **basic("ann", "pw")) == 200
        stop = threading.Event()
        codes: list[int] = []

        def attack(number: int) -> None:
            tries = 0
            with connected(host, None) as connection:
                while not stop.is_set():
                    tries += 1
                    codes.append(ask(connection, **basic("ann", f"{number}-{tries}"))[0])

        attackers = [threading.Thread(target=attack, args=(number,)) for number in range(8)]
        for one in attackers:
            one.start()
        took = []
        with connected(host, None) as connection:
            for _ in range(50):
                began = time.monotonic()
                assert ask(connection, **basic("ann", "pw"))[0] == 200
                took.append(time.monotonic() - began)
                time.sleep(0.02)
        stop.set()
        for one in attackers:
            one.join(10)
        assert set(codes) == {401, 429}
        assert max(took) < 1.0
        assert host.own("requests_total", code="429") > 0


def test_headers_of_the_configuration(files: Files) -> None:
    rest = 'http_server_config: {headers: {Content-Security-Policy: "", X-Frame-Options: deny}}'
    with running(web_config=files.configure(plain=True, rest=rest)) as host:
        for path in ("/", "/nothing"):
            answer, _ = host.get(path)
            assert answer.headers["X-Frame-Options"] == "deny"
            assert "Content-Security-Policy" not in answer.headers
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_rate_limit(files: Files) -> None:
    rest = "rate_limit: {interval: 200ms, burst: 3}"
    with running(web_config=files.configure(plain=True, rest=rest)) as host:
        codes = [host.get("/-/healthy")[0].status for _ in range(5)]
        assert codes[:3] == [200, 200, 200]
        assert 429 in codes
        time.sleep(0.3)
        assert host.get("/-/healthy")[0].status == 200


# Bad TLS


GARBAGE = {
    "zeros": b"\0" * 5000,
    "http": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "record of another kind": b"\x17\x03\x03\x00\x10" + b"a" * 16,
    "long record": b"\x16\x03\x01\xff\xff" + b"a" * 70_000,
    "no hello": b"\x16\x03\x01\x00\x10" + b"a" * 16,
    "empty record": b"\x16\x03\x01\x00\x00",
    "end in the header": b"\x16\x03",
    "end in the hello": b"\x16\x03\x01\x02\x00\x01\x00",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_leaves_nothing_behind(files: Files, garbage: bytes) -> None:
    with running(web_config=files.configure()) as host:
        open_files = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with host.connect() as client, suppress(OSError):
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
        assert status(host, files.client()) == 200
        settled(host)
        assert len(os.listdir("/proc/self/fd")) <= open_files + 1
        assert host.own("failed_total") >= 20


def settled(host: Host, most: int = 0) -> None:
    deadline = time.monotonic() + 5
    while host.serving._connections.pending > most:
        assert time.monotonic() < deadline, f"{host.serving._connections.pending} before or in their handshake"
        time.sleep(0.02)


def test_slow_handshakes_are_cut_and_cost_no_time(files: Files) -> None:
    with (
        running(web_config=files.configure(), limits=Limits(handshake_seconds=1)) as host,
        ExitStack() as stack,
    ):
        hello = ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            files.client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME).do_handshake()
        whole = hello.read()
        # One says nothing, one half of its hello, one all of it and then nothing.
        clients = [stack.enter_context(host.connect()) for _ in range(30)]
        for number, client in enumerate(clients):
            client.sendall(whole[: (0, len(whole) // 2, len(whole))[number % 3]])
        time.sleep(0.2)
        assert host.serving._connections.pending == 30
        began = time.process_time()
        assert status(host, files.client()) == 200
        time.sleep(0.5)
        assert time.process_time() - began < 0.3, "waiting for a hello costs processor time"
        settled(host)
        for client in clients:
            with suppress(ConnectionError):
                while client.recv(65536):
                    pass
        assert host.own("failed_total") == 30


def test_handshakes_count_as_connections(files: Files) -> None:
    limits = Limits(connections=16)
    with running(web_config=files.configure(), limits=limits) as host, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(host.connect())
            # Those given up take two rounds of the loop to go, and 16 come in each.
            assert host.serving._connections.pending <= 16 + 3 * 16
        assert status(host, files.client()) == 200
        settled(host, 16)


def test_one_address_cannot_push_out_another(files: Files) -> None:
    with (
        running(web_config=files.configure(), addresses=("127.0.0.1:0",), limits=Limits(connections=8)) as host,
        connected(host, files.client()) as scraper,
        ExitStack() as stack,
    ):
        ask(scraper)
        kept = scraper.sock
        for _ in range(100):
            stack.enter_context(
                socket.create_connection(("127.0.0.1", host.port), timeout=5, source_address=("127.0.0.9", 0))
            )
        settled(host, 8)
        assert ask(scraper)[0] == 200
        assert scraper.sock is kept


def test_closing_ends_with_handshakes_under_way(files: Files) -> None:
    with ExitStack() as stack:
        with running(web_config=files.configure()) as host:
            for _ in range(10):
                stack.enter_context(host.connect())
            began = time.monotonic()
        assert time.monotonic() - began < 3


def test_curl_gets_in(files: Files) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    files.authority.cert_pem.write_to_path(files.directory / "ca.crt")
    with running(web_config=files.configure(rest=user("ann", b"pw"))) as host:
        command = ["curl", "-sS", "--cacert", str(files.directory / "ca.crt"), "-u", "ann:pw"]
        command.append(f"https://localhost:{host.port}/api/v1/devices")
        answer = subprocess.run(command, check=True, capture_output=True, timeout=20)
        assert json.loads(answer.stdout)["version"] == 1
