"""The activity: what people read, what followers get, and what listeners are told."""

from __future__ import annotations

import pytest

from tray_valet.core import events as ev
from tray_valet.services.activity import Activity
from tray_valet.services.clock import SystemClock

STEPS = (
    ev.ModelLoading(provider="p", model="a"),
    ev.ModelReady(provider="p", model="a", took_s=1.0),
    ev.ModelUnloading(provider="p", model="a"),
    ev.ModelGone(provider="p", model="a"),
)


def test_listeners_get_every_fact_in_order() -> None:
    activity, told = Activity(SystemClock()), list[ev.Fact]()
    activity.tell(told.append)
    for fact in (*STEPS, *STEPS * 100):
        activity.record(fact)
    assert told == [*STEPS, *STEPS * 100]


def test_steps_of_a_load_are_not_in_the_list_for_people() -> None:
    activity = Activity(SystemClock())
    for fact in (*STEPS, ev.ModelLoaded(model="a", took_s=1.0)):
        activity.record(fact)
    assert [entry.kind for entry in activity.entries(10)] == ["model_loaded"]


@pytest.mark.parametrize("step", STEPS)
def test_steps_stay_out_of_the_log_of_what_changed(step: ev.Fact, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Activity(SystemClock()).record(step)
    assert caplog.messages == []
