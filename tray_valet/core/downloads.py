"""Downloads of models: the queue, and what becomes of one that fails.

Decides: the order, that a model is downloaded once, when a failure is tried again and when it is given up,
and which ended ones are still shown. Must not: download, know a clock, or write a file.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from tray_valet.core.errors import NotFound
from tray_valet.core.models import ModelRef

KEPT_ENDED = 20  # ended downloads that are still listed
MAX_WAITING = 100
RETRY_AFTER_S = (5.0, 15.0, 60.0, 300.0)  # after the first, second … failure in a row; then it is given up


class DownloadState(StrEnum):
    """Where a download is. `paused`: something else has the machine (a game); it goes on by itself."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({DownloadState.DONE, DownloadState.FAILED, DownloadState.CANCELLED})


class PullProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider tells of a download: its own words, and bytes as far as it knows them."""

    status: str = ""
    completed_bytes: int = 0
    total_bytes: int | None = None


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """One wish for a model on the disk. Times are Unix seconds; `model` is canonical at its provider."""

    id: str
    provider: str
    model: str
    added_at: float
    state: DownloadState = DownloadState.QUEUED
    status: str = ""  # the provider's own words, or what it waits for
    completed_bytes: int = 0
    total_bytes: int | None = None
    attempts: int = 0  # failures in a row
    error: str = ""  # of the last failure, remedy included
    next_try_at: float | None = None
    ended_at: float | None = None

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.provider, self.model)

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """All downloads that are known, the oldest first. Every rule returns a new one."""

    downloads: tuple[Download, ...] = ()

    def find(self, download_id: str) -> Download:
        """The download of that id. Raises NotFound."""
        found = self.get(download_id)
        if found is None:
            raise NotFound(
                f"There is no download “{download_id[:60]}”.", remedy="See: tray-valet downloads", param="id"
            )
        return found

    def get(self, download_id: str) -> Download | None:
        """The same; None where it is not listed (any more)."""
        return next((d for d in self.downloads if d.id == download_id), None)

    def active(self, ref: ModelRef) -> Download | None:
        """The download of a model that has not ended; None where there is none."""
        return next((d for d in self.downloads if d.ref == ref and not d.has_ended), None)

    @property
    def waiting(self) -> tuple[Download, ...]:
        """Those that have not ended."""
        return tuple(d for d in self.downloads if not d.has_ended)


def added(queue: Queue, download: Download) -> Queue:
    """The queue with one more at its end. The caller has looked that the model is in it once only."""
    return _trimmed(Queue(downloads=(*queue.downloads, download)))


def next_of(queue: Queue, provider: str, now: float) -> Download | None:
    """The one that a provider begins now; None while it is at one, or none is due. `now`: Unix seconds."""
    own = [d for d in queue.waiting if d.provider == provider]
    if any(d.state is DownloadState.RUNNING for d in own):
        return None
    return next((d for d in own if d.next_try_at is None or d.next_try_at <= now), None)


def began(queue: Queue, download_id: str) -> Queue:
    """The queue after a download was begun."""
    return _changed(
        queue, download_id, lambda d: _with(d, state=DownloadState.RUNNING, status="", next_try_at=None)
    )


def waiting_for(queue: Queue, download_id: str, why: str) -> Queue:
    """The queue while a download cannot be begun: what it waits for stands as its status."""
    return _changed(queue, download_id, lambda d: _with(d, status=why))


def progressed(queue: Queue, download_id: str, progress: PullProgress) -> Queue:
    """The queue after news from the provider. More bytes than ever before: earlier failures are over."""

    def change(download: Download) -> Download:
        if download.state is not DownloadState.RUNNING:
            return download
        has_more = progress.completed_bytes > download.completed_bytes
        return _with(
            download,
            status=progress.status[:200],
            completed_bytes=max(progress.completed_bytes, download.completed_bytes),
            total_bytes=progress.total_bytes if progress.total_bytes is not None else download.total_bytes,
            attempts=0 if has_more else download.attempts,
            error="" if has_more else download.error,
        )

    return _changed(queue, download_id, change)


def finished(queue: Queue, download_id: str, now: float) -> Queue:
    """The queue after a download was seen to be whole."""

    def change(download: Download) -> Download:
        done_bytes = max(download.completed_bytes, download.total_bytes or 0)
        return _with(
            download,
            state=DownloadState.DONE,
            completed_bytes=done_bytes,
            status="",
            error="",
            next_try_at=None,
            ended_at=now,
        )

    return _trimmed(_changed(queue, download_id, change))


def failed(queue: Queue, download_id: str, error: str, now: float, *, is_final: bool) -> Queue:
    """The queue after a failure: tried again later, or given up. `is_final`: trying again changes nothing."""

    def change(download: Download) -> Download:
        attempts = download.attempts + 1
        if is_final or attempts > len(RETRY_AFTER_S):
            return _with(
                download,
                state=DownloadState.FAILED,
                attempts=attempts,
                error=error,
                next_try_at=None,
                ended_at=now,
            )
        return _with(
            download,
            state=DownloadState.QUEUED,
            attempts=attempts,
            error=error,
            next_try_at=now + RETRY_AFTER_S[attempts - 1],
        )

    return _trimmed(_changed(queue, download_id, change))


def cancelled(queue: Queue, download_id: str, now: float) -> Queue:
    """The queue after the user has taken a download back. One that has ended stays as it is."""
    return _trimmed(
        _changed(
            queue,
            download_id,
            lambda d: _with(d, state=DownloadState.CANCELLED, next_try_at=None, ended_at=now),
        )
    )


def held(queue: Queue) -> Queue:
    """The queue while something else has the machine: nothing runs, and what would says so."""
    return _each(
        queue,
        lambda d: _with(d, state=DownloadState.PAUSED) if not d.has_ended else d,
    )


def released(queue: Queue) -> Queue:
    """The queue when the machine is free again, or after a start: what ran or was paused waits its turn."""
    again = (DownloadState.PAUSED, DownloadState.RUNNING)
    return _each(queue, lambda d: _with(d, state=DownloadState.QUEUED, status="") if d.state in again else d)


def _with(download: Download, **changes: object) -> Download:
    return msgspec.structs.replace(download, **changes)


def _changed(queue: Queue, download_id: str, change: Callable[[Download], Download]) -> Queue:
    """Change one that has not ended: what is done, given up or taken back stays so."""
    return _each(queue, lambda d: change(d) if d.id == download_id and not d.has_ended else d)


def _each(queue: Queue, change: Callable[[Download], Download]) -> Queue:
    return Queue(downloads=tuple(map(change, queue.downloads)))


def _trimmed(queue: Queue) -> Queue:
    """Without the oldest ended ones."""
    ended = sorted((d for d in queue.downloads if d.has_ended), key=lambda d: d.ended_at or 0.0)
    gone = {d.id for d in ended[: max(0, len(ended) - KEPT_ENDED)]}
    return Queue(downloads=tuple(d for d in queue.downloads if d.id not in gone)) if gone else queue
