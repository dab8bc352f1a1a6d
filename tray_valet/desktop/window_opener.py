"""Opens the window: one at a time, by the first way that works here, and brings it to the front again.

Decides: the order of the ways, and when one has failed. Must not: draw anything, or put a secret where
other users can read it (a command line): the code goes by stdin, or in a file that only the user can read.

| way             | what it is |
|-----------------|------------|
| WEB_VIEW        | the child process with our own Python: WebView2, WKWebView, or GTK or Qt beside it |
| SYSTEM_WEB_VIEW | Linux: the same child with the distribution's Python, which has the system's WebKit |
| APP_BROWSER     | Chromium or a relative as a window without bars, with a profile of its own |
| BROWSER         | the user's browser |
| ADDRESS         | nothing can be opened: the address is said |
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

_LOG = logging.getLogger(__name__)


class WindowWay(StrEnum):
    """How the window came up."""

    FOCUSED = "focused"  # it was open already and is in front now
    WEB_VIEW = "web_view"
    SYSTEM_WEB_VIEW = "system_web_view"
    APP_BROWSER = "app_browser"
    BROWSER = "browser"
    ADDRESS = "address"


class WindowPage(msgspec.Struct, frozen=True, kw_only=True):
    """The page to show: its address (`http://127.0.0.1:8765/ui/`) and a fresh one-time code for it.

    `is_code_needed`: whether the page can do without the code (`control.local_access: open`).
    """

    url: str
    code: str
    is_code_needed: bool = False
    background: str = "#f5f6f8"


class WindowShown(msgspec.Struct, frozen=True, kw_only=True):
    """What `WindowOpener.open` did. `failures`: why the ways before this one did not work."""

    way: WindowWay
    url: str
    failures: tuple[str, ...] = ()


class OpenWindow(Protocol):
    """A window that is open in a process of ours."""

    @property
    def is_open(self) -> bool: ...

    async def focus(self) -> bool:
        """Bring it to the front; False if it does not answer in time."""
        ...

    async def close(self) -> None:
        """End it, within 3 s."""
        ...


class WindowFailed(Exception):
    """A way does not work here; the text says why."""


class Way(Protocol):
    """One way to show a page."""

    kind: WindowWay

    async def show(self, page: WindowPage) -> OpenWindow | None:
        """Return once it is seen; None where the window is not ours to control. Raises WindowFailed."""
        ...


class WindowOpener:
    """Opens the one window. Use it on the loop thread; every method may be called at any time.

    `page` is asked for each opening, since codes are short-lived. `say` gets one sentence for the user's
    terminal when nothing can be opened. `scratch_dir` is a private folder for a browser's profile and the
    file that hands a code to a browser. `ways` None: those of this system.
    """

    def __init__(
        self,
        page: Callable[[], WindowPage],
        *,
        scratch_dir: Path,
        say: Callable[[str], None],
        ways: Sequence[Way] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._page = page
        self._scratch_dir = scratch_dir
        self._say = say
        self._ways = ways
        self._environ = environ
        self._window: OpenWindow | None = None
        self._turn = asyncio.Lock()
        self._failed: dict[WindowWay, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether a window of ours is open (a page in the user's own browser is not)."""
        return self._window is not None and self._window.is_open

    async def open(self) -> WindowShown:
        """Show the window, or bring the open one to the front. Never raises for a way that fails.

        Calls at the same time wait for each other: two clicks open one window. Takes 0.5 s as a rule,
        up to about 15 s for each way that neither works nor says so.
        """
        async with self._turn:
            if self._window is not None and self._window.is_open:
                if await self._window.focus():
                    return WindowShown(way=WindowWay.FOCUSED, url=self._page().url)
                await self._window.close()
            self._window = None
            return await self._open_anew()

    async def close(self) -> None:
        """Close the window if it is open, within 3 s."""
        window, self._window = self._window, None
        if window is not None and window.is_open:
            await window.close()

    async def _open_anew(self) -> WindowShown:
        failures: list[str] = []
        for way in self._ways_here():
            page = self._page()  # a new code for each way: the one before may have spent it
            try:
                self._window = await way.show(page)
            except WindowFailed as error:
                failures.append(f"{way.kind.value}: {error}")
                self._note_failure(way.kind, str(error))
                continue
            self._failed.pop(way.kind, None)
            return WindowShown(way=way.kind, url=page.url, failures=tuple(failures))
        url = self._page().url
        self._say(f"No window can be opened here. Tray Valet is at {url}.")
        return WindowShown(way=WindowWay.ADDRESS, url=url, failures=tuple(failures))

    def _ways_here(self) -> Sequence[Way]:
        """Looked at anew each time: the valet may outlive a desktop session."""
        if self._ways is not None:
            return self._ways
        from tray_valet.desktop.window_ways import ways_of_this_system

        return ways_of_this_system(self._environ, self._scratch_dir)

    def _note_failure(self, kind: WindowWay, why: str) -> None:
        if self._failed.get(kind) != why:
            self._failed[kind] = why
            _LOG.info("The window cannot be opened as %s: %s", kind.value, why)
