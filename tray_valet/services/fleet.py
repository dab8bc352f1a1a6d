"""The fleet: every provider with what was last seen of it.

Decides: when a provider counts as down, and which provider a model name means. Must not: load, unload.

A provider that hangs delays nobody: each is looked at by itself, and every look is bounded. One failure
changes nothing; down is said after several in a row.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.errors import NotFound, ProviderUnreachable, UnknownModel, ValetError
from tray_valet.core.models import (
    Condition,
    ConditionType,
    Demand,
    InstalledModel,
    LoadedModel,
    ModelRef,
    Observation,
)
from tray_valet.core.snapshot import ProviderView

if TYPE_CHECKING:
    from tray_valet.core.ports import Clock, Provider

_LOG = logging.getLogger(__name__)
_DOWN_AFTER_FAILURES = 3
_LOOK_TIMEOUT_S = 6.0
_INSTALLED_FRESH_S = 30.0
_TURN_S = 1.0  # a look that takes longer is left to itself


class Slot:
    """One provider and what is known of it. Written by the fleet only."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.observation: Observation | None = None
        self.failures = 0
        self.is_down = False
        self.error = ""
        self.seen_at = 0.0
        self.conditions: dict[ConditionType, Condition] = {}
        self.installed: tuple[InstalledModel, ...] = ()
        self.installed_at_s = -_INSTALLED_FRESH_S
        self.looks_begun = 0
        self.look_seen = 0  # the number of the look that the rest tells of

    @property
    def name(self) -> str:
        return self.provider.name

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        return self.observation.loaded if self.observation else ()

    def demand(self, model: str) -> Demand:
        """What a request for a model here takes of this machine; a GPU, where it is not known."""
        if not self.provider.is_local:
            return Demand.NOTHING
        loaded = [m.needs_gpu for m in self.loaded if m.name == model]
        installed = [m.needs_gpu for m in self.installed if m.name == model]
        return Demand.GPU if next(iter((*loaded, *installed)), True) else Demand.CPU

    def view(self) -> ProviderView:
        """The picture of it."""
        state = "unreachable" if self.is_down else "ready" if self.observation else "unknown"
        return ProviderView(
            name=self.name,
            kind=self.provider.kind,
            url=self.provider.endpoint,
            is_local=self.provider.is_local,
            state=state,
            version=self.observation.version if self.observation else None,
            conditions=tuple(self.conditions.values()),
            loaded=self.loaded,
            loading=self.observation.loading if self.observation else (),
            seen_at=self.seen_at,
        )


