"""The pauses that somebody asks for: by the user, or by a program, and the user's word that ends them.

Decides: what such a wish means in holds, and how long its effect is waited for. Must not: evict or restore
(the watchdog has that done), or touch the holds of games and pressure but to run in spite of them.
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import InvalidValue, Refused
from tray_valet.core.holds import Cause, Hold, HoldKind, ProgramCause, UserCause
from tray_valet.core.holds import find as find_hold
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.watchdog import State
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.watchdog import Watchdog

_RESUME_WAIT_S = 10.0
_PAUSE_MARGIN_S = 5.0
_PAUSED = frozenset({State.PAUSED})
_AWAKE = frozenset({State.RUNNING, State.PROVIDER_DOWN})
_USER_HOLD = "user"
_LONGEST_S = 366 * 86400.0


class Pauses:
    """Lives on the loop. The user's own pauses are kept in the journal, over a restart."""

    def __init__(
        self,
        clock: Clock,
        table: ProcessTable,
        holds: HoldBook,
        journal: JournalBook,
        watchdog: Watchdog,
        eviction: Callable[[], EvictionSettings],
    ) -> None:
        self._clock = clock
        self._table = table
        self._holds = holds
        self._journal = journal
        self._watchdog = watchdog
        self._eviction = eviction

    async def pause(self, reason: str, *, is_forced: bool, for_s: float | None, pid: int | None) -> State:
        """As `core.commands.Valet.pause`."""
        hold = self._hold(_USER_HOLD, "user", UserCause(reason=reason.strip()[:200]), for_s, pid)
        if is_forced:
            self._watchdog.force()
        return await self._place(hold)

    async def place(self, owner: str, reason: str, ttl_s: float | None, pid: int | None) -> Hold:
        """As `core.commands.Valet.place_hold`."""
        owner = owner.strip()
        if not owner or len(owner) > 100:
            raise InvalidValue("Say who asks, in 1 to 100 characters.", param="owner")
        cause = ProgramCause(owner=owner, reason=reason.strip()[:200])
        hold = self._hold(self._holds.new_id("hold"), owner, cause, ttl_s, pid)
        await self._place(hold)
        return hold

    async def resume(self) -> State:
        """As `core.commands.Valet.resume`."""
        self._holds.resume_by_user()
        self._watchdog.resume_anyway()
        await self._note_holds()
        return await self._watchdog.settled(_AWAKE, _RESUME_WAIT_S)

    async def end(self, hold_id: str) -> None:
        """As `core.commands.Valet.end_hold`."""
        hold = find_hold(self._holds.holds, hold_id)
        if hold.kind is not HoldKind.USER:
            raise Refused(
                f"The hold {hold_id!r} belongs to the valet.", remedy="Resume to keep running in spite of it."
            )
        self._holds.end(hold_id)
        await self._note_holds()

    def _hold(self, hold_id: str, owner: str, cause: Cause, for_s: float | None, pid: int | None) -> Hold:
        if for_s is not None and not 0 < for_s <= _LONGEST_S:
            raise InvalidValue("Use more than 0 seconds and at most a year.", param="ttl_seconds")
        return Hold(
            id=hold_id,
            kind=HoldKind.USER,
            owner=owner,
            cause=cause,
            since=self._clock.wall_s(),
            expires_at_s=None if for_s is None else self._clock.monotonic_s() + for_s,
            process=self._process(pid),
        )

    def _process(self, pid: int | None) -> ProcessIdentity | None:
        if pid is None:
            return None
        process = self._table.describe(pid) if pid > 0 else None
        if process is None:
            raise InvalidValue(f"There is no process {pid}.", param="pid")
        return process.identity

    async def _place(self, hold: Hold) -> State:
        self._holds.place(hold)
        await self._note_holds()
        eviction = self._eviction()
        bound_s = float(eviction.drain_seconds) + float(eviction.kill_after_seconds)
        return await self._watchdog.settled(
            _PAUSED, bound_s + float(eviction.confirm_seconds) + _PAUSE_MARGIN_S
        )

    async def _note_holds(self) -> None:
        await self._journal.note_holds(self._holds.holds.active, self._clock.monotonic_s())
