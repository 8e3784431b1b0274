"""Files and calls of a device as one part: nothing twice, nothing lost, the same objects if nothing is new."""

from gpudaemon.metrics import gpu
from gpudaemon.model.snapshot import Block, Samples
from gpudaemon.pipeline.joined import Joined


def part(*series: tuple[str, float | None], rows: tuple[tuple[str, float], ...] = ()) -> Samples:
    block = Block(tuple(name for name, _ in series), tuple(range(len(series))))
    found = {gpu.FIRMWARE_INFO: rows} if rows else {}
    return Samples("0000:03:00.0", {gpu.POWER: block}, tuple(value for _, value in series), found)


def shown(samples: Samples) -> dict[str, float | None]:
    block = samples.blocks[gpu.POWER]
    return dict(zip(block.prefixes, (samples.values[index] for index in block.indexes), strict=True))


def test_a_single_part_is_itself() -> None:
    only = part(("a", 1.0))
    assert Joined().join([only]) is only


def test_the_first_part_that_has_a_series_gives_it() -> None:
    joined = Joined().join([part(("a", 1.0), ("b", None)), part(("b", 5.0), ("c", 6.0))])
    assert shown(joined) == {"a": 1.0, "b": None, "c": 6.0}


def test_rows_are_not_doubled() -> None:
    joined = Joined().join([part(rows=(("x", 1.0),)), part(rows=(("x", 2.0), ("y", 3.0)))])
    assert joined.rows == {gpu.FIRMWARE_INFO: (("x", 1.0), ("y", 3.0))}


def test_what_was_joined_is_known_again() -> None:
    joined = Joined()
    files, calls = part(("a", 1.0), rows=(("x", 1.0),)), part(("b", 2.0))
    first = joined.join([files, calls])
    again = joined.join([files, Samples(calls.device, calls.blocks, (9.0,), calls.rows)])
    assert again.blocks is first.blocks
    assert again.rows is first.rows
    assert shown(again) == {"a": 1.0, "b": 9.0}
    assert shown(joined.join([files, part(("c", 3.0))])) == {"a": 1.0, "c": 3.0}
