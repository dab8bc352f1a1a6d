"""Notifications of downloads: their ends, gathered, and nothing on the way."""

from __future__ import annotations

from tests.core.test_notices import picture, shown, words
from tray_valet.core.downloads import Download
from tray_valet.core.events_disk import (
    DownloadCancelled,
    DownloadFailed,
    DownloadFinished,
    DownloadProgressed,
    ModelDeleted,
)
from tray_valet.core.watchdog import State

DONE = DownloadFinished(id="a", provider="ollama", model="llama3:8b", size_bytes=4 * 2**30, took_s=90.0)
ALSO = DownloadFinished(id="b", provider="ollama", model="qwen3:8b", size_bytes=2**30, took_s=9.0)
FAILED = DownloadFailed(id="c", provider="ollama", model="nope", message="No registry has a model nope.")


def test_a_finished_download_is_told() -> None:
    notice = shown(picture(State.RUNNING), DONE)
    assert words(notice) == ("llama3:8b is ready to load", "4.0 GB downloaded.")
    assert words(shown(picture(State.RUNNING), DONE, ALSO)) == (
        "llama3:8b and qwen3:8b are ready to load",
        "5.0 GB downloaded.",
    )


def test_a_failed_one_is_a_problem_with_its_reason() -> None:
    notice = shown(picture(State.RUNNING), FAILED)
    assert words(notice) == ("nope could not be downloaded", "No registry has a model nope.")
    assert notice is not None
    assert notice.is_problem


def test_what_happens_on_the_way_is_not_told() -> None:
    going = Download(id="a", provider="ollama", model="llama3:8b", added_at=0.0)
    for fact in (
        DownloadProgressed(download=going),
        DownloadCancelled(id="a", provider="ollama", model="llama3:8b"),
        ModelDeleted(provider="ollama", model="llama3:8b"),
    ):
        assert shown(picture(State.RUNNING), fact) is None
