"""News of downloads: only the newest waits for a slow reader, and people read of the ends alone."""

from __future__ import annotations

from typing import Any

from tray_valet.core.commands import RecordedFact
from tray_valet.core.downloads import Download, DownloadState
from tray_valet.core.events_disk import (
    DownloadCancelled,
    DownloadFailed,
    DownloadFinished,
    DownloadProgressed,
)
from tray_valet.core.events_providers import ProviderBack
from tray_valet.services.activity import Activity
from tray_valet.services.clock import SystemClock


def progress(n_bytes: int, download_id: str = "d1") -> DownloadProgressed:
    return DownloadProgressed(
        download=Download(
            id=download_id,
            provider="p",
            model="m",
            added_at=0.0,
            state=DownloadState.RUNNING,
            completed_bytes=n_bytes,
        )
    )


async def test_c9_a_slow_reader_gets_the_newest_progress_and_loses_no_other_fact() -> None:
    activity = Activity(SystemClock())
    picture: Any = object()
    following = activity.follow(lambda: picture)
    await anext(following)
    other = ProviderBack(provider="p")
    for n in range(500):
        activity.record(progress(n))
        if n == 100:
            activity.record(other)
    read = [await anext(following), await anext(following)]
    assert [each.fact for each in read if isinstance(each, RecordedFact)] == [other, progress(499)]


def test_people_read_of_ends_and_not_of_progress() -> None:
    activity = Activity(SystemClock())
    activity.record(progress(1))
    activity.record(DownloadFinished(id="d1", provider="p", model="m", size_bytes=2**30, took_s=61.0))
    activity.record(DownloadFailed(id="d2", provider="p", model="x", message="No registry has it."))
    activity.record(DownloadCancelled(id="d3", provider="p", model="y"))
    told = [(entry.kind, entry.is_problem) for entry in activity.entries(9)]
    assert told == [("download_cancelled", False), ("download_failed", True), ("download_finished", False)]
    assert activity.entries(9)[1].text == "x could not be downloaded: No registry has it."
