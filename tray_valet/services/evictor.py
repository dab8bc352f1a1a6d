"""The evictor: gets models out of memory in bounded time, and says so only when it is true.

Order: loads in progress are given up → what is loaded is noted in the journal, on disk → answers finish
or are ended → unload → the runner is killed if it must be → confirmed by residency, then by the memory
itself. Must not: decide that there is a pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import CannotKill, NotSupported, Paused, ValetError
from tray_valet.core.eviction import must_go
from tray_valet.core.holds import Hold
from tray_valet.core.journal import JournalEntry, entry_of, merged
from tray_valet.core.models import ConditionType, LoadedModel, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.snapshot import PauseReport
from tray_valet.core.wording import size
from tray_valet.services.dispatcher import Dispatcher
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.loader import Loader
from tray_valet.services.memory_probe import Held, MemoryProbe, Proof, freed_bytes, proof

_LOG = logging.getLogger(__name__)
_POLL_S = 0.05
_CALL_TIMEOUT_S = 5.0

Target = tuple[Slot, LoadedModel]


class EvictionWish(msgspec.Struct, frozen=True, kw_only=True):
    """Why and how to evict. `refusal` is what ended requests are told."""

    holds: tuple[Hold, ...]
    refusal: Paused
    cause: str
    is_forced: bool = False
    is_first: bool = True  # False: a model came back in mid-pause, past the gate


class Evictor:
    """Does one eviction pass at a time."""

    def __init__(
        self,
        fleet: Fleet,
        dispatcher: Dispatcher,
        loader: Loader,
        journal: JournalBook,
        probe: MemoryProbe,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        settings: Callable[[], EvictionSettings],
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._loader = loader
        self._journal = journal
        self._probe = probe
        self._clock = clock
        self._record = record
        self._settings = settings
        self.still_held = ""  # why the eviction is not complete, for people
        self.last_pause: PauseReport | None = None
        self._unproven: tuple[Held, list[Target]] | None = None

    async def evict(self, wish: EvictionWish, is_wanted: Callable[[], bool]) -> bool:
        """Run one pass; say whether memory is confirmed clear. Stops early when no longer wanted."""
        started_s = self._clock.monotonic_s()
        await self._loader.stop(self._stoppable_loads(wish.holds), wish.refusal)
        slots = [s for s in self._fleet.slots.values() if s.provider.is_local and s.provider.can_unload]
        await self._fleet.refresh(slots)
        targets = await self._measured(self.targets(wish.holds))
        await self._note(targets, wish)
        if not targets:
            if self._unproven is not None:
                return await self._confirm(*self._unproven, wish, started_s)
            return self._nothing_to_do(wish, slots)
        before = await self._probe.look(list(dict.fromkeys(slot for slot, _ in targets)))
        await asyncio.gather(*(self._evict_one(slot, m, wish, is_wanted) for slot, m in targets))
        await self._fleet.refresh(slots)
        left = self.targets(wish.holds)
        if left or not is_wanted():
            self.still_held = self._why_left(left)
            return False
        return await self._confirm(before, targets, wish, started_s)

    def targets(self, holds: tuple[Hold, ...]) -> list[Target]:
        """What is in memory (as last seen) and has to go for these holds."""
        return [
            (slot, m) for slot, m in self._fleet.residents() if slot.provider.can_unload and must_go(m, holds)
        ]

    async def _measured(self, targets: list[Target]) -> list[Target]:
        models = await self._probe.with_vram([m for _, m in targets])
        return [(slot, model) for (slot, _), model in zip(targets, models, strict=True)]

    def _stoppable_loads(self, holds: tuple[Hold, ...]) -> list[ModelRef]:
        known = {
            ModelRef(slot.name, m.name): m.needs_gpu
            for slot in self._fleet.slots.values()
            for m in slot.installed
        }
        return [
            ref
            for ref in self._loader.loading
            if self._fleet.slots[ref.provider].provider.is_local
            and must_go(LoadedModel(name=ref.model, needs_gpu=known.get(ref, True)), holds)
        ]

    async def _note(self, targets: list[Target], wish: EvictionWish) -> None:
        """Journal before the first unload. What comes back in mid-pause was not there before: not noted."""
        seen: tuple[JournalEntry, ...] = ()
        if wish.is_first:
            seen = tuple(entry_of(slot.name, m) for slot, m in targets)
        await self._journal.set_aside(merged(self._journal.missing, seen))

    def _nothing_to_do(self, wish: EvictionWish, slots: Sequence[Slot]) -> bool:
        self.still_held = ""
        if wish.is_first and not self._journal.missing:
            self.last_pause = PauseReport(
                models=(),
                freed_bytes=0,
                took_s=0.0,
                at=self._clock.wall_s(),
                is_confirmed_by_memory=None,
            )
        # A provider that failed to answer just now may still hold something; one that is down does not.
        return not any(s.failures and not s.is_down for s in slots)

    async def _evict_one(
        self, slot: Slot, model: LoadedModel, wish: EvictionWish, is_wanted: Callable[[], bool]
    ) -> None:
        ref = ModelRef(slot.name, model.name)
        settings = self._settings()
        await self._end_answers(ref, wish, 0.0 if wish.is_forced else float(settings.drain_seconds))
        if not is_wanted():
            return
        begun_s = self._clock.monotonic_s()
        if wish.is_forced:
            await self._kill(slot, model, 0.0)
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                await slot.provider.unload(model.name)
        except (TimeoutError, ValetError) as error:
            _LOG.warning("%s did not take the unload of %s: %s", slot.name, model.name, error)
        if await self._wait_gone(slot, model.name, settings.kill_after_seconds, is_wanted):
            self._fleet.clear(slot, ConditionType.CANNOT_KILL)
            return
        if is_wanted():
            await self._kill(slot, model, self._clock.monotonic_s() - begun_s)
            await self._wait_gone(slot, model.name, settings.confirm_seconds, is_wanted)

    async def _end_answers(self, ref: ModelRef, wish: EvictionWish, drain_s: float) -> None:
        """Let answers finish for up to `drain_s`, then cut them: a busy engine keeps its memory."""
        clients = [lease.client for lease in self._dispatcher.leases_on(ref)]
        if await self._dispatcher.wait_idle(ref, drain_s):
            return
        count = await self._dispatcher.revoke(ref, wish.refusal)
        names = tuple(dict.fromkeys(c for c in clients if c))
        self._record(
            ev.AnswersEnded(count=count, client=names[0] if len(names) == 1 else "", waited_s=drain_s)
        )

    async def _wait_gone(
        self, slot: Slot, model: str, timeout_s: float, is_wanted: Callable[[], bool]
    ) -> bool:
        deadline_s = self._clock.monotonic_s() + timeout_s
        pause_s = _POLL_S
        while True:
            await self._fleet.refresh([slot])
            answered = slot.failures == 0 or slot.is_down
            if answered and self._fleet.is_loaded(ModelRef(slot.name, model)) is None:
                return True
            if self._clock.monotonic_s() >= deadline_s or not is_wanted():
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(0.25, pause_s * 1.5)

    async def _kill(self, slot: Slot, model: LoadedModel, waited_s: float) -> None:
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                await slot.provider.kill(model.name)
        except NotSupported:
            return
        except CannotKill as error:
            self._fleet.note(slot, ConditionType.CANNOT_KILL, str(error))
        except (TimeoutError, ValetError) as error:
            _LOG.warning("%s: the process of %s could not be ended: %s", slot.name, model.name, error)
        else:
            if waited_s > 0:
                self._record(ev.RunnerKilled(provider=slot.name, model=model.name, waited_s=waited_s))

    async def _confirm(
        self, before: Held, targets: list[Target], wish: EvictionWish, started_s: float
    ) -> bool:
        """Residency is clear: now let the memory itself say so, for up to `confirm_seconds`."""
        slots = list(dict.fromkeys(slot for slot, _ in targets))
        models = [m for _, m in targets]
        verdict, after = await self._wait_proof(before, slots, models)
        if verdict is Proof.HELD:
            for slot, model in targets:
                await self._kill(slot, model, self._clock.monotonic_s() - started_s)
            verdict, after = await self._wait_proof(before, slots, models)
        freed = freed_bytes(before, after)
        if verdict in (Proof.HELD, Proof.UNCLEAR):
            self._say_still_held(slots, models, freed, is_vram=verdict is Proof.UNCLEAR)
        else:
            for slot in slots:
                self._fleet.clear(slot, ConditionType.MEMORY_STILL_HELD)
        if verdict is Proof.HELD:
            self._unproven = (before, targets)
            return False
        self._unproven, self.still_held = None, ""
        if freed == 0 and verdict is Proof.UNTOLD:
            freed = sum(m.size_bytes for m in models)
        self._report(wish, models, freed, self._clock.monotonic_s() - started_s, verdict)
        return True

    async def _wait_proof(
        self, before: Held, slots: list[Slot], models: list[LoadedModel]
    ) -> tuple[Proof, Held]:
        deadline_s = self._clock.monotonic_s() + self._settings().confirm_seconds
        while True:
            after = await self._probe.look(slots, before.runners)
            verdict = proof(before, after, models)
            if verdict in (Proof.FREE, Proof.UNTOLD) or self._clock.monotonic_s() >= deadline_s:
                return verdict, after
            await asyncio.sleep(_POLL_S)

    def _report(
        self, wish: EvictionWish, models: list[LoadedModel], freed: int, took_s: float, verdict: Proof
    ) -> None:
        names = tuple(m.name for m in models)
        if wish.is_first:
            self.last_pause = PauseReport(
                models=names,
                freed_bytes=freed,
                took_s=took_s,
                at=self._clock.wall_s(),
                is_confirmed_by_memory=None if verdict is Proof.UNTOLD else verdict is Proof.FREE,
            )
        self._record(ev.ModelsSetAside(models=names, freed_bytes=freed, took_s=took_s, cause=wish.cause))

    def _say_still_held(
        self, slots: list[Slot], models: list[LoadedModel], freed: int, *, is_vram: bool
    ) -> None:
        held = max(0, sum(m.size_bytes for m in models) - freed)
        what = "VRAM" if is_vram else "memory"
        for slot in slots:
            reason = (
                f"{size(held)} of {what} is still in use although no model is loaded. Restart {slot.name}."
            )
            if ConditionType.MEMORY_STILL_HELD not in slot.conditions:
                self._record(ev.MemoryStillHeld(provider=slot.name, held_bytes=held, is_vram=is_vram))
            self._fleet.note(slot, ConditionType.MEMORY_STILL_HELD, reason)
        self.still_held = f"{size(held)} of {what} is still in use."

    def _why_left(self, left: list[Target]) -> str:
        for slot, model in left:
            if condition := slot.conditions.get(ConditionType.CANNOT_KILL):
                return f"{slot.name} still holds {model.name}. {condition.reason}"
        return f"{left[0][0].name} still holds {left[0][1].name}." if left else ""
