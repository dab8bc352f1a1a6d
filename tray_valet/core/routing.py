"""Routes: which models may answer a name, in which order, and which of them it is now.

Decides: what an alias, `provider/model`, `pool/model` or a model's own name stands for, what a route changes
in a request, who of a pool goes first, what a pause means for a route, and the words that say why.
Must not: look at a provider, wait, or know a clock; what is known comes in as a `Directory` and as standings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Protocol

import msgspec

from tray_valet.core.commands import Overrides
from tray_valet.core.config import Settings
from tray_valet.core.config_providers import (
    CandidateSettings,
    PoolSettings,
    Priority,
    RouteSettings,
    WhenPaused,
)
from tray_valet.core.durations import go_seconds
from tray_valet.core.errors import (
    LoadFailed,
    ProviderUnreachable,
    QueueFull,
    TimedOut,
    UnknownModel,
    ValetError,
    VramExhausted,
)
from tray_valet.core.models import ModelRef

PLAIN_WAIT_S = 60.0  # how long a model without a route waits for the end of a pause, where it is to wait


class Directory(Protocol):
    """What is known of providers, at this moment."""

    def find(self, model: str, provider: str | None = None) -> ModelRef | None:
        """The model that this name means, exactly (never another tag); at that provider, if one is given."""
        ...

    def presume(self, model: str, provider: str) -> ModelRef | None:
        """The same at a provider that cannot tell now; None where it can, or where there is none."""
        ...


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a plan: a model at a provider, or at the members of a pool (as configured)."""

    members: tuple[ModelRef, ...]
    overrides: Overrides | None = None
    is_pool: bool = False
    left_out: str = ""  # why the route's candidate before it is none: “local has no x”; "" = there is none


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for. `wait_s`: seconds that a request waits for the end of a pause."""

    steps: tuple[Step, ...]
    is_alias: bool = False
    when_paused: WhenPaused = WhenPaused.REFUSE
    wait_s: float = 0.0
    priority: Priority = Priority.NORMAL


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a request may be answered. `step` counts from 0 in the route's order."""

    ref: ModelRef
    step: int = 0
    overrides: Overrides | None = None
    is_pooled: bool = False
    left_out: str = ""  # as in its step

    @property
    def context_length(self) -> int | None:
        """Tokens that the route asks for."""
        return self.overrides.context_length if self.overrides is not None else None

    @property
    def keep_alive_s(self) -> float | None:
        """How long the route keeps the model afterwards; `math.inf` = for ever, None = no change."""
        return self.overrides.keep_alive_s if self.overrides is not None else None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a pool's member is. `slots` None = it does not say: taken as one."""

    is_down: bool = False
    is_loaded: bool = False
    busy: int = 0  # requests in flight and waiting
    slots: int | None = None


