"""What CXL memory devices and ports report by themselves, counted as the kernel traces it. Pure.

The driver takes the records out of a device's logs at its interrupt and keeps no count of them: whoever does
not look then never knows (drivers/cxl/core/mbox.c, cxl_mem_get_records_log). Errors of the link (CXL.cachemem
RAS) come the same way from the AER driver (drivers/cxl/core/pci.c). Which events and fields there are differs
from kernel to kernel: those of ports and of sparing are newer, as are most `sub_type`s.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpudaemon.metrics import cxl_events as rows
from gpudaemon.model.tracing import Context, Event, Hist, Note, Recipe, StreamRow, Subject, Tap

__all__ = ["RECIPE", "STREAM", "TRANSACTIONS", "TYPES", "Reports"]

_GROUP = "cxl"
_MOST_KEYS = 4096
_NO_ADDRESS = (1 << 64) - 1
"""Of `hpa`: the device address is in no region."""
_UNCORRECTABLE = 1 << 0
"""Of `descriptor` (CXL_GMER_EVT_DESC_UNCORRECTABLE_EVENT)."""

_TROUBLE = {"warning": "corrected", "failure": "uncorrected", "fatal": "fatal"}
"""What is in the informational log is none, unless its descriptor says that data was lost."""
_LOGS = ("informational", "warning", "failure", "fatal")
TRANSACTIONS = (
    "unknown",
    "host_read",
    "host_write",
    "host_scan_media",
    "host_inject_poison",
    "internal_media_scrub",
    "internal_media_management",
    "internal_media_error_check_scrub",
    "media_initialization",
)
TYPES: Mapping[str, Sequence[str]] = {
    "general_media": (
        "ecc_error",
        "invalid_address",
        "data_path_error",
        "te_state_violation",
        "scrub_media_ecc_error",
        "adv_prog_cme_counter_expiration",
        "ckid_violation",
    ),
    "dram": (
        "ecc_error",
        "scrub_media_ecc_error",
        "invalid_address",
        "data_path_error",
        "te_state_violation",
        "adv_prog_cme_counter_expiration",
        "ckid_violation",
    ),
    "memory_module": (
        "health_status_change",
        "media_status_change",
        "life_used_change",
        "temperature_change",
        "data_path_error",
        "lsa_error",
        "unrecoverable_internal_sideband_bus_error",
        "memory_media_fru_error",
        "power_management_fault",
    ),
    "poison": ("unknown", "external", "internal", "injected", "", "", "", "vendor"),
    "corrected": (
        "cache_data_ecc_error",
        "memory_data_ecc_error",
        "crc_threshold_hit",
        "retry_threshold",
        "received_cache_poison_from_peer",
        "received_memory_poison_from_peer",
        "received_error_from_physical_layer",
    ),
    "uncorrected": (
        "cache_data_parity_error",
        "cache_address_parity_error",
        "cache_byte_enable_parity_error",
        "cache_data_ecc_error",
        "memory_data_parity_error",
        "memory_address_parity_error",
        "memory_byte_enable_parity_error",
        "memory_data_ecc_error",
        "reinit_threshold_hit",
        "received_unrecognized_encoding",
        "received_poison_from_peer",
        "receiver_overflow",
        "",
        "",
        "component_specific_error",
        "ide_tx_error",
        "ide_rx_error",
    ),
}
"""The words of the kernel's print formats, by event, or by severity for the bits of a RAS status."""

_POISON_TRACES = ("list", "inject", "clear")
_WHO = ("host", "memdev")
_PLACE = ("dpa", "hpa?", "region_name?")
_ERRORS = {"corrected": "correctable_error", "uncorrected": "uncorrectable_error"}


def _tap(event: str, *fields: str) -> Tap:
    return Tap(event=f"{_GROUP}/cxl_{event}", fields=fields, optional=True)


_RECORDS = {
    "general_media": ("type", "transaction_type", "descriptor", *_PLACE),
    "dram": ("type", "transaction_type", "descriptor", *_PLACE),
    "memory_module": ("event_type",),
    "memory_sparing": (),
    "generic_event": (),
    "overflow": ("count",),
}
"""Event -> its fields after those that all records have."""

RECIPE = Recipe(
    name="events",
    modules=("cxl_core",),
    taps=(
        *(_tap(event, *_WHO, "log", *fields) for event, fields in _RECORDS.items()),
        _tap("poison", *_WHO, "source", "trace_type", "dpa", "hpa?", "region?"),
        *(_tap(f"aer_{name}", *_WHO, "status") for name in _ERRORS.values()),
        *(_tap(f"port_aer_{name}", "device", "status") for name in _ERRORS.values()),
    ),
)


