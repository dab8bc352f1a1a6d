"""Requests are counted by model; nothing that clients send makes the counts grow."""

from __future__ import annotations

from typing import Any

import pytest

from tray_valet.core import events as ev
from tray_valet.core.models import ModelRef
from tray_valet.core.traffic import Exchanged, Histogram, Outcome
from tray_valet.services.traffic import DURATION_BOUNDS_S, Traffic, spread

A = ModelRef("p", "a")


def record(**changes: Any) -> Exchanged:
    fields: dict[str, Any] = {"at": 1.0, "asked": "a", "path": "/v1/chat/completions", "provider": "p"}
    return Exchanged(**(fields | {"model": "a", "status": 200, "total_s": 0.1} | changes))


def test_a_request_is_counted_once_under_its_model_and_in_the_totals() -> None:
    traffic = Traffic()
    traffic.note(record(prompt_tokens=3, completion_tokens=4, queue_s=0.2, first_byte_s=0.3))
    traffic.note(record(outcome=Outcome.FAILED, status=502))
    report = traffic.report({A: 1})
    assert (report.requests_total, report.recent_requests, report.recent_answered) == (2, 2, 1)
    (model,) = report.models
    assert (model.model, model.in_flight) == ("p/a", 1)
    assert model.outcomes == {Outcome.ANSWERED: 1, Outcome.FAILED: 1}
    assert (model.prompt_tokens, model.completion_tokens, model.recent_tokens) == (3, 4, 7)
    assert (sum(model.duration.counts), sum(model.queue_wait.counts), sum(model.first_byte.counts)) == (
        2,
        2,
        1,
    )


@pytest.mark.parametrize(
    ("duration_s", "index"), [(0.0, 0), (0.05, 0), (0.0501, 1), (300.0, 11), (300.1, 12), (1e9, 12)]
)
def test_a_duration_falls_under_its_upper_bound(duration_s: float, index: int) -> None:
    traffic = Traffic()
    traffic.note(record(total_s=duration_s))
    duration: Histogram = traffic.report({}).models[0].duration
    assert duration.bounds_s == DURATION_BOUNDS_S
    assert duration.counts[index] == 1
    assert duration.sum_s == duration_s


@pytest.mark.parametrize(
    ("changes", "errors", "answered"),
    [
        ({}, 0, 1),
        ({"status": 400}, 1, 0),  # the engine's own refusal
        ({"outcome": Outcome.REFUSED, "status": 503}, 1, 0),
        ({"outcome": Outcome.CUT}, 1, 0),
        ({"outcome": Outcome.CLIENT_LEFT, "status": 0}, 0, 0),
    ],
)
def test_what_is_an_error(changes: dict[str, Any], errors: int, answered: int) -> None:
    traffic = Traffic()
    traffic.note(record(**changes))
    report = traffic.report({})
    assert (report.models[0].recent_errors, report.recent_answered) == (errors, answered)


def test_only_the_last_thousand_make_the_recent_figures() -> None:
    traffic = Traffic()
    traffic.note(record(total_s=99.0))
    for _ in range(1000):
        traffic.note(record(total_s=0.5))
    report = traffic.report({})
    assert (report.requests_total, report.recent_requests) == (1001, 1000)
    assert (report.recent.longest_s, report.recent.p95_s) == (0.5, 0.5)


def test_r15_names_of_no_model_share_one_row() -> None:
    traffic = Traffic(lambda ref: ref == A)
    for number in range(10_000):
        traffic.note(record(provider="", model="", asked=f"x{number}", outcome=Outcome.REFUSED, status=404))
        traffic.note(record(provider="p", model=f"x{number}"))
    traffic.note(record())
    assert sorted(model.model for model in traffic.report({}).models) == ["", "p/a"]


def test_even_models_that_exist_are_counted_apart_only_so_far() -> None:
    traffic = Traffic()
    for number in range(500):
        traffic.note(record(model=f"m{number}"))
    report = traffic.report({})
    assert len(report.models) <= 201
    assert report.requests_total == 500


@pytest.mark.parametrize(
    ("changes", "rerouted"),
    [({}, 0), ({"attempts": 2}, 1), ({"reason": "fallback: paused"}, 1), ({"reason": "alias"}, 0)],
)
def test_what_went_to_another_candidate_is_rerouted(changes: dict[str, Any], rerouted: int) -> None:
    traffic = Traffic()
    traffic.note(record(**changes))
    assert traffic.report({}).rerouted_total == rerouted


def test_the_speed_is_that_of_writing() -> None:
    traffic = Traffic()
    traffic.note(record(is_stream=True, first_byte_s=1.0, total_s=3.0, completion_tokens=40))
    assert traffic.report({}).models[0].tokens_per_second == 20.0
    traffic.note(record(is_stream=True, first_byte_s=1.99, total_s=2.0, load_s=1.0, completion_tokens=20))
    assert traffic.report({}).models[0].tokens_per_second == 20.0  # it came in one piece
    traffic.note(record(total_s=4.0, queue_s=1.0, load_s=1.0, completion_tokens=40))
    assert traffic.report({}).models[0].tokens_per_second == 20.0
    traffic.note(record(completion_tokens=None))
    assert traffic.report({}).models[0].tokens_per_second == 20.0


def test_loads_and_ejects_are_counted_by_model() -> None:
    traffic = Traffic()
    assert traffic.last_load_s(A) is None
    traffic.note_fact(ev.ModelReady(provider="p", model="a", took_s=4.0))
    traffic.note_fact(ev.ModelReady(provider="p", model="a", took_s=2.0))
    traffic.note_fact(ev.ModelGone(provider="p", model="a"))
    (model,) = traffic.report({}).models
    assert (model.loads, model.load_seconds.sum_s, model.ejects) == (2, 6.0, 1)
    assert traffic.last_load_s(A) == 2.0


def test_percentiles_are_by_nearest_rank() -> None:
    figures = spread([float(n) for n in range(1, 101)])
    assert (figures.p50_s, figures.p95_s, figures.shortest_s, figures.longest_s) == (50, 95, 1, 100)
    assert figures.average_s == 50.5
    assert spread([7.0]).p95_s == 7.0
    assert spread([]).longest_s == 0.0


def test_a_model_that_is_only_in_flight_is_told_too() -> None:
    (model,) = Traffic().report({A: 2}).models
    assert (model.model, model.in_flight, model.loads) == ("p/a", 2, 0)
