"""Notices on macOS for a program that is no signed bundle: AppleScript's `display notification`.

Decides: how texts become AppleScript literals. Must not: let a name become a command. The system shows
these under Script Editor's name, without actions, and none can be taken back
(https://developer.apple.com/library/archive/documentation/LanguagesUtilities/Conceptual/MacAutomationScriptingGuide/DisplayNotifications.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tray_valet.core.notices import ChoiceKind, Notice, Subject, TextLimits, fitted

_TIMEOUT_S = 5.0
_LIMITS = TextLimits(title=80, text=250)  # what a banner shows in its lines
_PROGRAM = "/usr/bin/osascript"
_SOUND = "Glass"  # in /System/Library/Sounds


class OsascriptNotifier:
    """Implements `core.ports.Notifier`. One short-lived child a notice."""

    def __init__(self, program: str = _PROGRAM, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._program = program
        self._missing: str | None = None

    @property
    def source(self) -> str:
        return "osascript"

    @property
    def missing_because(self) -> str | None:
        return self._missing

    def listen(self, on_choice: Callable[[Subject, ChoiceKind], None]) -> None:
        pass

    async def show(self, notice: Notice, *, has_sound: bool) -> None:
        script = display_script(fitted(notice, _LIMITS), has_sound=has_sound)
        try:
            child = await asyncio.create_subprocess_exec(
                self._program,
                "-e",
                script,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            self._missing = f"osascript cannot be started: {error.strerror or error}."
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                _, said = await child.communicate()
        except TimeoutError:
            self._missing = f"osascript did not return within {self._timeout_s:.0f} s."
        else:
            words = said.decode(errors="replace").strip()[:200]
            self._missing = f"osascript failed: {words or child.returncode}." if child.returncode else None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    async def withdraw(self, subject: Subject) -> None:
        pass

    async def close(self) -> None:
        pass


def display_script(notice: Notice, *, has_sound: bool) -> str:
    """The one statement that shows a notice."""
    sound = f" sound name {_literal(_SOUND)}" if has_sound else ""
    return f"display notification {_literal(notice.text)} with title {_literal(notice.title)}{sound}"


def _literal(text: str) -> str:
    """An AppleScript string: backslash and quote are its only special characters in one line of text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
