"""Turns: few in a round, fair between clients, and nothing to do while nobody asks."""

import asyncio

import pytest

from gpudaemon.export.turns import Turns, client_of


def order(wanted: list[str], each_round: int) -> list[tuple[int, str]]:
    """(round of the loop, client), in the order in which turns were given."""
    given: list[tuple[int, str]] = []

    async def main() -> None:
        turns = Turns(each_round)
        rounds = 0

        def count() -> None:
            nonlocal rounds
            rounds += 1
            asyncio.get_running_loop().call_soon(count)

        async def one(client: str) -> None:
            await turns.take(client)
            given.append((rounds, client))

        count()
        await asyncio.gather(*(one(client) for client in wanted))

    asyncio.run(main())
    return given


def test_at_most_so_many_in_a_round() -> None:
    rounds = [number for number, _ in order(["a"] * 50, 4)]
    assert len(rounds) == 50
    assert max(rounds.count(number) for number in rounds) == 4


def test_who_asks_once_does_not_wait_for_who_asks_often() -> None:
    clients = [client for _, client in order(["a"] * 100 + ["b"], 1)]
    assert clients.index("b") <= 2


def test_who_went_away_takes_no_turn() -> None:
    async def main() -> int:
        turns = Turns(1)
        await turns.take("a")
        waiting = [asyncio.create_task(turns.take("a")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in waiting[:9]:
            task.cancel()
        rounds = 0
        while not waiting[9].done():
            await asyncio.sleep(0)
            rounds += 1
        return rounds

    assert asyncio.run(main()) <= 4


def test_nothing_is_scheduled_while_nobody_asks() -> None:
    async def main() -> tuple[bool, bool]:
        turns = Turns(2)
        await asyncio.gather(*(turns.take("a") for _ in range(5)))
        for _ in range(5):
            await asyncio.sleep(0)
        return turns._scheduled, bool(turns._waiting)

    assert asyncio.run(main()) == (False, False)


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::9", 5, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8::9", 5, 0, 0), "2001:db8:0:0::/64"),
        (("2001:db8:0:0:1::", 5, 0, 0), "2001:db8:0:0::/64"),
        (("::1", 5, 0, 0), "0:0:0:0::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80:0:0:0::/64"),
        ("", "unix"),
        (None, "unix"),
        (b"", "unix"),
    ],
)
def test_whose_address_it_is(peer: object, client: str) -> None:
    assert client_of(peer) == client
