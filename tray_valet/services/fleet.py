"""The fleet: every provider with what was last seen of it.

Decides: when a provider counts as down, and which provider a model name means. Must not: load, unload.

A provider that hangs delays nobody: each is looked at by itself, and every look is bounded. One failure
changes nothing; down is said after several in a row, which follow shortly where it had answered before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.errors import NotFound, ValetError
from tray_valet.core.events_providers import ProviderBack, ProviderLost
from tray_valet.core.models import (
    TOLD_BY_PROVIDERS,
    Condition,
    ConditionType,
    InstalledModel,
    LoadedModel,
    ModelRef,
    Observation,
)
from tray_valet.services import model_names
from tray_valet.services.looks import Looks
from tray_valet.services.slot import INSTALLED_FRESH_S, Slot

if TYPE_CHECKING:
    from tray_valet.core.ports import Clock, Provider

__all__ = ["LIST_ROUNDS", "Fleet", "Slot"]
_LOG = logging.getLogger(__name__)
_DOWN_AFTER_FAILURES = 3
_LOOK_TIMEOUT_S = 6.0
LIST_ROUNDS = (INSTALLED_FRESH_S, 0.0)  # who looks for a name asks so: the second time it may be new


class Fleet:
    """Owns the slots. `on_change` is called whenever what is loaded or reachable differs."""

    def __init__(
        self, clock: Clock, record: Callable[[ev.Fact], None], on_change: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._record = record
        self._on_change = on_change
        self._looks = Looks(clock, lambda: self.slots.values(), self._look_and_list, _is_in_doubt)
        self._listings: WeakKeyDictionary[Slot, asyncio.Task[None]] = WeakKeyDictionary()
        self.slots: dict[str, Slot] = {}
        self.generation = 0  # grows whenever a name may mean something else than before

    # -- which providers -----------------------------------------------------------------------------

    async def replace(self, providers: Iterable[Provider]) -> None:
        """Take these providers from now on. One that is the same object keeps what is known of it."""
        old = self.slots
        self.slots = {
            p.name: old[p.name] if p.name in old and old[p.name].provider is p else Slot(p) for p in providers
        }
        kept = {id(slot) for slot in self.slots.values()}
        self._note_change()  # before the old ones are closed: nothing is sent to them any more
        await asyncio.gather(*(self._close(slot) for slot in old.values() if id(slot) not in kept))
        self._on_change()

    def _note_change(self) -> None:
        self.generation += 1
        self._on_change()

    async def close(self) -> None:
        """End every provider's own runners and connections."""
        await asyncio.gather(*(self._close(slot) for slot in self.slots.values()))

    async def _close(self, slot: Slot) -> None:
        try:
            async with asyncio.timeout(4):
                await slot.provider.close()
        except (TimeoutError, ValetError) as error:
            _LOG.warning("%s did not close in order: %s", slot.name, error)

    # -- what is there -------------------------------------------------------------------------------

    async def run(self, interval_s: Callable[[], float]) -> None:
        """Look at every provider again and again, until cancelled. A slow one is not waited for."""
        await self._looks.run(interval_s)

    async def _look_and_list(self, slot: Slot) -> None:
        await self._look(slot)
        if not slot.failures:
            await self.list_models(INSTALLED_FRESH_S, [slot])

    def look_soon(self) -> None:
        """Make `run` look at once (the interval changed, or something happened)."""
        self._looks.soon()

    def doubt(self, name: str) -> None:
        """Have `run` look at a provider at once that gave a request no answer; once a second at most."""
        slot = self.slots.get(name)
        if slot is not None and not slot.is_silence_known:
            self._looks.doubt(slot)

    async def refresh(self, slots: Iterable[Slot] | None = None) -> None:
        """Look at these providers (default: all) now; returns when all have answered or failed."""
        chosen = list(self.slots.values() if slots is None else slots)
        await asyncio.gather(*(self._look(slot) for slot in chosen))

    async def _look(self, slot: Slot) -> None:
        slot.looks_begun += 1
        number = slot.looks_begun
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                seen = await slot.provider.observe()
        except (TimeoutError, ValetError) as error:
            before = slot.essence
            await self._note_failure(slot, error)
        else:
            before = slot.essence
            if number > slot.look_seen:  # else a later look has told something newer already
                slot.look_seen = number
                self._note_answer(slot, seen)
        if slot.essence != before:
            self._note_change()

    def _note_answer(self, slot: Slot, seen: Observation) -> None:
        was_down = slot.is_down and not slot.is_in_hands
        slot.is_stopped = False
        slot.observation, slot.failures, slot.is_down, slot.error = seen, 0, False, ""
        slot.seen_at = self._clock.wall_s()
        self.clear(slot, ConditionType.UNREACHABLE)
        for kind in TOLD_BY_PROVIDERS:
            if kind in seen.problems:
                self.note(slot, kind, seen.problems[kind])
            else:
                self.clear(slot, kind)
        if was_down:
            self._record(ProviderBack(provider=slot.name))

    async def _note_failure(self, slot: Slot, error: Exception) -> None:
        slot.failures += 1
        if slot.is_in_hands or slot.is_stopped:
            return
        slot.error = str(error) or "It did not answer in time."
        if slot.failures < _DOWN_AFTER_FAILURES:
            return
        is_new, slot.is_down = not slot.is_down, True
        if is_new:
            self.note(slot, ConditionType.UNREACHABLE, slot.error)
            self._record(ProviderLost(provider=slot.name, message=slot.error))
        if slot.loaded and not await slot.provider.runners():
            # One that hangs still holds its models; one whose processes are gone holds none.
            slot.observation = None

    def presume_empty(self, slot: Slot) -> None:
        """Note that a provider that does not answer holds nothing any more: its processes are gone."""
        if slot.observation is not None:
            slot.observation = msgspec.structs.replace(slot.observation, loaded=())
            self._note_change()

    def take_in_hand(self, slot: Slot) -> None:
        """Note that its server is being started or stopped, until `hand_back`."""
        slot.is_in_hands = True

    def hand_back(self, slot: Slot, *, is_stopped: bool = False) -> None:
        """Note that it no longer is. `is_stopped`: it is gone, as the user wished."""
        slot.is_in_hands = False
        slot.failures = 0
        if is_stopped:
            slot.is_stopped = slot.is_down = True
            slot.observation, slot.error = None, "It was stopped by you."
            self.clear(slot, ConditionType.UNREACHABLE)
            self.note(
                slot,
                ConditionType.UNREACHABLE,
                f"Stopped by you. Start it with: tray-valet service start {slot.name}",
            )
        self._note_change()

    def note_gone(self, ref: ModelRef) -> None:
        """Note that a model's process is known to have ended, without waiting for the next look."""
        slot = self.slots.get(ref.provider)
        if slot is not None and slot.observation is not None and self.is_loaded(ref):
            loaded = tuple(m for m in slot.loaded if m.name != ref.model)
            slot.observation = msgspec.structs.replace(slot.observation, loaded=loaded)
            self._note_change()

    def note(self, slot: Slot, kind: ConditionType, reason: str) -> None:
        """Say that something is the case with a provider; `since` stays the first time's."""
        old = slot.conditions.get(kind)
        since = old.since if old else self._clock.wall_s()
        slot.conditions[kind] = Condition(type=kind, reason=reason, since=since)

    def clear(self, slot: Slot, kind: ConditionType) -> None:
        """Say that it no longer is."""
        slot.conditions.pop(kind, None)

    @property
    def is_all_down(self) -> bool:
        """Whether there are providers and none of them answers."""
        return bool(self.slots) and all(slot.is_down for slot in self.slots.values())

    def residents(self) -> list[tuple[Slot, LoadedModel]]:
        """What local providers hold in memory, as last seen."""
        return [(s, m) for s in self.slots.values() if s.provider.is_local for m in s.loaded]

    def is_loaded(self, ref: ModelRef) -> LoadedModel | None:
        """The loaded model of that name, as last seen."""
        slot = self.slots.get(ref.provider)
        if slot is not None:
            for loaded in slot.loaded:  # asked several times for each request: no generator
                if loaded.name == ref.model:
                    return loaded
        return None

    def knows(self, ref: ModelRef) -> bool:
        """Whether that provider had the model when it was last seen."""
        slot = self.slots.get(ref.provider)
        return slot is not None and slot.has(ref.model)

    # -- which model a name means --------------------------------------------------------------------

    async def installed(self) -> list[tuple[Slot, InstalledModel]]:
        """What every provider that answers could load; half a minute old at most."""
        await self.list_models(INSTALLED_FRESH_S)
        return self.known_installed()

    def known_installed(self) -> list[tuple[Slot, InstalledModel]]:
        """The same as last listed, without asking."""
        return [(slot, m) for slot in self.slots.values() for m in slot.installed]

    def slot(self, name: str) -> Slot:
        """The provider of that name. Raises NotFound, naming those that there are."""
        if name not in self.slots:
            known = f"Use one of {', '.join(self.slots)}." if self.slots else ""
            raise NotFound(f"There is no provider called “{name}”.", remedy=known, param="provider")
        return self.slots[name]

    async def resolve(self, name: str, provider: str | None = None) -> tuple[Slot, str]:
        """The provider and canonical name that a model's name means, exactly (never another tag).

        `provider/model` names the provider; so does `provider`. Raises UnknownModel with the nearest
        name, NotFound for the named provider, ProviderUnreachable when that one is down.
        """
        if found := self.find(name, provider):  # without waiting for one that hangs
            return self.slots[found.provider], found.model
        for fresh_s in LIST_ROUNDS:
            await self.list_models(fresh_s)
            if found := self.find(name, provider):
                return self.slots[found.provider], found.model
        if provider is not None:
            self.slot(provider)
        raise self.unknown(name, provider)

    async def list_models(self, fresh_s: float, slots: Iterable[Slot] | None = None) -> None:
        """Ask providers (default: all) what they have whose word is older than `fresh_s` (see LIST_ROUNDS).

        One question at a time to each, however many ask for names that nobody knows.
        """
        chosen = list(self.slots.values() if slots is None else slots)
        await asyncio.gather(*(self._list_shared(slot, fresh_s) for slot in chosen))

    async def _list_shared(self, slot: Slot, fresh_s: float) -> None:
        if slot.is_down or self._clock.monotonic_s() - slot.installed_at_s < fresh_s:
            return
        running = self._running_list(slot)
        if running is not None and not fresh_s:
            await asyncio.wait({running})  # it may have begun before the name was there
            running = self._running_list(slot)
        if running is None:
            running = asyncio.create_task(self._list(slot), name=f"list models of {slot.name}")
            self._listings[slot] = running
        await asyncio.shield(running)

    async def _list(self, slot: Slot) -> None:
        now_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                installed = await slot.provider.installed()
        except (TimeoutError, ValetError) as error:
            _LOG.debug("%s did not list its models: %s", slot.name, error)
            return
        is_new = not slot.is_listed or installed != slot.installed
        slot.installed, slot.installed_at_s = installed, now_s
        if is_new:
            self._note_change()

    def _running_list(self, slot: Slot) -> asyncio.Task[None] | None:
        task = self._listings.get(slot)
        return None if task is None or task.done() else task

    def find(self, name: str, provider: str | None = None) -> ModelRef | None:
        """What a model's name means (see `resolve`), as last seen and without asking; None = nothing."""
        return model_names.found(self.slots, name, provider)

    def presume(self, model: str, provider: str) -> ModelRef | None:
        """The model at a provider that cannot say now whether it has it; None where it can."""
        return model_names.presumed(self.slots, model, provider)

    def unknown(self, name: str, provider: str | None = None) -> ValetError:
        """What somebody is told who asks for a model that is not known: with the nearest name."""
        return model_names.unknown(self.slots, name, provider)


def _is_in_doubt(slot: Slot) -> bool:
    """Whether it failed to answer, but not often enough to be down. One that was never there may be starting
    still, as this program does: it gets the time of its rounds."""
    return 0 < slot.failures < _DOWN_AFTER_FAILURES and bool(slot.seen_at) and not slot.is_silence_known
