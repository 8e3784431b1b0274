"""The control socket: who may open it, what stands in its way, what a client is told."""

import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpudaemon.errors import ConfigError
from gpudaemon.export.control import (
    Control,
    Forbidden,
    NoAnswer,
    NoDaemon,
    Routes,
    ask,
    open_control,
)


async def echo(query: Mapping[str, str]) -> tuple[int, Any]:
    return 200, {"query": dict(query)}


async def refuse(_: Mapping[str, str]) -> tuple[int, Any]:
    raise ConfigError("key 'x': no")


async def broken(_: Mapping[str, str]) -> tuple[int, Any]:
    raise RuntimeError("secret")


async def slow(_: Mapping[str, str]) -> tuple[int, Any]:
    await asyncio.sleep(5)
    return 200, None


ROUTES: Routes = {
    ("GET", "/echo"): echo,
    ("POST", "/refuse"): refuse,
    ("POST", "/broken"): broken,
    ("GET", "/slow"): slow,
}


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Control]:
    control = await open_control(str(path), ROUTES)
    try:
        yield control
    finally:
        await control.close()


def asked(path: Path, method: str, target: str, timeout: float = 5.0) -> tuple[int, Any]:
    async def main() -> tuple[int, Any]:
        async with served(path):
            return await asyncio.to_thread(ask, str(path), method, target, timeout=timeout)

    return asyncio.run(main())


def test_the_answer_of_a_route_comes_back(tmp_path: Path) -> None:
    assert asked(tmp_path / "s", "GET", "/echo?a=1&b=%C3%A4") == (200, {"query": {"a": "1", "b": "ä"}})


@pytest.mark.parametrize(
    ("method", "target", "status", "error"),
    [
        ("POST", "/refuse", 400, "key 'x': no"),
        ("POST", "/broken", 500, "internal error; see the daemon's log"),
        ("GET", "/nothing", 404, "Not Found"),
        ("DELETE", "/echo", 405, "Method Not Allowed"),
    ],
)
def test_refusals_are_json_without_inner_secrets(
    tmp_path: Path, method: str, target: str, status: int, error: str
) -> None:
    assert asked(tmp_path / "s", method, target) == (status, {"error": error})


def test_a_daemon_that_does_not_answer_in_time(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=r"no answer within 0\.2 s"):
        asked(tmp_path / "s", "GET", "/slow", timeout=0.2)


def test_it_is_open_to_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    async def main() -> int:
        async with served(tmp_path / "s"):
            return os.stat(tmp_path / "s").st_mode

    for mask in (0o000, 0o777):
        former = os.umask(mask)
        try:
            mode = asyncio.run(main())
        finally:
            os.umask(former)
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0 or os.uname().machine != "x86_64", reason="changes its user")
def test_another_user_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    found: list[BaseException] = []

    def as_nobody() -> None:
        # Of this thread only: the C library would change all of them.
        import ctypes

        libc = ctypes.CDLL(None)
        libc.syscall(117, -1, 65534, -1)  # setresuid
        try:
            ask(str(tmp_path / "s"), "GET", "/echo")
        except BaseException as error:
            found.append(error)

    async def main() -> None:
        async with served(tmp_path / "s"):
            thread = threading.Thread(target=as_nobody)
            thread.start()
            await asyncio.to_thread(thread.join)

    asyncio.run(main())
    assert [type(error) for error in found] == [Forbidden]


def test_a_socket_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "s"))
    stale.close()
    assert asked(tmp_path / "s", "GET", "/echo")[0] == 200


def test_the_socket_of_a_running_daemon_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path / "s"):
            with pytest.raises(ConfigError, match="another daemon answers there"):
                await open_control(str(tmp_path / "s"), ROUTES)
            assert (await asyncio.to_thread(ask, str(tmp_path / "s"), "GET", "/echo"))[0] == 200

    asyncio.run(main())


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        asyncio.run(open_control(str(tmp_path / "s"), ROUTES))
    assert (tmp_path / "s").read_text() == "mine"


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    async def main() -> None:
        control = await open_control(str(tmp_path / "s"), ROUTES)
        (tmp_path / "s").unlink()
        async with served(tmp_path / "s"):
            await control.close()
            assert (await asyncio.to_thread(ask, str(tmp_path / "s"), "GET", "/echo"))[0] == 200

    asyncio.run(main())


def test_the_longest_path_works_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    longest = tmp_path / ("s" * (107 - len(str(tmp_path)) - 1))
    assert asked(longest, "GET", "/echo")[0] == 200
    with pytest.raises(ConfigError, match=r"108 bytes.*107.*path\.runtime"):
        asyncio.run(open_control(f"{longest}s", ROUTES))
    with pytest.raises(NoDaemon, match="108 bytes"):
        ask(f"{longest}s", "GET", "/")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        asyncio.run(open_control(str(tmp_path / "no" / "s"), ROUTES))


def test_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match=r"path\.runtime"):
        ask(str(tmp_path / "s"), "GET", "/")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
    with pytest.raises(NoDaemon):
        ask(str(tmp_path / "s"), "GET", "/")


def test_something_else_that_listens_there(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()

        def answer() -> None:
            client, _ = other.accept()
            with client:
                client.recv(1000)
                client.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NoAnswer, match="not an answer of the daemon"):
            ask(str(tmp_path / "s"), "GET", "/")
        thread.join(5)
