"""The tray's menu as a rule: which entries, which ids, what they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from tests.tray import pictures as pic
from tray_valet.core import menu as m
from tray_valet.core.holds import HoldKind, PressureCause, ProgramCause
from tray_valet.core.models import Condition, ConditionType, ModelRef
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.snapshot import Snapshot
from tray_valet.core.watchdog import State

RAM = pic.hold(
    HoldKind.RAM, PressureCause(signal=HoldKind.RAM, value_pct=87.3, limit_pct=85.0, resume_pct=60.0)
)
PROGRAM = pic.hold(HoldKind.USER, ProgramCause(owner="Blender"), "hold-1")


def flat(entries: Iterable[m.Entry]) -> Iterator[m.Entry]:
    for entry in entries:
        yield entry
        yield from flat(entry.children)


def entry(snapshot: Snapshot, entry_id: str, catalog: tuple[m.CatalogEntry, ...] = ()) -> m.Entry | None:
    return next((e for e in flat(m.build_menu(snapshot, catalog)) if e.id == entry_id), None)


def choice(snapshot: Snapshot, entry_id: str) -> m.Choice | None:
    found = entry(snapshot, entry_id)
    return found.choice if found else None


def test_the_menu_begins_with_the_state_its_reason_and_what_happens_next() -> None:
    told = m.build_menu(pic.paused_for_game().snapshot)
    texts = [e.label for e in told if e.id.startswith("state:")]
    assert texts[0] == "Paused for Hades"
    assert " ".join(texts[1:]) == (
        "Your models are out of its way: 10.6 GB freed in 0.6 s. They come back 30 s after the game ends."
    )
    assert not any(e.is_enabled for e in told if e.id.startswith("state:"))


@pytest.mark.parametrize(
    ("snapshot", "pause", "resume"),
    [
        pytest.param(pic.snapshot(), m.Pause(), None, id="running"),
        pytest.param(pic.snapshot(State.PROVIDER_DOWN), m.Pause(), None, id="provider down"),
        pytest.param(
            pic.snapshot(State.PAUSED, holds=(pic.own_pause(),)), None, m.Resume(), id="paused by the user"
        ),
        pytest.param(
            pic.snapshot(State.PAUSED, holds=(pic.own_pause(expires_in_s=60.0),)),
            m.Pause(),
            m.Resume(),
            id="paused by the user for a time",
        ),
        pytest.param(
            pic.snapshot(State.PAUSED, holds=(pic.own_pause(process=ProcessIdentity(4, 2)),)),
            m.Pause(),
            m.Resume(),
            id="paused while a process lives",
        ),
        pytest.param(
            pic.snapshot(State.PAUSED, holds=(RAM,)), m.Pause(), m.Resume(), id="paused by pressure"
        ),
        pytest.param(
            pic.snapshot(State.PAUSED, holds=(PROGRAM,)), m.Pause(), m.Resume(), id="paused by a program"
        ),
        pytest.param(pic.snapshot(State.PAUSING, holds=(RAM,)), m.Pause(), m.Resume(), id="pausing"),
        pytest.param(pic.snapshot(State.RESUMING), m.Pause(), None, id="resuming"),
        pytest.param(pic.paused_for_game().snapshot, m.Pause(), None, id="paused for a game"),
        pytest.param(
            pic.paused_for_game(holds=(pic.game(), pic.own_pause())).snapshot,
            None,
            m.EndPauses(("user",)),
            id="paused for a game and by the user",
        ),
        pytest.param(
            pic.snapshot(State.RUNNING, holds=(pic.game(is_overridden=True),)),
            m.Pause(),
            None,
            id="a game runs beside the models",
        ),
    ],
)
def test_pause_and_resume_are_offered_where_they_do_something(
    snapshot: Snapshot, pause: m.Choice | None, resume: m.Choice | None
) -> None:
    assert choice(snapshot, "pause") == pause
    assert choice(snapshot, "resume") == resume


def test_resume_says_now_during_the_wait_after_a_game() -> None:
    waiting = pic.snapshot(State.PAUSED, resumes_in_s=18.0, providers=(pic.provider(),))
    found = entry(waiting, "resume")
    assert found is not None
    assert (found.label, found.choice) == ("Resume now", m.Resume())


def test_pause_for_offers_lengths_of_time() -> None:
    lengths = entry(pic.snapshot(), "pause:for")
    assert lengths is not None
    assert [(e.id, e.label, e.choice) for e in lengths.children][:2] == [
        ("pause:1800", "30 minutes", m.Pause(1800.0)),
        ("pause:3600", "1 hour", m.Pause(3600.0)),
    ]


def test_keep_running_is_there_only_while_a_game_runs() -> None:
    assert entry(pic.snapshot(), "keep-running") is None
    found = entry(pic.paused_for_game("Hades").snapshot, "keep-running")
    assert found is not None
    assert (found.label, found.choice, found.is_checked) == (
        "Keep running for Hades",
        m.KeepRunning(),
        False,
    )


def test_keep_running_is_marked_once_it_was_chosen() -> None:
    found = entry(pic.snapshot(holds=(pic.game(is_overridden=True),)), "keep-running")
    assert found is not None
    assert (found.is_checked, found.is_enabled) == (True, False)


def test_keep_running_covers_several_games_in_one_entry() -> None:
    found = entry(
        pic.paused_for_game(holds=(pic.game("Hades"), pic.game("Factorio"))).snapshot, "keep-running"
    )
    assert found is not None
    assert found.label == "Keep running for these 2 games"


def test_models_in_memory_show_what_they_take_and_can_be_unloaded() -> None:
    found = entry(pic.snapshot(), "model:ollama/qwen2.5:14b:unload")
    assert found is not None
    assert found.label == "Unload qwen2.5:14b · 10.6\u00a0GB"
    assert found.choice == m.Unload(ModelRef("ollama", "qwen2.5:14b"))


def test_a_model_is_offered_for_loading_unless_it_is_loaded() -> None:
    picture = pic.picture()
    inside = entry(picture.snapshot, "models", picture.catalog)
    assert inside is not None
    loads = [e for e in inside.children if e.id.endswith(":load")]
    assert [(e.label, e.choice) for e in loads] == [
        ("Load llama3.1:8b", m.Load(ModelRef("ollama", "llama3.1:8b")))
    ]


def test_nothing_can_be_loaded_while_a_game_keeps_the_models_away() -> None:
    picture = pic.paused_for_game()
    found = entry(picture.snapshot, "model:ollama/llama3.1:8b:load", picture.catalog)
    assert found is not None
    assert not found.is_enabled


def test_a_model_on_its_way_in_says_so() -> None:
    found = entry(
        pic.snapshot(), "model:ollama/llama3.1:8b:load", pic.installed("llama3.1:8b", status="loading")
    )
    assert found is not None
    assert (found.label, found.is_enabled) == ("Loading llama3.1:8b…", False)


def test_cloud_models_and_aliases_are_not_offered() -> None:
    cloud = pic.provider(name="cloud", is_local=False)
    alias = m.CatalogEntry(name="assistant", ref=ModelRef("ollama", "x"), status="off", is_alias=True)
    snapshot = pic.snapshot(providers=(pic.provider(), cloud))
    inside = entry(snapshot, "models", (alias, *pic.installed("gpt", provider="cloud")))
    assert inside is not None
    assert [e.id for e in inside.children] == ["models:none"]


def test_a_name_at_two_providers_is_told_apart() -> None:
    snapshot = pic.snapshot(providers=(pic.provider(name="a"), pic.provider(name="b")))
    both = (*pic.installed("llama3", provider="a"), *pic.installed("llama3", provider="b"))
    inside = entry(snapshot, "models", both)
    assert inside is not None
    assert [e.label for e in inside.children] == ["Load llama3 (a)", "Load llama3 (b)"]


def test_a_provider_that_cannot_unload_gets_no_unload() -> None:
    cannot = Condition(type=ConditionType.CANNOT_UNLOAD, reason="It cannot.", since=0.0)
    snapshot = pic.snapshot(providers=(pic.provider(pic.model("llama3"), conditions=(cannot,)),))
    assert choice(snapshot, "model:ollama/llama3:unload") is None


def test_the_menu_never_grows_beyond_its_bounds() -> None:
    many = tuple(pic.model(f"loaded-{i}") for i in range(300))
    snapshot = pic.snapshot(
        State.PAUSED,
        title="T" * 5000,
        line="word " * 5000,
        providers=(pic.provider(*many),),
        holds=tuple(pic.game(f"Game {i} " + "x" * 500) for i in range(300)),
    )
    menu = m.build_menu(snapshot, pic.installed(*(f"m{i}" for i in range(500))), problem="bad " * 500)
    told = list(flat(menu))
    assert len(told) <= 50
    assert all(len(e.label) <= 120 for e in told)
    more = next(e for e in told if e.id == "models:more")
    assert more.label == f"{300 - m.MAX_LOADED + 500 - m.MAX_LOADABLE} more…"


def test_ids_are_unique_in_every_picture() -> None:
    for picture in (pic.picture(), pic.paused_for_game()):
        ids = [e.id for e in flat(m.build_menu(picture.snapshot, picture.catalog))]
        assert len(ids) == len(set(ids))


def test_the_same_meaning_has_the_same_id_wherever_it_stands() -> None:
    def id_of(choice: m.Choice, *names: str) -> str:
        menu = m.build_menu(pic.snapshot(), pic.installed(*names))
        return next(e.id for e in flat(menu) if e.choice == choice)

    wanted = m.Load(ModelRef("ollama", "llama3"))
    assert id_of(wanted, "llama3") == id_of(wanted, "a", "b", "llama3") == "model:ollama/llama3:load"


@pytest.mark.parametrize("name", ["Tom & <b>Jerry</b>", "A\nB\tC", "a\u202eb", "x" * 400, "_Under_score_"])
def test_names_from_outside_stay_on_one_line_and_keep_their_signs(name: str) -> None:
    found = entry(pic.paused_for_game(name).snapshot, "keep-running")
    assert found is not None
    assert len(found.label) <= 60
    assert not set(found.label) & set("\n\t\u202e")
    if len(name) < 40 and name.isascii() and name.isprintable():
        assert name in found.label


def test_open_is_what_a_left_click_chooses_and_quit_comes_last() -> None:
    menu = m.build_menu(pic.snapshot())
    assert [e.id for e in flat(menu) if e.is_default] == ["open"]
    assert menu[-1].choice == m.Quit()
