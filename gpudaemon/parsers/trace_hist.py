"""events/GROUP/EVENT/hist: what hist triggers have added up.

kernel/trace/trace_events_hist.c (hist_show). A block a trigger:

    # event histogram
    #
    # trigger info: hist:keys=ring,err:vals=hitcount:sort=hitcount:size=2048 [active]
    #

    { ring: gfx                                      , err:          0 } hitcount:        200  run:  12345

    Totals:
        Hits: 202
        Entries: 2
        Dropped: 0

Signed keys are printed unsigned, `.log2` ones as `~ 2^11`. Lines of actions (`changed:`, `max:`) begin with a
tab.
"""

import re
from collections.abc import Iterable

from gpudaemon.errors import Malformed
from gpudaemon.model.tracing import Hist, HistRow

__all__ = ["histograms", "power", "signed", "trigger"]

_LONGEST = 1 << 24
_MOST_BLOCKS = 64
_BEGIN = b"# event histogram"
_INFO = b"# trigger info: "
_TOTAL = re.compile(rb"\s+(Hits|Entries|Dropped): (\d{1,20})(?: .*)?")
_KEY = re.compile(r"(?:\A|, )([A-Za-z_][\w.]*): ")
_VALUE = re.compile(r"([A-Za-z_][\w.]*):\s+(\d{1,20})(?=\s|\Z)")
_STATES = (" [active]", " [paused]", " [unknown]")
_TWICE = re.compile(r"\b(common_[a-z]+)\1\b", re.ASCII)
_POWER = re.compile(r"~ 2\^(\d{1,2})\s*", re.ASCII)


def histograms(content: bytes) -> tuple[Hist, ...]:
    """Every block of a `hist` file, in its order; none where nothing triggers. Raises Malformed."""
    if len(content) > _LONGEST:
        raise Malformed("oversized")
    blocks = content.split(_BEGIN)[1:]
    if len(blocks) > _MOST_BLOCKS:
        raise Malformed("oversized")
    return tuple(_block(block.split(b"\n")) for block in blocks)


def trigger(line: str) -> str:
    """A trigger as it would be written, from the line the kernel prints of it.

    7.x prints some keys twice, `common_cpucommon_cpu` (hist_field_print), and does not understand that itself.
    """
    for state in _STATES:
        line = line.removesuffix(state)
    return _TWICE.sub(r"\1", line.strip())


def power(key: str) -> int:
    """The exponent of a `.log2` key. Raises Malformed."""
    found = _POWER.fullmatch(key)
    if found is None:
        # hist_trigger_print_key prints zero without a power
        if key.strip() == "0":
            return 0
        raise Malformed("format")
    return int(found[1])


def signed(key: str, bits: int = 64) -> int:
    """A key of a signed field of so many bits, which is printed without its sign. Raises Malformed.

    A narrower field is widened to 64 bits with its sign before it becomes a key (hist_field_s32 and the like).
    """
    if not (key.isascii() and key.isdigit()) or len(key) > 20:
        raise Malformed("not_a_number")
    value = int(key) & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


def _block(lines: Iterable[bytes]) -> Hist:
    text = ""
    rows = []
    totals: dict[bytes, int] = {}
    for line in lines:
        if line.startswith(_INFO):
            text = trigger(line.removeprefix(_INFO).decode("utf-8", "replace"))
        elif line.startswith(b"{ "):
            rows.append(_row(line.decode("utf-8", "replace")))
        elif found := _TOTAL.fullmatch(line):
            totals[found[1]] = int(found[2])
    if not text or len(totals) != 3:
        raise Malformed("format")
    return Hist(text, tuple(rows), totals[b"Hits"], totals[b"Entries"], totals[b"Dropped"])


def _row(line: str) -> HistRow:
    # A key may be a process's name and hold anything: the values are the last that looks like them.
    keys_text, brace, values_text = line[2:].rpartition(" } ")
    if not brace:
        raise Malformed("format")
    found = list(_KEY.finditer(keys_text))
    ends = [*(one.start() for one in found[1:]), len(keys_text)]
    keys = {one[1]: keys_text[one.end() : end].strip() for one, end in zip(found, ends, strict=False)}
    values = {name: int(number) for name, number in _VALUE.findall(values_text)}
    if not keys or "hitcount" not in values:
        raise Malformed("format")
    return HistRow(keys, values)
