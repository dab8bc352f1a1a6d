"""`desktop.autostart`: the wish in the settings, brought to the system's list when it changes.

Decides: when the wish counts as new. Must not: repeat an old wish; whoever takes the entry out of the
system's list, or switches it off there, is not overruled at the next start.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

from tray_valet.core.autostart import Autostart, LaunchCommand
from tray_valet.core.errors import ValetError
from tray_valet.services.atomic_file import write_atomically

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 15.0


class AutostartWish:
    """`file` remembers the wish that was applied last, over restarts and by whatever hand."""

    def __init__(
        self, file: Path, autostart: Callable[[], Autostart], command: Callable[[], LaunchCommand]
    ) -> None:
        self._file = file
        self._autostart = autostart
        self._command = command

    async def apply(self, is_wanted: bool) -> None:
        """Turn it on or off if that is not what was wished last. Never raises; a failure is logged."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await asyncio.to_thread(self.apply_now, is_wanted)
        except (ValetError, OSError, TimeoutError) as error:
            _LOG.error("Starting at sign-in could not be turned %s: %s", _word(is_wanted), error)

    def apply_now(self, is_wanted: bool) -> None:
        """The same, blocking. Raises SwitchedOffElsewhere, NotSupported, OSError."""
        if is_wanted == self.last:
            return
        self.note(is_wanted)  # first: what cannot be done is said once, not at every start
        if is_wanted:
            self._autostart().turn_on(self._command())
        else:
            self._autostart().turn_off()
        _LOG.info("Starting at sign-in is turned %s", _word(is_wanted))

    @property
    def last(self) -> bool:
        """The wish that was applied last; False before the first."""
        try:
            said = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(said, dict) and said.get("wish") is True

    def note(self, is_wanted: bool) -> None:
        """Remember a wish that is applied already. Raises OSError."""
        write_atomically(self._file, json.dumps({"wish": is_wanted}).encode())


def _word(is_wanted: bool) -> str:
    return "on" if is_wanted else "off"
