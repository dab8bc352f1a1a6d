"""The loop thread: one event loop beside the main thread, and signals that reach it from there.

Decides: how a signal gets from the main thread to the loop, even while the main thread sits in native code.
Must not: know what runs on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Set
from types import FrameType
from typing import Any

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last two each on some systems only
_READ_BYTES = 64


class LoopThread:
    """Runs `work` on an event loop in a thread of its own; `on_end` is called there, however it ends.

    `loop_factory` None: asyncio's own loop.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, None]],
        on_end: Callable[[], None],
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._work = work
        self._on_end = on_end
        self._loop_factory = loop_factory
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="services")

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end. Raises what the work raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._work())
        except BaseException as error:  # noqa: BLE001  # raised again by `join`, in the main thread
            self._error = error
        finally:
            self._on_end()


class EndSignals:
    """Ctrl-C, SIGTERM and a closed terminal, told to the loop; the first is enough, more change nothing.

    Python runs signal handlers in the main thread, between two steps of Python code. A tray may keep that
    thread in native code for hours (Windows, macOS), so the interpreter's wake-up socket is used: it is
    written to at the very moment a signal comes, and read on the loop.
    Source: docs.python.org, `signal.set_wakeup_fd`.
    """

    def __init__(self) -> None:
        self._ours: Set[int] = frozenset()
        self._read_end, self._write_end = socket.socketpair()
        self._read_end.setblocking(False)
        self._write_end.setblocking(False)

    @contextlib.contextmanager
    def caught(self, *, are_last: bool = False) -> Iterator[None]:
        """Catch the signals while this lasts. Main thread only. More: `end_signals_handled`."""
        caught = end_signals_handled(_do_nothing, are_last=are_last)
        with self._read_end, self._write_end, caught as self._ours:
            wakeup = signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(wakeup)

    async def wait(self) -> None:
        """Return when one of the signals has come. Runs on the loop."""
        loop = asyncio.get_running_loop()
        while numbers := await loop.sock_recv(self._read_end, _READ_BYTES):
            if not self._ours.isdisjoint(numbers):
                return


@contextlib.contextmanager
def end_signals_handled(
    handler: Callable[[int, FrameType | None], object], *, are_last: bool = False
) -> Iterator[Set[int]]:
    """Have `handler` called for the signals that end a program, whose numbers are given; main thread only.

    Ignored ones (nohup) stay ignored. `are_last`: the process ends after it, and one that comes meanwhile
    does not end it otherwise. From first to last no signal finds its default: an event loop's own handlers
    would put it back for a moment.
    """
    before = {}
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield set(map(int, before))
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_IGN if are_last else earlier)


def _do_nothing(*_: Any) -> None:
    """The socket has told it already; without a handler Python would not write to it."""
