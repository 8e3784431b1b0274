"""Log lines: `message key=value`, with the journal's priority prefix where systemd reads them.

Levels by reader: debug for developers; info for start, stop, a device that came or went, the engine chosen;
warning for what the operator can mend; error for lost data. Nothing is logged per tick.
"""

import json
import logging
import os
import sys
from collections import deque

__all__ = ["recent", "set_up"]

_RECENT = 1000
_recent: deque[str] = deque(maxlen=_RECENT)
"""The newest lines, for bug reports; of the process, as the log is."""

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Lines(logging.Formatter):
    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        extra = [f"{key}={_word(value)}" for key, value in vars(record).items() if key not in _STANDARD]
        text = " ".join([record.getMessage(), *extra])
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        # One record is one line, whatever a device or a client put into it.
        text = "\\n".join(text.splitlines()) if self._journal else text
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._journal else f"{record.levelname.lower()}: "
        return prefix + text


def _word(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


class _Objects(logging.Formatter):
    """One JSON object a line: level, message, time (unix seconds), then what is added."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._journal else ""
        return prefix + json.dumps(line, default=str)


class _Recent(logging.Handler):
    """Keeps the newest lines, each with its time; a long one is cut."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _recent.append(f"{record.created:.3f} {self.format(record)[:4096]}")
        except Exception:
            self.handleError(record)


def recent() -> list[str]:
    """The newest lines of this process's log, oldest first."""
    return list(_recent)


def set_up(level: str, form: str = "logfmt") -> None:
    """Log to standard error from `level` upwards, as lines of `form`: logfmt or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((_Objects if form == "json" else _Lines)(journal="JOURNAL_STREAM" in os.environ))
    kept = _Recent()
    kept.setFormatter(_Lines(journal=False))
    logging.basicConfig(level=level.upper(), handlers=[handler, kept], force=True)
