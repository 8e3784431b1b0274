"""Whoever owns the HTTP socket has no capability, in any tier: seen from outside, through /proc."""

import os
from pathlib import Path

import pytest

from gpudaemon.mock import HostProcess
from gpudaemon.model.rights import NUMBERS, TIERS
from tests.live.daemon import RunningDaemon

pytestmark = pytest.mark.live

_LISTEN = "0A"
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def owner_of_port(port: int, *, namespace: int, among: list[int]) -> list[int]:
    """Processes of `among` that hold a socket listening on a TCP port, in the network of `namespace`."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{namespace}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    assert inodes, f"nobody listens on {port}"
    owners = []
    for pid in among:
        try:
            held = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        except OSError:
            continue
        if held & inodes:
            owners.append(pid)
    return owners


def capabilities(pid: int) -> dict[int, dict[str, int]]:
    """Capability sets and NoNewPrivs of every thread of a process."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        lines = Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        found[int(thread)] = {name: int(fields[name], 16) for name in _SETS} | {
            "NoNewPrivs": int(fields["NoNewPrivs"])
        }
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
@pytest.mark.parametrize("tier", TIERS)
def test_the_owner_of_the_socket_has_no_capability(tier: str) -> None:
    with HostProcess("mi300x8", 1) as host, RunningDaemon(host, "--tier", tier) as daemon:
        family = [daemon.pid, daemon.launcher, daemon.reader]
        owners = owner_of_port(
            daemon.port, namespace=daemon.pid, among=[int(n) for n in os.listdir("/proc") if n.isdigit()]
        )
        assert owners == [daemon.pid]
        daemon.metrics()
        threads = capabilities(daemon.pid)
        for thread, sets in threads.items():
            assert {name: sets[name] for name in _SETS} == dict.fromkeys(_SETS, 0), thread
            assert sets["NoNewPrivs"] == 1, thread
        # The others have what the tier names, not all that root had.
        held = capabilities(1)[1]["CapPrm"]
        # CAP_DAC_OVERRIDE is the tracer's, and the launcher's to give to it.
        for pid in family[1:]:
            tracers = 1 << NUMBERS["CAP_DAC_OVERRIDE"] if pid == daemon.reader else 0
            for thread, sets in capabilities(pid).items():
                assert sets["CapEff"].bit_count() <= len(TIERS[tier]), (pid, thread)
                assert sets["CapEff"] == sets["CapBnd"] & ~tracers, (pid, thread)
                assert not sets["CapEff"] & ~held, (pid, thread)
                assert (sets["CapEff"] > 0) == (tier != "base"), (pid, thread)
