"""The watch over processes: what is looked at when, whichever source the starts come from.

Decides: when a process is looked at, and that each new image and each followed exit is reported once.
Must not: know how starts or exits are noticed (`StartSource`, `ExitSource`), or judge what started.

Three nets, one under the other: the source names PIDs that started something; a young process is looked
at again, since a launcher execs into its game and Wine renames itself after its start; and every 10 s
everything is swept, whatever was missed.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence

from tray_valet.core.errors import NotSupported
from tray_valet.core.processes import Process, ProcessIdentity
from tray_valet.sensing.process_images import ImageTable, SeenImages
from tray_valet.sensing.process_sources import ExitSource, StartSource

_log = logging.getLogger(__name__)

_SWEEP_CHUNK = 50  # processes looked at between two turns of the loop
_TIMER_STEP_S = 0.05  # looks that are due within one step share a wake-up


class SourcedWatch:
    """`ProcessWatch` over the first of `sources` that works here; the last should always work."""

    def __init__(
        self,
        table: ImageTable,
        sources: Sequence[StartSource],
        exits: ExitSource,
        *,
        sweep_every_s: float = 10.0,
    ) -> None:
        self._images = SeenImages(table)
        self._table = table
        self._sources = tuple(sources)
        self._exits = exits
        self._sweep_every_s = sweep_every_s
        self._source: StartSource | None = None
        self._followed: set[ProcessIdentity] = set()
        self._is_running = False
        self._wake = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self._heard: dict[int, None] = {}  # PIDs to look at, in the order heard
        self._ended: list[ProcessIdentity] = []
        self._is_sweep_wanted = True
        self._is_first_sweep = True
        self._sweep_due_s = 0.0
        self._has_source_spoken = False
        self._lost_reason: str | None = None
        self._degraded: list[str] = []
        self._relooks: list[tuple[float, int, int, int, int]] = []  # heap: due_s, order, pid, start, step
        self._order = itertools.count()

    @property
    def source(self) -> str:
        """How it sees: `proc connector`, `poll 4 Hz`; `not started` before `run`."""
        return self._source.name if self._source is not None else "not started"

    @property
    def degraded_because(self) -> str | None:
        """Why a better source is not in use (`proc connector: …`), or None."""
        return "; ".join(self._degraded) or None

    def follow(self, identity: ProcessIdentity) -> None:
        """Report this process's exit, also if it is gone already. Loop thread; may come before `run`."""
        if identity in self._followed:
            return
        self._followed.add(identity)
        if self._is_running:
            self._exits.follow(identity)

    async def run(
        self, on_started: Callable[[Process], None], on_exited: Callable[[ProcessIdentity], None]
    ) -> None:
        """Report until cancelled, on the loop thread; what runs already comes first."""
        self._reset()
        self._exits.open(self._note_exit)
        self._is_running = True
        for identity in tuple(self._followed):
            self._exits.follow(identity)
        try:
            await self._use_source(self._sources)
            while True:
                await self._turn(on_started, on_exited)
        finally:
            self._is_running = False
            if self._source is not None:
                self._source.close()
            self._source = None
            self._exits.close()
            self._images.keep_only(())

    # -- what the sources tell (StartListener) -----------------------------------------------------

    def heard(self, pids: Iterable[int]) -> None:
        """Note that these processes started something."""
        self._has_source_spoken = True
        for pid in pids:
            self._heard[pid] = None
        if self._heard:
            self._wake.set()

    def suspected(self, pids: Iterable[int]) -> None:
        """Note those of the processes whose exe is another than the one last seen."""
        changed = [pid for pid in pids if self._table.exe(pid) != (self._images.exe(pid) or "")]
        if changed:
            self.heard(changed)

    def missed_some(self) -> None:
        """Note that everything must be looked at."""
        self._has_source_spoken = True
        self._is_sweep_wanted = True
        self._wake.set()

    def lost(self, reason: str) -> None:
        """Note that the source works no more."""
        self._lost_reason = reason
        self._wake.set()

    def _note_exit(self, identity: ProcessIdentity) -> None:
        if identity in self._followed:
            self._followed.discard(identity)
            self._ended.append(identity)
            self._wake.set()

    # -- turns -------------------------------------------------------------------------------------

    async def _turn(
        self, on_started: Callable[[Process], None], on_exited: Callable[[ProcessIdentity], None]
    ) -> None:
        """Do all that is due, then sleep until something is."""
        self._wake.clear()
        self._look_at_heard(on_started)
        self._look_at_young(on_started)
        if self._lost_reason is not None:
            await self._fall_back(self._lost_reason)
        ended, self._ended = self._ended, []
        if self._is_sweep_wanted or ended or self._now_s() >= self._sweep_due_s:
            # Before an exit is told, what the process left behind is looked at: a launcher that forked
            # into its game and ended must not look like the game's end.
            await self._sweep(on_started)
        for identity in ended:
            on_exited(identity)
        if self._wake.is_set():
            return
        next_s = min(self._sweep_due_s, self._relooks[0][0] if self._relooks else self._sweep_due_s)
        timer = asyncio.get_running_loop().call_at(next_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _look_at_heard(self, on_started: Callable[[Process], None]) -> None:
        pids, self._heard = self._heard, {}
        for pid in pids:
            self._report(self._images.look(pid), on_started)

    def _look_at_young(self, on_started: Callable[[Process], None]) -> None:
        now_s = self._now_s()
        while self._relooks and self._relooks[0][0] <= now_s:
            _, _, pid, start_time, step = heapq.heappop(self._relooks)
            if self._images.start_time(pid) != start_time:
                continue
            process = self._images.look_again(pid)
            if process is not None:
                self._report(process, on_started)  # which begins its youth anew
            elif self._images.start_time(pid) == start_time:
                self._plan_relook(pid, start_time, step + 1)

    def _report(self, process: Process | None, on_started: Callable[[Process], None]) -> None:
        if process is None:
            return
        on_started(process)
        self._plan_relook(process.identity.pid, process.identity.start_time, 0)

    def _plan_relook(self, pid: int, start_time: int, step: int) -> None:
        ages_s = self._source.relook_ages_s if self._source is not None else ()
        if step < len(ages_s):
            wait_s = ages_s[step] - (ages_s[step - 1] if step else 0.0)
            due_s = (self._now_s() + wait_s) // _TIMER_STEP_S * _TIMER_STEP_S  # rather early than late
            heapq.heappush(self._relooks, (due_s, next(self._order), pid, start_time, step))

    async def _sweep(self, on_started: Callable[[Process], None]) -> None:
        """Look at everything; also forget what is gone."""
        is_first, self._is_first_sweep = self._is_first_sweep, False
        self._is_sweep_wanted = False
        pids = self._table.all_pids()
        self._images.keep_only(pids)
        found = 0
        for number, pid in enumerate(pids, start=1):
            process = self._images.look_again(pid)
            if process is not None:
                found += 1
                if is_first:
                    on_started(process)  # most are old: the next sweep is soon enough for a second look
                else:
                    self._report(process, on_started)
            if number % _SWEEP_CHUNK == 0:
                await asyncio.sleep(0)
                self._look_at_heard(on_started)  # what starts now does not wait for the rest
        self._sweep_due_s = self._now_s() + self._sweep_every_s
        await self._doubt_source(is_suspicious=bool(found) and not is_first)

    # -- sources -----------------------------------------------------------------------------------

    async def _use_source(self, candidates: Sequence[StartSource]) -> None:
        """Open the first source that works; the rest is named in `degraded_because`."""
        for source in candidates:
            try:
                await source.open(self)
            except NotSupported as error:
                source.close()
                self._degraded.append(f"{source.name}: {error.message}")
                continue
            self._source = source
            _log.info("process starts are seen by: %s", source.name)
            return
        raise NotSupported("No source of process starts works here.", remedy=self.degraded_because or "")

    async def _doubt_source(self, *, is_suspicious: bool) -> None:
        """Check a source that said nothing while the sweep found something new."""
        if is_suspicious and not self._has_source_spoken and self._source is not None:
            try:
                await self._source.check()
            except NotSupported as error:
                self._lost_reason = error.message
                self._wake.set()
        self._has_source_spoken = False

    async def _fall_back(self, reason: str) -> None:
        self._lost_reason = None
        lost = self._source
        if lost is None:
            return
        lost.close()
        self._source = None
        self._degraded.append(f"{lost.name}: {reason}")
        await self._use_source(self._sources[self._sources.index(lost) + 1 :])
        _log.warning("%s stopped working (%s); now in use: %s", lost.name, reason, self.source)
        self._is_sweep_wanted = True

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
