"""What lies between the functions of this host: put together from every device's facts, kept up to date.

Facts come with each device's plan; what belongs to the host (processor, NUMA nodes, IOMMU groups, the devices
by which the kernel knows its root complexes) is read once for each set of devices. Links are those of the
latest readings. `attend` is called at each heartbeat and does nothing where nothing changed; what then takes
milliseconds runs in a thread.
"""

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from gpudaemon.collectors.p2p.build import KINDS, cpu, cpu_of_modalias, function_of, host_bridge
from gpudaemon.collectors.p2p.pairs import Pair, Pairs
from gpudaemon.collectors.p2p.paths import downgraded, link_between, link_bytes
from gpudaemon.discovery.host import Host
from gpudaemon.drivers import Facts
from gpudaemon.metrics import kfd, p2p, pcie
from gpudaemon.model.device import Device, DeviceKind, is_pci_address
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.topology import Function, Link, Topology
from gpudaemon.pipeline.sampler import Entry, Sampler

__all__ = ["HostFacts", "Made", "Topologist", "fabric_of", "files_between"]

_MODALIAS = "devices/system/cpu/modalias"
_NODE = re.compile(r"node\d+", re.ASCII)
_PATIENCE = 5.0
"""Seconds for the reader to answer about what belongs to no device."""
_LINK_ROWS = (pcie.LINK_TRANSFERS, pcie.LINK_WIDTH, pcie.LINK_MAX_TRANSFERS, pcie.LINK_MAX_WIDTH)

Rows = Mapping[Metric, tuple[tuple[str, float], ...]]
_Part = tuple[Device, Facts, Link]
Fabric = Mapping[tuple[str, str], str]
_XGMI = re.compile(r'device="([^"]+)",peer="([^"]+)",.*type="xgmi"', re.ASCII)
_XGMI_HOP = 15
"""Weight of a link between GPUs for each hop it takes (drivers/gpu/drm/amd/amdkfd/kfd_crat.c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What belongs to no device: see `Topology`. roots: functions that stand for root complexes."""

    cpu_vendor: str = ""
    cpu_family: int | None = None
    nodes: int = 1
    iommu_types: Mapping[str, str]
    roots: tuple[Function, ...] = ()


def fabric_of(weights: Iterable[tuple[str, float]]) -> Fabric:
    """Series of KFD's link weights -> (device, device) -> `XGMI`, or `XGMI2` where it takes two hops."""
    found = {}
    for prefix, weight in weights:
        ends = _XGMI.search(prefix)
        if ends is not None and ends[1] != ends[2]:
            hops = round(weight / _XGMI_HOP)
            found[ends[1], ends[2]] = "XGMI" if hops <= 1 else f"XGMI{hops}"
    return found


class Made:
    """The model, its pairs and their series; functions and pairs that did not change are not made anew."""

    def __init__(self, wanted: Callable[[Metric], bool] = lambda _: True) -> None:
        self.wanted = wanted
        self.topology = Topology(functions={})
        self.pairs: tuple[Pair, ...] = ()
        self._judge = Pairs()
        self._host: HostFacts | None = None
        self._functions: dict[str, tuple[_Part, Function]] = {}

    @property
    def judged(self) -> int:
        """How many pairs were judged at the last update."""
        return self._judge.judged

    def update(self, parts: Iterable[_Part], host: HostFacts, fabric: Fabric | None = None) -> Rows:
        """Take over devices with their facts and links, and what else joins them; returns the series."""
        known = self._functions if host is self._host else {}
        self._host, self._functions = host, {}
        for part in parts:
            device, facts, link = part
            before = known.get(device.id)
            if before is not None and before[0][0] is device and before[0][1] is facts and before[0][2] == link:
                self._functions[device.id] = before
                continue
            function = function_of(device, facts, host.iommu_types)
            self._functions[device.id] = (part, replace(function, link=_newer(function.link, link)))
        functions = {one.id: one for one in host.roots}
        functions.update((id_, function) for id_, (_, function) in self._functions.items())
        self.topology = Topology(
            functions=functions,
            cpu_vendor=host.cpu_vendor,
            cpu_family=host.cpu_family,
            nodes=host.nodes,
            fabric=fabric or {},
        )
        self.pairs = self._judge.update(self.topology)
        return self._rows()

    def _rows(self) -> Rows:
        rows: dict[Metric, list[tuple[str, float]]] = {}

        def add(metric: Metric, value: float, *labels: str) -> None:
            if self.wanted(metric):
                rows.setdefault(metric, []).append((Series(metric, labels).prefix(), value))

        for pair in self.pairs:
            verdict, ends = pair.verdict, (pair.src, pair.dst)
            if verdict.reachable is not None:
                add(p2p.REACHABLE, float(verdict.reachable), *ends)
            add(p2p.PATH_INFO, 1, *ends, pair.path.value, verdict.mapping.value, verdict.reason.value)
            add(p2p.DISTANCE, verdict.distance, *ends)
            if pair.ceiling is not None:
                add(p2p.CEILING, pair.ceiling.bytes_per_second, *ends)
        if self.pairs:
            add(p2p.PAIRS_LEFT_OUT, self._judge.left_out)
        for id_ in self.topology.functions:
            link = link_between(self.topology, id_)
            rate = link_bytes(link) if link is not None else None
            if rate is not None:
                add(p2p.LINK_CEILING, rate, id_)
            worse = downgraded(self.topology, id_)
            if worse is not None:
                add(p2p.LINK_DOWNGRADED, float(worse[0]), id_)
        return {metric: tuple(found) for metric, found in rows.items()}


