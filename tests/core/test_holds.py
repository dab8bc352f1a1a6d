"""Holds as levels: what is in effect, overrides, and the waits after an end."""

import pytest

from tray_valet.core import holds as rules
from tray_valet.core.errors import NotFound
from tray_valet.core.holds import GameCause, Hold, HoldKind, Holds, ProgramCause, UserCause


def game(key: str = "hades", wait_s: float = 30.0) -> Hold:
    return Hold(
        id=f"game:{key}",
        kind=HoldKind.GAME,
        owner="valet",
        cause=GameCause(name=key.title(), place=f"steamapps/common/{key.title()}"),
        since=1000.0,
        wait_s=wait_s,
    )


def user(reason: str = "") -> Hold:
    return Hold(id="user", kind=HoldKind.USER, owner="user", cause=UserCause(reason=reason), since=1000.0)


def program(hold_id: str = "hold-1") -> Hold:
    return Hold(
        id=hold_id, kind=HoldKind.USER, owner="blender", cause=ProgramCause(owner="blender"), since=1000.0
    )


def with_holds(*placed: Hold) -> Holds:
    holds = Holds()
    for hold in placed:
        holds = rules.place(holds, hold)
    return holds


def test_placing_twice_keeps_one_hold_and_its_first_since() -> None:
    newer = Hold(id="user", kind=HoldKind.USER, owner="user", cause=UserCause(reason="again"), since=2000.0)
    holds = rules.place(with_holds(user()), newer)
    assert len(holds.active) == 1
    assert holds.active[0].since == 1000.0
    assert holds.active[0].cause == UserCause(reason="again")


def test_the_wait_after_a_game_starts_when_its_hold_ends() -> None:
    holds = rules.end(with_holds(game(wait_s=30)), "game:hades", now_s=100.0)
    assert rules.wait_left_s(holds, 100.0) == 30.0
    assert rules.wait_left_s(holds, 125.0) == 5.0
    assert rules.wait_left_s(holds, 131.0) == 0.0


def test_waits_do_not_add_up_the_longest_counts() -> None:
    holds = with_holds(game("a", wait_s=30), game("b", wait_s=120))
    holds = rules.end(holds, "game:b", now_s=100.0)
    assert rules.wait_left_s(holds, 100.0) == 0.0, "a hold is still in effect: nothing counts down"
    holds = rules.end(holds, "game:a", now_s=110.0)
    assert rules.wait_left_s(holds, 110.0) == 110.0
    assert holds.last_ended is not None
    assert holds.last_ended.id == "game:b"


def test_a_users_pause_ends_without_a_wait() -> None:
    holds = rules.end(with_holds(user()), "user", now_s=100.0)
    assert rules.wait_left_s(holds, 100.0) == 0.0


def test_resume_by_the_user_ends_own_pauses_and_overrides_the_rest() -> None:
    holds = rules.resume_by_user(with_holds(user(), game(), program()))
    assert rules.in_effect(holds) == ()
    assert {h.id for h in holds.active} == {"game:hades", "hold-1"}


def test_v2_an_override_stays_while_the_same_game_is_placed_again_and_again() -> None:
    holds = rules.resume_by_user(with_holds(game()))
    for _ in range(100):
        holds = rules.place(holds, game())
    assert rules.in_effect(holds) == ()


def test_an_override_ends_with_its_hold_and_does_not_cover_the_next_game() -> None:
    holds = rules.resume_by_user(with_holds(game("hades")))
    holds = rules.place(holds, game("factorio"))
    assert [h.id for h in rules.in_effect(holds)] == ["game:factorio"]
    holds = rules.end(holds, "game:hades", now_s=5.0)
    holds = rules.place(holds, game("hades"))
    assert {h.id for h in rules.in_effect(holds)} == {"game:hades", "game:factorio"}


def test_an_overridden_hold_ends_without_making_anybody_wait() -> None:
    holds = rules.end(rules.resume_by_user(with_holds(game())), "game:hades", now_s=100.0)
    assert rules.wait_left_s(holds, 100.0) == 0.0


def test_ending_a_hold_that_is_not_there_is_said() -> None:
    with pytest.raises(NotFound, match="no hold 'nobody'"):
        rules.end(Holds(), "nobody", now_s=0.0)


def test_expired_lists_only_holds_whose_time_is_up() -> None:
    timed = Hold(id="t", kind=HoldKind.USER, owner="user", cause=UserCause(), since=0.0, expires_at_s=50.0)
    holds = with_holds(timed, game())
    assert rules.expired(holds, 49.9) == ()
    assert rules.expired(holds, 50.0) == (timed,)
