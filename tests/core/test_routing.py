"""What names stand for, in which order candidates are asked, what a pause means, and the words for it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest

from tray_valet.core.commands import Overrides
from tray_valet.core.config import RouterSettings, Settings
from tray_valet.core.config_providers import (
    CandidateSettings,
    PoolSettings,
    Priority,
    RouteSettings,
    WhenPaused,
)
from tray_valet.core.durations import go_seconds
from tray_valet.core.errors import LoadFailed, UpstreamFailed, ValetError
from tray_valet.core.models import ModelRef
from tray_valet.core.routing import (
    Candidate,
    Choice,
    Load,
    Plan,
    Standing,
    Step,
    candidates_of,
    choose,
    names_of_pool,
    plan_of,
    reason_for,
)

OPEN, CLOSED, DOWN = Standing.OPEN, Standing.CLOSED, Standing.DOWN
FAILED, UNSERVED = Standing.FAILED, Standing.UNSERVED
NEXT, WAIT, REFUSE = WhenPaused.NEXT, WhenPaused.WAIT, WhenPaused.REFUSE


class Known:
    """Three providers; names at `ollama` have a tag."""

    models: ClassVar = {
        "ollama": ("llama3:latest", "llama3:70b", "qwen:7b"),
        "lan": ("llama3:latest", "hf.co/me/it:latest"),
        "local": ("qwen-7b", "ollama/odd"),
    }
    silent = frozenset({"away"})

    def find(self, model: str, provider: str | None = None) -> ModelRef | None:
        prefix, _, rest = model.partition("/")
        for name, models in self.models.items():
            if provider not in (None, name):
                continue
            for spelling in (model, rest) if prefix == name else (model,):
                canonical = spelling if name == "local" or ":" in spelling else f"{spelling}:latest"
                if canonical in models:
                    return ModelRef(name, canonical)
        return None

    def presume(self, model: str, provider: str) -> ModelRef | None:
        return ModelRef(provider, model) if provider in self.silent else None


def candidate(name: str, **values: Any) -> CandidateSettings:
    provider, _, model = name.partition("/")
    return CandidateSettings(provider=provider, model=model, **values)


SETTINGS = Settings(
    pools={
        "boxes": PoolSettings(providers=("lan", "ollama")),
        "big": PoolSettings(providers=("ollama", "away"), models=("llama3:70b",)),
    },
    routes={
        "assistant": RouteSettings(candidates=(candidate("local/qwen-7b"), candidate("ollama/llama3"))),
        "pooled": RouteSettings(candidates=(candidate("boxes/llama3"), candidate("local/qwen-7b"))),
        "gone": RouteSettings(candidates=(candidate("nobody/x"), candidate("ollama/llama3:8b"))),
        "half": RouteSettings(candidates=(candidate("nobody/x"), candidate("local/qwen-7b"))),
        "silent": RouteSettings(candidates=(candidate("away/x"), candidate("local/qwen-7b"))),
        "llama3:70b": RouteSettings(candidates=(candidate("local/qwen-7b"),)),
    },
)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("assistant", [["local/qwen-7b"], ["ollama/llama3:latest"]]),
        ("pooled", [["lan/llama3:latest", "ollama/llama3:latest"], ["local/qwen-7b"]]),
        ("half", [["local/qwen-7b"]]),
        ("silent", [["away/x"], ["local/qwen-7b"]]),
        ("llama3:70b", [["local/qwen-7b"]]),  # an alias goes before a model of that name
        ("ollama/llama3:70b", [["ollama/llama3:70b"]]),
        ("ollama/llama3", [["ollama/llama3:latest"]]),
        ("llama3", [["lan/llama3:latest", "ollama/llama3:latest"]]),  # one of a pool
        ("qwen:7b", [["ollama/qwen:7b"]]),
        ("boxes/llama3", [["lan/llama3:latest", "ollama/llama3:latest"]]),
        ("boxes/qwen:7b", [["ollama/qwen:7b"]]),
        ("big/llama3:70b", [["ollama/llama3:70b"]]),
        ("away/x", [["away/x"]]),
        ("hf.co/me/it", [["lan/hf.co/me/it:latest"]]),
        ("ollama/odd", [["local/ollama/odd"]]),
    ],
)
def test_a_name_stands_for_these_models(name: str, steps: list[list[str]]) -> None:
    plan = plan_of(name, SETTINGS, Known())
    assert plan is not None
    assert [[str(ref) for ref in step.members] for step in plan.steps] == steps
    assert plan.is_alias == (name in SETTINGS.routes)


@pytest.mark.parametrize(
    "name", ["", "/", "nobody", "llama3:8b", "qwen", "gone", "boxes/none", "big/llama3", "nobody/x", "boxes/"]
)
def test_other_names_stand_for_nothing(name: str) -> None:
    assert plan_of(name, SETTINGS, Known()) is None


def test_a_route_brings_its_changes_its_priority_and_its_wait() -> None:
    route = RouteSettings(
        candidates=(
            candidate("local/qwen-7b", set={"top_p": 0.5}, strip=("seed",)),
            candidate("ollama/llama3"),
        ),
        when_paused=WAIT,
        wait_seconds=7,
        num_ctx=8192,
        keep_alive=-1,
        priority=Priority.LOW,
    )
    plan = plan_of("r", Settings(routes={"r": route}), Known())
    assert plan is not None
    assert (plan.when_paused, plan.wait_s, plan.priority) == (WAIT, 7.0, Priority.LOW)
    assert [step.overrides for step in plan.steps] == [
        Overrides(set={"top_p": 0.5}, strip=("seed",), context_length=8192, keep_alive_s=math.inf),
        Overrides(context_length=8192, keep_alive_s=math.inf),
    ]


@pytest.mark.parametrize(("policy", "wait_s"), [(NEXT, 0.0), (REFUSE, 0.0), (WAIT, 60.0)])
def test_a_model_without_a_route_does_as_the_router_does(policy: WhenPaused, wait_s: float) -> None:
    plan = plan_of("qwen-7b", Settings(router=RouterSettings(when_paused=policy)), Known())
    assert plan is not None
    assert (plan.when_paused, plan.wait_s) == (policy, wait_s)
    assert plan.steps[0].overrides is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (90, 90.0),
        (1.5, 1.5),
        (-1, math.inf),
        (-0.5, math.inf),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("250ms", 0.25),
        ("-1s", math.inf),
        ("-1m", math.inf),
        ("0s", 0.0),
        ("-1", math.inf),
        ("300", 300.0),
        ("soon", None),
        ("", None),
        ("nan", None),
    ],
)
def test_keep_alive_is_seconds_or_a_duration(value: float | str | None, seconds: float | None) -> None:
    assert go_seconds(value) == seconds


# -- pools -----------------------------------------------------------------------------------------------

ONE, TWO, THREE = ModelRef("one", "m"), ModelRef("two", "m"), ModelRef("three", "m")


@pytest.mark.parametrize(
    ("loads", "order"),
    [
        ((Load(), Load(), Load()), "one two three"),
        ((Load(), Load(is_loaded=True), Load()), "two one three"),
        ((Load(is_loaded=True, busy=1, slots=4), Load(), Load(is_loaded=True)), "three one two"),
        (
            (Load(is_loaded=True, busy=3, slots=4), Load(is_loaded=True, busy=1, slots=2), Load()),
            "two one three",
        ),
        ((Load(is_loaded=True, busy=4, slots=4), Load(), Load(is_loaded=True, busy=9)), "two one three"),
        (
            (Load(is_loaded=True, busy=1), Load(busy=1), Load(is_loaded=True, busy=2, slots=4)),
            "three one two",
        ),
        ((Load(is_down=True, is_loaded=True), Load(busy=9), Load(busy=1)), "three two one"),
        ((Load(is_down=True), Load(is_down=True), Load(is_down=True)), "one two three"),
    ],
)
def test_c13_of_a_pool_the_least_loaded_goes_first(loads: tuple[Load, ...], order: str) -> None:
    known = dict(zip((ONE, TWO, THREE), loads, strict=True))
    plan = Plan(steps=(Step(members=(ONE, TWO, THREE), is_pool=True), Step(members=(TWO,))))
    found = candidates_of(plan, known.__getitem__)
    assert [c.ref.provider for c in found] == order.split()
    assert all(c.is_pooled for c in found), "a model comes once, at its first place"


def test_a_pool_has_the_models_it_names_or_those_that_all_members_share() -> None:
    known = Known()
    assert names_of_pool(SETTINGS.pools["boxes"], known.models, known) == ("llama3:latest",)
    assert names_of_pool(SETTINGS.pools["big"], known.models, known) == ("llama3:70b",)
    assert names_of_pool(PoolSettings(providers=("away",)), known.models, known) == ()


# -- which one -------------------------------------------------------------------------------------------

CANDIDATES = tuple(Candidate(ref=ref, step=n) for n, ref in enumerate((ONE, TWO, THREE)))
FIRST, SECOND, THIRD = (Choice(candidate=c) for c in CANDIDATES)
HELD, HELD_WAITING = Choice(held=CANDIDATES[0]), Choice(held=CANDIDATES[0], may_wait=True)


@pytest.mark.parametrize(
    ("standings", "policy", "choice"),
    [
        ((OPEN, OPEN, OPEN), NEXT, FIRST),
        ((OPEN, CLOSED, OPEN), REFUSE, FIRST),
        ((FAILED, OPEN, OPEN), REFUSE, SECOND),
        ((UNSERVED, DOWN, OPEN), WAIT, THIRD),
        ((DOWN, OPEN, OPEN), NEXT, SECOND),
        ((DOWN, DOWN, FAILED), NEXT, FIRST),
        ((FAILED, DOWN, UNSERVED), REFUSE, SECOND),
        ((CLOSED, OPEN, OPEN), NEXT, SECOND),
        ((CLOSED, CLOSED, OPEN), NEXT, THIRD),
        ((CLOSED, DOWN, OPEN), NEXT, THIRD),
        ((CLOSED, DOWN, CLOSED), NEXT, SECOND),
        ((CLOSED, CLOSED, CLOSED), NEXT, HELD),
        ((CLOSED, FAILED, FAILED), NEXT, HELD),
        ((CLOSED, OPEN, OPEN), WAIT, HELD_WAITING),
        ((CLOSED, CLOSED, CLOSED), WAIT, HELD_WAITING),
        ((CLOSED, OPEN, OPEN), REFUSE, HELD),
        ((FAILED, FAILED, FAILED), NEXT, Choice()),
        ((UNSERVED, UNSERVED, UNSERVED), WAIT, Choice()),
    ],
)
def test_a_pause_is_a_matter_of_the_first_that_would_serve(
    standings: tuple[Standing, ...], policy: WhenPaused, choice: Choice
) -> None:
    assert choose(CANDIDATES, standings, policy) == choice


def test_one_that_waits_takes_the_first_that_opens() -> None:
    assert choose(CANDIDATES, (CLOSED, OPEN, OPEN), WAIT, frozenset({ONE, THREE})) == THIRD
    assert choose(CANDIDATES, (OPEN, OPEN, OPEN), WAIT, frozenset({ONE, THREE})) == FIRST


@pytest.mark.parametrize(
    ("standings", "chosen", "reason"),
    [
        ((OPEN, OPEN, OPEN), 0, "alias"),
        ((CLOSED, OPEN, OPEN), 1, "fallback: paused"),
        ((DOWN, CLOSED, OPEN), 2, "fallback: one is down"),
        ((UNSERVED, OPEN, OPEN), 1, "fallback: one does not serve /v1/rerank"),
        ((FAILED, OPEN, OPEN), 1, "fallback: m could not be loaded"),
        ((FAILED, FAILED, OPEN), 2, "fallback: m could not be loaded"),
    ],
)
def test_the_reason_is_what_was_the_matter_with_the_first_choice(
    standings: tuple[Standing, ...], chosen: int, reason: str
) -> None:
    failed: dict[ModelRef, ValetError] = {ONE: LoadFailed("no"), TWO: UpstreamFailed("500")}
    told = reason_for(CANDIDATES[chosen], CANDIDATES, standings, failed, is_alias=True, path="/v1/rerank")
    assert told == reason
    assert told.isascii()


def test_a_candidate_that_does_not_exist_is_a_reason_too() -> None:
    names = ("local/lost", "boxes/none", "local/qwen-7b", "ollama/gone", "ollama/llama3")
    route = RouteSettings(candidates=tuple(map(candidate, names)))
    settings = Settings(routes={"r": route}, pools=SETTINGS.pools)
    plan = plan_of("r", settings, Known())
    assert plan is not None
    candidates = candidates_of(plan, lambda _: Load())
    reasons = [reason_for(c, candidates, (OPEN, OPEN), {}, is_alias=True, path="/") for c in candidates]
    assert reasons == ["fallback: local has no lost"] * 2
    assert candidates[0].left_out == "local has no lost"
    alone = reason_for(candidates[1], candidates[1:], (OPEN,), {}, is_alias=True, path="/")
    assert alone == "fallback: ollama has no gone"


def test_a_pool_that_has_not_told_what_it_has_is_not_said_to_lack_it() -> None:
    pools = {"far": PoolSettings(providers=("away", "lan"))}
    route = RouteSettings(candidates=(candidate("far/x"), candidate("local/qwen-7b")))
    plan = plan_of("r", Settings(routes={"r": route}, pools=pools), Known())
    assert plan is not None
    assert [step.left_out for step in plan.steps] == ["far may have no x"]
