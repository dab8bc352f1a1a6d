"""Which facts belong to which game."""

from __future__ import annotations

import pytest

from tray_valet.core import events as ev
from tray_valet.core.events_providers import ProviderBack
from tray_valet.core.holds import GameCause, Hold, HoldKind, PressureCause, ProgramCause, UserCause
from tray_valet.core.ledger import GameRecord, SlowPart
from tray_valet.core.ledger_fold import Book, folded, forgotten
from tray_valet.core.watchdog import State

GB = 2**30


class Story:
    """Facts in order, at seconds since the beginning."""

    def __init__(self) -> None:
        self.book = Book()
        self.holds: dict[str, Hold] = {}

    def at(self, now_s: float, *facts: ev.Fact) -> Story:
        for fact in facts:
            self.book = folded(self.book, fact, now_s, 1_700_000_000.0 + now_s)
        return self

    def game(self, now_s: float, name: str, appid: str = "") -> Story:
        folder = f"/home/me/steamapps/common/{name}"
        cause = GameCause(name=name, place=folder, store="steam", appid=appid)
        hold = Hold(id=f"game:{folder}", kind=HoldKind.GAME, owner="valet", cause=cause, since=0.0)
        self.holds[name] = hold
        self.at(now_s, ev.GameStarted(name=name, key=folder, store="steam"))
        return self.at(now_s, ev.HoldPlaced(hold=hold))

    def ends(self, now_s: float, name: str, ran_s: float) -> Story:
        folder = f"/home/me/steamapps/common/{name}"
        self.at(now_s, ev.GameEnded(name=name, key=folder, ran_s=ran_s))
        return self.at(now_s, ev.HoldEnded(hold=self.holds.pop(name)))

    def state(self, now_s: float, after: State) -> Story:
        return self.at(now_s, ev.StateChanged(before=State.RUNNING, after=after, reason=""))

    def aside(self, now_s: float, *models: str, freed: int = GB, is_again: bool = False) -> Story:
        fact = ev.ModelsSetAside(
            models=models or ("a",), freed_bytes=freed, took_s=0.1, cause="", is_again=is_again
        )
        return self.at(now_s, fact)

    def back(self, now_s: float, took_s: float) -> Story:
        return self.at(now_s, ev.ModelsBroughtBack(models=("a",), took_s=took_s))

    def record(self, name: str) -> GameRecord:
        return next(record for record in self.book.ledger.games.values() if record.name == name)


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_whole_evening(story: Story) -> None:
    story.game(0.0, "Hades", "1145360").state(0.0, State.PAUSING).aside(0.6, freed=17 * GB).state(
        0.6, State.PAUSED
    )
    story.ends(3600, "Hades", 3590.0).state(3630, State.RESUMING).back(3634, 4.1).state(3634, State.RUNNING)
    record = story.record("Hades")
    assert record.key == "steam:1145360"
    assert (record.times, record.took_s, record.freed_bytes) == (1, (0.6,), 17 * GB)
    assert (record.played, record.played_s) == (1, 3590.0)
    assert (record.restores, record.restored_s, record.restore_failures) == (1, (4.1,), 0)
    assert record.slow == {}


def test_nothing_of_a_person_is_kept(story: Story) -> None:
    story.game(0.0, "Hades").at(0.1, ev.AnswersEnded(count=1, client="My laptop", waited_s=3.0))
    story.aside(3.2, "secret-project-7b")
    text = str(story.book.ledger)
    for word in ("laptop", "secret-project", "/home", "steamapps"):
        assert word not in text


def test_a_game_without_models_in_memory_is_known_but_nothing_stepped_aside(story: Story) -> None:
    story.game(0.0, "Hades").state(0.0, State.PAUSING).state(0.2, State.PAUSED).ends(10, "Hades", 10.0)
    assert (story.record("Hades").times, story.record("Hades").played) == (0, 1)


def test_a_game_that_the_user_switched_off_is_not_in_it(story: Story) -> None:
    story.at(0.0, ev.GameStarted(name="Chess", key="/g/Chess", action="off"))
    story.at(60.0, ev.GameEnded(name="Chess", key="/g/Chess", ran_s=60.0))
    assert story.book.ledger.games == {}


