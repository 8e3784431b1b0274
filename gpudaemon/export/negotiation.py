"""What a scraper asks for in its headers and its query: format, compression, time, collectors. Pure functions.

Of the formats Prometheus knows, the daemon speaks two: text 0.0.4 and OpenMetrics 1.0. All metric and label
names are valid in the oldest scheme, so an `escaping` parameter changes nothing and the answer carries none,
which Prometheus reads as `underscores`
(https://prometheus.io/docs/instrumenting/content_negotiation/).
"""

import difflib
from collections.abc import Mapping, Sequence
from math import isfinite

from prometheus_client.exposition import choose_encoder

__all__ = ["OPENMETRICS", "TEXT", "accepts_gzip", "not_collected", "scrape_timeout", "wants_openmetrics"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_PLAIN = frozenset({"text/plain", "text/*", "*/*"})
_LONGEST = 3600.0
"""A longer scrape timeout is a mistake of the client: Prometheus's own default is 10 s."""


def wants_openmetrics(accept: str) -> bool:
    """True where the client prefers OpenMetrics 1.0 over text, by its `Accept` header (RFC 9110, 12.5.1).

    Anything the daemon does not speak, and a header that makes no sense, is answered with text.
    """
    for media_type, element in _by_weight(accept):
        if media_type in _PLAIN:
            return False
        if media_type == "application/openmetrics-text":
            try:
                _, content_type = choose_encoder(element.lower())
            except (TypeError, ValueError):  # a version that is no number
                continue
            if content_type.startswith("application/openmetrics-text"):
                return True
    return False


def accepts_gzip(accept_encoding: str) -> bool:
    """True where `Accept-Encoding` allows gzip with a weight above zero (RFC 9110, 12.5.3)."""
    weights = dict.fromkeys(("gzip", "*"), -1.0)
    for element in accept_encoding.split(","):
        coding = element.partition(";")[0].strip().lower()
        if coding == "x-gzip":
            coding = "gzip"
        if coding in weights:
            weights[coding] = _weight(element)
    return weights["gzip"] > 0 or (weights["gzip"] < 0 < weights["*"])


def scrape_timeout(header: str | None, limit: float) -> float:
    """Seconds a scrape may take: `X-Prometheus-Scrape-Timeout-Seconds` less a margin, at most `limit`.

    A tenth, at most half a second, is left for the answer to reach the client. A header that is missing,
    malformed, not positive or beyond an hour is ignored.
    """
    try:
        asked = float(header or "")
    except ValueError:
        return limit
    if not isfinite(asked) or not 0 < asked <= _LONGEST:
        return limit
    return min(limit, asked - min(0.5, asked / 10))


def not_collected(
    collect: Sequence[str], exclude: Sequence[str], subjects: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """Names of the metrics that `?collect[]=` and `?exclude[]=` leave out; subjects: collector -> its metrics.

    A metric of no collector (the daemon's own) is never left out, one of several only with the last of them.
    Raises ValueError, whose text is for the client, for an unknown collector and where both are given.
    """
    if collect and exclude:
        raise ValueError("collect[] and exclude[] cannot be combined")
    for name in (*collect, *exclude):
        if name not in subjects:
            near = difflib.get_close_matches(name[:100], subjects, 1)
            meant = f" did you mean {near[0]}?" if near else ""
            raise ValueError(f"no collector {name[:100]!r};{meant} allowed are {', '.join(sorted(subjects))}")
    if not collect and not exclude:
        return frozenset()
    chosen = set(collect) if collect else subjects.keys() - set(exclude)
    kept = frozenset[str]().union(*(subjects[name] for name in chosen))
    return frozenset[str]().union(*subjects.values()) - kept


def _by_weight(accept: str) -> list[tuple[str, str]]:
    """(media type, whole element), best first, refused ones (q=0) left out."""
    elements = [(element.partition(";")[0].strip().lower(), element.strip()) for element in accept.split(",")]
    weighed = [(_weight(element), media_type, element) for media_type, element in elements if media_type]
    weighed.sort(key=lambda entry: -entry[0])  # stable: equals stay as the client wrote them
    return [(media_type, element) for weight, media_type, element in weighed if weight > 0]


def _weight(element: str) -> float:
    for parameter in element.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                weight = float(value.strip())
            except ValueError:
                return 0.0
            return min(max(weight, 0.0), 1.0) if isfinite(weight) else 0.0
    return 1.0
