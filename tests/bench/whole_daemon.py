"""The daemon of bench_whole: `python whole_daemon.py PORT ENGINE`.

The production daemon with one thing replaced: what a scan finds. sysfs is scanned as always, but the devices
of the steady load take the place of the ones found, for this machine may have no GPU.
"""

import sys
import tempfile

import processes  # noqa: F401  finds the package of this checkout
import steady_load

from gpudaemon import daemon
from gpudaemon.config import load
from gpudaemon.discovery import scan
from gpudaemon.model.device import Device


def main() -> None:
    devices = steady_load.install(steady_load.lanes())

    look = scan.scan

    def found(sysfs: str) -> tuple[Device, ...]:
        look(sysfs)
        return devices

    scan.scan = found
    with tempfile.TemporaryDirectory(prefix="gpudaemon-bench-") as runtime:
        flags = {
            "web.listen_address": [f"127.0.0.1:{sys.argv[1]}"],
            "engine": sys.argv[2],
            "preset": "fast",
            "path.runtime": runtime,
        }
        daemon.run(load("", flags), announce=lambda address: print(address, flush=True))


if __name__ == "__main__":
    main()