def test_a_question_answered_with_yes_belongs_to_its_game(story: Story) -> None:
    story.at(0.0, ev.GameStarted(name="Cyberpunk", key="/g/Cyberpunk", store="gog", action="ask"))
    hold = Hold(
        id="hold:1", kind=HoldKind.USER, owner="Cyberpunk", cause=ProgramCause(owner="Cyberpunk"), since=0.0
    )
    story.at(20.0, ev.HoldPlaced(hold=hold)).aside(20.5)
    record = story.record("Cyberpunk")
    assert (record.key, record.times, record.took_s) == ("gog:Cyberpunk", 1, (0.5,)), "from the answer on"


def test_two_games_that_start_together_both_had_it(story: Story) -> None:
    story.game(0.0, "Hades").game(0.3, "Factorio").aside(0.9)
    assert story.record("Hades").took_s == (0.9,)
    assert story.record("Factorio").took_s == (0.6,)


def test_a_game_that_starts_when_the_models_are_aside_already_had_no_part_in_it(story: Story) -> None:
    story.game(0.0, "Hades").state(0, State.PAUSING).aside(0.5).state(0.5, State.PAUSED).game(60, "Factorio")
    story.ends(90, "Hades", 90.0).ends(120, "Factorio", 60.0)
    story.state(150, State.RESUMING).back(152, 2.0).state(152, State.RUNNING)
    assert (story.record("Factorio").times, story.record("Factorio").restores) == (0, 0)
    assert story.record("Hades").restores == 1


def test_the_users_own_pause_is_no_games(story: Story) -> None:
    hold = Hold(id="user", kind=HoldKind.USER, owner="user", cause=UserCause(), since=0.0)
    story.at(0.0, ev.HoldPlaced(hold=hold)).aside(0.5).state(0.5, State.PAUSED).game(10.0, "Hades")
    assert story.record("Hades").times == 0


def test_models_kept_running_by_the_user_are_not_counted_when_pressure_pauses(story: Story) -> None:
    story.game(0.0, "Hades").state(0, State.PAUSING).aside(0.5).state(0.5, State.PAUSED)
    story.state(10, State.RESUMING).back(12, 2.0).state(12, State.RUNNING)
    cause = PressureCause(signal=HoldKind.RAM, value_pct=90.0, limit_pct=85.0, resume_pct=60.0)
    hold = Hold(id="pressure:ram", kind=HoldKind.RAM, owner="valet", cause=cause, since=0.0)
    story.at(60.0, ev.HoldPlaced(hold=hold)).state(60, State.PAUSING).aside(61.0)
    assert story.record("Hades").times == 1
    story.ends(100, "Hades", 100.0)
    assert story.record("Hades").played == 1


def test_what_programs_load_past_the_router_is_counted_apart(story: Story) -> None:
    story.game(0.0, "Hades").state(0, State.PAUSING).aside(0.5, freed=GB).state(0.5, State.PAUSED)
    for n in (1, 2):
        story.at(n, ev.ModelReloadedDuringPause(provider="ollama", model="a", times=n)).state(
            n, State.PAUSING
        )
        story.aside(n + 0.5, freed=GB, is_again=True).state(n + 0.5, State.PAUSED)
    record = story.record("Hades")
    assert (record.times, record.reloads, record.freed_bytes) == (1, 2, GB)


def test_a_provider_that_answers_late_adds_to_what_was_freed(story: Story) -> None:
    story.game(0.0, "Hades").state(0, State.PAUSING).aside(0.5, freed=GB).state(0.5, State.PAUSED)
    story.state(300, State.PAUSING).aside(300.5, "b", freed=2 * GB)
    record = story.record("Hades")
    assert (record.times, record.took_s, record.freed_bytes) == (1, (0.5,), 3 * GB)


def test_a_second_game_in_the_wait_after_the_first_is_no_second_stepping_aside(story: Story) -> None:
    story.game(0.0, "Hades").state(0, State.PAUSING).aside(0.5).state(0.5, State.PAUSED).ends(
        60, "Hades", 60.0
    )
    story.game(70.0, "Factorio").ends(90, "Factorio", 20.0)
    story.state(120, State.RESUMING).back(124, 4.0).state(124, State.RUNNING)
    assert story.record("Factorio").times == 0
    story.game(200.0, "Factorio").state(200, State.PAUSING).aside(200.7)
    assert story.record("Factorio").times == 1


def test_a_failed_restore_counts_once_it_is_final(story: Story) -> None:
    story.game(0.0, "Hades").state(0, State.PAUSING).aside(0.5).state(0.5, State.PAUSED).ends(
        60, "Hades", 60.0
    )
    story.state(90, State.RESUMING)
    story.at(91, ev.RestoreFailed(model="a", message="no", next_try_s=2.0))
    story.at(93, ev.RestoreFailed(model="a", message="no"))
    story.state(93, State.RUNNING)
    story.at(99, ev.RestoreFailed(model="z", message="of no game"))
    assert (story.record("Hades").restore_failures, story.record("Hades").restores) == (1, 0)


