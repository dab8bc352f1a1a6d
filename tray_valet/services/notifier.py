"""The notifier: follows the activity, shows what is news, and does what the user answers.

Decides: that notices are wanted (`desktop.notifications`), their pace, and what a choice means as a
command. Must not: word notices (`core/notice_words.py`) or know how a system shows them (the port does).
Everything told stands in the activity as well, so a notice that cannot be shown loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.commands import RecordedFact, Valet
from tray_valet.core.errors import ValetError
from tray_valet.core.notice_book import NoticeBook, Pace, due, noted
from tray_valet.core.notices import OPEN, ChoiceKind, Notice, Subject
from tray_valet.core.ports import Clock, Notifier

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.25  # a burst of facts is looked at as one
_MOST_ANSWERS = 8  # at work at the same time
_ANSWER_TIMEOUT_S = 600.0  # a load may take minutes
DEFAULT_PACE = Pace()


class NotifierService:
    """Owns the book of notices. Everything runs on the loop thread.

    `keep_running` overrides these holds. `open_window` is set where there is a window to open.
    """

    def __init__(
        self,
        valet: Valet,
        notifier: Notifier,
        clock: Clock,
        keep_running: Callable[[frozenset[str]], None],
        *,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self._valet = valet
        self._notifier = notifier
        self._clock = clock
        self._keep_running = keep_running
        self._pace = pace
        self._book = NoticeBook()
        self._on_screen: dict[Subject, Notice] = {}
        self._answers: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._said_missing: str | None = None
        self.open_window: Callable[[], None] | None = None
        notifier.listen(self._on_choice)

    @property
    def missing_because(self) -> str | None:
        """Why notices are not seen; None when they are, or none was due yet."""
        return self._notifier.missing_because

    def note(self, fact: ev.Fact) -> None:
        """Take a fact in; whether it is told is decided later."""
        book = noted(self._book, fact, self._clock.monotonic_s(), self._pace)
        if book is not self._book or book.told:
            self._woken.set()
        self._book = book

    async def run(self) -> None:
        """Follow, show and answer until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._follow(), name="notices: follow")
                showing = tasks.create_task(self._show_forever(), name="notices: show")
                await following  # ends when the valet does
                showing.cancel()
        finally:
            for answer in self._answers:
                answer.cancel()
            await self._notifier.close()

    async def _follow(self) -> None:
        async for seen in self._valet.follow():
            if isinstance(seen, RecordedFact):
                self.note(seen.fact)
            else:
                self._woken.set()

    # -- showing -------------------------------------------------------------------------------------

    async def _show_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._wait_s()):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            await self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _wait_s(self) -> float | None:
        due_s = self._book.next_due_s
        return None if due_s is None else max(0.0, due_s - self._clock.monotonic_s())

    async def _look(self) -> None:
        """Show and take back what is due; the book is changed before anything is waited for."""
        found = due(self._book, self._valet.snapshot(), self._clock.monotonic_s(), self._pace)
        self._book = found.book
        for subject in found.to_withdraw:
            if self._on_screen.pop(subject, None) is not None:
                await self._notifier.withdraw(subject)
        if not self._valet.settings.desktop.notifications:
            return
        for notice in found.to_show:
            if notice.subject not in found.to_withdraw:
                await self._show(notice)

    async def _show(self, notice: Notice) -> None:
        if self.open_window is not None:
            notice = msgspec.structs.replace(notice, choices=(*notice.choices, OPEN))
        self._on_screen[notice.subject] = notice
        await self._notifier.show(notice, has_sound=self._valet.settings.desktop.notification_sound)
        missing = self._notifier.missing_because
        if missing is not None and missing != self._said_missing:
            _LOG.warning("Notifications are not seen: %s They stand in the activity.", missing)
        self._said_missing = missing

    # -- what the user answers -----------------------------------------------------------------------

    def _on_choice(self, subject: Subject, choice: ChoiceKind) -> None:
        notice = self._on_screen.get(subject)
        if notice is None or len(self._answers) >= _MOST_ANSWERS:
            return
        task = asyncio.create_task(self._guarded(choice, notice), name=f"notices: {choice.value}")
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _guarded(self, choice: ChoiceKind, notice: Notice) -> None:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await self._answer(choice, notice)
        except (TimeoutError, ValetError) as error:
            _LOG.warning("The answer %r to “%s” had no effect: %s", choice.value, notice.title, error)
        except Exception:  # noqa: BLE001  # a task guard
            _LOG.exception("The answer %r to “%s” failed", choice.value, notice.title)

    async def _answer(self, choice: ChoiceKind, notice: Notice) -> None:
        match choice:
            case ChoiceKind.OPEN:
                if self.open_window is not None:
                    self.open_window()
            case ChoiceKind.KEEP_RUNNING:
                self._keep_running(frozenset(notice.hold_ids))
            case ChoiceKind.TRY_AGAIN:
                await asyncio.gather(*map(self._try_again, notice.about))
            case ChoiceKind.STEP_ASIDE:
                for fact in notice.about:
                    if isinstance(fact, ev.GameStarted):
                        await self._valet.place_hold(owner=fact.name, reason="chosen by you", pid=fact.pid)
            case ChoiceKind.NOT_THIS_TIME:
                pass

    async def _try_again(self, fact: ev.Fact) -> None:
        if isinstance(fact, ev.RestoreFailed):
            await self._valet.load(fact.model, num_ctx=fact.context_length, provider=fact.provider or None)
        elif isinstance(fact, ev.RunnerGivenUp):
            await self._valet.load(fact.model, provider=fact.provider)
        elif isinstance(fact, ev.LoadRefused):
            await self._valet.load(fact.model)