class Standing(Enum):
    """Whether a candidate may be asked now."""

    OPEN = auto()
    CLOSED = auto()  # by a pause
    DOWN = auto()  # its provider does not answer: asked only when nothing else is left
    FAILED = auto()  # asked already for this request
    UNSERVED = auto()  # its provider does not have the path that is asked for


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: a candidate to go to, or the one whose pause is in the way; else nothing is left."""

    candidate: Candidate | None = None
    held: Candidate | None = None
    may_wait: bool = False  # for `held`: until a candidate opens


# -- what a name stands for ------------------------------------------------------------------------------


def plan_of(name: str, settings: Settings, directory: Directory) -> Plan | None:
    """What this name stands for, as things are known now; None when it is nobody's name.

    Candidates of a route that do not exist are left out.
    """
    if (route := settings.routes.get(name)) is not None:
        return _plan_of_route(route, settings, directory)
    step = _step_of_name(name, settings, directory)
    if step is None:
        return None
    waits = settings.router.when_paused is WhenPaused.WAIT
    return Plan(
        steps=(step,),
        when_paused=settings.router.when_paused,
        wait_s=PLAIN_WAIT_S if waits else 0.0,
    )


def no_candidate(alias: str) -> UnknownModel:
    """What a request for a route is told that names nothing that exists."""
    return UnknownModel(f"The alias “{alias}” has no candidate that exists.", param="model")


def _plan_of_route(route: RouteSettings, settings: Settings, directory: Directory) -> Plan | None:
    keep_alive_s = go_seconds(route.keep_alive)
    steps = []
    left_out = ""
    for candidate in route.candidates:
        members = members_of(candidate, settings, directory)
        if not members:
            left_out = left_out or _why_left_out(candidate, settings, directory)
            continue
        overrides = Overrides(
            set=candidate.set,
            strip=candidate.strip,
            context_length=route.num_ctx,
            keep_alive_s=keep_alive_s,
        )
        steps.append(
            Step(
                members=members,
                overrides=None if overrides == Overrides() else overrides,
                is_pool=candidate.provider in settings.pools,
                left_out=left_out,
            )
        )
        left_out = ""
    if not steps:
        return None
    return Plan(
        steps=tuple(steps),
        is_alias=True,
        when_paused=route.when_paused,
        wait_s=float(route.wait_seconds) if route.when_paused is WhenPaused.WAIT else 0.0,
        priority=route.priority,
    )


def members_of(
    candidate: CandidateSettings, settings: Settings, directory: Directory
) -> tuple[ModelRef, ...]:
    """The models that a route's candidate means: one at a provider, or a pool's; () when there is none."""
    model, place = candidate.model, candidate.provider
    if (pool := settings.pools.get(place)) is not None:
        return pool_members(pool, model, directory)
    ref = directory.find(model, place) or directory.presume(model, place)
    return (ref,) if ref is not None else ()


def _why_left_out(candidate: CandidateSettings, settings: Settings, directory: Directory) -> str:
    model, place = candidate.model, candidate.provider
    pool = settings.pools.get(place)
    if pool is not None and any(directory.presume(model, provider) for provider in pool.providers):
        return f"{place} may have no {model}"
    return f"{place} has no {model}"


def _step_of_name(name: str, settings: Settings, directory: Directory) -> Step | None:
    prefix, _, rest = name.partition("/")
    if ref := directory.find(name):
        # Whose own name is said may be answered by any of its pool; `provider/model` means that provider.
        is_named = bool(rest) and prefix == ref.provider
        pool = None if is_named else _pool_of(ref, name, settings, directory)
        if pool is None:
            return Step(members=(ref,))
        return Step(members=pool_members(pool, name, directory), is_pool=True)
    if rest and (pool := settings.pools.get(prefix)) is not None:
        members = pool_members(pool, rest, directory)
        return Step(members=members, is_pool=True) if members else None
    if rest and (presumed := directory.presume(rest, prefix)):
        return Step(members=(presumed,))
    return None


def _pool_of(ref: ModelRef, name: str, settings: Settings, directory: Directory) -> PoolSettings | None:
    pools = (p for p in settings.pools.values() if ref.provider in p.providers)
    return next((p for p in pools if ref in pool_members(p, name, directory)), None)


def pool_members(pool: PoolSettings, model: str, directory: Directory) -> tuple[ModelRef, ...]:
    """The pool's models of that name, one a provider, as configured; () when the pool is not for it."""
    members = []
    for provider in pool.providers:
        ref = directory.find(model, provider)
        if ref is None:
            continue
        if not pool.models or any(directory.find(m, provider) == ref for m in pool.models):
            members.append(ref)
    return tuple(members)


def names_of_pool(
    pool: PoolSettings, names: Mapping[str, Sequence[str]], directory: Directory
) -> tuple[str, ...]:
    """The models that a pool offers: those it names, else every one that its members share.

    `names`: each provider's models, as last listed; a member that has listed none is left out.
    """
    if pool.models:
        return tuple(model for model in pool.models if pool_members(pool, model, directory))
    told = [provider for provider in pool.providers if names.get(provider)]
    if not told:
        return ()
    return tuple(n for n in names[told[0]] if all(directory.find(n, provider) for provider in told))


# -- in which order --------------------------------------------------------------------------------------


