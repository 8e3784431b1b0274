"""The inventory across restarts: its file is loaded once, compared with what is here, stored when it changed.

`attend` is called with each heartbeat, on the loop; whatever touches the disk runs in a thread, and a disk that
does not answer holds up nothing but this.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from gpudaemon.discovery.expected import full_id
from gpudaemon.discovery.inventory import Inventory
from gpudaemon.discovery.inventory_file import InventoryFile
from gpudaemon.pipeline.health import infos
from gpudaemon.pipeline.sampler import Entry

__all__ = ["Memory"]

_log = logging.getLogger(__name__)
_AGAIN = 60.0
"""Seconds until a file that could not be written is tried again."""


class Memory:
    """See the module.

    entries: the sampler's, where a GPU's labels are. keep: whether anything is written; a mere look does not.
    """

    def __init__(
        self,
        inventory: Inventory,
        file: InventoryFile,
        entries: Mapping[str, Entry],
        *,
        keep: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inventory = inventory
        self._file = file
        self._info = infos(entries)
        self._keep = keep
        self._clock = clock
        self._loaded = False
        self.compared = False
        """whether what is here was compared once: before, nobody can say who is missing"""
        self._missed: frozenset[str] = frozenset()
        self._moved: frozenset[str] = frozenset()
        self._not_before = 0.0
        self._storing = asyncio.Lock()

    @property
    def problem(self) -> str:
        """Why learnt GPUs do not survive a restart, empty where they do."""
        return self._file.problem if self._keep else ""

    async def attend(self, *, scanned: bool) -> None:
        """Load, compare, store: what is due. scanned: everything that is here is in the inventory."""
        expected = self._inventory.expected
        if not self._loaded:
            expected.load(await asyncio.to_thread(self._file.load))
            self._loaded = True
        if not scanned:
            return
        self._inventory.compare(self._info)
        self.compared = True
        self._log_changes()
        if expected.changed and self._clock() >= self._not_before:
            await self._store()

    async def forget(self, id_: str) -> bool:
        """The administrator took this GPU out. False where it is not known or is here."""
        if not self._inventory.forget(full_id(id_)):
            return False
        _log.info("device is forgotten", extra={"device": full_id(id_)})
        await self._store()
        return True

    async def _store(self) -> None:
        if not self._keep:
            return
        async with self._storing:
            expected = self._inventory.expected
            expected.changed = False
            content = self._file.render(expected.learnt())
            if not await asyncio.to_thread(self._file.store, content):
                # What changed meanwhile is in the next attempt as well.
                expected.changed = True
                self._not_before = self._clock() + _AGAIN

    def _log_changes(self) -> None:
        missing = frozenset(self._inventory.missing)
        known = self._inventory.expected.known
        for id_ in sorted(missing - self._missed):
            info = known[id_].info if id_ in known else {}
            name, serial = (
                info.get("product_name", ""),
                info.get("serial_number") or info.get("unique_id") or "",
            )
            _log.warning("device is missing", extra={"device": id_, "product": name, "serial": serial})
        for id_ in sorted(self._missed - missing):
            _log.info("device is not missing any more", extra={"device": id_})
        self._missed = missing
        moved = self._inventory.expected.moved
        for id_ in sorted(moved.keys() - self._moved):
            _log.info("device has moved", extra={"device": id_, "now": moved[id_]})
        self._moved = frozenset(moved)
