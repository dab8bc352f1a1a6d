"""The window's process: one web view, told what to do by lines on stdin, telling what it sees on stdout.

Decides: how long it lives: until the user closes it, `quit`, or the end of stdin (the valet is gone).
Must not: import the rest of the product. This also runs under the distribution's own Python, which has
the system's WebKit but none of our compiled modules; so it needs nothing but pywebview.

In:  one JSON line {"url", "code", "title", "background"}, then lines `focus` | `quit`.
Out: JSON lines {"event": "painted" | "focused" | "no_web_view", …}. Exit codes: 0 closed, 3 no web view.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, NamedTuple

from tray_valet.window.focus import bring_to_front

NO_WEB_VIEW = 3
_END_S = 1.0  # how long an orderly end may take before the process just ends
_MIN_SIZE = (400, 360)
_SIZE = (1000, 720)
_PAINT_LIMIT_S = 30.0


class Order(NamedTuple):
    """What to show."""

    url: str
    code: str
    title: str
    background: str

    @property
    def address(self) -> str:
        """The address with the code as its fragment, which no server and no log gets to see."""
        return f"{self.url}#code={self.code}" if self.code else self.url


def read_order(line: bytes) -> Order:
    """The first line, taken apart. Raises ValueError."""
    told = json.loads(line)
    if not isinstance(told, dict) or not isinstance(told.get("url"), str):
        raise ValueError("the first line names no url")
    if not told["url"].startswith(("http://", "https://")):
        raise ValueError("the url is not one of a web page")
    return Order(
        url=told["url"],
        code=str(told.get("code", "")),
        title=str(told.get("title", "Tray Valet")),
        background=str(told.get("background", "#f5f6f8")),
    )


def main() -> int:
    """Show the window until it ends; returns the exit code."""
    # Unbuffered: a thread that waits in a buffered read would hold its lock at the end of the process.
    orders = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # stdin outlives this function
    line = orders.readline()
    if not line:
        return 0
    try:
        order = read_order(line)
    except ValueError as error:
        _say(event="no_web_view", reason=str(error))
        return NO_WEB_VIEW
    _prepare_environment()
    child = _Child(order)
    threading.Thread(target=child.follow, args=(orders,), name="orders", daemon=True).start()
    try:
        child.show()
    except Exception as error:  # noqa: BLE001  # a web view fails in as many ways as there are systems
        _say(event="no_web_view", reason=f"{type(error).__name__}: {error}")
        return _leave(NO_WEB_VIEW)
    return _leave(0)


class _Child:
    """The window and those who talk to it: the main thread draws, one thread reads, one waits for paint."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._window: Any = None

    def show(self) -> None:
        """Draw until the window is closed. Main thread. Raises whatever the web view raises."""
        import webview

        self._window = webview.create_window(
            self._order.title,
            self._order.address,
            width=_SIZE[0],
            height=_SIZE[1],
            min_size=_MIN_SIZE,
            text_select=True,
            zoomable=True,
            background_color=self._order.background,
        )
        webview.start(self._report, private_mode=True)

    def follow(self, orders: Any) -> None:
        """Do what stdin says, and end with it."""
        for line in iter(orders.readline, b""):
            word = line.strip()
            if word == b"focus" and self._window is not None:
                bring_to_front(self._window, _renderer())
                _say(event="focused")
            elif word == b"quit":
                break
        # Whatever becomes of the web view: nobody is left to end this process.
        exit_timer = threading.Timer(_END_S, _leave, args=(0,))
        exit_timer.daemon = True
        exit_timer.start()
        if self._window is None:
            _leave(0)
        self._window.destroy()

    def _report(self) -> None:
        """Tell that the page is there. Its own thread, once the web view runs."""
        renderer = _renderer()
        if sys.platform == "win32" and renderer != "edgechromium":
            # pywebview falls back to Internet Explorer's engine, which cannot show the page.
            _say(event="no_web_view", reason=f"the WebView2 runtime is missing ({renderer})")
            _leave(NO_WEB_VIEW)
        if self._window.events.loaded.wait(_PAINT_LIMIT_S):
            _say(event="painted", renderer=renderer)


def _renderer() -> str:
    import webview

    return str(webview.renderer or "")


def _prepare_environment() -> None:
    """What the web views read from the environment, before they are loaded."""
    # A page of text needs no GPU, which may be a game's; and WebKit's DMA-BUF path stays blank with some
    # drivers.
    os.environ.setdefault("WEBKIT_DISABLE_DMABUF_RENDERER", "1")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")  # Chromium's sandbox refuses root


def _say(**told: str) -> None:
    try:
        os.write(1, json.dumps(told).encode() + b"\n")
    except OSError:
        _leave(0)  # the reader is gone, and so is the valet


def _leave(code: int) -> int:
    """End at once: web views leave threads and handlers that crash in an orderly end."""
    os._exit(code)
