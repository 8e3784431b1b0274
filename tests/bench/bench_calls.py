"""What calls cost: eight GPUs asked each second by NVIDIA's binding, behind it a library that does nothing.

    python tests/bench/bench_calls.py [--seconds 60] [--runs 3]

The process of calls and the server, in % of a core, with NVML and without. The library is made of Python
(tests/standin_nvml), so part of what is shown is its own; that part is measured by calling it alone and shown
beside it. A real library adds what its ioctls take.
"""

import os
import sys
import time

import processes
from figures import flags, heading, show
from nvidia_host import NvidiaHost
from processes import RunningDaemon

GPUS = 8


def alone(host: NvidiaHost) -> float:
    """Seconds of CPU of one round of all questions in the binding and the stand-in, without a daemon."""
    os.environ.update(host.environment)
    sys.path.insert(0, host.environment["PYTHONPATH"])
    from gpudaemon.calls.nvml import QUESTIONS, TABLES, caller
    from gpudaemon.drivers.nvidia import DRIVER
    from gpudaemon.model.attribute import Cadence
    from gpudaemon.model.device import Device, DeviceKind

    device = Device(id=host.addresses[0], kind=DeviceKind.GPU, path="", driver="nvidia")
    planned = [*DRIVER.attributes(device, {}), *DRIVER.sensors(device, {})]
    often = {one.path.removeprefix("nvml/") for one in planned if one.cadence is Cadence.NORMAL}
    nvml = caller()
    asked = []
    for address in host.addresses:
        for question in sorted(often & (QUESTIONS.keys() | TABLES.keys())):
            one = nvml.open(address, question)
            try:
                one.ask()
            except OSError:
                continue
            asked.append(one)
    rounds = 20
    began = time.process_time()
    for _ in range(rounds):
        for one in asked:
            one.ask()
    return (time.process_time() - began) / rounds


def main() -> None:
    _, arguments = flags(__doc__, runs=3, seconds=60, quick=(1, 10))
    print(processes.machine())
    values = {gpu: {"fans": [], "fields": {"186": 312000, "185": 298500, "82": 61}} for gpu in range(GPUS)}
    with NvidiaHost(GPUS, values) as host:
        host.environment["GPUDAEMON_STANDIN_QUIET"] = "1"
        for _ in range(arguments.runs):
            for calls in ("--call.nvml", "--no-call.nvml"):
                heading(calls)
                with RunningDaemon(host, calls, "--log.level", "error", environment=host.environment) as daemon:
                    time.sleep(5)
                    pids = processes.of(daemon)
                    for pid in processes.children(daemon.launcher):
                        if pid not in pids.values():
                            pids["calls"] = pid
                    before = {name: processes.cpu_seconds([pid]) for name, pid in pids.items()}
                    began = time.monotonic()
                    while time.monotonic() - began < arguments.seconds:
                        daemon.metrics()
                        time.sleep(1)
                    passed = time.monotonic() - began
                    for name, pid in pids.items():
                        used = (processes.cpu_seconds([pid]) - before[name]) / passed
                        show(name, 100 * used, "% of a core", "", f"Pss {processes.memory(pid)['Pss']:.1f} MiB")
        show("binding and stand-in alone", 100 * alone(host), "% of a core", "", "at 1 Hz, part of `calls`")


if __name__ == "__main__":
    main()
