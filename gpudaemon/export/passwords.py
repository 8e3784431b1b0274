"""Passwords of basic authentication (RFC 7617), checked against bcrypt hashes off the event loop.

One check takes 50 ms and more by design, so there is one thread for them, and a bounded queue that is served
address by address. The thread has the priority of all others: one with less would hold the interpreter, and
with it the event loop, whenever busy processors do not let it run. What was found is remembered, so a scraper
costs a check an hour and gets through while others try passwords. An unknown user costs as much as a wrong
password. Neither names nor passwords are ever logged.
"""

import asyncio
import base64
import binascii
import hashlib
import os
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

__all__ = ["Busy", "Passwords", "credentials_of"]

_REMEMBERED = 128
_RIGHT_SECONDS = 3600.0
_WRONG_SECONDS = 60.0
_LONGEST = 72
"""Bytes of a password that bcrypt looks at; every implementation ignores the rest, or should."""


class Busy(Exception):
    """Too many checks wait already, of this address or of all."""


@dataclass(slots=True, eq=False)
class _Check:
    user: str
    password: bytes
    digest: bytes
    verdict: asyncio.Future[bool]


class Passwords:
    """Checks passwords of `users` (name -> bcrypt hash).

    waiting: most checks that wait. waiting_each: of one address.
    """

    def __init__(self, *, waiting: int = 32, waiting_each: int = 2) -> None:
        self._limits = (waiting, waiting_each)
        self._users: Mapping[str, str] = {}
        self._generation = 0
        self._secret = os.urandom(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[bytes, float] = OrderedDict()
        self._queue: OrderedDict[str, deque[_Check]] = OrderedDict()
        self._pending: dict[bytes, asyncio.Future[bool]] = {}
        self._working = False
        # The executor starts its thread with the first check, never before.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")

    def set_users(self, users: Mapping[str, str]) -> None:
        """Take over these users; what was remembered of the former ones is forgotten."""
        if dict(users) != dict(self._users):
            self._users = dict(users)
            self._generation += 1
            self._right.clear()
            self._wrong.clear()

    @property
    def wanted(self) -> bool:
        """Whether there are users at all: without any, nobody is asked for a password."""
        return bool(self._users)

    def remembered(self, user: str, password: bytes) -> bool | None:
        """What is known of this pair without any work; None where it has to be checked."""
        return self._remembered(self._digest(user, password))

    def _remembered(self, digest: bytes) -> bool | None:
        now = time.monotonic()
        for verdict, known in ((True, self._right), (False, self._wrong)):
            end = known.get(digest)
            if end is not None:
                if now < end:
                    known.move_to_end(digest)
                    return verdict
                del known[digest]
        return None

    async def check(self, user: str, password: bytes, client: str) -> bool:
        """Whether the pair is right. Raises Busy, at once, where too many checks wait."""
        digest = self._digest(user, password)
        known = self._remembered(digest)
        if known is not None:
            return known
        verdict = self._pending.get(digest)
        if verdict is None:
            all_waiting, own = len(self._pending), len(self._queue.get(client, ()))
            if all_waiting >= self._limits[0] or own >= self._limits[1]:
                raise Busy
            verdict = self._pending[digest] = asyncio.get_running_loop().create_future()
            self._queue.setdefault(client, deque()).append(_Check(user, password, digest, verdict))
            self._work()
        return await asyncio.shield(verdict)

    def close(self) -> None:
        """Drop what waits; the thread ends with the check it is at."""
        self._queue.clear()
        for verdict in self._pending.values():
            verdict.cancel()
        self._pending.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _digest(self, user: str, password: bytes) -> bytes:
        name = user.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(
            len(name).to_bytes(4, "big") + name + password, key=self._secret, digest_size=32
        ).digest()

    def _work(self) -> None:
        """Give the thread the next check: the oldest of the address whose turn it is."""
        if self._working or not self._queue:
            return
        client, checks = self._queue.popitem(last=False)
        check = checks.popleft()
        if checks:
            self._queue[client] = checks
        self._working = True
        generation = self._generation
        hashes = tuple(self._users.values())
        hashed = self._users.get(check.user, "")
        done = asyncio.get_running_loop().run_in_executor(self._thread, _verify, check.password, hashed, hashes)
        done.add_done_callback(lambda verdict: self._done(check, generation, verdict))

    def _done(self, check: _Check, generation: int, done: asyncio.Future[bool]) -> None:
        self._working = False
        if done.cancelled() or check.verdict.done():
            return
        if generation != self._generation:
            # The users changed while it was being checked: once more, against those of now, before all others.
            self._queue[""] = deque([check])
            self._queue.move_to_end("", last=False)
        else:
            del self._pending[check.digest]
            error = done.exception()
            if error is not None:
                check.verdict.set_exception(error)
            else:
                self._remember(check.digest, done.result())
                check.verdict.set_result(done.result())
        self._work()

    def _remember(self, digest: bytes, verdict: bool) -> None:
        # Apart, so that no number of wrong ones pushes out a right one.
        known, seconds = (self._right, _RIGHT_SECONDS) if verdict else (self._wrong, _WRONG_SECONDS)
        known[digest] = time.monotonic() + seconds
        while len(known) > _REMEMBERED:
            known.popitem(last=False)


def credentials_of(authorization: str) -> tuple[str, bytes] | None:
    """User and password of an `Authorization` header; None where it holds none (RFC 7617)."""
    scheme, _, encoded = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = decoded.partition(b":")
    return (user.decode("utf-8", "replace"), password) if colon else None


def _verify(password: bytes, hashed: str, hashes: tuple[str, ...]) -> bool:
    """Check one password. Whatever is wrong takes as long as the most expensive of `hashes` does.

    Doubling with each step, work of cost c, c, c + 1, ... m - 1 is work of cost m.
    """
    import bcrypt

    password = password[:_LONGEST]
    most = max((_cost(one) for one in hashes), default=4)
    if hashed:
        if bcrypt.checkpw(password, hashed.encode()):
            return True
        spent = range(_cost(hashed), most)
    else:
        spent = range(most, most + 1)
    for cost in spent:
        bcrypt.hashpw(password, b"$2b$%02d$" % cost + b"." * 22)
    return False


def _cost(hashed: str) -> int:
    return int(hashed[4:6])