def _newer(known: Link, read: Link) -> Link:
    return Link(
        read.speed or known.speed,
        read.width or known.width,
        read.max_speed or known.max_speed,
        read.max_width or known.max_width,
    )


class Topologist:
    """See the module. rows: what is known, ready for a page. made: the model behind it."""

    def __init__(self, sampler: Sampler, *, sysfs: str, procfs: str) -> None:
        self._sampler = sampler
        self._sysfs = sysfs
        self._procfs = procfs
        self._ready = False
        self._made_of: object = None
        self._key: object = None
        self._host_key: object = None
        self._host: HostFacts | None = None
        self.made = Made()
        self._rows: Rows = {}
        self._of: frozenset[str] = frozenset()

    def select(self, wanted: Callable[[Metric], bool]) -> None:
        """Serve these metrics only, from the next `attend` on."""
        self.made.wanted = wanted
        self._key = None

    @property
    def ready(self) -> bool:
        """Whether what is served was once made of all devices whose facts were known then.

        What changes later holds nobody up, and neither do links, which are read after the facts.
        """
        if not self._ready:
            self._ready = self._made_of == self._who(self._parts())
        return self._ready

    @staticmethod
    def _who(parts: list[_Part]) -> object:
        return [(device.id, id(facts)) for device, facts, _ in parts]

    @staticmethod
    def _key_of(parts: list[_Part], fabric: Fabric) -> object:
        return (fabric, *((device.id, id(facts), link) for device, facts, link in parts))

    @property
    def rows(self) -> Rows:
        """What is known, ready for a page; nothing of a device that has gone since."""
        gone = [id_ for id_ in self._of if id_ not in self._sampler.entries]
        if gone:
            words = [f'"{id_}"' for id_ in gone]
            self._rows = {
                metric: tuple(line for line in found if not any(word in line[0] for word in words))
                for metric, found in self._rows.items()
            }
            self._of -= set(gone)
        return self._rows

    async def attend(self) -> None:
        """Take over what changed since the last time."""
        parts, fabric = self._parts(), self._fabric()
        key: object = self._key_of(parts, fabric)
        if key == self._key:
            return
        host_key: object = tuple(device.path for device, *_ in parts)
        if self._host is None or host_key != self._host_key:
            host, answered = await self._host_facts([device for device, *_ in parts])
            # The same facts are the same object: nothing is made anew for them.
            self._host = self._host if host == self._host else host
            if not answered:
                host_key = key = None  # asked again the next time
            self._host_key = host_key
        self._rows = await asyncio.to_thread(self.made.update, parts, self._host, fabric)
        self._of = frozenset(device.id for device, *_ in parts)
        self._key, self._made_of = key, self._who(parts)

    def _parts(self) -> list[_Part]:
        """Devices on PCI whose facts are known."""
        return [
            (entry.device, entry.facts, _link(entry))
            for entry in self._sampler.entries.values()
            if entry.facts is not None and entry.device.kind in KINDS and is_pci_address(entry.device.id)
        ]

    def _fabric(self) -> Fabric:
        lanes = (entry.shown for entry in self._sampler.entries.values() if entry.device.kind is DeviceKind.KFD)
        rows = (rows for lane in lanes if lane is not None for rows in lane.rows.values())
        return fabric_of(line for found in rows for line in found.get(kfd.LINK_WEIGHT, ()))

    async def _host_facts(self, devices: list[Device]) -> tuple[HostFacts, bool]:
        """What belongs to no device, and whether the reader answered."""
        listing = await asyncio.to_thread(_listing, self._sysfs, devices)
        answer = await self._read(listing.files)
        facts = answer or {}
        vendor, family = cpu_of_modalias(_text(facts, _MODALIAS))
        if not vendor:
            vendor, family = await asyncio.to_thread(
                lambda: cpu(Host(sysfs=self._sysfs, procfs=self._procfs).text("proc/cpuinfo") or "")
            )
        host = HostFacts(
            cpu_vendor=vendor,
            cpu_family=family,
            nodes=max(listing.nodes, 1),
            iommu_types={group: _text(facts, path) for group, path in listing.groups.items()},
            roots=tuple(_root(path, facts) for path in listing.roots),
        )
        return host, answer is not None

    async def _read(self, paths: list[str]) -> Facts | None:
        """Contents of files that belong to no device of ours; None where the reader does not answer."""
        if not paths:
            return {}
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Facts] = loop.create_future()

        def done(facts: Facts) -> None:
            if not answer.done():
                answer.set_result(facts)

        host = Device(id="topology", kind=DeviceKind.PCI, path=".", names=frozenset(paths))
        self._sampler.read_once(host, paths, done)
        try:
            return await asyncio.wait_for(answer, _PATIENCE)
        except TimeoutError:
            return None