def candidates_of(plan: Plan, load_of: Callable[[ModelRef], Load]) -> tuple[Candidate, ...]:
    """The plan's candidates in order; a pool's members least loaded first. A model comes once."""
    found: dict[ModelRef, Candidate] = {}
    for number, step in enumerate(plan.steps):
        members = step.members
        if len(members) > 1:
            members = tuple(sorted(members, key=lambda ref: _weight(load_of(ref))))
        for ref in members:
            found.setdefault(
                ref,
                Candidate(
                    ref=ref,
                    step=number,
                    overrides=step.overrides,
                    is_pooled=step.is_pool and len(members) > 1,
                    left_out=step.left_out,
                ),
            )
    return tuple(found.values())


def _weight(load: Load) -> tuple[bool, int, float, bool]:
    """Small goes first: who answers; a free place where the model is, then where it is not yet; then the
    shorter queue for each place."""
    pressure = load.busy / (load.slots or 1)
    turn = 2 if pressure >= 1 else 0 if load.is_loaded else 1
    return (load.is_down, turn, pressure, not load.is_loaded)


# -- which one -------------------------------------------------------------------------------------------


def choose(
    candidates: Sequence[Candidate],
    standings: Sequence[Standing],
    when_paused: WhenPaused,
    awaited: frozenset[ModelRef] = frozenset(),
) -> Choice:
    """The candidate to go to now.

    A pause is a matter of the first candidate that would serve. `awaited`: models that were closed while
    this request has waited; it takes the first of them that opens.
    """
    pairs = list(zip(candidates, standings, strict=True))
    serving = [pair for pair in pairs if pair[1] in (Standing.OPEN, Standing.CLOSED)]
    down = next((c for c, standing in pairs if standing is Standing.DOWN), None)
    if not serving:
        return Choice(candidate=down)
    first, standing = serving[0]
    if standing is Standing.OPEN:
        return Choice(candidate=first)
    opened = [c for c, standing in serving if standing is Standing.OPEN]
    if when_paused is WhenPaused.NEXT:
        fallback = opened[0] if opened else down
        return Choice(candidate=fallback) if fallback is not None else Choice(held=first)
    if when_paused is WhenPaused.WAIT:
        back = next((c for c in opened if c.ref in awaited), None)
        return Choice(candidate=back) if back is not None else Choice(held=first, may_wait=True)
    return Choice(held=first)


def reason_for(
    chosen: Candidate,
    candidates: Sequence[Candidate],
    standings: Sequence[Standing],
    failed: Mapping[ModelRef, ValetError],
    *,
    is_alias: bool,
    path: str,
) -> str:
    """Why this candidate, in plain ASCII words: `alias`, `model`, `fallback: paused` …"""
    for candidate, standing in zip(candidates, standings, strict=True):
        if candidate.left_out:
            return f"fallback: {candidate.left_out}"
        if candidate is chosen:
            break
        if why := _why_not(candidate, standing, failed, path):
            return f"fallback: {why}"
    if chosen.is_pooled:
        return "pool: least loaded"
    return "alias" if is_alias else "model"


def _why_not(
    candidate: Candidate, standing: Standing, failed: Mapping[ModelRef, ValetError], path: str
) -> str:
    provider, model = candidate.ref.provider, candidate.ref.model
    if standing is Standing.CLOSED:
        return "paused"
    if standing is Standing.DOWN:
        return f"{provider} is down"
    if standing is Standing.UNSERVED:
        return f"{provider} does not serve {path}"
    error = failed.get(candidate.ref)
    if error is None:
        return ""
    return next((text for kind, text in _FAILURES if isinstance(error, kind)), "{provider} failed").format(
        provider=provider, model=model
    )


_FAILURES: tuple[tuple[type[ValetError], str], ...] = (
    (VramExhausted, "{model} did not fit"),
    (LoadFailed, "{model} could not be loaded"),
    (ProviderUnreachable, "{provider} is down"),
    (UnknownModel, "{provider} no longer has {model}"),
    (TimedOut, "{provider} did not answer in time"),
    (QueueFull, "the queue of {model} is full"),
)
