"""Password checks: right, wrong, remembered, bounded; an unknown user takes as long as a wrong password."""

import asyncio
import base64
import os
import statistics
import threading
import time
from collections.abc import Awaitable, Callable

import bcrypt
import pytest

from gpudaemon.export import passwords as module
from gpudaemon.export.passwords import Busy, Passwords, credentials_of


def hashed(password: bytes, cost: int = 4) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode()


def run(of: Callable[[Passwords], Awaitable[None]], users: dict[str, str], **bounds: int) -> None:
    async def main() -> None:
        passwords = Passwords(**bounds)
        passwords.set_users(users)
        try:
            await of(passwords)
        finally:
            passwords.close()

    asyncio.run(main())


def test_right_wrong_unknown() -> None:
    async def check(passwords: Passwords) -> None:
        assert await passwords.check("ann", b"right", "a")
        assert not await passwords.check("ann", b"wrong", "a")
        assert not await passwords.check("bob", b"right", "a")
        assert not await passwords.check("", b"", "a")
        assert not await passwords.check("\udcff", b"\x00\xff", "a")

    run(check, {"ann": hashed(b"right")})


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_the_prefixes_of_other_tools(prefix: str) -> None:
    async def check(passwords: Passwords) -> None:
        assert await passwords.check("ann", b"right", "a")

    run(check, {"ann": prefix + hashed(b"right")[4:]})


def test_what_is_longer_than_bcrypt_looks_at() -> None:
    async def check(passwords: Passwords) -> None:
        assert await passwords.check("ann", b"x" * 100, "a")
        assert not await passwords.check("ann", b"y" * 5000, "a")

    run(check, {"ann": hashed(b"x" * 72)})


def test_no_thread_before_the_first_check_and_none_for_what_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check(passwords: Passwords) -> None:
        assert set(threading.enumerate()) <= before
        assert passwords.remembered("ann", b"right") is None
        assert await passwords.check("ann", b"right", "a")
        assert not await passwords.check("ann", b"wrong", "a")
        monkeypatch.setattr(module, "_verify", None)  # any further work would fail
        assert await passwords.check("ann", b"right", "a")
        assert not await passwords.check("ann", b"wrong", "a")

    before = set(threading.enumerate())
    run(check, {"ann": hashed(b"right")})


def test_new_users_forget_what_was_remembered() -> None:
    async def check(passwords: Passwords) -> None:
        assert await passwords.check("ann", b"right", "a")
        passwords.set_users({"ann": hashed(b"new")})
        assert not await passwords.check("ann", b"right", "a")
        assert await passwords.check("ann", b"new", "a")

    run(check, {"ann": hashed(b"right")})


def test_users_that_change_during_a_check_count() -> None:
    async def check(passwords: Passwords) -> None:
        checking = asyncio.create_task(passwords.check("ann", b"right", "a"))
        await asyncio.sleep(0.01)
        passwords.set_users({"ann": hashed(b"other")})
        assert not await checking
        assert not await passwords.check("ann", b"right", "a")

    run(check, {"ann": hashed(b"right", 9)})


def test_what_was_remembered_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RIGHT_SECONDS", 0.05)
    monkeypatch.setattr(module, "_WRONG_SECONDS", 0.05)

    async def check(passwords: Passwords) -> None:
        await passwords.check("ann", b"right", "a")
        await passwords.check("ann", b"wrong", "a")
        assert (passwords.remembered("ann", b"right"), passwords.remembered("ann", b"wrong")) == (True, False)
        await asyncio.sleep(0.06)
        assert (passwords.remembered("ann", b"right"), passwords.remembered("ann", b"wrong")) == (None, None)

    run(check, {"ann": hashed(b"right")})


def test_wrong_passwords_never_push_out_a_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 4)

    async def check(passwords: Passwords) -> None:
        assert await passwords.check("ann", b"right", "a")
        for number in range(20):
            assert not await passwords.check("ann", b"%d" % number, "a")
        assert passwords.remembered("ann", b"right") is True
        assert sum(passwords.remembered("ann", b"%d" % number) is False for number in range(20)) == 4

    run(check, {"ann": hashed(b"right")})


