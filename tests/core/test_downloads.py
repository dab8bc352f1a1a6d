"""The queue of downloads: its order, what becomes of failures, and that an end is an end."""

from __future__ import annotations

import pytest

from tray_valet.core import downloads as rules
from tray_valet.core.downloads import KEPT_ENDED, RETRY_AFTER_S, Download, DownloadState, PullProgress, Queue
from tray_valet.core.errors import NotFound


def queue(*ids: str, provider: str = "ollama") -> Queue:
    found = Queue()
    for each in ids:
        found = rules.added(found, Download(id=each, provider=provider, model=f"{each}:latest", added_at=0.0))
    return found


def state(found: Queue, download_id: str) -> DownloadState:
    return found.find(download_id).state


def test_a_provider_works_on_one_at_a_time_in_the_order_of_the_wishes() -> None:
    waiting = queue("a", "b")
    assert rules.next_of(waiting, "ollama", 0.0) == waiting.find("a")
    running = rules.began(waiting, "a")
    assert rules.next_of(running, "ollama", 0.0) is None
    assert rules.next_of(rules.finished(running, "a", 1.0), "ollama", 1.0) == running.find("b")
    assert rules.next_of(running, "another", 0.0) is None


def test_a_download_of_one_provider_does_not_wait_for_anothers() -> None:
    both = Queue(downloads=(*queue("a").downloads, *queue("b", provider="near").downloads))
    running = rules.began(both, "a")
    assert rules.next_of(running, "near", 0.0) == both.find("b")


def test_c7_a_failure_is_tried_again_later_and_later_and_then_given_up_with_its_error() -> None:
    found, now, waits = queue("a"), 0.0, []
    while not found.find("a").has_ended:
        found = rules.failed(rules.began(found, "a"), "a", "The registry is away.", now, is_final=False)
        next_at = found.find("a").next_try_at
        if next_at is not None:
            waits.append(next_at - now)
            assert rules.next_of(found, "ollama", next_at - 0.1) is None
            now = next_at
            assert rules.next_of(found, "ollama", now) is not None
    assert waits == list(RETRY_AFTER_S)
    last = found.find("a")
    assert (last.state, last.error, last.ended_at) == (DownloadState.FAILED, "The registry is away.", now)


def test_a_failure_that_no_further_try_can_mend_is_final_at_once() -> None:
    found = rules.failed(rules.began(queue("a"), "a"), "a", "No such model.", 5.0, is_final=True)
    assert (state(found, "a"), found.find("a").attempts) == (DownloadState.FAILED, 1)


def test_a_retried_one_gives_way_to_those_that_can_begin() -> None:
    found = rules.failed(rules.began(queue("a", "b"), "a"), "a", "Away.", 0.0, is_final=False)
    due = rules.next_of(found, "ollama", 1.0)
    assert due is not None
    assert due.id == "b"


def test_more_bytes_than_ever_end_a_row_of_failures_and_fewer_do_not() -> None:
    found = rules.progressed(
        rules.began(queue("a"), "a"), "a", PullProgress(completed_bytes=50, total_bytes=90)
    )
    found = rules.began(rules.failed(found, "a", "Broken off.", 0.0, is_final=False), "a")
    again = rules.progressed(found, "a", PullProgress(completed_bytes=20, total_bytes=90))
    assert (again.find("a").completed_bytes, again.find("a").attempts) == (50, 1)
    further = rules.progressed(again, "a", PullProgress(completed_bytes=51)).find("a")
    assert (further.completed_bytes, further.total_bytes, further.attempts, further.error) == (51, 90, 0, "")


@pytest.mark.parametrize("end", [DownloadState.DONE, DownloadState.FAILED, DownloadState.CANCELLED])
def test_c8_what_has_ended_stays_so(end: DownloadState) -> None:
    found = rules.began(queue("a"), "a")
    ended = {
        DownloadState.DONE: rules.finished(found, "a", 1.0),
        DownloadState.FAILED: rules.failed(found, "a", "No.", 1.0, is_final=True),
        DownloadState.CANCELLED: rules.cancelled(found, "a", 1.0),
    }[end]
    for later in (
        rules.finished(ended, "a", 2.0),
        rules.failed(ended, "a", "x", 2.0, is_final=False),
        rules.cancelled(ended, "a", 2.0),
        rules.began(ended, "a"),
        rules.progressed(ended, "a", PullProgress(completed_bytes=9)),
        rules.held(ended),
        rules.released(ended),
    ):
        assert later == ended
    assert rules.next_of(ended, "ollama", 1e9) is None
    assert ended.active(found.find("a").ref) is None


def test_during_a_game_nothing_runs_and_afterwards_all_wait_for_their_turn() -> None:
    held = rules.held(rules.began(queue("a", "b"), "a"))
    assert {state(held, "a"), state(held, "b")} == {DownloadState.PAUSED}
    free = rules.released(held)
    assert {state(free, "a"), state(free, "b")} == {DownloadState.QUEUED}


def test_the_last_ended_ones_are_kept_and_those_under_way_always() -> None:
    found = queue(*(f"d{n}" for n in range(KEPT_ENDED + 5)), "waiting")
    for n in range(KEPT_ENDED + 5):
        found = rules.finished(found, f"d{n}", float(n))
    assert len(found.downloads) == KEPT_ENDED + 1
    assert found.find("waiting").state is DownloadState.QUEUED
    with pytest.raises(NotFound):
        found.find("d4")
    assert found.find("d5").state is DownloadState.DONE
