"""The activity: every fact, kept as a list for people and passed on to whoever follows.

Decides: what is listed, and what a reader that falls behind gets instead (a fresh snapshot).
Must not: act on facts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable

from tray_valet.core import events as ev
from tray_valet.core.commands import RecordedFact
from tray_valet.core.events_disk import DownloadProgressed
from tray_valet.core.fact_sentences import PROBLEM_FACTS, sentence
from tray_valet.core.holds import HoldKind
from tray_valet.core.ports import Clock
from tray_valet.core.snapshot import ActivityEntry, Snapshot

_LOG = logging.getLogger(__name__)
_KEPT_ENTRIES = 500
_KEPT_PER_FOLLOWER = 64


class _Follower:
    """One reader's bounded backlog; when it overflows, the backlog gives way to one snapshot."""

    def __init__(self) -> None:
        self.backlog: deque[RecordedFact] = deque()
        self.has_lagged = True  # so that the first thing read is a snapshot
        self.is_closed = False
        self.woken = asyncio.Event()

    def push(self, fact: RecordedFact) -> None:
        self._drop_older(fact.fact)
        if len(self.backlog) >= _KEPT_PER_FOLLOWER:
            self.backlog.clear()
            self.has_lagged = True
        elif not self.has_lagged:
            self.backlog.append(fact)
        self.woken.set()

    def _drop_older(self, fact: ev.Fact) -> None:
        """Of one download only the newest progress waits to be read."""
        if not isinstance(fact, DownloadProgressed):
            return
        for recorded in self.backlog:
            waiting = recorded.fact
            if isinstance(waiting, DownloadProgressed) and waiting.download.id == fact.download.id:
                self.backlog.remove(recorded)
                return


class Activity:
    """Records facts. Runs on the loop thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: deque[ActivityEntry] = deque(maxlen=_KEPT_ENTRIES)
        self._followers: set[_Follower] = set()
        self._listeners: list[Callable[[ev.Fact], None]] = []
        self._next_id = 1

    def tell(self, listener: Callable[[ev.Fact], None]) -> None:
        """Have `listener` called with every fact from now on, none left out. It must be quick."""
        self._listeners.append(listener)

    def record(self, fact: ev.Fact) -> None:
        """Take a fact down: log it once, list it if people want to read it, pass it on."""
        entry = ActivityEntry(
            id=self._next_id,
            at=self._clock.wall_s(),
            kind=ev.kind_of(fact),
            text=sentence(fact),
            is_problem=isinstance(fact, PROBLEM_FACTS),
        )
        self._next_id += 1
        _LOG.log(
            logging.WARNING if entry.is_problem else logging.DEBUG if _is_step(fact) else logging.INFO,
            "%s",
            entry.text,
            extra={"fact": entry.kind},
        )
        if _is_for_people(fact):
            self._entries.append(entry)
        for tell in self._listeners:
            tell(fact)
        recorded = RecordedFact(entry=entry, fact=fact)
        for follower in self._followers:
            follower.push(recorded)

    def entries(self, limit: int) -> tuple[ActivityEntry, ...]:
        """The newest entries, newest first."""
        return tuple(list(self._entries)[::-1][: max(0, limit)])

    async def follow(self, snapshot: Callable[[], Snapshot]) -> AsyncIterator[Snapshot | RecordedFact]:
        """A snapshot, then each fact; after a gap a snapshot again. Ends with `close`."""
        follower = _Follower()
        self._followers.add(follower)
        try:
            while not follower.is_closed:
                if follower.has_lagged:
                    follower.has_lagged = False
                    follower.backlog.clear()
                    yield snapshot()
                elif follower.backlog:
                    yield follower.backlog.popleft()
                else:
                    follower.woken.clear()
                    await follower.woken.wait()
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """Let every follower end."""
        for follower in self._followers:
            follower.is_closed = True
            follower.woken.set()


def _is_for_people(fact: ev.Fact) -> bool:
    """State changes, steps of a load and game holds repeat what other lines say better."""
    if isinstance(fact, ev.HoldPlaced):
        return fact.hold.kind is not HoldKind.GAME
    return not isinstance(fact, (ev.StateChanged, ev.HoldEnded, *ev.STEPS))


def _is_step(fact: ev.Fact) -> bool:
    return isinstance(fact, ev.STEPS)
