"""The transition table, cell by cell."""

import itertools

import pytest

from tray_valet.core.watchdog import TRANSITIONS, Facts, Level, State, level, mermaid_diagram, next_state

R, PG, PD, RS, DN = State.RUNNING, State.PAUSING, State.PAUSED, State.RESUMING, State.PROVIDER_DOWN

# Written out again on purpose, row by row: the table under test is by column.
EXPECTED = {
    R: {
        Level.HELD_RESIDENT: PG, Level.HELD_CLEAR: PD, Level.HELD_DOWN: PD, Level.WAITING_RESIDENT: R,
        Level.WAITING_CLEAR: R, Level.FREE_MISSING: RS, Level.FREE_COMPLETE: R, Level.FREE_DOWN: DN,
    },
    PG: {
        Level.HELD_RESIDENT: PG, Level.HELD_CLEAR: PD, Level.HELD_DOWN: PD, Level.WAITING_RESIDENT: PG,
        Level.WAITING_CLEAR: PD, Level.FREE_MISSING: RS, Level.FREE_COMPLETE: R, Level.FREE_DOWN: DN,
    },
    PD: {
        Level.HELD_RESIDENT: PG, Level.HELD_CLEAR: PD, Level.HELD_DOWN: PD, Level.WAITING_RESIDENT: PD,
        Level.WAITING_CLEAR: PD, Level.FREE_MISSING: RS, Level.FREE_COMPLETE: R, Level.FREE_DOWN: DN,
    },
    RS: {
        Level.HELD_RESIDENT: PG, Level.HELD_CLEAR: PD, Level.HELD_DOWN: PD, Level.WAITING_RESIDENT: RS,
        Level.WAITING_CLEAR: RS, Level.FREE_MISSING: RS, Level.FREE_COMPLETE: R, Level.FREE_DOWN: DN,
    },
    DN: {
        Level.HELD_RESIDENT: PG, Level.HELD_CLEAR: PD, Level.HELD_DOWN: PD, Level.WAITING_RESIDENT: R,
        Level.WAITING_CLEAR: PD, Level.FREE_MISSING: RS, Level.FREE_COMPLETE: R, Level.FREE_DOWN: DN,
    },
}  # fmt: skip


@pytest.mark.parametrize(("state", "lvl"), list(itertools.product(State, Level)))
def test_every_cell_of_the_table(state: State, lvl: Level) -> None:
    assert next_state(state, lvl) is EXPECTED[state][lvl]


def test_the_table_is_total() -> None:
    assert set(TRANSITIONS) == set(itertools.product(State, Level))


@pytest.mark.parametrize("facts", [
    Facts(is_held=h, is_waiting=w, has_residents=r, has_missing=m, is_down=d)
    for h, w, r, m, d in itertools.product((False, True), repeat=5)
])  # fmt: skip
def test_every_combination_of_facts_has_a_level_and_repeating_it_settles(facts: Facts) -> None:
    lvl = level(facts)
    for state in State:
        once = next_state(state, lvl)
        assert next_state(once, lvl) in (once, next_state(next_state(once, lvl), lvl))
        assert next_state(next_state(once, lvl), lvl) is next_state(once, lvl), "no flapping on one level"


@pytest.mark.parametrize("state", list(State))
def test_paused_is_never_entered_while_a_model_that_must_go_is_in_memory(state: State) -> None:
    held = level(Facts(is_held=True, has_residents=True))
    assert next_state(state, held) is State.PAUSING


def test_v3_a_provider_that_is_gone_during_a_pause_keeps_the_pause_and_the_models_to_come() -> None:
    held = level(Facts(is_held=True, is_down=True, has_missing=True))
    assert next_state(State.PAUSED, held) is State.PAUSED
    freed = level(Facts(is_down=True, has_missing=True))
    assert next_state(State.PAUSED, freed) is State.PROVIDER_DOWN
    back = level(Facts(has_missing=True))
    assert next_state(State.PROVIDER_DOWN, back) is State.RESUMING


def test_the_diagram_names_every_state_and_no_self_loops() -> None:
    diagram = mermaid_diagram()
    for state in State:
        assert f" {state.value}" in diagram
        assert f"{state} --> {state}:" not in diagram
