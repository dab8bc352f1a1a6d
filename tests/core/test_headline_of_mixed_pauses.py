"""The headline and the refusal when several reasons meet, or nothing was loaded."""

from __future__ import annotations

import msgspec
import pytest

from tray_valet.core.headline import Scene, headline
from tray_valet.core.holds import Cause, GameCause, Hold, HoldKind, PressureCause, ProgramCause, UserCause
from tray_valet.core.models import LoadedModel
from tray_valet.core.snapshot import PauseReport
from tray_valet.core.watchdog import State
from tray_valet.core.wording import refusal, retry_after_s

GB = 2**30


def _hold(kind: HoldKind, cause: Cause, **fields: object) -> Hold:
    base = Hold(id=str(cause), kind=kind, owner="valet", cause=cause, since=0.0)
    return msgspec.structs.replace(base, **fields)


def _pressure(signal: HoldKind) -> PressureCause:
    return PressureCause(signal=signal, value_pct=87.3, limit_pct=85.0, resume_pct=60.0)


HADES = _hold(HoldKind.GAME, GameCause(name="Hades", place="steamapps/common/Hades"))
FACTORIO = _hold(HoldKind.GAME, GameCause(name="Factorio", place="steamapps/common/Factorio"))
BY_HAND = _hold(HoldKind.USER, UserCause())
RENDERER = _hold(HoldKind.USER, ProgramCause(owner="renderer"))
RAM = _hold(HoldKind.RAM, _pressure(HoldKind.RAM))
STICKY_RAM = _hold(HoldKind.RAM, _pressure(HoldKind.RAM), needs_manual_resume=True)
AWAY = "Your models are out of its way: 17.3 GB freed in 0.6 s."


def _said(*holds: Hold, state: State = State.PAUSED, models: int = 2, **fields: object) -> tuple[str, str]:
    scene = Scene(
        state=state,
        holds=holds,
        grace_s=30.0,
        to_bring_back=tuple(f"m{n}" for n in range(models)),
        last_pause=PauseReport(
            models=("m0",), freed_bytes=int(17.3 * GB), took_s=0.6, at=0.0, is_confirmed_by_memory=True
        ),
    )
    title, line = headline(msgspec.structs.replace(scene, **fields))
    return title, line.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("holds", "title", "line"),
    [
        ((HADES,), "Paused for Hades", f"{AWAY} They come back 30 s after the game ends."),
        (
            (HADES, FACTORIO),
            "Paused for Hades and Factorio",
            f"{AWAY} They come back 30 s after both have ended.",
        ),
        (
            (HADES, RENDERER),
            "Paused for Hades and renderer",
            f"{AWAY} They come back 30 s after both have ended.",
        ),
        ((HADES, BY_HAND), "Paused for Hades", f"{AWAY} They wait until you resume."),
        ((HADES, STICKY_RAM), "Paused for Hades", f"{AWAY} They wait until you resume."),
        (
            (RAM,),
            "Paused: RAM is full",
            "It is 87.3% full and other programs want more; the limit is 85%. They come back below 60%.",
        ),
        (
            (STICKY_RAM,),
            "Paused: RAM is full",
            "It is 87.3% full and other programs want more; the limit is 85%. "
            "They come back when you resume.",
        ),
        ((RENDERER,), "Paused for renderer", "2 models will come back when it is done."),
    ],
)
def test_a_pause_says_when_the_models_really_come_back(
    holds: tuple[Hold, ...], title: str, line: str
) -> None:
    assert _said(*holds) == (title, line)


@pytest.mark.parametrize(
    ("holds", "line"),
    [
        ((HADES,), "No model was loaded. None will be while it runs."),
        ((BY_HAND,), "No model was loaded. None will be until you resume."),
        ((RENDERER,), "No model was loaded. None will be until it is done."),
        (
            (RAM,),
            "It is 87.3% full and other programs want more; the limit is 85%. No model was loaded.",
        ),
    ],
)
def test_nothing_is_promised_to_come_back_when_nothing_was_loaded(holds: tuple[Hold, ...], line: str) -> None:
    assert _said(*holds, models=0)[1] == line


def test_only_models_that_have_to_go_are_on_the_way_out() -> None:
    loaded = (LoadedModel(name="gpu"), LoadedModel(name="cpu", needs_gpu=False))
    assert _said(HADES, state=State.PAUSING, loaded=loaded)[1] == "1 model on the way out."
    assert _said(RAM, state=State.PAUSING, loaded=loaded)[1] == "2 models on the way out."
    assert _said(HADES, state=State.PAUSING)[1] == "Looking at what is in memory."


@pytest.mark.parametrize(
    ("holds", "wait_left_s", "said"),
    [
        ((HADES,), 0.0, "Paused for Hades. Models come back after the game. Try again in 60 s."),
        (
            (HADES, BY_HAND),
            0.0,
            "Paused for Hades. Models come back when the user resumes. Try again in 60 s.",
        ),
        (
            (STICKY_RAM,),
            0.0,
            "Paused: RAM is full. Models come back when the user resumes. Try again in 60 s.",
        ),
        ((), 18.0, "The models come back in 18 s. Try again in 60 s."),
        ((), 0.0, "The models come back when there is room for them again. Try again in 60 s."),
    ],
)
def test_a_refusal_says_when_the_models_really_come_back(
    holds: tuple[Hold, ...], wait_left_s: float, said: str
) -> None:
    assert refusal(holds, wait_left_s, 60.0).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (HADES, "Hades has ended. The models come back in 18 s. Try again in 20 s."),
        (RENDERER, "renderer has ended. The models come back in 18 s. Try again in 20 s."),
        (RAM, "RAM was full. The models come back in 18 s. Try again in 20 s."),
        (BY_HAND, "The models come back in 18 s. Try again in 20 s."),
    ],
)
def test_a_refusal_after_the_last_hold_still_names_the_cause(ended: Hold, said: str) -> None:
    assert refusal((), 18.0, 20.0, ended=ended).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("holds", "wait_left_s", "ends_in_s", "again_s"),
    [
        ((), 0.1, None, 1),
        ((), 1.2, None, 2),
        ((), 18.0, None, 18),
        ((), 3600.0, None, 3600),
        ((), 1e9, None, 86_400),
        ((), 0.0, None, 5),  # it does not fit yet: nobody knows
        ((HADES,), 0.0, None, 5),
        ((msgspec.structs.replace(HADES, wait_s=30.0),), 0.0, None, 30),
        ((msgspec.structs.replace(RAM, wait_s=900.0),), 0.0, None, 300),
        ((BY_HAND,), 0.0, None, 5),
        ((BY_HAND,), 0.0, 0.2, 1),
        ((BY_HAND,), 0.0, 42.5, 43),
        ((BY_HAND,), 0.0, 7200.0, 300),
    ],
)
def test_a_program_is_told_to_ask_again_when_it_can_be_answered(
    holds: tuple[Hold, ...], wait_left_s: float, ends_in_s: float | None, again_s: int
) -> None:
    assert retry_after_s(holds, wait_left_s, ends_in_s) == again_s


@pytest.mark.parametrize(("wait_left_s", "said"), [(0.1, "1 s"), (1.2, "2 s"), (17.01, "18 s")])
def test_both_times_of_a_refusal_agree_while_it_is_counted_down(wait_left_s: float, said: str) -> None:
    sentence = refusal((), wait_left_s, retry_after_s((), wait_left_s))
    told = f"The models come back in {said}. Try again in {said}."
    assert sentence.replace("\u00a0", " ") == told
