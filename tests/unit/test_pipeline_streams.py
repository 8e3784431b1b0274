"""What a tracer tells, kept over the tracer's death."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

from gpudaemon.metrics import hmm as rows
from gpudaemon.pipeline.scout import ScoutLink
from gpudaemon.pipeline.streams import Streams, Wanted

ARMED = {"hmm": ["armed", "fprobe", "", 1, 0]}
LABELS = ["pod/a", "to_device", "driver"]


class Tracers:
    """Each is one end of a socket pair, and says what it is told to say."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    def launch(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends.append(theirs)
        return ours, 100 + len(self.ends)

    def say(self, **message: Any) -> None:
        self.ends[-1].send(json.dumps(message).encode())

    def count(self, pages: int, *, labels: list[str] = LABELS) -> None:
        self.say(rows=[[rows.MIGRATED.name, labels, pages]], subject="hmm")

    def end_cycle(self, number: int) -> None:
        self.say(cycle=number, subjects=ARMED, events=0, lost=0, malformed=0, cpu=0.5)


def shown(streams: Streams) -> dict[tuple[str, ...], float]:
    """Labels' values -> pages."""
    (kept,) = streams._subjects.values()
    return {labels: value for _, labels, value in kept.rows() if isinstance(value, float | int)}


def scene(play: Callable[[Tracers, Streams], Any]) -> None:
    async def run() -> None:
        tracers = Tracers()
        link = ScoutLink(tracers.launch, lambda _: None, 1.0, name="tracer")
        wanted = Wanted(period=1.0, subjects=("hmm",), tracing={})
        streams = Streams(link, wanted, procfs="/proc", sysfs="/sys")
        streams.begin(asyncio.get_running_loop())
        await until(lambda: link.up)
        await play(tracers, streams)
        streams.close()
        for end in tracers.ends:
            end.close()

    asyncio.run(run())


async def until(done: Callable[[], Any]) -> None:
    for _ in range(500):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def test_counters_go_on_and_a_dead_tracers_half_cycle_does_not() -> None:
    async def play(tracers: Tracers, streams: Streams) -> None:
        tracers.count(100)
        tracers.end_cycle(1)
        await until(lambda: streams.standings)
        # It dies amid a cycle: what it had told of that was never whole.
        tracers.count(130)
        tracers.count(7, labels=["pod/b", "to_device", "driver"])
        tracers.ends[0].close()
        await until(lambda: len(tracers.ends) == 2 and streams.link.up)
        tracers.count(5)
        tracers.end_cycle(1)
        await until(lambda: streams.standings)
        assert shown(streams) == {tuple(LABELS): 105}

    scene(play)


def test_nothing_is_armed_while_nobody_traces() -> None:
    async def play(tracers: Tracers, streams: Streams) -> None:
        tracers.count(100)
        tracers.end_cycle(1)
        await until(lambda: streams.standings)
        assert streams.standings["hmm"].state == "armed"
        tracers.ends[0].close()
        await until(lambda: streams.link.restarts == {"died": 1})
        assert not streams.standings
        assert shown(streams) == {tuple(LABELS): 100}, "what was counted stays"
        await until(lambda: len(tracers.ends) == 2 and streams.link.up)
        assert not streams.standings, "it has not said yet what it watches"
        tracers.end_cycle(1)
        await until(lambda: streams.standings)

    scene(play)
