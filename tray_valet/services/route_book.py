"""The route book: what names stand for now, worked out once and kept until something changes.

Decides: how each candidate stands at this moment. Must not: choose (`core.routing` does), wait for a gate,
or load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from weakref import WeakSet

import msgspec

from tray_valet.core.config import Settings
from tray_valet.core.dialects import NEEDS_NO_MODEL
from tray_valet.core.errors import NotSupported, Paused
from tray_valet.core.models import Demand, ModelRef
from tray_valet.core.routing import (
    Candidate,
    Load,
    Plan,
    Standing,
    candidates_of,
    no_candidate,
    plan_of,
    reason_for,
)
from tray_valet.services.fleet import LIST_ROUNDS, Fleet, Slot

_MOST_NAMES = 1024  # spellings of what exists; then the book begins anew
_FIRST_LIST_S = 1.0  # how long a route waits, once, for a provider that has never said what it has


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """The first candidate of a name, for one path: open, but for a pause, as long as nothing changes."""

    candidate: Candidate
    slot: Slot
    demand: Demand
    reason: str


class Ways:
    """A name's plan; `fixed` are its candidates where their order is the same for every request. `doors`: by
    path, those that were found."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.doors: dict[str, Door] = {}
        has_choice = any(len(step.members) > 1 for step in plan.steps)
        self.fixed = None if has_choice else candidates_of(plan, lambda _: Load())

    def candidates(self, load_of: Callable[[ModelRef], Load]) -> tuple[Candidate, ...]:
        """The candidates in this request's order."""
        return candidates_of(self.plan, load_of) if self.fixed is None else self.fixed


class RouteBook:
    """Kept for one set of settings and one generation of the fleet."""

    def __init__(
        self,
        fleet: Fleet,
        settings: Callable[[], Settings],
        closed_by: Callable[[Demand], Paused | None],
        busy: Callable[[ModelRef], int],
    ) -> None:
        """`busy`: how many requests run on a model now, or wait for it."""
        self._fleet = fleet
        self._settings = settings
        self._closed_by = closed_by
        self._busy = busy
        self._ways: dict[str, Ways] = {}
        self._is_of: tuple[Settings | None, int] = (None, -1)
        self._awaited: WeakSet[Slot] = WeakSet()

    def known(self, name: str) -> Ways | None:
        """What a name stands for, if that was worked out already and still holds."""
        is_of = self._is_of
        if is_of[1] != self._fleet.generation or is_of[0] is not self._settings():
            self._ways.clear()
            self._is_of = (self._settings(), self._fleet.generation)
        return self._ways.get(name)

    def now(self, name: str) -> Ways | None:
        """What a name stands for as things are known, without asking anybody; None = nothing."""
        ways = self.known(name)
        if ways is None and (plan := plan_of(name, self._settings(), self._fleet)) is not None:
            if len(self._ways) >= _MOST_NAMES:
                self._ways.clear()
            ways = self._ways[name] = Ways(plan)
        return ways

    def door(self, name: str, path: str) -> Door | None:
        """The door that a request finds open, pauses aside; None where it takes more to tell."""
        ways = self.known(name)
        if ways is None:
            return None
        door = ways.doors.get(path)
        if door is None and ways.fixed is not None and path not in NEEDS_NO_MODEL:
            candidate = ways.fixed[0]
            if self._standing_but_for_pauses(candidate, path, ()) is Standing.OPEN:
                slot = self._fleet.slots[candidate.ref.provider]
                door = ways.doors[path] = Door(
                    candidate=candidate,
                    slot=slot,
                    demand=slot.demand(candidate.ref.model),
                    reason=reason_for(
                        candidate, (candidate,), (Standing.OPEN,), {}, is_alias=ways.plan.is_alias, path=path
                    ),
                )
        return door

    async def ask(self, name: str) -> Ways:
        """What a name stands for; providers are asked where it is not known. Raises UnknownModel, or
        ProviderUnreachable where the provider that it names does not answer."""
        ways = self.now(name)
        if ways is not None and (untold := self._untold(ways)):
            await self._first_lists(untold)
            ways = self.now(name)
        if ways is not None:
            return ways
        for fresh_s in LIST_ROUNDS:
            await self._fleet.list_models(fresh_s)
            if ways := self.now(name):
                return ways
        if name in self._settings().routes:
            raise no_candidate(name)
        raise self._fleet.unknown(name)

    def standing(self, candidate: Candidate, path: str, failed: Collection[ModelRef]) -> Standing:
        """How a candidate stands now."""
        standing = self._standing_but_for_pauses(candidate, path, failed)
        if standing in (Standing.OPEN, Standing.DOWN) and path not in NEEDS_NO_MODEL:
            ref = candidate.ref
            if self._closed_by(self._fleet.slots[ref.provider].demand(ref.model)) is not None:
                return Standing.CLOSED
        return standing

    def _standing_but_for_pauses(
        self, candidate: Candidate, path: str, failed: Collection[ModelRef]
    ) -> Standing:
        ref = candidate.ref
        slot = self._fleet.slots.get(ref.provider)
        if ref in failed or slot is None:
            return Standing.FAILED
        if path not in slot.provider.paths:
            return Standing.UNSERVED
        if slot.is_down or not (slot.is_listed or slot.has(ref.model)):
            return Standing.DOWN  # or it has never said what it has
        return Standing.OPEN

    def load_of(self, ref: ModelRef) -> Load:
        """How busy a model is now."""
        slot, loaded = self._fleet.slots.get(ref.provider), self._fleet.is_loaded(ref)
        return Load(
            is_down=slot is None or slot.is_down,
            is_loaded=loaded is not None,
            busy=self._busy(ref),
            slots=loaded.slots if loaded is not None else None,
        )

    def not_served(self, path: str, candidates: Sequence[Candidate]) -> NotSupported:
        """What a request is told whose path none of its candidates has, with what they do have."""
        names = dict.fromkeys(candidate.ref.provider for candidate in candidates)
        served = [
            f"{name} serves {', '.join(sorted(slot.provider.paths))}"
            for name in names
            if (slot := self._fleet.slots.get(name)) is not None
        ]
        who = " and ".join(names)
        return NotSupported(f"{who} cannot answer {path}.", remedy=f"{'; '.join(served)}." if served else "")

    def _untold(self, ways: Ways) -> list[Slot]:
        providers = {ref.provider for step in ways.plan.steps for ref in step.members}
        slots = (slot for slot in self._fleet.slots.values() if slot.name in providers)
        return [s for s in slots if not s.is_listed and not s.is_down and s not in self._awaited]

    async def _first_lists(self, slots: Sequence[Slot]) -> None:
        """Wait a moment for providers that were just set up; one that hangs is waited for once."""
        self._awaited.update(slots)
        try:
            async with asyncio.timeout(_FIRST_LIST_S):
                await self._fleet.list_models(LIST_ROUNDS[0], slots)
        except TimeoutError:
            return
