"""The restorer: brings back exactly what the journal names, as it was, and nothing else.

Decides: the order, and when a model that cannot come back is given up. Must not: decide that it is time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto

from tray_valet.core import events as ev
from tray_valet.core.errors import (
    EngineMissing,
    LoadFailed,
    Paused,
    ProviderUnreachable,
    UnknownModel,
    ValetError,
)
from tray_valet.core.journal import JournalEntry, entry_of, request_of
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import ConditionType, LoadRequest, ModelRef, ProviderKind
from tray_valet.core.ports import Clock
from tray_valet.core.thresholds import MIB, fits
from tray_valet.core.wording import size
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.loader import Loader

_LOG = logging.getLogger(__name__)
_RETRY_S = (2.0, 10.0)  # between the three tries
_TIMES_DOWN = 3  # a model whose load so often took its provider down is given up
_VRAM_RESERVE_BYTES = 256 * MIB
_RAM_RESERVE_BYTES = 512 * MIB


class _Outcome(Enum):
    BACK = auto()
    AGAIN = auto()  # it failed, and may work later
    LEFT = auto()  # it waits in the journal, or was given up


class Restorer:
    """Does one restore at a time; cancelling it leaves the journal as it is."""

    def __init__(
        self,
        fleet: Fleet,
        loader: Loader,
        journal: JournalBook,
        clock: Clock,
        record: Callable[[ev.Fact], None],
    ) -> None:
        self._fleet = fleet
        self._loader = loader
        self._journal = journal
        self._clock = clock
        self._record = record
        self._given_up: set[ModelRef] = set()
        self._times_down: dict[ModelRef, int] = {}  # loads that ended with the provider gone, in a row
        self.restoring = ""
        self.restored_count = 0

    @property
    def missing(self) -> tuple[JournalEntry, ...]:
        """What has to come back and can: not given up, and its provider answers (or may)."""
        return tuple(
            e
            for e in self._journal.missing
            if e.ref not in self._given_up
            and (slot := self._fleet.slots.get(e.provider)) is not None
            and not slot.is_down
        )

    def request_for(self, ref: ModelRef) -> LoadRequest:
        """How a model is to be loaded on demand: as the journal has it when it is still to come back."""
        entry = next((e for e in self._journal.missing if e.ref == ref), None)
        return request_of(entry) if entry is not None else LoadRequest(model=ref.model)

    def lacks_room(self, sample: MachineSample | None) -> str:
        """Why what is to come back does not fit now, with the numbers; "" when it does."""
        todo = [e for e in self.missing if self._fleet.is_loaded(e.ref) is None]
        if sample is None or not todo:
            return ""
        vram_needed = sum(e.vram_bytes for e in todo)
        ram_needed = sum(max(0, e.size_bytes - e.vram_bytes) for e in todo)
        vram_free = sum(g.vram_total_bytes - g.vram_used_bytes for g in sample.gpus)
        ram_free = sample.host.ram_available_bytes
        if sample.gpus and not fits(
            needed_bytes=vram_needed, free_bytes=vram_free, reserve=_VRAM_RESERVE_BYTES
        ):
            return f"They need {size(vram_needed)} of VRAM; {size(vram_free)} are free."
        if not fits(needed_bytes=ram_needed, free_bytes=ram_free, reserve=_RAM_RESERVE_BYTES):
            return f"They need {size(ram_needed)} of RAM; {size(ram_free)} are free."
        return ""

    async def restore(self) -> None:
        """Bring everything back that can come; then the journal is done with.

        What cannot be loaded is tried three times and then given up, and said. What belongs to a
        provider that does not answer stays in the journal until it does.
        """
        started_s = self._clock.monotonic_s()
        self.restored_count = 0
        back: list[ModelRef] = []
        todo = self.missing
        try:
            for retry_s in (*_RETRY_S, None):
                outcomes = [(entry, await self._restore_one(entry, retry_s)) for entry in todo]
                back += [entry.ref for entry, outcome in outcomes if outcome is _Outcome.BACK]
                # What failed waits until the others are back: one bad model holds up nobody.
                todo = tuple(entry for entry, outcome in outcomes if outcome is _Outcome.AGAIN)
                if not todo or retry_s is None:
                    break
                await asyncio.sleep(retry_s)
        finally:
            self.restoring = ""
        await self._journal.finish_restore({*back, *self._given_up}, self._owned())
        self._given_up.clear()
        if back:
            took_s = self._clock.monotonic_s() - started_s
            self._record(ev.ModelsBroughtBack(models=tuple(r.model for r in back), took_s=took_s))

    async def note_residents(self) -> None:
        """Keep in the journal what our own runners hold: they die with us, whatever kills us."""
        await self._journal.note_residents(self._owned())

    def _owned(self) -> tuple[JournalEntry, ...]:
        return tuple(
            entry_of(slot.name, m)
            for slot, m in self._fleet.residents()
            if slot.provider.kind is ProviderKind.LLAMA_SERVER
        )

    async def _restore_one(self, entry: JournalEntry, retry_s: float | None) -> _Outcome:
        """Try to bring one model back; `retry_s` until the next try, None: this is the last."""
        slot = self._fleet.slots.get(entry.provider)
        if slot is None or not self._is_still_wanted(entry):
            return _Outcome.LEFT  # the settings have changed meanwhile, or the user unloaded it
        self.restoring = entry.model
        was_answering = slot.failures == 0
        try:
            await self._loader.ensure(slot, request_of(entry), makes_room=False)
        except Paused:
            return _Outcome.LEFT  # a pause begins: the journal stays as it is
        except ProviderUnreachable as error:
            if was_answering and self._is_hopeless(entry.ref):
                self._give_up(slot, entry, _took_down(slot, entry))
                return _Outcome.LEFT
            _LOG.warning("%s does not answer; %s waits in the journal", slot.name, entry.model)
            self._fleet.note(slot, ConditionType.UNREACHABLE, str(error))
            await asyncio.sleep(1.0)  # the fleet's looks decide whether it is down
            return _Outcome.LEFT
        except ValetError as error:
            if not self._is_still_wanted(entry):
                return _Outcome.LEFT
            if retry_s is None or isinstance(error, UnknownModel | EngineMissing):
                self._give_up(slot, entry, error)
                return _Outcome.LEFT
            self._record(ev.RestoreFailed(model=entry.model, message=error.message, next_try_s=retry_s))
            return _Outcome.AGAIN
        self.restored_count += 1
        self._times_down.pop(entry.ref, None)
        return _Outcome.BACK

    def _is_still_wanted(self, entry: JournalEntry) -> bool:
        return any(e.ref == entry.ref for e in self._journal.missing)

    def _is_hopeless(self, ref: ModelRef) -> bool:
        """Count a load in the middle of which the provider went away; say whether that were too many."""
        self._times_down[ref] = self._times_down.get(ref, 0) + 1
        return self._times_down[ref] >= _TIMES_DOWN

    def _give_up(self, slot: Slot, entry: JournalEntry, error: ValetError) -> None:
        self._given_up.add(entry.ref)
        self._times_down.pop(entry.ref, None)
        self._fleet.note(slot, ConditionType.LOAD_FAILED, f"{entry.model} could not be brought back: {error}")
        self._record(
            ev.RestoreFailed(
                model=entry.model,
                message=str(error),
                provider=entry.provider,
                context_length=entry.context_length,
            )
        )


def _took_down(slot: Slot, entry: JournalEntry) -> LoadFailed:
    return LoadFailed(
        f"{slot.name} went away {_TIMES_DOWN} times while it loaded {entry.model}.",
        remedy="Its own log says why; a smaller context may help.",
    )
