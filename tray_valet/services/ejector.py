"""The ejector: takes models out of memory because somebody asked for it.

Decides: what becomes of the answers in progress: the drain that a pause would give them, then a clear end.
Must not: decide who may ask, or unload for a pause (`evictor.py` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tray_valet.core import events as ev
from tray_valet.core.errors import LoadFailed
from tray_valet.core.models import ModelRef
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.leases import Leases
from tray_valet.services.loader import Loader


class Ejector:
    """`drain_s` is how long answers in progress may go on (seconds)."""

    def __init__(
        self,
        fleet: Fleet,
        loader: Loader,
        leases: Leases,
        journal: JournalBook,
        record: Callable[[ev.Fact], None],
        drain_s: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._loader = loader
        self._leases = leases
        self._journal = journal
        self._record = record
        self._drain_s = drain_s

    async def unload(self, targets: Iterable[tuple[Slot, str]]) -> tuple[ModelRef, ...]:
        """Unload these models, all at once; return those that were loaded or loading, once they are gone.

        Each is tried; then the first failure is raised, if there was one.
        """
        chosen = list(targets)
        refs = {ModelRef(slot.name, name) for slot, name in chosen}
        await self._journal.forget(refs)  # what the user unloads does not come back
        results = await asyncio.gather(
            *(self._unload_one(slot, name) for slot, name in chosen), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return tuple(result for result in results if isinstance(result, ModelRef))

    async def _unload_one(self, slot: Slot, name: str) -> ModelRef | None:
        """Unload one; None where it was not loaded, nor being loaded."""
        ref = ModelRef(slot.name, name)
        loaded, was_loading = self._fleet.is_loaded(ref), ref in self._loader.loading
        await self._loader.unload(slot, name, drain=self._end_answers)
        if loaded is None and not was_loading:
            return None
        self._record(ev.ModelUnloaded(model=name, size_bytes=loaded.size_bytes if loaded is not None else 0))
        return ref

    async def _end_answers(self, ref: ModelRef) -> None:
        drain_s = self._drain_s()
        if await self._leases.wait_idle(ref, drain_s):
            return
        why = LoadFailed(f"{ref.model} was unloaded on request, and this answer with it.", was_ended=True)
        if ended := await self._leases.revoke(ref, why):
            self._record(ev.AnswersEnded(count=ended, waited_s=drain_s))
