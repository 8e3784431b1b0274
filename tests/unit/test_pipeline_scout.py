"""The scout as the server sees it: how long its next start waits for."""

import asyncio
import json
import socket
import time

import pytest

from gpudaemon.pipeline import scout
from gpudaemon.pipeline.scout import ScoutLink


class Scouts:
    """Starts scouts that are one end of a socket pair."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    def launch(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends.append(theirs)
        return ours, 100 + len(self.ends)


async def started(link: ScoutLink, pid: int) -> None:
    for _ in range(500):
        if link.up and link.pid == pid:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"no scout {pid}")


@pytest.mark.parametrize("lived,waits", [(0.0, True), (3600.0, False)])
def test_one_that_lived_long_is_replaced_at_once(
    lived: float, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Life is counted from the start and not from its last word, which is always a moment ago."""
    monkeypatch.setattr(scout, "_DELAYS", (0.0, 0.3))
    now = 1000.0
    monkeypatch.setattr(scout, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now)}))

    async def scene() -> float:
        nonlocal now
        scouts = Scouts()
        link = ScoutLink(scouts.launch, lambda _: None, 5.0)
        link.start(asyncio.get_running_loop())
        await started(link, 101)
        now += lived
        scouts.ends[0].send(b"{}")
        await asyncio.sleep(0.05)
        scouts.ends[0].close()
        began = time.monotonic()
        await started(link, 102)
        took = time.monotonic() - began
        link.close()
        scouts.ends[1].close()
        return took

    took = asyncio.run(scene())
    assert (took >= 0.3) is waits


def test_a_further_one_gets_settings_of_its_own_start() -> None:
    """Where to go on in the kernel's log: what was so when the settings were made is not so any more."""
    places = iter((-1, 40))

    async def scene() -> list[int]:
        scouts = Scouts()
        link = ScoutLink(scouts.launch, lambda _: None, 5.0)
        link.on_start = lambda: {"after": next(places)}
        link.settle({"period": 5.0})
        link.start(asyncio.get_running_loop())
        await started(link, 101)
        scouts.ends[0].close()
        await started(link, 102)
        link.settle({"period": 6.0})
        said = [json.loads(scouts.ends[1].recv(4096))["settings"] for _ in range(2)]
        link.close()
        scouts.ends[1].close()
        return [one.get("after") for one in said]

    assert asyncio.run(scene()) == [40, None]
