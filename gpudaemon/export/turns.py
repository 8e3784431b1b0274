"""Turns for work that costs the event loop something: fair between clients, few in one round of the loop.

A client is known by its address. Without this, whoever sends a thousand requests at once has them answered in
one round, while everybody else, the sampler included, waits for that round to end.
"""

import asyncio
from collections import OrderedDict, deque

__all__ = ["Turns", "client_of"]


class Turns:
    """Gives turns, at most `each_round` in one round of the loop; who must wait is served address by address.

    What waits is bounded by the connections there can be, each of which waits for one turn.
    """

    def __init__(self, each_round: int) -> None:
        self._each_round = each_round
        self._left = each_round
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._scheduled = False

    async def take(self, client: str) -> None:
        """Return when it is this client's turn, at once where nobody waits."""
        loop = asyncio.get_running_loop()
        if self._left > 0 and not self._waiting:
            self._left -= 1
            self._schedule(loop)
            return
        turn = loop.create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        self._schedule(loop)
        await turn

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Nothing is scheduled while nobody asks: an idle server is not woken.
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._give, loop)

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        self._left = self._each_round
        while self._left and self._waiting:
            client, turns = self._waiting.popitem(last=False)
            while turns:
                turn = turns.popleft()
                if not turn.done():
                    turn.set_result(None)
                    self._left -= 1
                    break
            if turns:
                self._waiting[client] = turns
        if self._waiting:
            self._schedule(loop)


def client_of(peer: object) -> str:
    """Who is asking, by the peer's address as `getpeername` gives it.

    IPv6 counts by its first 64 bits, because whoever has one address there has all of them; an IPv4 address is
    the same on an IPv6 socket. Every client of a Unix socket is one.
    """
    if not isinstance(peer, tuple) or not peer:
        return "unix"
    host = str(peer[0]).partition("%")[0]
    if ":" not in host:
        return host
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return ":".join(_groups(host)[:4]) + "::/64"


def _groups(host: str) -> list[str]:
    """The eight groups of an IPv6 address as the kernel writes it."""
    head, gap, tail = host.partition("::")
    before = head.split(":") if head else []
    after = tail.split(":") if tail else []
    return [*before, *["0"] * (8 - len(before) - len(after) if gap else 0), *after]
