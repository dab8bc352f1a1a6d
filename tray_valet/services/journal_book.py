"""The journal on disk: what must come back, and the user's pauses that a restart must not undo.

Decides: when it is written (before every unload, after every change of what our runners hold).
Must not: load or unload. Every write is whole (temp file, fsync, replace): a kill at any moment leaves
either the old journal or the new one. A disk that takes no write is said, and keeps nobody from making
room for a game: the journal is then in memory alone until a later write goes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.holds import Hold, HoldKind, UserCause
from tray_valet.core.journal import Journal, JournalEntry, PersistedHold, merged
from tray_valet.core.models import ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.processes import ProcessIdentity
from tray_valet.services.kept_file import read_kept


class JournalBook:
    """Owns the journal. `write` puts bytes at a path atomically and durably; it runs in a thread."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        write: Callable[[Path, bytes], None],
        record: Callable[[ev.Fact], None],
    ) -> None:
        self._path = path
        self._clock = clock
        self._write = write
        self._record = record
        self._is_on_disk = True
        self._lock = asyncio.Lock()
        self.journal = Journal()
        self.was_interrupted = False
        self.was_paused = False  # at the end of the last run

    def read(self) -> None:
        """Read what the last run left."""
        found = read_kept(self._path, msgspec.json.Decoder(Journal).decode, "The journal")
        if found is None:
            return
        self.was_interrupted = not found.clean_exit
        self.was_paused = bool(found.set_aside)
        if not found.clean_exit:
            # What our own runners held died with us: bring it back as well.
            found = msgspec.structs.replace(found, set_aside=merged(found.set_aside, found.residents))
        self.journal = msgspec.structs.replace(found, residents=())

    @property
    def missing(self) -> tuple[JournalEntry, ...]:
        """What is set aside and has to come back."""
        return self.journal.set_aside

    async def note_set_aside(self, found: tuple[JournalEntry, ...]) -> None:
        """Add what is about to be unloaded to what still has to come back; on disk when this returns."""
        if merged(self.missing, found) != self.missing or not self._is_on_disk:
            await self._save(lambda j: {"set_aside": merged(j.set_aside, found)})

    async def forget(self, refs: Collection[ModelRef]) -> None:
        """Strike models off: they do not come back."""
        if any(entry.ref in refs for entry in self.missing):
            await self._save(lambda j: {"set_aside": _without(j.set_aside, refs)})

    async def note_residents(self, entries: tuple[JournalEntry, ...]) -> None:
        """Note what our own runners hold now."""
        if _names(entries) != _names(self.journal.residents) or not self._is_on_disk:
            await self._save(lambda _: {"residents": entries})

    async def finish_restore(
        self, settled: Collection[ModelRef], residents: tuple[JournalEntry, ...]
    ) -> None:
        """In one write: `settled` are back or given up, and this is what our runners hold."""
        await self._save(lambda j: {"set_aside": _without(j.set_aside, settled), "residents": residents})

    async def note_holds(self, holds: tuple[Hold, ...], now_s: float) -> None:
        """Keep the user's own pauses over a restart."""
        kept = tuple(
            _persisted(h, now_s, self._clock.wall_s())
            for h in holds
            if h.kind is HoldKind.USER and isinstance(h.cause, UserCause)
        )
        if kept != self.journal.holds:
            await self._save(lambda _: {"holds": kept})

    async def close(self) -> None:
        """Say that we ended in order: what runs now is left as it is, what is set aside stays noted."""
        await self._save(lambda _: {"clean_exit": True})

    async def _save(self, change: Callable[[Journal], dict[str, object]]) -> None:
        # A task of its own: a caller that is cancelled must not let a later write overtake this one.
        await asyncio.shield(asyncio.create_task(self._apply(change), name="write the journal"))

    async def _apply(self, change: Callable[[Journal], dict[str, object]]) -> None:
        async with self._lock:
            changed = {"clean_exit": False, **change(self.journal), "written_at": self._clock.wall_s()}
            self.journal = msgspec.structs.replace(self.journal, **changed)
            try:
                await asyncio.to_thread(self._write, self._path, msgspec.json.encode(self.journal))
            except OSError as error:
                if self._is_on_disk:
                    self._record(ev.JournalUnwritable(path=str(self._path), message=_said(error)))
                self._is_on_disk = False
            else:
                self._is_on_disk = True


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def _without(entries: tuple[JournalEntry, ...], refs: Collection[ModelRef]) -> tuple[JournalEntry, ...]:
    return tuple(entry for entry in entries if entry.ref not in refs)


def _names(entries: tuple[JournalEntry, ...]) -> list[tuple[object, ...]]:
    """What makes a difference: the time left changes at every look and is not worth a write."""
    return [(e.provider, e.model, e.context_length) for e in entries]


def _persisted(hold: Hold, now_s: float, wall_s: float) -> PersistedHold:
    until = None if hold.expires_at_s is None else round(wall_s + hold.expires_at_s - now_s, 0)
    return PersistedHold(
        id=hold.id,
        reason=hold.cause.reason if isinstance(hold.cause, UserCause) else "",
        since=hold.since,
        until=until,
        pid=hold.process.pid if hold.process else None,
        pid_start_time=hold.process.start_time if hold.process else None,
    )


def hold_from(kept: PersistedHold, now_s: float, wall_s: float) -> Hold:
    """Make the hold of a persisted pause again; one whose time is up has `expires_at_s` in the past."""
    process = (
        ProcessIdentity(kept.pid, kept.pid_start_time)
        if kept.pid is not None and kept.pid_start_time is not None
        else None
    )
    return Hold(
        id=kept.id,
        kind=HoldKind.USER,
        owner="user",
        cause=UserCause(reason=kept.reason),
        since=kept.since,
        expires_at_s=None if kept.until is None else now_s + (kept.until - wall_s),
        process=process,
    )
