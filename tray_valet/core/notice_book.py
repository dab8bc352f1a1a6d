"""The book of notices: what waits to be said, what has been said, and what of it no longer holds.

Decides: which facts are news, how several become one, how long a success must last to be told, and when
a notice is taken back. Must not: show anything, word anything (`notice_words.py`), or read a clock.

A success is told after it has lasted `settle_s`; failures gather for `gather_s`. Both are checked against
the picture at that moment, so whatever has come and gone meanwhile is never told. There is at most one
entry a subject, and an entry keeps a bounded number of facts: a burst cannot make the book grow.
"""

from __future__ import annotations

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.events_disk import DownloadFailed, DownloadFinished
from tray_valet.core.events_providers import ProviderLost
from tray_valet.core.notice_words import worded
from tray_valet.core.notices import Notice, Subject
from tray_valet.core.snapshot import Snapshot
from tray_valet.core.watchdog import State

_KEPT_FACTS = 16
_REPEAT_S = 600.0  # the same words about a trouble that stands are not said again before that
_AWAKE = (State.RUNNING, State.RESUMING, State.PROVIDER_DOWN)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long things must last before they are told, in seconds."""

    settle_s: float = 2.0  # a success
    gather_s: float = 1.0  # a failure


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one subject that are looked at again at `due_s` (monotonic seconds)."""

    facts: tuple[ev.Fact, ...]
    due_s: float


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that was shown at `at_s` (monotonic seconds)."""

    notice: Notice
    at_s: float


class NoticeBook(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that notices need to remember."""

    waiting: dict[Subject, Waiting] = {}
    told: dict[Subject, Told] = {}
    has_told_pause: bool = False
    failed: tuple[ev.RestoreFailed, ...] = ()  # in the restore that runs, or was the last one

    @property
    def next_due_s(self) -> float | None:
        """When to look at the book again; None = when something happens."""
        return min((entry.due_s for entry in self.waiting.values()), default=None)


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """The book after a look, the notices to show now, and the subjects whose notice is to be taken back."""

    book: NoticeBook
    to_show: tuple[Notice, ...] = ()
    to_withdraw: tuple[Subject, ...] = ()


# -- facts come in -----------------------------------------------------------------------------------


def noted(book: NoticeBook, fact: ev.Fact, now_s: float, pace: Pace) -> NoticeBook:
    """The book with a fact taken in; most facts are no news and change nothing."""
    match fact:
        case ev.StateChanged():
            return _state_noted(book, fact)
        case ev.ModelsSetAside(models=models):
            if not models or book.has_told_pause:
                return book  # nothing was loaded, or a model came back in mid-pause and is out again
            earlier = _kept(book, Subject.MODELS, ev.ModelsSetAside)
            return _wait(book, Subject.MODELS, (*earlier, fact), now_s + pace.settle_s)
        case ev.ModelsBroughtBack(models=models):
            if not models:
                return book
            crash = _kept(book, Subject.MODELS, ev.ValetStarted)
            return _wait(book, Subject.MODELS, (*crash, *book.failed, fact), now_s + pace.settle_s)
        case ev.ValetStarted(interrupted_models=models):
            return _wait(book, Subject.MODELS, (fact,), now_s + pace.settle_s) if models else book
        case ev.RestoreFailed():
            return _restore_failure_noted(book, fact, now_s + pace.gather_s)
    subject = _subject_of(fact)
    return _gathered(book, subject, fact, now_s + pace.gather_s) if subject is not None else book


def _subject_of(fact: ev.Fact) -> Subject | None:
    """The subject of what is told as it is, after gathering; None for all that is no news."""
    match fact:
        case ev.LoadRefused():
            return Subject.LOAD_FAILED
        case ev.PauseUnfinished():
            return Subject.PAUSE_TAKES_LONG
        case ev.MemoryStillHeld():
            return Subject.MEMORY_HELD
        case ev.ModelReloadedDuringPause(times=times):
            return Subject.RELOADED if times == 1 else None  # a program that goes on is no news
        case ProviderLost():
            return Subject.PROVIDER
        case ev.RunnerCrashed() | ev.RunnerGivenUp():
            return Subject.CRASH
        case DownloadFinished() | DownloadFailed():
            return Subject.DOWNLOAD
        case ev.SettingsBroken():
            return Subject.SETTINGS
        case ev.JournalUnwritable() | ev.Overcommitted():
            return Subject.ATTENTION
        case ev.GameStarted(action="ask"):
            return Subject.QUESTION
    return None


