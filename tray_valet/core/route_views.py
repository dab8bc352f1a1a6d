"""Routes as they stand: who would answer an alias now, and what a pause means for it.

Decides: what is told of a route, and the sentence for it. Must not: look at anything.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tray_valet.core.config_providers import Priority, WhenPaused
from tray_valet.core.models import ModelRef
from tray_valet.core.routing import Standing
from tray_valet.core.wording import duration


class Outcome(StrEnum):
    """What would happen to a chat request for the alias at this moment."""

    ADMITS = "admits"
    WAITS = "waits"
    REFUSES = "refuses"


class CandidateView(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate, in the route's order. `pool` "" = it names a provider itself."""

    ref: ModelRef
    pool: str = ""
    exists: bool = True
    provider_state: str = "unknown"
    is_local: bool = True
    is_loaded: bool = False
    context_length: int | None = None  # tokens, of the loaded model
    standing: Standing = Standing.OPEN
    why_closed: str = ""
    sets: tuple[str, ...] = ()  # names only: values may be long
    strips: tuple[str, ...] = ()


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """One alias. `goes_to` None = nobody would answer now."""

    alias: str
    candidates: tuple[CandidateView, ...]
    when_paused: WhenPaused
    wait_s: float
    priority: Priority
    num_ctx: int | None
    keep_alive: int | float | str | None
    outcome: Outcome
    why: str
    goes_to: ModelRef | None = None


def admitted_because(goes_to: ModelRef, reason: str, *, is_loaded: bool) -> str:
    """The sentence for a request that would go through; `reason` is the router's own word for it."""
    first = "" if is_loaded else ", which is loaded first"
    fallback = reason.removeprefix("fallback: ")
    why = f" ({fallback})" if fallback != reason else ""
    return f"It goes to {goes_to}{first}{why}."


def waits_because(why_closed: str, wait_s: float) -> str:
    """The sentence for a request that would wait for the end of a pause."""
    return f"It waits up to {duration(wait_s)} for the models to come back: {why_closed}"
