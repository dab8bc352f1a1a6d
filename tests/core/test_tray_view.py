"""Which face the tray's icon has, and which problem it tells."""

from __future__ import annotations

import pytest

from tests.tray import pictures as pic
from tray_valet.core.models import Condition, ConditionType
from tray_valet.core.snapshot import ProviderView, Snapshot
from tray_valet.core.tray_view import Face, face_of, problem_of, starting_view, tray_view
from tray_valet.core.watchdog import State

HADES = (pic.game(),)


def troubled(kind: ConditionType, *, status: bool = True) -> ProviderView:
    condition = Condition(type=kind, reason="Something is the matter.", since=0.0, status=status)
    return pic.provider(pic.model("llama3"), conditions=(condition,))


@pytest.mark.parametrize(
    ("snapshot", "face"),
    [
        (pic.snapshot(), Face.RUNNING),
        (pic.snapshot(providers=(pic.provider(),)), Face.EMPTY),
        (pic.snapshot(providers=()), Face.EMPTY),
        (pic.snapshot(State.PAUSING, holds=HADES), Face.MOVING),
        (pic.snapshot(State.RESUMING), Face.MOVING),
        (pic.snapshot(State.PAUSED, holds=HADES), Face.PAUSED),
        (pic.snapshot(State.PROVIDER_DOWN), Face.ATTENTION),
        (pic.snapshot(settings_problem="Line 14"), Face.ATTENTION),
        (pic.snapshot(State.PAUSED, settings_problem="Line 14"), Face.ATTENTION),
        (pic.snapshot(State.PAUSING, settings_problem="Line 14"), Face.MOVING),
        (pic.snapshot(providers=(troubled(ConditionType.UNREACHABLE),)), Face.ATTENTION),
        (pic.snapshot(providers=(troubled(ConditionType.UNREACHABLE, status=False),)), Face.RUNNING),
        (pic.snapshot(providers=(troubled(ConditionType.BUILT_IN_DEMO),)), Face.RUNNING),
        (pic.snapshot(providers=(troubled(ConditionType.CANNOT_UNLOAD),)), Face.RUNNING),
        (pic.snapshot(State.PAUSED, providers=(troubled(ConditionType.UNREACHABLE),)), Face.PAUSED),
        (pic.snapshot(State.PAUSED, providers=(troubled(ConditionType.MEMORY_STILL_HELD),)), Face.ATTENTION),
        (pic.snapshot(State.PAUSED, providers=(troubled(ConditionType.CANNOT_KILL),)), Face.ATTENTION),
    ],
)
def test_the_face_tells_the_state_and_a_problem_outranks_what_stands_still(
    snapshot: Snapshot, face: Face
) -> None:
    assert face_of(snapshot) is face


def test_a_problem_stands_in_the_menu_as_well() -> None:
    picture = pic.picture(providers=(troubled(ConditionType.UNREACHABLE),))
    assert problem_of(picture.snapshot) == "ollama does not answer."
    assert "⚠ ollama does not answer." in [e.label for e in tray_view(picture).entries]


def test_equal_pictures_give_equal_views_whatever_the_time() -> None:
    assert tray_view(pic.picture(taken_at=1.0)) == tray_view(pic.picture(taken_at=2.0))


def test_the_first_look_can_be_ended() -> None:
    assert [e.label for e in starting_view().entries if e.choice] == ["Quit"]
