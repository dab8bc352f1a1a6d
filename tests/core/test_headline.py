from __future__ import annotations

import msgspec
import pytest

from tray_valet.core.headline import Scene, headline
from tray_valet.core.holds import Cause, Hold, HoldKind, ProgramCause, UserCause, ends_in_s
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.watchdog import State
from tray_valet.core.wording import refusal


def _hold(name: str, cause: Cause, **fields: object) -> Hold:
    base = Hold(id=name, kind=HoldKind.USER, owner=name, cause=cause, since=0.0)
    return msgspec.structs.replace(base, **fields)


BY_HAND = _hold("user", UserCause())
FOR_AN_HOUR = _hold("user", UserCause(), expires_at_s=4600.0)
WITH_A_PROCESS = _hold("user", UserCause(), process=ProcessIdentity(42, 1))
RENDERER = _hold("hold-1", ProgramCause(owner="renderer"), expires_at_s=1060.0)


@pytest.mark.parametrize(
    ("holds", "ends"),
    [
        ((), None),
        ((BY_HAND,), None),
        ((FOR_AN_HOUR,), 3600.0),
        ((FOR_AN_HOUR, RENDERER), 3600.0),
        ((BY_HAND, RENDERER), None),
        ((_hold("late", UserCause(), expires_at_s=900.0),), 0.0),
    ],
)
def test_holds_end_by_themselves_with_the_last_of_them_if_each_has_a_time(
    holds: tuple[Hold, ...], ends: float | None
) -> None:
    assert ends_in_s(holds, 1000.0) == ends


@pytest.mark.parametrize(
    ("hold", "to_bring_back", "line"),
    [
        (BY_HAND, (), "No model was loaded. None will be until you resume."),
        (BY_HAND, ("a", "b", "c"), "3 models wait until you resume."),
        (FOR_AN_HOUR, ("a",), "1 model waits until you resume, 60 min at most."),
        (WITH_A_PROCESS, ("a", "b"), "2 models wait until you resume or process 42 ends."),
    ],
)
def test_a_pause_by_hand_says_when_it_ends(hold: Hold, to_bring_back: tuple[str, ...], line: str) -> None:
    scene = Scene(
        state=State.PAUSED,
        holds=(hold,),
        to_bring_back=to_bring_back,
        holds_end_in_s=ends_in_s((hold,), 1000.0),
    )
    title, said = headline(scene)
    assert (title, said.replace("\u00a0", " ")) == ("Paused by you", line)


@pytest.mark.parametrize(
    ("hold", "sentence"),
    [
        (BY_HAND, "Paused by the user. Models come back when the user resumes. Try again in 30 s."),
        (
            FOR_AN_HOUR,
            "Paused by the user. Models come back when the user resumes, in 60 min at the latest. "
            "Try again in 30 s.",
        ),
    ],
)
def test_a_program_is_told_when_a_pause_by_hand_ends(hold: Hold, sentence: str) -> None:
    said = refusal((hold,), 0.0, 30.0, ends_in_s((hold,), 1000.0))
    assert said.replace("\u00a0", " ") == sentence


@pytest.mark.parametrize(
    ("silent", "stopped", "to_bring_back", "title", "line"),
    [
        (("a",), (), (), "a does not answer", "Trying again every few seconds."),
        (("a", "b"), (), ("m",), "a and b do not answer", "Trying again every few seconds. 1 model will"),
        (("a",), ("a",), (), "a is stopped", "By you. Start it with: tray-valet service start a"),
        (("a",), ("a",), ("m", "n"), "a is stopped", "service start a. 2 models will come back with it."),
        (("a", "b"), ("b",), (), "b is stopped", "By you."),
        (("a", "b"), ("a", "b"), (), "a and b are stopped", "By you."),
    ],
)
def test_a_provider_that_the_user_has_stopped_is_no_trouble(
    silent: tuple[str, ...], stopped: tuple[str, ...], to_bring_back: tuple[str, ...], title: str, line: str
) -> None:
    said = headline(
        Scene(
            state=State.PROVIDER_DOWN,
            silent_providers=silent,
            stopped_providers=stopped,
            to_bring_back=to_bring_back,
        )
    )
    assert said[0] == title
    assert line in said[1].replace("\u00a0", " ")
