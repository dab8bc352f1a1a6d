"""The evictor: gets models out of memory in bounded time, and says so only when it is true.

Order at each provider: loads in progress are given up → what is loaded is noted in the journal, on disk →
answers finish or are ended → unload → the runner is killed if it must be → gone as the provider says, or
its processes. All providers at once, so that one that hangs delays no other; then the memory itself has to
confirm it. Must not: decide that there is a pause.
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
from tray_valet.core.journal import entry_of
from tray_valet.core.models import ConditionType, Demand, LoadedModel, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.snapshot import PauseReport
from tray_valet.core.wording import size
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.leases import Leases
from tray_valet.services.loader import Loader
from tray_valet.services.memory_probe import Held, MemoryProbe, Proof, freed_bytes, proof
from tray_valet.services.pause_account import PauseAccount, Target

_LOG = logging.getLogger(__name__)
_POLL_S = 0.05
_CALL_TIMEOUT_S = 5.0
_LOOK_S = 2.0  # a provider that takes longer is taken as it was last seen
_SHORT_LOOK_S = 0.5
_WORTH_SAYING_S = 0.25


class EvictionWish(msgspec.Struct, frozen=True, kw_only=True):
    """Why and how to evict. `refusal` is what ended requests are told."""

    holds: tuple[Hold, ...]
    refusal: Paused
    cause: str
    is_forced: bool = False


class Evictor:
    """Does one eviction pass at a time."""

    def __init__(
        self,
        fleet: Fleet,
        leases: Leases,
        loader: Loader,
        journal: JournalBook,
        probe: MemoryProbe,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        settings: Callable[[], EvictionSettings],
    ) -> None:
        self._fleet = fleet
        self._leases = leases
        self._loader = loader
        self._journal = journal
        self._probe = probe
        self._clock = clock
        self._record = record
        self._settings = settings
        self.still_held = ""  # why the eviction is not complete, for people
        self.last_pause: PauseReport | None = None
        self._account = PauseAccount()

    def begin(self) -> None:
        """A pause begins: what is loaded from now on was there before it, until its provider is clear."""
        self._account = PauseAccount()
        self.still_held = ""
        if not self._journal.missing:
            self.last_pause = None

    def is_reload(self, target: Target) -> bool:
        """Whether a model came in mid-pause, past the gate."""
        return self._account.is_reload(*target)

    async def evict(self, wish: EvictionWish) -> bool:
        """Run one pass; say whether memory is confirmed clear.

        May be cancelled at any moment: what was noted in the journal stays noted.
        """
        account = self._account
        slots = [s for s in self._fleet.slots.values() if s.provider.is_local and s.provider.can_unload]
        staying = {m.pid for slot in slots for m in slot.loaded if m.pid and not must_go(m, wish.holds)}
        held = await self._probe.look(slots, apart=staying)
        account.begin_pass(self._clock.monotonic_s(), held)
        works = [self._evict_from(slot, wish, account) for slot in slots]
        answers = await asyncio.gather(*works)
        silent = [slot for slot, is_known in zip(slots, answers, strict=True) if not is_known]
        left = self.targets(wish.holds)
        if left or silent:
            self.still_held = self._why_left(left, silent)
            return False
        if not account.targets:
            self.still_held = ""
            self._report_nothing(account)
            return True
        return await self._confirm(account, wish)

    async def _evict_from(self, slot: Slot, wish: EvictionWish, account: PauseAccount) -> bool:
        """Get out of one provider what has to go; say whether it is known what it holds now."""
        await self._loader.stop(self._stoppable_loads(slot, wish.holds), wish.refusal)
        has_runners = bool(await slot.provider.runners())
        is_known = await self._answers(slot)
        targets = await self._measured(self._targets_of(slot, wish.holds))
        # Journal before the first unload. What comes in mid-pause was not there before: not noted.
        found = tuple(entry_of(slot.name, m) for _, m in account.add(targets))
        await self._journal.note_set_aside(found)
        await asyncio.gather(*(self._evict_one(slot, m, wish, has_runners) for _, m in targets))
        if not is_known and has_runners and not await slot.provider.runners():
            return True  # it does not answer, but its processes are gone
        if targets:
            is_known = await self._answers(slot)
        if is_known and not self._targets_of(slot, wish.holds):
            account.note_clear(slot, wish.holds)
        return is_known or slot.is_down

    async def _answers(self, slot: Slot, within_s: float = _LOOK_S) -> bool:
        """Look at a provider; say whether it answered, else what was last seen of it stands."""
        try:
            async with asyncio.timeout(within_s):
                await self._fleet.refresh([slot])
        except TimeoutError:
            return False
        return slot.failures == 0

    def targets(self, holds: tuple[Hold, ...]) -> list[Target]:
        """What is in memory (as last seen) and has to go for these holds."""
        return [t for slot in self._fleet.slots.values() for t in self._targets_of(slot, holds)]

    def _targets_of(self, slot: Slot, holds: tuple[Hold, ...]) -> list[Target]:
        is_ours = slot.provider.is_local and slot.provider.can_unload
        return [(slot, m) for m in slot.loaded if is_ours and must_go(m, holds)]

    async def _measured(self, targets: list[Target]) -> list[Target]:
        models = await self._probe.with_vram([m for _, m in targets])
        return [(slot, model) for (slot, _), model in zip(targets, models, strict=True)]

    def _stoppable_loads(self, slot: Slot, holds: tuple[Hold, ...]) -> list[ModelRef]:
        return [
            ref
            for ref in self._loader.loading
            if ref.provider == slot.name
            and must_go(LoadedModel(name=ref.model, needs_gpu=slot.demand(ref.model) is Demand.GPU), holds)
        ]

    def _report_nothing(self, account: PauseAccount) -> None:
        if account.report is None and not self._journal.missing:
            self.last_pause = PauseReport(
                models=(),
                freed_bytes=0,
                took_s=0.0,
                at=self._clock.wall_s(),
                is_confirmed_by_memory=None,
            )

    async def _evict_one(self, slot: Slot, model: LoadedModel, wish: EvictionWish, has_runners: bool) -> None:
        ref = ModelRef(slot.name, model.name)
        settings = self._settings()
        await self._end_answers(ref, wish, 0.0 if wish.is_forced else float(settings.drain_seconds))
        begun_s = self._clock.monotonic_s()
        kill_after_s = float(settings.kill_after_seconds)
        if wish.is_forced:
            await self._kill(slot, model, 0.0)
        try:
            async with asyncio.timeout(min(_CALL_TIMEOUT_S, max(_LOOK_S, kill_after_s))):
                await slot.provider.unload(model.name)
        except (TimeoutError, ValetError) as error:
            _LOG.warning("%s did not take the unload of %s: %s", slot.name, model.name, _said(error))
        if await self._wait_gone(slot, model.name, begun_s + kill_after_s, has_runners):
            self._fleet.clear(slot, ConditionType.CANNOT_KILL)
            return
        now_s = self._clock.monotonic_s()
        await self._kill(slot, model, now_s - begun_s)
        await self._wait_gone(slot, model.name, now_s + settings.confirm_seconds, has_runners)

    async def _end_answers(self, ref: ModelRef, wish: EvictionWish, drain_s: float) -> None:
        """Let answers finish for up to `drain_s`, then cut them: a busy engine keeps its memory."""
        clients = [lease.client for lease in self._leases.on(ref)]
        names = tuple(dict.fromkeys(c for c in clients if c))
        client = names[0] if len(names) == 1 else ""
        began_s = self._clock.monotonic_s()
        if await self._leases.wait_idle(ref, drain_s):
            waited_s = self._clock.monotonic_s() - began_s
            if clients and waited_s >= _WORTH_SAYING_S:
                self._record(ev.AnswersAwaited(count=len(clients), client=client, waited_s=waited_s))
            return
        count = await self._leases.revoke(ref, wish.refusal)
        self._record(ev.AnswersEnded(count=count, client=client, waited_s=drain_s))

    async def _wait_gone(self, slot: Slot, model: str, deadline_s: float, has_runners: bool) -> bool:
        pause_s = _POLL_S
        while True:
            left_s = deadline_s - self._clock.monotonic_s()
            is_known = await self._answers(slot, min(_LOOK_S, max(_SHORT_LOOK_S, left_s))) or slot.is_down
            if not is_known and has_runners and not await slot.provider.runners():
                self._fleet.presume_empty(slot)  # it does not answer, but its processes are gone
                return True
            if is_known and self._fleet.is_loaded(ModelRef(slot.name, model)) is None:
                return True
            if self._clock.monotonic_s() >= deadline_s:
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
            _LOG.warning("%s: the process of %s could not be ended: %s", slot.name, model.name, _said(error))
        else:
            if waited_s > 0:
                self._record(ev.RunnerKilled(provider=slot.name, model=model.name, waited_s=waited_s))

    async def _confirm(self, account: PauseAccount, wish: EvictionWish) -> bool:
        """Residency is clear: now let the memory itself say so, for up to `confirm_seconds`."""
        targets, before, started_s = account.targets, account.before, account.started_s
        assert before is not None
        assert started_s is not None
        slots = list(dict.fromkeys(slot for slot, _ in targets))
        models = [m for _, m in targets]
        verdict, after = await self._wait_proof(before, models)
        if verdict is Proof.HELD:
            for slot, model in targets:
                await self._kill(slot, model, self._clock.monotonic_s() - started_s)
            verdict, after = await self._wait_proof(before, models)
        freed = freed_bytes(before, after)
        if verdict in (Proof.HELD, Proof.UNCLEAR):
            self._say_still_held(slots, models, freed, is_vram=verdict is Proof.UNCLEAR)
        else:
            for slot in slots:
                self._fleet.clear(slot, ConditionType.MEMORY_STILL_HELD)
        if verdict is Proof.HELD:
            return False
        self.still_held = ""
        if freed == 0 and verdict is Proof.UNTOLD:
            freed = sum(m.size_bytes for m in models)
        self._report(account, wish, freed, self._clock.monotonic_s() - started_s, verdict)
        return True

    async def _wait_proof(self, before: Held, models: list[LoadedModel]) -> tuple[Proof, Held]:
        deadline_s = self._clock.monotonic_s() + self._settings().confirm_seconds
        while True:
            # Those that were there before: one that was started since, on the CPU, has nothing to give back.
            after = await self._probe.look_again(before.runners)
            verdict = proof(before, after, models)
            if verdict in (Proof.FREE, Proof.UNTOLD) or self._clock.monotonic_s() >= deadline_s:
                return verdict, after
            await asyncio.sleep(_POLL_S)

    def _report(
        self, account: PauseAccount, wish: EvictionWish, freed: int, took_s: float, verdict: Proof
    ) -> None:
        names, is_again = tuple(m.name for _, m in account.targets), account.has_only_reloads
        account.close_round(
            PauseReport(
                models=names,
                freed_bytes=freed,
                took_s=took_s,
                at=self._clock.wall_s(),
                is_confirmed_by_memory=None if verdict is Proof.UNTOLD else verdict is Proof.FREE,
            )
        )
        self.last_pause = account.report
        self._record(
            ev.ModelsSetAside(
                models=names, freed_bytes=freed, took_s=took_s, cause=wish.cause, is_again=is_again
            )
        )

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

    def _why_left(self, left: list[Target], silent: Sequence[Slot]) -> str:
        for slot, model in left:
            if condition := slot.conditions.get(ConditionType.CANNOT_KILL):
                return f"{slot.name} still holds {model.name}. {condition.reason}"
        if left:
            return f"{left[0][0].name} still holds {left[0][1].name}."
        return f"{silent[0].name} does not answer; it may still hold models." if silent else ""


def _said(error: Exception) -> str:
    return str(error) or "no answer in time"