class Fleet:
    """Owns the slots. `on_change` is called whenever what is loaded or reachable differs."""

    def __init__(
        self, clock: Clock, record: Callable[[ev.Fact], None], on_change: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._record = record
        self._on_change = on_change
        self._look_now = asyncio.Event()
        self.slots: dict[str, Slot] = {}

    # -- which providers -----------------------------------------------------------------------------

    async def replace(self, providers: Iterable[Provider]) -> None:
        """Take these providers from now on. One that is the same object keeps what is known of it."""
        old = self.slots
        self.slots = {
            p.name: old[p.name] if p.name in old and old[p.name].provider is p else Slot(p) for p in providers
        }
        kept = {id(slot) for slot in self.slots.values()}
        await asyncio.gather(*(self._close(slot) for slot in old.values() if id(slot) not in kept))
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
        looks: dict[Slot, asyncio.Task[None]] = {}
        try:
            while True:
                self._look_now.clear()
                for slot in self.slots.values():
                    if slot not in looks:
                        looks[slot] = asyncio.create_task(
                            self._look_and_list(slot), name=f"look at {slot.name}"
                        )
                if looks:
                    await asyncio.wait(looks.values(), timeout=_TURN_S)
                for slot in [slot for slot, look in looks.items() if look.done()]:
                    looks.pop(slot).result()
                try:
                    async with asyncio.timeout(interval_s()):
                        await self._look_now.wait()
                except TimeoutError:
                    continue
        finally:
            for look in looks.values():
                look.cancel()

    async def _look_and_list(self, slot: Slot) -> None:
        await self._look(slot)
        if not slot.failures:
            await self._list(slot, _INSTALLED_FRESH_S)

    def look_soon(self) -> None:
        """Make `run` look at once (the interval changed, or something happened)."""
        self._look_now.set()

    async def refresh(self, slots: Iterable[Slot] | None = None) -> None:
        """Look at these providers (default: all) now; returns when all have answered or failed."""
        chosen = list(self.slots.values() if slots is None else slots)
        await asyncio.gather(*(self._look(slot) for slot in chosen))

    async def _look(self, slot: Slot) -> None:
        slot.looks_begun += 1
        number, before = slot.looks_begun, _essence(slot)
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                seen = await slot.provider.observe()
        except (TimeoutError, ValetError) as error:
            await self._note_failure(slot, error)
        else:
            if number > slot.look_seen:  # else a later look has told something newer already
                slot.look_seen = number
                self._note_answer(slot, seen)
        if _essence(slot) != before:
            self._on_change()

    def _note_answer(self, slot: Slot, seen: Observation) -> None:
        was_down = slot.is_down
        slot.observation, slot.failures, slot.is_down, slot.error = seen, 0, False, ""
        slot.seen_at = self._clock.wall_s()
        self.clear(slot, ConditionType.UNREACHABLE)
        if was_down:
            self._record(ev.ProviderBack(provider=slot.name))

    async def _note_failure(self, slot: Slot, error: Exception) -> None:
        slot.failures += 1
        slot.error = str(error) or "It did not answer in time."
        if slot.failures < _DOWN_AFTER_FAILURES:
            return
        is_new, slot.is_down = not slot.is_down, True
        if is_new:
            self.note(slot, ConditionType.UNREACHABLE, slot.error)
            self._record(ev.ProviderLost(provider=slot.name, message=slot.error))
        if slot.loaded and not await slot.provider.runners():
            # One that hangs still holds its models; one whose processes are gone holds none.
            slot.observation = None

    def presume_empty(self, slot: Slot) -> None:
        """Note that a provider that does not answer holds nothing any more: its processes are gone."""
        if slot.observation is not None:
            slot.observation = msgspec.structs.replace(slot.observation, loaded=())
            self._on_change()

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
        return next((m for m in slot.loaded if m.name == ref.model), None) if slot else None

    # -- which model a name means --------------------------------------------------------------------

    async def installed(self) -> list[tuple[Slot, InstalledModel]]:
        """What every provider that answers could load; a few seconds old at most."""
        await asyncio.gather(*(self._list(slot, _INSTALLED_FRESH_S) for slot in self.slots.values()))
        return self.known_installed()

    def known_installed(self) -> list[tuple[Slot, InstalledModel]]:
        """The same as last listed, without asking."""
        return [(slot, m) for slot in self.slots.values() for m in slot.installed]

    async def _list(self, slot: Slot, fresh_s: float) -> None:
        now_s = self._clock.monotonic_s()
        if slot.is_down or now_s - slot.installed_at_s < fresh_s:
            return
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                slot.installed = await slot.provider.installed()
                slot.installed_at_s = now_s
        except (TimeoutError, ValetError) as error:
            _LOG.debug("%s did not list its models: %s", slot.name, error)

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
        if found := self._resolve_now(name, provider):  # without waiting for one that hangs
            return found
        for fresh_s in (_INSTALLED_FRESH_S, 0.0):  # the second time with lists of now: it may be new
            await asyncio.gather(*(self._list(slot, fresh_s) for slot in self.slots.values()))
            found = self._resolve_now(name, provider)
            if found is not None:
                return found
        if provider is not None:
            self.slot(provider)
        raise self._unknown(name, provider)

    def _resolve_now(self, name: str, provider: str | None) -> tuple[Slot, str] | None:
        prefix, _, rest = name.partition("/")
        for slot in self.slots.values():
            if provider is not None and slot.name != provider:
                continue
            wanted = [name, rest] if rest and prefix == slot.name else [name]
            here = {m.name for m in slot.installed} | {m.name for m in slot.loaded}
            for spelling in wanted:
                canonical = slot.provider.canonical(spelling)
                if canonical in here:
                    return slot, canonical
        return None

    def _unknown(self, name: str, provider: str | None) -> ValetError:
        named = self.slots.get(provider or name.partition("/")[0])
        if named is not None and named.is_down:
            return ProviderUnreachable(f"{named.name} does not answer. {named.error}")
        names = [m.name for _, m in self.known_installed()]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else ""
        if not near and not names and any(s.is_down for s in self.slots.values()):
            hint = "The provider that may have it does not answer."
        return UnknownModel(f"No model is called “{name}”.", remedy=hint, param="model")


def _essence(slot: Slot) -> object:
    """What makes a difference to others."""
    return (
        slot.is_down,
        slot.observation is not None,
        tuple((m.name, m.context_length, m.needs_gpu) for m in slot.loaded),
        slot.observation.loading if slot.observation else (),
    )
