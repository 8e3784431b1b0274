"""The landing page: what this is, how the devices are, and where to go on. Static HTML, no script.

Every value comes from a device, a driver or a configuration and is escaped.
"""

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite

from gpudaemon.model.snapshot import DeviceView, Snapshot

__all__ = ["landing"]

_ROWS = 200
"""Devices shown; the rest is counted, and listed by /api/v1/devices."""
_LONGEST = 80
_NAMES = ("product", "product_name", "board", "model")

_STYLE = """\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:60rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem}
table{border-collapse:collapse;width:100%}
th,td{border-bottom:1px solid #8886;padding:.3rem .5rem;text-align:left;overflow-wrap:anywhere}
.age{text-align:right;white-space:nowrap}
.state{white-space:nowrap}.warn{font-weight:bold;color:#b00020}
@media (prefers-color-scheme:dark){.warn{color:#ff6b6b}}
@media (max-width:40rem){table,tbody,tr,td{display:block}thead{display:none}
tr{padding:.5rem 0;border-bottom:1px solid #8886}td{border:0;padding:0}.age{text-align:left}}
"""

_CALM = frozenset({"ok", "suspended", "resting"})


def landing(
    snapshot: Snapshot,
    *,
    version: str,
    ready: tuple[bool, str],
    links: Iterable[tuple[str, str]],
    status: Mapping[str, str],
) -> str:
    """The page. links: (path, what is there). status: further lines about the daemon, name -> value."""
    states = Counter(device.state for device in snapshot.devices)
    rows = {
        "Version": _text(version),
        "Ready": _text("yes") if ready[0] else _warn(ready[1]),
        "Devices": _states(states) or "none found",
        **{_text(name): _text(value) for name, value in status.items()},
    }
    about = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>\n" for name, value in rows.items())
    items = "".join(
        f'<li><a href="{_text(path)}">{_text(path)}</a> {_text(what)}</li>\n' for path, what in links
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>gpudaemon</title>\n<style>\n{_STYLE}</style></head>\n<body>\n<h1>gpudaemon</h1>\n"
        f"<p>Telemetry of the GPUs of this host.</p>\n<table><tbody>\n{about}</tbody></table>\n"
        f"<ul>\n{items}</ul>\n{_devices(snapshot.devices)}</body></html>\n"
    )


def _devices(devices: tuple[DeviceView, ...]) -> str:
    if not devices:
        return ""
    # What needs looking at comes first; GPUs before the rest.
    shown = sorted(devices, key=lambda one: (one.state in _CALM, one.kind != "gpu", one.id))[:_ROWS]
    lines = "".join(_line(device) for device in shown)
    more = f"<p>{len(devices) - _ROWS} more.</p>\n" if len(devices) > _ROWS else ""
    return (
        "<h2>Devices</h2>\n<table><thead><tr><th>Device</th><th>Kind</th><th>Driver</th><th>Name</th><th>State</th>"
        f'<th class="age">Age</th></tr></thead>\n<tbody>\n{lines}</tbody></table>\n{more}'
    )


def _line(device: DeviceView) -> str:
    name = next((device.identity[key] for key in _NAMES if device.identity.get(key)), "")
    known = device.age is not None and isfinite(device.age)
    state = _text(device.state) if device.state in _CALM else _warn(device.state)
    return (
        f"<tr><td>{_text(device.id)}</td><td>{_text(device.kind)}</td><td>{_text(device.driver) or '-'}</td>"
        f'<td>{_text(name) or "-"}</td><td class="state">{state}</td>'
        f'<td class="age">{f"{device.age:.1f} s" if known else "-"}</td></tr>\n'
    )


def _states(states: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count} {_text(state) if state in _CALM else _warn(state)}" for state, count in sorted(states.items())
    )


def _warn(text: str) -> str:
    return f'<span class="warn">{_text(text)}</span>'


def _text(text: str) -> str:
    """Escaped, printable, and of a length that a table can stand."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return html.escape(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}\u2026")