def test_one_address_cannot_fill_the_queue() -> None:
    async def check(passwords: Passwords) -> None:
        tries = [asyncio.create_task(passwords.check("ann", b"%d" % n, "attacker")) for n in range(50)]
        await asyncio.sleep(0)
        began = time.monotonic()
        assert await passwords.check("ann", b"right", "scraper")
        took = time.monotonic() - began
        found = await asyncio.gather(*tries, return_exceptions=True)
        # One being checked, two waiting; the scraper's comes after the one being checked and one more at most.
        assert sum(isinstance(one, Busy) for one in found) == 47
        assert took < 10 * cost

    cost = _seconds(lambda: bcrypt.hashpw(b"", bcrypt.gensalt(8)))
    run(check, {"ann": hashed(b"right", 8)})


def test_the_whole_queue_is_bounded() -> None:
    async def check(passwords: Passwords) -> None:
        tries = [asyncio.create_task(passwords.check("ann", b"%d" % n, f"{n}")) for n in range(100)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(one, Busy) for one in found) == 90

    run(check, {"ann": hashed(b"right")}, waiting=10)


def test_the_same_pair_is_checked_once_however_often_it_is_asked() -> None:
    async def check(passwords: Passwords) -> None:
        assert all(await asyncio.gather(*(passwords.check("ann", b"right", "a") for _ in range(50))))

    run(check, {"ann": hashed(b"right")})


def test_who_goes_away_leaves_the_check_to_the_others() -> None:
    async def check(passwords: Passwords) -> None:
        first = asyncio.create_task(passwords.check("ann", b"right", "a"))
        second = asyncio.create_task(passwords.check("ann", b"right", "b"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second

    run(check, {"ann": hashed(b"right", 8)})


def test_an_unknown_user_and_a_cheaper_hash_take_as_long_as_the_most_expensive_one() -> None:
    users = {"cheap": hashed(b"right", 6), "dear": hashed(b"right", 9)}
    hashes = tuple(users.values())
    times: dict[str, list[float]] = {"cheap": [], "dear": [], "nobody": []}
    for _ in range(7):
        for user, taken in times.items():
            taken.append(_seconds(lambda user=user: module._verify(b"wrong", users.get(user, ""), hashes)))
    medians = [statistics.median(taken) for taken in times.values()]
    assert max(medians) < 1.5 * min(medians), medians


def test_checks_do_not_hold_the_interpreter_at_a_low_priority() -> None:
    async def check(passwords: Passwords) -> None:
        assert await passwords.check("ann", b"right", "a")
        thread = next(one for one in threading.enumerate() if one.name.startswith("passwords"))
        assert os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) == os.nice(0)

    run(check, {"ann": hashed(b"right")})


def test_the_loop_goes_on_during_a_check() -> None:
    async def check(passwords: Passwords) -> None:
        checking = asyncio.create_task(passwords.check("ann", b"right", "a"))
        turns = 0
        while not checking.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert await checking
        assert turns > 20

    run(check, {"ann": hashed(b"right", 11)})


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Basic YTpi", ("a", b"b")),
        ("basic   YTpi ", ("a", b"b")),
        ("Basic " + base64.b64encode("ä:b:c".encode()).decode(), ("ä", b"b:c")),
        ("Basic Og==", ("", b"")),
        ("Basic YWI=", None),
        ("Basic !!!", None),
        ("Basic ä", None),
        ("Bearer YTpi", None),
        ("Basic", None),
        ("", None),
    ],
)
def test_credentials(header: str, found: tuple[str, bytes] | None) -> None:
    assert credentials_of(header) == found


def _seconds(of: Callable[[], object]) -> float:
    began = time.perf_counter()
    of()
    return time.perf_counter() - began
