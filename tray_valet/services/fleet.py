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

from tray_valet.core import events as ev
from tray_valet.core.errors import ProviderUnreachable, UnknownModel, ValetError
from tray_valet.core.models import (
    Condition,
    ConditionType,
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

    @property
    def name(self) -> str:
        return self.provider.name

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        return self.observation.loaded if self.observation else ()

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
        """Look at every provider again and again, until cancelled."""
        while True:
            self._look_now.clear()
            await self.refresh()
            await self.installed()
            try:
                async with asyncio.timeout(interval_s()):
                    await self._look_now.wait()
            except TimeoutError:
                continue

    def look_soon(self) -> None:
        """Make `run` look at once (the interval changed, or something happened)."""
        self._look_now.set()

    async def refresh(self, slots: Iterable[Slot] | None = None) -> None:
        """Look at these providers (default: all) now; returns when all have answered or failed."""
        chosen = list(self.slots.values() if slots is None else slots)
        before = self._essence()
        await asyncio.gather(*(self._look(slot) for slot in chosen))
        if self._essence() != before:
            self._on_change()

    async def _look(self, slot: Slot) -> None:
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                seen = await slot.provider.observe()
        except (TimeoutError, ValetError) as error:
            self._note_failure(slot, error)
            return
        was_down = slot.is_down
        slot.observation, slot.failures, slot.is_down, slot.error = seen, 0, False, ""
        slot.seen_at = self._clock.wall_s()
        self.clear(slot, ConditionType.UNREACHABLE)
        if was_down:
            self._record(ev.ProviderBack(provider=slot.name))

    def _note_failure(self, slot: Slot, error: Exception) -> None:
        slot.failures += 1
        slot.error = str(error) or "It did not answer in time."
        if slot.failures >= _DOWN_AFTER_FAILURES and not slot.is_down:
            slot.is_down = True
            slot.observation = None
            self.note(slot, ConditionType.UNREACHABLE, slot.error)
            self._record(ev.ProviderLost(provider=slot.name, message=slot.error))

    def _essence(self) -> object:
        return [
            (
                name,
                slot.is_down,
                slot.observation is not None,
                tuple((m.name, m.context_length, m.needs_gpu) for m in slot.loaded),
                slot.observation.loading if slot.observation else (),
            )
            for name, slot in self.slots.items()
        ]

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

    async def resolve(self, name: str, provider: str | None = None) -> tuple[Slot, str]:
        """The provider and canonical name that a model's name means, exactly (never another tag).

        `provider/model` names the provider; so does `provider`. Raises UnknownModel with the nearest
        name, ProviderUnreachable when the named provider is down.
        """
        for fresh_s in (_INSTALLED_FRESH_S, 1.0):  # the second time with fresh lists: it may be new
            await asyncio.gather(*(self._list(slot, fresh_s) for slot in self.slots.values()))
            found = self._resolve_now(name, provider)
            if found is not None:
                return found
        if provider is not None and provider not in self.slots:
            raise UnknownModel(f"There is no provider called “{provider}”.", param="provider")
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
