"""A real Prometheus that scrapes the daemon each second, and what it thinks of it afterwards."""

import json
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Prometheus", "free_port"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as spare:
        return int(spare.getsockname()[1])


class Prometheus:
    """Context manager. home: where its data go. target: the daemon's port."""

    def __init__(self, home: str, target: int) -> None:
        self._home = Path(home, "prometheus")
        self._target = target
        self._port = free_port()

    def __enter__(self) -> "Prometheus":
        self._home.mkdir()
        config = self._home / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            "scrape_configs:\n"
            f"  - {{job_name: gpudaemon, static_configs: [{{targets: ['127.0.0.1:{self._target}']}}]}}\n"
        )
        self._log = (self._home / "log").open("wb")
        self._process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={self._home / 'data'}"),
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Result of an instant query, empty while it does not answer. A series has `metric` and `value` or
        `values`."""
        address = f"http://127.0.0.1:{self._port}/api/v1/query?query={urllib.parse.quote(query)}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except (OSError, urllib.error.URLError):
            return []

    def samples(self, selector: str, seconds: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """(labels, (unix time, value)) of each series over the last so many seconds."""
        return [
            (one["metric"], [(float(at), float(value)) for at, value in one["values"]])
            for one in self.ask(f"{selector}[{round(seconds)}s]")
        ]