def _state_noted(book: NoticeBook, fact: ev.StateChanged) -> NoticeBook:
    if fact.after in _AWAKE:
        book = msgspec.structs.replace(book, has_told_pause=False)
    if fact.after is State.RESUMING:
        book = msgspec.structs.replace(book, failed=())
    return book


def _restore_failure_noted(book: NoticeBook, fact: ev.RestoreFailed, due_s: float) -> NoticeBook:
    """A model that is tried again is no news yet, and what the loader said of it is said better here."""
    refused = tuple(
        f
        for f in _kept(book, Subject.LOAD_FAILED, ev.LoadRefused)
        if isinstance(f, ev.LoadRefused) and f.model != fact.model
    )
    entry = book.waiting.get(Subject.LOAD_FAILED)
    book = _without(book, Subject.LOAD_FAILED)
    if refused and entry is not None:
        book = _wait(book, Subject.LOAD_FAILED, refused, entry.due_s)
    if fact.next_try_s is not None:
        return book
    book = msgspec.structs.replace(book, failed=(*book.failed, fact)[-_KEPT_FACTS:])
    return _gathered(book, Subject.RESTORE_FAILED, fact, due_s)


def _kept(book: NoticeBook, subject: Subject, kind: type[ev.Fact]) -> tuple[ev.Fact, ...]:
    entry = book.waiting.get(subject)
    return tuple(f for f in entry.facts if isinstance(f, kind)) if entry else ()


def _gathered(book: NoticeBook, subject: Subject, fact: ev.Fact, due_s: float) -> NoticeBook:
    """Facts that follow join the first without putting it off."""
    entry = book.waiting.get(subject)
    if entry is None:
        return _wait(book, subject, (fact,), due_s)
    return _wait(book, subject, (*entry.facts, fact), entry.due_s)


def _wait(book: NoticeBook, subject: Subject, facts: tuple[ev.Fact, ...], due_s: float) -> NoticeBook:
    entry = Waiting(facts=facts[-_KEPT_FACTS:], due_s=due_s)
    return msgspec.structs.replace(book, waiting={**book.waiting, subject: entry})


def _without(book: NoticeBook, subject: Subject) -> NoticeBook:
    if subject not in book.waiting:
        return book
    waiting = {s: entry for s, entry in book.waiting.items() if s is not subject}
    return msgspec.structs.replace(book, waiting=waiting)


# -- notices go out ----------------------------------------------------------------------------------


def due(book: NoticeBook, now: Snapshot, now_s: float, pace: Pace) -> Due:
    """Look at everything whose time has come, and at everything told that may no longer be so."""
    to_show: list[Notice] = []
    for subject, entry in book.waiting.items():
        if entry.due_s > now_s:
            continue
        if subject is Subject.MODELS and _is_unfinished(entry, now):
            book = _wait(book, subject, entry.facts, now_s + pace.settle_s)
            continue
        book = _without(book, subject)
        notice = worded(subject, entry.facts, now)
        if notice is not None and not _is_repetition(book, notice, now_s):
            to_show.append(notice)
            book = _told(book, notice, now_s)
    stale = tuple(t.notice.subject for t in book.told.values() if _is_stale(t.notice, now))
    told = {subject: t for subject, t in book.told.items() if subject not in stale}
    return Due(
        book=msgspec.structs.replace(book, told=told), to_show=tuple(to_show), to_withdraw=tuple(stale)
    )


def _told(book: NoticeBook, notice: Notice, now_s: float) -> NoticeBook:
    told = {**book.told, notice.subject: Told(notice=notice, at_s=now_s)}
    is_pause = any(isinstance(fact, ev.ModelsSetAside) for fact in notice.about)
    return msgspec.structs.replace(book, told=told, has_told_pause=book.has_told_pause or is_pause)


def _is_unfinished(entry: Waiting, now: Snapshot) -> bool:
    """A model came back in mid-pause and is on its way out again: told when that is done."""
    return now.state is State.PAUSING and any(isinstance(fact, ev.ModelsSetAside) for fact in entry.facts)


def _is_repetition(book: NoticeBook, notice: Notice, now_s: float) -> bool:
    """The same trouble in the same words, a while ago; or one that another notice tells already."""
    if notice.subject is Subject.PAUSE_TAKES_LONG and Subject.MEMORY_HELD in book.told:
        return True
    told = book.told.get(notice.subject)
    if told is None or not notice.is_problem or now_s - told.at_s >= _REPEAT_S:
        return False
    return (told.notice.title, told.notice.text) == (notice.title, notice.text)


def _is_stale(notice: Notice, now: Snapshot) -> bool:
    """Whether it stands there with a dead button, or tells of a trouble that is over."""
    if not notice.choices and not notice.is_problem:
        return False
    return worded(notice.subject, notice.about, now) is None
