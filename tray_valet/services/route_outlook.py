"""What would happen to a request for each alias now: the router's own rules, asked without a request.

Decides: nothing of its own; `core.routing` chooses. Must not: wait, load, or ask a provider.
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import CandidateSettings, RouteSettings
from tray_valet.core.dialects import CHAT
from tray_valet.core.errors import Paused
from tray_valet.core.models import Demand, ModelRef
from tray_valet.core.route_views import (
    CandidateView,
    Outcome,
    RouteView,
    admitted_because,
    waits_because,
)
from tray_valet.core.routing import (
    Candidate,
    Standing,
    candidates_of,
    choose,
    members_of,
    no_candidate,
    plan_of,
    reason_for,
)
from tray_valet.services.fleet import Fleet
from tray_valet.services.route_book import RouteBook


class RouteOutlook:
    """Reads the fleet, the settings' routes and the gate."""

    def __init__(
        self,
        fleet: Fleet,
        settings: Callable[[], Settings],
        closed_by: Callable[[Demand], Paused | None],
        busy: Callable[[ModelRef], int],
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._closed_by = closed_by
        self._book = RouteBook(fleet, settings, closed_by, busy)

    def routes(self) -> tuple[RouteView, ...]:
        """Every alias of the settings, in their order."""
        return tuple(self._route(alias, route) for alias, route in self._settings().routes.items())

    def _route(self, alias: str, route: RouteSettings) -> RouteView:
        outcome, why, goes_to = self._outcome(alias, route)
        return RouteView(
            alias=alias,
            candidates=tuple(view for each in route.candidates for view in self._views(each)),
            when_paused=route.when_paused,
            wait_s=float(route.wait_seconds),
            priority=route.priority,
            num_ctx=route.num_ctx,
            keep_alive=route.keep_alive,
            outcome=outcome,
            why=why,
            goes_to=goes_to,
        )

    def _outcome(self, alias: str, route: RouteSettings) -> tuple[Outcome, str, ModelRef | None]:
        plan = plan_of(alias, self._settings(), self._fleet)
        if plan is None:
            return Outcome.REFUSES, no_candidate(alias).message, None
        candidates = candidates_of(plan, self._book.load_of)
        standings = [self._book.standing(candidate, CHAT, ()) for candidate in candidates]
        choice = choose(candidates, standings, plan.when_paused)
        if chosen := choice.candidate:
            if standings[candidates.index(chosen)] is Standing.DOWN:
                return Outcome.REFUSES, f"{chosen.ref.provider} does not answer.", None
            reason = reason_for(chosen, candidates, standings, {}, is_alias=True, path=CHAT)
            is_loaded = self._fleet.is_loaded(chosen.ref) is not None or not self._is_local(chosen.ref)
            return Outcome.ADMITS, admitted_because(chosen.ref, reason, is_loaded=is_loaded), chosen.ref
        if choice.held is not None:
            why = self._why_closed(choice.held.ref)
            if choice.may_wait and plan.wait_s > 0:
                return Outcome.WAITS, waits_because(why, plan.wait_s), choice.held.ref
            return Outcome.REFUSES, why, None
        return Outcome.REFUSES, str(self._book.not_served(CHAT, candidates)), None

    def _views(self, wish: CandidateSettings) -> list[CandidateView]:
        refs = members_of(wish, self._settings(), self._fleet)
        if not refs:
            return [self._view(wish, ModelRef(wish.provider, wish.model), exists=False)]
        pool = wish.provider if wish.provider in self._settings().pools else ""
        return [self._view(wish, ref, pool=pool) for ref in refs]

    def _view(
        self, wish: CandidateSettings, ref: ModelRef, *, exists: bool = True, pool: str = ""
    ) -> CandidateView:
        slot = self._fleet.slots.get(ref.provider)
        loaded = self._fleet.is_loaded(ref)
        standing = self._book.standing(Candidate(ref=ref), CHAT, ())
        return CandidateView(
            ref=ref,
            pool=pool,
            exists=exists,
            provider_state=slot.state if slot is not None else "unknown",
            is_local=self._is_local(ref),
            is_loaded=loaded is not None,
            context_length=loaded.context_length if loaded is not None else None,
            standing=standing,
            why_closed=self._why_closed(ref) if standing is Standing.CLOSED else "",
            sets=tuple(wish.set),
            strips=wish.strip,
        )

    def _is_local(self, ref: ModelRef) -> bool:
        slot = self._fleet.slots.get(ref.provider)
        return slot is None or slot.provider.is_local

    def _why_closed(self, ref: ModelRef) -> str:
        slot = self._fleet.slots.get(ref.provider)
        refusal = self._closed_by(slot.demand(ref.model)) if slot is not None else None
        return refusal.message if refusal is not None else ""