@dataclass(frozen=True, slots=True)
class _Listing:
    """nodes: how many. Paths below the root: `type` by IOMMU group, first function of each root bus."""

    nodes: int
    groups: Mapping[str, str]
    roots: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """What is read of it."""
        of_roots = [f"{path}/{name}" for path in self.roots for name in ("vendor", "device")]
        return [_MODALIAS, *self.groups.values(), *of_roots]


def files_between(sysfs: str, devices: Iterable[Device]) -> list[str]:
    """Files of no device that paths between `devices` rest on, relative to `sysfs`; opens none."""
    return _listing(sysfs, (device for device in devices if is_pci_address(device.id))).files


def _listing(sysfs: str, devices: Iterable[Device]) -> _Listing:
    """What there is to read; opens no file."""
    nodes = sum(
        _NODE.fullmatch(name) is not None for name in _names(os.path.join(sysfs, "devices/system/node"))
    )
    devices = tuple(devices)
    groups = {device.link("iommu_group") for device in devices} - {""}
    known = {device.path for device in devices}
    roots = []
    for bridge in sorted({path for device in devices if (path := host_bridge(device.path))}):
        functions = sorted(name for name in _names(os.path.join(sysfs, bridge)) if is_pci_address(name))
        if functions and f"{bridge}/{functions[0]}" not in known:
            roots.append(f"{bridge}/{functions[0]}")
    return _Listing(
        nodes,
        {group: f"kernel/iommu_groups/{group}/type" for group in sorted(groups) if group.isdecimal()},
        tuple(roots),
    )


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _root(path: str, facts: Facts) -> Function:
    device = Device(id=os.path.basename(path), kind=DeviceKind.HWMON, path=path)
    return function_of(device, {name: facts.get(f"{path}/{name}") for name in ("vendor", "device")}, {})


def _text(facts: Facts, path: str) -> str:
    return (facts.get(path) or b"").decode("ascii", "replace").strip()


def _link(entry: Entry) -> Link:
    """A function's link as it was read last."""
    lane = entry.shown
    if lane is None:
        return Link()
    found = []
    for metric in _LINK_ROWS:
        block = lane.plan.blocks.get(metric)
        found.append(lane.values[block.indexes[0]] if block is not None else None)
    speed, width, max_speed, max_width = found
    return Link(speed, int(width) if width else None, max_speed, int(max_width) if max_width else None)
