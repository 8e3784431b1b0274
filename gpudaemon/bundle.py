"""What goes into a capture beside the host's files: what the running daemon says of itself, the checks, the
options.

One text each, below `daemon/`; one that cannot be had says why in its place. Nothing here is a secret: the web
configuration, which has passwords, is named and not read.
"""

import json
from collections.abc import Callable

from gpudaemon.errors import GpudaemonError
from gpudaemon.export.control import ask

__all__ = ["daemon_texts", "gathered"]


def daemon_texts(socket: str) -> dict[str, str]:
    """Page, log and verdicts of the daemon whose control socket is `socket`; why not, where none answers."""
    try:
        status, answer = ask(socket, "GET", "/bundle", timeout=10.0)
        if status != 200:
            raise GpudaemonError(str(answer.get("error", status)))
        return {
            "daemon/metrics.prom": answer["page"],
            "daemon/log.txt": "\n".join(answer["log"]) + "\n",
            "daemon/health.json": json.dumps(answer["health"], indent=1) + "\n",
        }
    except GpudaemonError as error:
        return {"daemon/none.txt": f"{error}\n"}
    except (KeyError, TypeError, AttributeError):
        return {"daemon/none.txt": "the daemon that runs is of another version\n"}


def gathered(**texts: Callable[[], str]) -> dict[str, str]:
    """name (`_` for the dot before its ending) -> text; what fails says so and takes nothing else along."""
    found = {}
    for name, make in texts.items():
        try:
            text = make()
        except (GpudaemonError, OSError) as error:
            text = f"not to be had: {error}\n"
        found[f"daemon/{name.replace('_', '.')}"] = text
    return found
