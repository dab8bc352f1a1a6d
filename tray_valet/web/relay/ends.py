"""How others end a request that is being worked on: its client left, a game started, the engine is silent.

Decides: nothing; it carries the reason to whoever works on the request. No task watches for these: each is a
callback that cancels what the request's task waits for, whatever that is, and the reason is picked up where
the cancellation arrives (as `asyncio.timeout` does it). Must not: end a request that nobody works on yet; it
finds the reason when somebody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tray_valet.core.errors import Paused, TimedOut


class Ends:
    """The ends of one request. The first reason counts, except that a final one comes before all others."""

    __slots__ = ("_final", "_is_cancelled", "_is_open", "_on_end", "_task", "_why")

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._on_end: Callable[[], None] | None = None
        self._why: Exception | None = None
        self._final: Exception | None = None
        self._is_open = True
        self._is_cancelled = False  # the task, for the sake of a reason that was not picked up yet

    def attach(self, task: asyncio.Task[None] | None) -> None:
        """`task` works on the request from here on, and is cancelled when it is to end."""
        self._task, self._on_end = task, None

    def when_ended(self, call: Callable[[], None]) -> None:
        """No task works on the request: have `call` called once when it is to end."""
        self._on_end = call

    @property
    def final(self) -> Exception | None:
        """Why the request as a whole is over; None = it is not."""
        return self._final

    def end(self, why: Exception) -> None:
        """End what is being tried now. Call it from a callback of the loop, not from the task itself."""
        if self._is_open and self._why is None and self._final is None:
            self._why = why
            self._stir()

    def end_all(self, why: Exception) -> None:
        """End the request as a whole."""
        if not self._is_open or self._final is not None:
            return
        self._final = why
        if self._why is None:
            self._stir()

    def reason(self) -> Exception | None:
        """Why the request, or what was tried, is to end; None: it is not. Of a cancellation that has arrived:
        None where it is not one of ours, and is to be passed on."""
        why, self._why = self._final or self._why, None
        if why is not None and self._is_cancelled:
            self._is_cancelled = False
            assert self._task is not None
            if self._task.uncancel() > 0:
                return None
        return why

    def close(self) -> None:
        """Nothing is to be ended any more."""
        self._is_open = False
        self._on_end = None

    def _stir(self) -> None:
        if self._task is not None:
            self._is_cancelled = True
            self._task.cancel()
        elif self._on_end is not None:
            call, self._on_end = self._on_end, None
            call()


def shutting_down() -> Paused:
    """Why an answer ends when the valet itself does."""
    return Paused("Tray Valet is shutting down.", retry_after_s=10.0)


class Silence:
    """How long one engine has been waited for. `since_s` in loop time; None = it is not waited for."""

    __slots__ = ("_loop", "ends", "is_heard", "limit_s", "since_s", "what")

    def __init__(self, ends: Ends, loop: asyncio.AbstractEventLoop, limit_s: float, what: object) -> None:
        self.ends = ends
        self.limit_s = limit_s
        self.what = what
        self._loop = loop
        self.since_s: float | None = None
        self.is_heard = False  # since the watch has looked: the time is not asked for each piece

    def begins(self) -> None:
        """The engine is waited for from now on."""
        self.since_s = self._loop.time()

    def is_over(self) -> None:
        """It has said something."""
        self.since_s = None


class SilenceWatch:
    """Ends what is being tried when an engine says nothing for too long; one timer looks at all of them.

    Must not: be exact: it looks every quarter of a second.
    """

    def __init__(self, *, look_s: float = 0.25) -> None:
        self._look_s = look_s
        self._loop: asyncio.AbstractEventLoop | None = None  # asking each time calls the system
        self._watched: set[Silence] = set()
        self._timer: asyncio.TimerHandle | None = None

    def silence(self, ends: Ends, limit_s: float, what: object) -> Silence:
        """`what` (whose text names it) may be silent for `limit_s` seconds, once that is watched."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return Silence(ends, loop, limit_s, what)

    def watch(self, silence: Silence) -> None:
        """Begin to watch; `forget` is due."""
        self._watched.add(silence)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._look_s, self._look, loop)

    def forget(self, silence: Silence) -> None:
        """Watch it no more."""
        self._watched.discard(silence)

    def close(self) -> None:
        """Watch nothing."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for silence in tuple(self._watched):
            if silence.is_heard:
                silence.is_heard = False
                if silence.since_s is not None:
                    silence.since_s = now_s
            since_s = silence.since_s
            if since_s is not None and now_s - since_s >= silence.limit_s:
                self._watched.discard(silence)
                silence.ends.end(
                    TimedOut(
                        f"{silence.what} was silent for {silence.limit_s:g} seconds.",
                        remedy="Slow models need a larger router.request_timeout_seconds.",
                    )
                )
        self._timer = loop.call_later(self._look_s, self._look, loop) if self._watched else None
