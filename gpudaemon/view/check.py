"""The kernel interfaces of a host as a table for a terminal or as JSON for a program. Pure.

Three groups: what can be used in the configured tier, what another tier would buy, and what is missing, with
the reason and what would help. In each, what is used now comes before what is planned.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpudaemon.discovery.interface_probe import Found, Presence
from gpudaemon.discovery.interfaces import Use
from gpudaemon.model.rights import TIERS
from gpudaemon.view.text import printable

__all__ = ["as_json", "as_text"]

_TIERS = tuple(TIERS)
_USABLE = ("INTERFACE", "USED", "TIER", "GIVES", "COST")
_DEARER = ("INTERFACE", "USED", "TIER", "GIVES", "FIX")
_MISSING = ("INTERFACE", "USED", "TIER", "WHY", "FIX")

_ORDER = tuple(Use)


def as_text(
    found: Iterable[Found], *, tier: str, settings: Mapping[str, str] | None = None, notes: Sequence[str] = ()
) -> str:
    """Aligned tables. tier: the configured one. settings: shown first, as they are. notes: shown last."""
    found = sorted(found, key=lambda one: _ORDER.index(one.interface.use))
    parts = []
    if settings:
        width = max(map(len, settings))
        parts.append("\n".join(f"{key.ljust(width)}  {printable(value)}" for key, value in settings.items()))
    usable = [one for one in found if one.presence is Presence.OK and not _above(one, tier)]
    dearer = [one for one in found if one.presence is Presence.OK and _above(one, tier)]
    missing = [one for one in found if one.presence is not Presence.OK]
    parts += _table(
        f"usable in tier {tier}", _USABLE, [_line(one, one.interface.what, _cost(one)) for one in usable]
    )
    parts += _table(
        "here, but in another tier", _DEARER, [_line(one, one.interface.what, _buys(one)) for one in dearer]
    )
    parts += _table("missing", _MISSING, [_line(one, _why(one), one.fix) for one in missing])
    parts += [printable(note) for note in notes]
    return "\n\n".join(parts)


def as_json(
    found: Iterable[Found], *, tier: str, settings: Mapping[str, str] | None = None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The same as an object, with every interface's files, documents and options."""
    return {
        "settings": dict(settings or {}),
        "tier": tier,
        "notes": list(notes),
        "interfaces": [_object(one, tier) for one in found],
    }


def _object(found: Found, tier: str) -> dict[str, Any]:
    interface = found.interface
    return {
        "interface": interface.name,
        "gives": interface.what,
        "state": found.presence.value,
        "usable": found.presence is Presence.OK and not _above(found, tier),
        "why": found.why or None,
        "fix": found.fix or (_buys(found) if _above(found, tier) else None) or None,
        "used": interface.use.value,
        "tier": interface.tier,
        "capability": interface.capability or None,
        "paths": list(interface.paths),
        "kernel_config": list(interface.config),
        "modules": list(interface.modules),
        "documentation": interface.doc,
        "cost": interface.cost or None,
        "wakes": interface.wakes or None,
    }


def _above(found: Found, tier: str) -> bool:
    return _TIERS.index(found.interface.tier) > _TIERS.index(tier)


def _buys(found: Found) -> str:
    capability = found.interface.capability
    return f"tier {found.interface.tier}" + (f" ({capability})" if capability else "")


def _cost(found: Found) -> str:
    return "; ".join(filter(None, (found.interface.cost, found.interface.wakes)))


def _why(found: Found) -> str:
    return f"{found.presence.value.replace('_', ' ')}: {found.why}"


def _line(found: Found, *rest: str) -> tuple[str, ...]:
    interface = found.interface
    return tuple(
        printable(cell) or "-" for cell in (interface.name, interface.use.value, interface.tier, *rest)
    )


def _table(title: str, headings: tuple[str, ...], lines: list[tuple[str, ...]]) -> list[str]:
    if not lines:
        return []
    lines = [headings, *lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    rows = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return ["\n".join((f"{title}:", *rows))]