def test_a_game_in_mid_restore_has_the_restore_of_both(story: Story) -> None:
    story.game(0.0, "Hades").state(0, State.PAUSING).aside(0.5).state(0.5, State.PAUSED).ends(
        60, "Hades", 60.0
    )
    story.state(90, State.RESUMING).game(91, "Doom").state(91, State.PAUSING).aside(91.5).state(
        91.5, State.PAUSED
    )
    story.ends(100, "Doom", 9.0).state(130, State.RESUMING).back(133, 3.0).state(133, State.RUNNING)
    assert [story.record(name).restores for name in ("Hades", "Doom")] == [1, 1]


# -- why it was slow -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "done_s", "part", "took_s"),
    [
        ([(3.0, ev.AnswersEnded(count=1, waited_s=3.0))], 3.4, SlowPart.ANSWER, 3.0),
        ([(1.5, ev.AnswersAwaited(count=1, waited_s=1.5))], 1.9, SlowPart.ANSWER, 1.5),
        ([(3.0, ev.AnswersEnded(count=1, waited_s=3.0)),
          (8.0, ev.RunnerKilled(provider="o", model="a", waited_s=5.0))], 8.2, SlowPart.RUNNER, 5.0),
        ([(0.2, ev.AnswersEnded(count=1, waited_s=0.0)),
          (10.2, ev.MemoryStillHeld(provider="o", held_bytes=1, is_vram=True))], 10.3, SlowPart.MEMORY, 10.1),
        ([(6.0, ev.PauseUnfinished(cause="Hades", message="o does not answer"))], 9.0, SlowPart.PASSES, 9.0),
        ([(0.1, ev.AnswersEnded(count=1, waited_s=0.1))], 4.0, SlowPart.UNLOAD, 4.0),
        ([], 2.0, SlowPart.UNLOAD, 2.0),
    ],
)  # fmt: skip
def test_the_slowest_part_is_named(
    story: Story, facts: list[tuple[float, ev.Fact]], done_s: float, part: SlowPart, took_s: float
) -> None:
    story.game(0.0, "Hades").state(0.0, State.PAUSING)
    for at_s, fact in facts:
        story.at(at_s, fact)
    story.aside(done_s)
    last = story.record("Hades").last
    assert last is not None
    assert last.slow is not None
    assert (last.slow.part, last.slow.took_s) == (part, pytest.approx(took_s))


def test_what_took_less_than_a_second_was_not_slow(story: Story) -> None:
    story.game(0.0, "Hades").at(0.8, ev.AnswersEnded(count=1, waited_s=0.8)).aside(0.9)
    last = story.record("Hades").last
    assert last is not None
    assert last.slow is None


def test_delays_of_an_earlier_pause_explain_nothing(story: Story) -> None:
    story.game(0.0, "Hades").at(0.1, ev.RunnerKilled(provider="o", model="a", waited_s=5.0)).state(
        0.2, State.RUNNING
    )
    story.ends(1, "Hades", 1.0).game(10.0, "Doom").state(10, State.PAUSING).aside(12.0)
    last = story.record("Doom").last
    assert last is not None
    assert last.slow is not None
    assert last.slow.part is SlowPart.UNLOAD


# -- forgetting ----------------------------------------------------------------------------------------


def test_a_game_forgotten_while_it_runs_is_not_remembered_when_it_ends(story: Story) -> None:
    story.game(0.0, "Hades").game(0.1, "Doom").state(0, State.PAUSING).aside(0.5).state(0.5, State.PAUSED)
    story.book = forgotten(story.book, ("steam:Hades",))
    story.ends(60, "Hades", 60.0).state(90, State.RESUMING).back(92, 2.0)
    assert set(story.book.ledger.games) == {"steam:Doom"}
    story.book = forgotten(story.book, None)
    story.ends(93, "Doom", 93.0)
    assert story.book.ledger.games == {}


def test_facts_without_news_give_the_same_book_back(story: Story) -> None:
    story.game(0.0, "Hades")
    before = story.book
    story.at(1.0, ev.SettingsApplied(), ev.ModelLoaded(model="a", took_s=1.0), ProviderBack(provider="o"))
    assert story.book is before
