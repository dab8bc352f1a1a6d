"""Notices through a function of a foreign library that takes a title and a text: pystray's, plyer's.

Decides: that such a function can neither hold the loop up nor bring anything down. Must not: know the
library. These ways have no answers to choose from, and nothing can be taken back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from tray_valet.core.notices import ChoiceKind, Notice, Subject, TextLimits, fitted

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 5.0

ShowCall = Callable[[str, str], None]  # (title, text)


class CallNotifier:
    """Implements `core.ports.Notifier`. `find_call` gives the function, or None while there is
    none, which `absent` says.

    The function runs in a daemon thread: one that never returns must not keep the program from ending.
    While it has not returned nothing else is shown this way.
    """

    def __init__(
        self,
        source: str,
        limits: TextLimits,
        find_call: Callable[[], ShowCall | None],
        *,
        absent: str,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._source = source
        self._limits = limits
        self._find_call = find_call
        self._absent = absent
        self._thread: threading.Thread | None = None
        self._missing: str | None = None

    @property
    def source(self) -> str:
        return self._source

    @property
    def missing_because(self) -> str | None:
        return self._missing

    def listen(self, on_choice: Callable[[Subject, ChoiceKind], None]) -> None:
        pass

    async def show(self, notice: Notice, *, has_sound: bool) -> None:
        call = self._find_call()
        if call is None:
            self._missing = self._absent
            return
        if self._thread is not None and self._thread.is_alive():
            self._missing = f"The last notification still hangs in {self._source}."
            return
        short = fitted(notice, self._limits)
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        failures: list[str] = []

        def work() -> None:
            try:
                call(short.title, short.text)
            except Exception as error:  # noqa: BLE001  # a foreign library's guard: a notice is worth no failure
                _LOG.debug("%s failed", self._source, exc_info=True)
                failures.append(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        self._thread = threading.Thread(target=work, name=f"notify by {self._source}", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(self._timeout_s):
                await done.wait()
        except TimeoutError:
            self._missing = f"{self._source} did not return within {self._timeout_s:.0f} s."
        else:
            self._missing = f"{self._source} failed: {failures[0]}." if failures else None

    async def withdraw(self, subject: Subject) -> None:
        pass

    async def close(self) -> None:
        pass
