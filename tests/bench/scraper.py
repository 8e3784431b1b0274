"""A client that asks for pages as Prometheus does: kept connection, its Accept header, gzip accepted."""

import gzip
import http.client
import time

__all__ = ["Scraper"]

_HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.5.3",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}


class Scraper:
    """One target. seconds: how long the last page took, to its last byte; size: bytes on the wire."""

    def __init__(self, port: int, *, compressed: bool = True, timeout: float = 10.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._headers = {**_HEADERS, "Accept-Encoding": "gzip" if compressed else "identity"}
        self.seconds = 0.0
        self.size = 0

    def page(self) -> str:
        """Scrape. Raises OSError where it does not come, AssertionError for anything but status 200."""
        began = time.monotonic()
        self._connection.request("GET", "/metrics", headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        self.seconds = time.monotonic() - began
        self.size = len(body)
        assert answer.status == 200, f"{answer.status} {body[:200]!r}"
        return (gzip.decompress(body) if answer.getheader("Content-Encoding") == "gzip" else body).decode()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
