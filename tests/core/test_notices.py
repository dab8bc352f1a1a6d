"""Which facts become notifications, in which words, when, and when they are taken back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tray_valet.core import events as ev
from tray_valet.core.events_providers import ProviderBack, ProviderLost
from tray_valet.core.fact_sentences import sentence
from tray_valet.core.holds import Cause, GameCause, Hold, HoldKind, PressureCause, ProgramCause, UserCause
from tray_valet.core.journal import JournalEntry
from tray_valet.core.models import Condition, ConditionType, LoadedModel, ProviderKind
from tray_valet.core.notice_book import Due, NoticeBook, Pace, due, noted
from tray_valet.core.notices import ChoiceKind, Notice, Subject, TextLimits, fitted
from tray_valet.core.snapshot import GameView, HoldView, ProviderView, Snapshot
from tray_valet.core.watchdog import State

GB = 2**30
PACE = Pace()
NBSP = "\u00a0"
HADES = GameCause(name="Hades", place="steamapps/common/Hades")
FREED = ev.ModelsSetAside(models=("qwen",), freed_bytes=int(17.3 * GB), took_s=0.6, cause="Hades")
BACK = ev.ModelsBroughtBack(models=("a", "b", "c"), took_s=4.1)


def hold(kind: HoldKind = HoldKind.GAME, cause: Cause = HADES, *, is_overridden: bool = False) -> HoldView:
    name = getattr(cause, "name", kind.value)
    return HoldView(
        hold=Hold(id=f"{kind}:{name}", kind=kind, owner="valet", cause=cause, since=0.0),
        is_overridden=is_overridden,
        text="",
    )


def picture(
    state: State = State.RUNNING, *holds: HoldView, loaded: tuple[str, ...] = (), **more: Any
) -> Snapshot:
    provider = ProviderView(
        name="ollama",
        kind=ProviderKind.OLLAMA,
        url="",
        is_local=True,
        state=more.pop("provider_state", "ready"),
        loaded=tuple(LoadedModel(name=name) for name in loaded),
        conditions=more.pop("conditions", ()),
    )
    return Snapshot(
        version="1",
        taken_at=0.0,
        state=state,
        since=0.0,
        last_reason="",
        title=more.pop("title", ""),
        line=more.pop("line", ""),
        holds=holds,
        providers=(provider,),
        **more,
    )


PAUSED = picture(State.PAUSED, hold())


def book_of(*facts: ev.Fact, book: NoticeBook | None = None, at_s: float = 0.0) -> NoticeBook:
    book = book or NoticeBook()
    for fact in facts:
        book = noted(book, fact, at_s, PACE)
    return book


def shown(now: Snapshot, *facts: ev.Fact, at_s: float = 30.0) -> Notice | None:
    found = due(book_of(*facts), now, at_s, PACE).to_show
    assert len(found) <= 1
    return found[0] if found else None


def words(notice: Notice | None) -> tuple[str, str] | None:
    return notice and (notice.title.replace(NBSP, " "), notice.text.replace(NBSP, " "))


def test_a_completed_eviction_says_who_runs_what_was_freed_and_in_how_long() -> None:
    notice = shown(PAUSED, FREED)
    assert words(notice) == ("Hades is running", "Making room for Hades took 0.6 s. 17.3 GB freed.")
    assert notice is not None
    assert [c.label for c in notice.choices] == ["Keep running"]
    assert notice.hold_ids == ("game:Hades",)


def test_a_completed_restore_says_how_many_and_in_how_long() -> None:
    notice = shown(picture(loaded=("a", "b", "c")), BACK)
    assert words(notice) == ("Your models are back", "3 loaded in 4.1 s.")
    assert notice is not None
    assert notice.choices == ()


@pytest.mark.parametrize(
    ("view", "title", "text"),
    [
        (
            hold(HoldKind.USER, UserCause()),
            "Paused by you",
            "Setting the models aside took 0.6 s. 17.3 GB freed.",
        ),
        (
            hold(HoldKind.USER, ProgramCause(owner="Blender")),
            "Paused by you",
            "Setting the models aside took 0.6 s. 17.3 GB freed.",
        ),
        (
            hold(
                HoldKind.RAM,
                PressureCause(signal=HoldKind.RAM, value_pct=90, limit_pct=85, resume_pct=60),
            ),
            "Paused by you",
            "Setting the models aside took 0.6 s. 17.3 GB freed.",
        ),
    ],
)
def test_a_pause_for_no_game_has_the_headlines_title_and_no_keep_running(
    view: HoldView, title: str, text: str
) -> None:
    fact = msgspec.structs.replace(FREED, cause="")
    notice = shown(picture(State.PAUSED, view, title=title), fact)
    assert words(notice) == (title, text)
    assert notice is not None
    assert notice.choices == ()


def test_two_games_are_both_named() -> None:
    now = picture(State.PAUSED, hold(), hold(cause=GameCause(name="Factorio", place="x")))
    notice = shown(now, FREED)
    assert notice is not None
    assert notice.title == "Hades and Factorio are running"
    assert notice.hold_ids == ("game:Hades", "game:Factorio")


def test_a_game_during_the_users_own_pause_offers_no_button_that_would_do_nothing() -> None:
    notice = shown(picture(State.PAUSED, hold(), hold(HoldKind.USER, UserCause())), FREED)
    assert notice is not None
    assert notice.choices == ()


@pytest.mark.parametrize(
    ("fact", "now"),
    [
        (msgspec.structs.replace(FREED, models=(), freed_bytes=0), PAUSED),
        (msgspec.structs.replace(BACK, models=()), picture()),
        (FREED, picture(State.RUNNING)),
        (FREED, picture(State.RESUMING)),
        (FREED, picture(State.PAUSED)),  # the game has ended, the wait runs
        (FREED, picture(State.PAUSED, hold(is_overridden=True))),
        (BACK, PAUSED),
        (BACK, picture(State.PAUSING, hold(), loaded=("a", "b", "c"))),
        (BACK, picture(State.RUNNING)),  # unloaded again at once
        (ev.GameStarted(name="Hades", key="k"), PAUSED),
        (ev.GameEnded(name="Hades", key="k", ran_s=1), picture()),
        (ev.ModelLoaded(model="a", took_s=1.0), picture(loaded=("a",))),
        (ev.ModelUnloaded(model="a"), picture()),
        (ProviderBack(provider="ollama"), picture()),
        (ev.SettingsApplied(), picture()),
        (ev.HoldPlaced(hold=hold().hold), PAUSED),
        (ev.ValetStarted(version="1"), picture()),
        (ev.RestoreFailed(model="a", message="x", next_try_s=2.0), picture()),
        (ev.RestoreFailed(model="a", message="x"), picture(loaded=("a",))),
        (ProviderLost(provider="ollama", message="x"), picture(provider_state="unreachable")),
        (ev.SettingsBroken(message="x"), picture()),  # mended within the second
        (ev.MemoryStillHeld(provider="ollama", held_bytes=GB, is_vram=True), PAUSED),  # free by now
    ],
)
def test_what_is_no_news_or_no_longer_so_is_not_told(fact: ev.Fact, now: Snapshot) -> None:
    assert shown(now, fact) is None


WAITING = (JournalEntry(provider="ollama", model="a"), JournalEntry(provider="ollama", model="b"))
HELD = (Condition(type=ConditionType.MEMORY_STILL_HELD, reason="x", since=0.0),)


@pytest.mark.parametrize(
    ("fact", "now", "title", "text", "choice"),
    [
        (
            ev.RestoreFailed(model="qwen2.5:14b", message="2.1 GB of VRAM is missing."),
            picture(),
            "qwen2.5:14b could not be brought back",
            "2.1 GB of VRAM is missing.",
            ChoiceKind.TRY_AGAIN,
        ),
        (
            ev.LoadRefused(model="qwen", message="The file is damaged."),
            picture(),
            "qwen could not be loaded",
            "The file is damaged.",
            ChoiceKind.TRY_AGAIN,
        ),
        (
            ev.RestoreFailed(model="qwen", message="qwen could not be loaded: there is no file."),
            picture(),
            "qwen could not be brought back",
            "There is no file.",
            ChoiceKind.TRY_AGAIN,
        ),
        (
            ev.MemoryStillHeld(provider="ollama", held_bytes=int(3.2 * GB), is_vram=True),
            picture(State.PAUSED, hold(), conditions=HELD),
            "3.2 GB of VRAM is still in use after the pause",
            "ollama may need a restart.",
            None,
        ),
        (
            ProviderLost(provider="ollama", message="x"),
            picture(State.PROVIDER_DOWN, provider_state="unreachable", to_bring_back=WAITING),
            "ollama does not answer",
            "2 models will come back with it.",
            None,
        ),
        (
            ev.SettingsBroken(message="Line 3: x."),
            picture(settings_problem="Line 3: x."),
            "The settings file has a mistake",
            "The last good settings stay in use. Line 3: x.",
            None,
        ),
        (
            ev.RunnerCrashed(provider="local", model="qwen", message="Signal 11."),
            picture(),
            "qwen ended unexpectedly",
            "Signal 11.",
            None,
        ),
        (
            ev.RunnerCrashed(provider="local", model="qwen", message="signal 11.", retry_in_s=2.0),
            picture(),
            "qwen ended unexpectedly",
            "Signal 11. It is started again.",
            None,
        ),
        (
            ev.RunnerGivenUp(provider="local", model="qwen", message="signal 11.", times=6, within_s=600.0),
            picture(),
            "qwen ended unexpectedly 6 times",
            "It is not started again by itself. Signal 11.",
            ChoiceKind.TRY_AGAIN,
        ),
        (
            ev.PauseUnfinished(cause="Hades", message="ollama still holds a."),
            picture(State.PAUSING, hold(), title="Making room for Hades", line="ollama still holds a."),
            "Making room for Hades takes long",
            "ollama still holds a.",
            None,
        ),
        (
            ev.JournalUnwritable(path="/j", message="The disk is full."),
            picture(),
            "Tray Valet needs a look",
            sentence(ev.JournalUnwritable(path="/j", message="The disk is full.")).replace(NBSP, " "),
            None,
        ),
        (
            ev.ModelReloadedDuringPause(provider="ollama", model="qwen", times=1),
            picture(State.PAUSED, hold(), router_url="http://127.0.0.1:8766"),
            "qwen was loaded again during the pause",
            "A program asked ollama for it past Tray Valet, so it is set aside again. "
            "Point the program at http://127.0.0.1:8766 instead.",
            None,
        ),
        (
            ev.ModelReloadedDuringPause(provider="ollama", model="qwen", times=1, client="webui", pid=7),
            picture(State.PAUSED, hold(), router_url="http://127.0.0.1:8766"),
            "qwen was loaded again during the pause",
            "“webui” asked ollama for it past Tray Valet, so it is set aside again. "
            "Point “webui” at http://127.0.0.1:8766 instead.",
            None,
        ),
    ],
)
def test_failures_are_told_with_their_remedy(
    fact: ev.Fact, now: Snapshot, title: str, text: str, choice: ChoiceKind | None
) -> None:
    notice = shown(now, fact)
    assert words(notice) == (title, text)
    assert notice is not None
    assert notice.is_problem
    assert [c.kind for c in notice.choices] == ([choice] if choice else [])


def test_a_program_that_goes_on_loading_past_the_router_is_told_once_a_game() -> None:
    now = picture(State.PAUSED, hold(), router_url="http://127.0.0.1:8766")
    book, shown_texts = NoticeBook(), []
    for second in range(0, 3600, 30):
        fact = ev.ModelReloadedDuringPause(
            provider="ollama", model=f"model {second}", times=second // 30 + 1, client="webui"
        )
        book = noted(book, fact, float(second), PACE)
        found = due(book, now, second + 20.0, PACE)
        book = found.book
        shown_texts += [notice.text for notice in found.to_show]
    assert len(shown_texts) == 1


def test_a_program_that_may_be_a_game_is_asked_about_while_it_runs() -> None:
    fact = ev.GameStarted(name="Cyberpunk 2077", key="cp", pid=7, action="ask")
    view = GameView(key="cp", name="", store="", appid="", rule="", action="ask", pids=(7,), since=0.0)
    notice = shown(picture(games=(view,)), fact)
    assert notice is not None
    assert notice.title == "Is Cyberpunk 2077 a game to step aside for?"
    assert [c.label for c in notice.choices] == ["Yes", "Not this time"]
    assert shown(picture(games=(msgspec.structs.replace(view, ending=True),)), fact) is None


def test_several_failures_are_one_notice() -> None:
    facts = [ev.RestoreFailed(model=name, message="No room.") for name in "abc"]
    notice = shown(picture(), *facts)
    assert words(notice) == ("3 models could not be brought back", "a, b and c: No room.")
    assert notice is not None
    assert len(notice.about) == 3


def test_what_the_loader_says_of_a_failed_restore_is_not_told_twice() -> None:
    facts = (ev.LoadRefused(model="a", message="x"), ev.RestoreFailed(model="a", message="x"))
    notice = shown(picture(), *facts)
    assert notice is not None
    assert notice.subject is Subject.RESTORE_FAILED
    assert shown(picture(), facts[0], ev.RestoreFailed(model="a", message="x", next_try_s=2.0)) is None


def test_a_restore_that_failed_in_part_does_not_say_that_all_are_back() -> None:
    facts = (
        ev.RestoreFailed(model="c", message="No room."),
        msgspec.structs.replace(BACK, models=("a", "b")),
    )
    found = due(book_of(*facts), picture(loaded=("a", "b")), 30.0, PACE).to_show
    assert [n.title for n in found] == ["c could not be brought back", "2 of 3 models are back"]


def test_an_interrupted_run_is_said_and_then_what_came_back() -> None:
    start = ev.ValetStarted(version="1", interrupted_models=("a", "b"), was_paused=True)
    notice = shown(picture(State.RESUMING, to_bring_back=WAITING), start)
    assert words(notice) == ("Tray Valet was interrupted while paused", "2 models are being brought back.")
    notice = shown(picture(loaded=("a", "b", "c")), start, BACK)
    assert words(notice) == (
        "Your models are back",
        "Tray Valet was interrupted while paused. 3 loaded in 4.1 s.",
    )


def test_a_success_is_told_after_two_seconds_and_not_before() -> None:
    book = book_of(FREED)
    assert book.next_due_s == 2.0
    early = due(book, PAUSED, 1.9, PACE)
    assert early.to_show == ()
    assert early.book.next_due_s == 2.0
    late = due(early.book, PAUSED, 2.0, PACE)
    assert len(late.to_show) == 1
    assert late.book.next_due_s is None
    assert due(late.book, PAUSED, 3.0, PACE).to_show == ()


def test_what_comes_back_within_the_two_seconds_leaves_one_notice() -> None:
    notice = shown(picture(loaded=("a", "b", "c")), FREED, BACK)
    assert notice is not None
    assert notice.title == "Your models are back"


def test_passes_of_one_pause_are_one_notice_and_later_ones_none() -> None:
    again = ev.StateChanged(before=State.PAUSED, after=State.PAUSING, reason="")
    second = ev.ModelsSetAside(models=("b",), freed_bytes=GB, took_s=1.3, cause="Hades")
    book = book_of(FREED, again, second)
    pausing = due(book, picture(State.PAUSING, hold()), 2.0, PACE)
    assert pausing.to_show == ()
    done = due(pausing.book, PAUSED, 4.0, PACE)
    assert [words(n) for n in done.to_show] == [
        ("Hades is running", "Making room for Hades took 1.9 s. 18.3 GB freed.")
    ]
    assert due(book_of(again, FREED, book=done.book, at_s=5.0), PAUSED, 9.0, PACE).to_show == ()
    resumed = ev.StateChanged(before=State.PAUSED, after=State.RESUMING, reason="")
    next_game = book_of(resumed, FREED, book=done.book, at_s=20.0)
    assert len(due(next_game, PAUSED, 22.0, PACE).to_show) == 1


def told(now: Snapshot, *facts: ev.Fact) -> Due:
    found = due(book_of(*facts), now, 30.0, PACE)
    assert found.to_show
    return found


def test_a_notice_with_a_button_is_taken_back_when_the_button_would_do_nothing() -> None:
    found = told(PAUSED, FREED)
    assert found.to_withdraw == ()
    pausing_again = due(found.book, picture(State.PAUSING, hold()), 31.0, PACE)
    assert pausing_again.to_withdraw == ()
    assert due(found.book, picture(State.PAUSED), 31.0, PACE).to_withdraw == (Subject.MODELS,)
    gone = due(found.book, picture(State.RESUMING), 31.0, PACE)
    assert gone.to_withdraw == (Subject.MODELS,)
    assert due(gone.book, picture(), 32.0, PACE).to_withdraw == ()


def test_a_trouble_that_is_over_is_taken_back_and_a_success_stays() -> None:
    found = told(picture(settings_problem="x"), ev.SettingsBroken(message="x"))
    assert due(found.book, picture(), 31.0, PACE).to_withdraw == (Subject.SETTINGS,)
    found = told(picture(loaded=("a", "b", "c")), BACK)
    assert due(found.book, picture(), 31.0, PACE).to_withdraw == ()


def test_a_trouble_that_goes_on_is_not_said_again_in_the_same_words_for_ten_minutes() -> None:
    fact, now = ev.LoadRefused(model="a", message="x"), picture()
    book = told(now, fact).book
    assert due(book_of(fact, book=book, at_s=100.0), now, 101.0, PACE).to_show == ()
    other = ev.LoadRefused(model="a", message="y")
    assert len(due(book_of(other, book=book, at_s=100.0), now, 101.0, PACE).to_show) == 1
    assert len(due(book_of(fact, book=book, at_s=700.0), now, 701.0, PACE).to_show) == 1


def test_a_pause_that_takes_long_is_not_said_beside_the_memory_that_stays() -> None:
    held = ev.MemoryStillHeld(provider="ollama", held_bytes=GB, is_vram=True)
    unfinished = ev.PauseUnfinished(cause="Hades", message="1.0 GB of memory is still in use.")
    now = picture(State.PAUSING, hold(), conditions=HELD)
    assert [n.subject for n in due(book_of(held, unfinished), now, 1.0, PACE).to_show] == [
        Subject.MEMORY_HELD
    ]
    assert due(book_of(unfinished), picture(State.PAUSED, hold()), 1.0, PACE).to_show == ()


def test_a_burst_of_changes_makes_neither_the_book_grow_nor_a_notice() -> None:
    book = NoticeBook()
    for i in range(2000):
        after = (State.PAUSING, State.PAUSED, State.RESUMING, State.RUNNING)[i % 4]
        book = book_of(
            ev.StateChanged(before=State.RUNNING, after=after, reason=""),
            FREED,
            BACK,
            ev.LoadRefused(model=f"m{i}", message="x"),
            ev.RestoreFailed(model=f"m{i}", message="x"),
            book=book,
            at_s=i * 0.0015,
        )
        found = due(book, PAUSED, i * 0.0015, PACE)
        assert found.to_show == ()
        book = found.book
    assert len(book.waiting) <= len(Subject)
    assert all(len(entry.facts) <= 16 for entry in book.waiting.values())
    assert len(book.failed) <= 16


def test_texts_are_cut_with_an_ellipsis_and_cleaned() -> None:
    notice = Notice(subject=Subject.MODELS, title="a\nb\0c" + "x" * 100, text="short")
    fit = fitted(notice, TextLimits(title=10, text=10))
    assert fit.title.endswith("…")
    assert len(fit.title) == 10
    assert "\0" not in fit.title
    assert "\n" not in fit.title
    assert fit.text == "short"