class Reports:
    """The accumulator (`model.tracing.Accumulator`)."""

    def __init__(self, context: Context) -> None:
        self._unix = context.unix
        self._known = False
        self._lower_bound = False
        self._events: Counter[tuple[str, ...]] = Counter()
        self._last: dict[tuple[str, ...], int] = {}
        self._errors: Counter[tuple[str, ...]] = Counter()
        self._overflowed: Counter[tuple[str, ...]] = Counter()
        self._notes: dict[tuple[str, str, str], tuple[int, str]] = {}

    def armed(self, recipe: Recipe | None) -> None:
        """Counts go on."""
        self._known = self._known or recipe is not None

    def take(self, events: Sequence[Event]) -> None:
        """Events of the CXL core."""
        for at, name, values in events:
            event = name.partition("/cxl_")[2]
            if event.startswith("port_aer_"):
                device, status = values
                self._error(at, event, device, "", status)
            elif event.startswith("aer_"):
                device, memdev, status = values
                self._error(at, event, device, memdev, status)
            elif event == "poison":
                self._poison(at, *values)
            else:
                self._record(at, event, *values)

    def take_hist(self, event: str, hist: Hist) -> None:
        """The kernel adds nothing up."""

    def lost(self, events: int) -> None:
        """Whose events they were is not known."""
        self._lower_bound = True

    def rows(self, now: int) -> Iterator[StreamRow]:
        """All figures; none before anything could be watched."""
        if not self._known:
            return
        for metric, counts in (
            (rows.EVENTS, self._events),
            (rows.PROTOCOL_ERRORS, self._errors),
            (rows.OVERFLOWED, self._overflowed),
        ):
            yield from ((metric, labels, float(count)) for labels, count in counts.items())
        yield from ((rows.LAST_SEEN, labels, self._unix(at)) for labels, at in self._last.items())
        yield rows.LOWER_BOUND, (), float(self._lower_bound)

    def notes(self) -> Iterable[Note]:
        """What is trouble; a burst is one note, with the last event's text."""
        told, self._notes = self._notes, {}
        return [
            Note(device=device, kind="cxl", severity=severity, text=text, count=count)
            for (device, _, severity), (count, text) in told.items()
        ]

    def _record(self, at: int, event: str, device: str, memdev: str, log: int, *values: Any) -> None:
        severity = _word(_LOGS, log)
        kind = transaction = place = ""
        trouble = _TROUBLE.get(severity, "")
        if event in ("general_media", "dram"):
            number, transaction_number, descriptor, dpa, hpa, region = values
            kind, transaction = _word(TYPES[event], number), _word(TRANSACTIONS, transaction_number)
            place = _place(dpa, hpa, region)
            if descriptor & _UNCORRECTABLE and trouble != "fatal":
                trouble = "uncorrected"
        elif event == "memory_module":
            kind = _word(TYPES[event], values[0])
        elif event == "overflow":
            self._add(self._overflowed, (device, memdev, severity), values[0])
            trouble = ""
        self._count(at, device, memdev, event, severity, kind, transaction)
        if trouble:
            text = f"{memdev}: {event}, {severity}: {kind} {transaction}".rstrip(": ").replace("_", " ")
            self._trouble(device, event, trouble, text + place)

    def _poison(self, at: int, *values: Any) -> None:
        device, memdev, source, trace, dpa, hpa, region = values
        kind, how = _word(TYPES["poison"], source), _word(_POISON_TRACES, trace)
        self._count(at, device, memdev, "poison", "", kind, how)
        if how != "clear":
            self._trouble(
                device, "poison", "uncorrected", f"{memdev}: poison, {how}: {kind}{_place(dpa, hpa, region)}"
            )

    def _error(self, at: int, event: str, device: str, memdev: str, status: int) -> None:
        severity = "uncorrected" if event.endswith("uncorrectable_error") else "corrected"
        words = TYPES[severity]
        names = [_word(words, bit) for bit in range(status.bit_length()) if status >> bit & 1]
        for name in names:
            self._add(self._errors, (device, memdev, severity, name))
        kind = "port_aer" if event.startswith("port_") else "aer"
        self._count(at, device, memdev, kind, severity, "", "")
        text = f"{memdev or 'port'}: {severity}: {', '.join(names).replace('_', ' ')}"
        self._trouble(device, kind, severity, text)

    def _count(self, at: int, device: str, memdev: str, event: str, *rest: str) -> None:
        if self._add(self._events, (device, memdev, event, *rest)):
            self._last[device, memdev, event, rest[0]] = at

    def _add(self, counts: Counter[tuple[str, ...]], labels: tuple[str, ...], more: int = 1) -> bool:
        if labels not in counts and len(counts) >= _MOST_KEYS:
            self._lower_bound = True
            return False
        counts[labels] += more
        return True

    def _trouble(self, device: str, event: str, severity: str, text: str) -> None:
        key = (device, event, severity)
        if key in self._notes or len(self._notes) < _MOST_KEYS:
            count, _ = self._notes.get(key, (0, ""))
            self._notes[key] = (count + 1, text)


def _word(words: Sequence[str], number: int) -> str:
    """The kernel's word, or the number where it has none."""
    return (words[number] if 0 <= number < len(words) else "") or str(number)


def _place(dpa: int, hpa: int | None, region: str | None) -> str:
    """Where, as far as the kernel translates it. The two lowest bits of `dpa` are flags, which it has cut."""
    text = f" at {dpa:#x} of the device"
    if hpa is not None and hpa != _NO_ADDRESS:
        text += f", {hpa:#x} of the host"
    return f"{text} in {region}" if region else text


STREAM = Subject(name="cxl", recipes=(RECIPE,), accumulator=Reports)
