"""Downloads: one at a time at each provider, kept on the disk until they are done or taken back.

Decides: when a download begins, pauses and is tried again (the rules are `core.downloads`'s).
Must not: delete a model, or go on with what the user took back.

What runs when the process is killed is on the disk as running, and is queued again at the next start;
providers go on from their partial files.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import aclosing

from tray_valet.core import downloads as rules
from tray_valet.core import events as ev
from tray_valet.core.downloads import Download, DownloadState, PullProgress
from tray_valet.core.errors import DiskFull, NotFound, QueueFull, Refused, ValetError
from tray_valet.core.events_disk import (
    DownloadCancelled,
    DownloadFailed,
    DownloadFinished,
    DownloadProgressed,
)
from tray_valet.core.models import ModelRef, check_model_name
from tray_valet.core.ports import Clock
from tray_valet.services.disk_guard import DiskGuard
from tray_valet.services.download_book import DownloadBook
from tray_valet.services.fleet import Fleet, Slot

_LOG = logging.getLogger(__name__)
_TELL_EVERY_S = 0.25
_KEEP_EVERY_S = 5.0  # how far a download is; a start finds out anyway
_LOOK_S = 1.0  # a provider may have come back, a game may have ended
_STOP_S = 3.0


class Downloads:
    """Owns the queue. `is_held`: something else has the machine now, so that disk and network are left alone.

    Everything runs on the loop thread; `run` does the work until it is cancelled.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        book: DownloadBook,
        guard: DiskGuard,
        is_held: Callable[[], bool],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._record = record
        self._book = book
        self._guard = guard
        self._is_held = is_held
        self._queue = rules.Queue()
        self._work: dict[str, asyncio.Task[None]] = {}  # by the download's id
        self._began_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}
        self._kept_s = 0.0
        self._woken = asyncio.Event()
        self._ended = asyncio.Condition()

    # -- what is ---------------------------------------------------------------------------------------

    def all(self) -> tuple[Download, ...]:
        """Every download: those that have not ended in their order, then the ended ones, newest first."""
        ended = sorted((d for d in self._queue.downloads if d.has_ended), key=lambda d: -(d.ended_at or 0.0))
        return (*self._queue.waiting, *ended)

    def active(self, ref: ModelRef) -> Download | None:
        """The download of a model that has not ended."""
        return self._queue.active(ref)

    # -- what is asked ---------------------------------------------------------------------------------

    async def pull(self, slot: Slot, model: str, *, is_declared: bool = False) -> Download:
        """Queue a model at a provider; the download that there is already, if it has not ended.

        Returns when it is on the disk. Raises NotSupported, DiskFull, QueueFull. `is_declared`: nobody waits
        for the answer, so that one for which there is no room is queued, and tried again, all the same.
        """
        ref = ModelRef(slot.name, slot.provider.canonical(check_model_name(model)))
        if (present := self._queue.active(ref)) is not None:
            return present
        if not slot.provider.can_pull:
            await slot.provider.pull(ref.model).aclose()  # says why not, and what can be done
        if not is_declared:
            await self._guard.check(slot.provider)
        if (present := self._queue.active(ref)) is not None:
            return present  # asked for twice at the same time
        if len(self._queue.waiting) >= rules.MAX_WAITING:
            raise QueueFull(f"{rules.MAX_WAITING} downloads wait already.", retry_after_s=60.0)
        download = Download(
            id=secrets.token_hex(6),
            provider=ref.provider,
            model=ref.model,
            added_at=self._clock.wall_s(),
            state=DownloadState.PAUSED if self._is_held() else DownloadState.QUEUED,
        )
        self._queue = rules.added(self._queue, download)
        await self._book.keep(self._queue)
        self._tell(download.id, is_news=True)
        self._woken.set()
        return self._queue.find(download.id)

    async def cancel(self, download_id: str) -> Download:
        """Take a download back for good. Raises NotFound; Refused for one that has ended."""
        download = self._queue.find(download_id)
        if download.has_ended:
            raise Refused(f"The download of {download.model} has ended ({download.state.value}).", param="id")
        self._queue = rules.cancelled(self._queue, download_id, self._clock.wall_s())
        await self._book.keep(self._queue)  # before it is ended: a kill in between must not bring it back
        await self._stop(download_id)
        self._record(DownloadCancelled(id=download.id, provider=download.provider, model=download.model))
        await self._note_end(download_id)
        return self._queue.get(download_id) or download

    async def wait(self, download_id: str) -> Download:
        """Return the download once it has ended, however long that takes."""
        async with self._ended:
            while not (latest := self._queue.find(download_id)).has_ended:
                await self._ended.wait()
        return latest

    # -- the work --------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take over what the last run left; at the start, before anything else is asked."""
        self._queue = rules.released(self._book.read())

    async def run(self) -> None:
        """Begin what is due, until cancelled."""
        try:
            while True:
                await self._look()
                try:
                    async with asyncio.timeout(_LOOK_S if self._queue.waiting else None):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()
        finally:
            for download_id in tuple(self._work):
                await self._stop(download_id)

    def look_soon(self) -> None:
        """Something has changed that may hold downloads or let them go on."""
        self._woken.set()

    async def _look(self) -> None:
        if self._is_held():
            for download_id in tuple(self._work):
                await self._stop(download_id)
            await self._replace(rules.held(self._queue))
            return
        states = {d.state for d in self._queue.waiting}
        if DownloadState.PAUSED in states or (DownloadState.RUNNING in states and not self._work):
            await self._replace(rules.released(self._queue))
        for provider in {d.provider for d in self._queue.waiting}:
            download = rules.next_of(self._queue, provider, self._clock.wall_s())
            slot = self._fleet.slots.get(provider)
            if download is not None and slot is not None and slot.is_down:
                why = f"waiting until {provider} answers"
                await self._replace(rules.waiting_for(self._queue, download.id, why))
            elif download is not None:
                self._queue = rules.began(self._queue, download.id)
                self._began_s.setdefault(download.id, self._clock.monotonic_s())
                task = asyncio.create_task(self._guarded(download), name=f"download {download.model}")
                self._work[download.id] = task

    async def _replace(self, queue: rules.Queue) -> None:
        changed = [new for new in queue.downloads if new not in self._queue.downloads]
        if not changed:
            return
        self._queue = queue
        await self._book.keep(queue)
        for download in changed:
            self._tell(download.id, is_news=True)

    async def _guarded(self, download: Download) -> None:
        try:
            await self._download(download)
        except ValetError as error:
            is_final = isinstance(error, Refused) and not isinstance(error, DiskFull)
            await self._note_failure(download, str(error), is_final=is_final)
        except Exception:  # noqa: BLE001  a task guard
            _LOG.exception("The download of %s failed unexpectedly", download.model)
            await self._note_failure(download, "Something went wrong; the log says what.", is_final=False)
        finally:
            if self._work.get(download.id) is asyncio.current_task():
                del self._work[download.id]
            self._woken.set()

    async def _download(self, download: Download) -> None:
        slot = self._fleet.slots.get(download.provider)
        if slot is None:
            raise NotFound(f"There is no provider called “{download.provider}” any more.")
        await self._guard.check(slot.provider)
        await self._book.keep(self._queue)
        async with aclosing(slot.provider.pull(download.model)) as news:
            async for progress in news:
                await self._note_progress(download.id, progress)
        await self._fleet.list_models(0.0, [slot])  # it is another one now
        await self._note_done(download)

    async def _note_progress(self, download_id: str, progress: PullProgress) -> None:
        before = self._queue.find(download_id)
        self._queue = rules.progressed(self._queue, download_id, progress)
        self._tell(download_id, is_news=before.status == "" and bool(progress.status))
        now_s = self._clock.monotonic_s()
        if now_s - self._kept_s >= _KEEP_EVERY_S:
            self._kept_s = now_s
            await self._book.keep(self._queue)

    async def _note_done(self, download: Download) -> None:
        self._queue = rules.finished(self._queue, download.id, self._clock.wall_s())
        done = self._queue.get(download.id) or download
        took_s = self._clock.monotonic_s() - self._began_s.get(download.id, self._clock.monotonic_s())
        await self._book.keep(self._queue)
        if done.state is DownloadState.DONE:
            self._record(
                DownloadFinished(
                    id=done.id,
                    provider=done.provider,
                    model=done.model,
                    size_bytes=done.completed_bytes,
                    took_s=took_s,
                )
            )
        await self._note_end(download.id)

    async def _note_failure(self, download: Download, message: str, *, is_final: bool) -> None:
        self._queue = rules.failed(self._queue, download.id, message, self._clock.wall_s(), is_final=is_final)
        now = self._queue.get(download.id) or download
        await self._book.keep(self._queue)
        if now.state is DownloadState.FAILED:
            self._record(DownloadFailed(id=now.id, provider=now.provider, model=now.model, message=message))
            await self._note_end(download.id)
        else:
            _LOG.info("The download of %s failed and is tried again: %s", download.model, message)
            self._tell(download.id, is_news=True)

    async def _note_end(self, download_id: str) -> None:
        self._tell(download_id, is_news=True)
        self._began_s.pop(download_id, None)
        self._told_s.pop(download_id, None)
        async with self._ended:
            self._ended.notify_all()

    def _tell(self, download_id: str, *, is_news: bool) -> None:
        """Pass on how far it is, four times a second at most unless it is news."""
        now_s = self._clock.monotonic_s()
        if not is_news and now_s - self._told_s.get(download_id, float("-inf")) < _TELL_EVERY_S:
            return
        self._told_s[download_id] = now_s
        if (found := self._queue.get(download_id)) is not None:
            self._record(DownloadProgressed(download=found))

    async def _stop(self, download_id: str) -> None:
        """End the work on a download, bounded. The provider ends with the connection."""
        task = self._work.pop(download_id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=_STOP_S)
