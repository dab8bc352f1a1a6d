"""`tray-valet demo`: the whole story on this machine, with nothing set up and nothing left behind.

Decides: how the story's steps are told (a timeline or JSON), when it has succeeded, and the clean-up.
Must not: know what the steps do (`demo_story.py` does).
"""

from __future__ import annotations

import os
import time
from typing import Any

from tray_valet.commands.demo_home import END_DEBOUNCE_S, GRACE_S, DemoHome, check_engine
from tray_valet.commands.demo_story import Proof, Story, duration_ms
from tray_valet.commands.demo_valet import DemoValet
from tray_valet.commands.failures import ExitCode
from tray_valet.commands.interruption import EndingSignals, Interrupted, ending_signals
from tray_valet.commands.tables import as_json, plain
from tray_valet.core.errors import ValetError
from tray_valet.desktop.child_tie import system_child_tie


def demo(*, is_json: bool) -> int:
    """Tell the story; returns 0 only if every step was seen to happen. Raises EngineMissing."""
    check_engine()
    telling = Telling(is_json=is_json)
    try:
        with ending_signals() as signals:
            _play(telling, signals)
    except Interrupted as interruption:
        telling.interrupted()
        return 128 + interruption.number
    telling.close()
    return int(ExitCode.DONE if telling.is_ok else ExitCode.FAILED)


def _play(telling: Telling, signals: EndingSignals) -> None:
    tie = system_child_tie()
    home = DemoHome()
    valet = DemoValet(home, tie, os.environ, signals)
    story = Story(home, valet, tie, signals)
    try:
        with signals.raised():
            telling.begin()
            _tell(telling, story, valet)
    finally:
        if story.game is not None:
            story.game.end()
        valet.end()
        home.remove()


def _tell(telling: Telling, story: Story, valet: DemoValet) -> None:
    for name, step in story.steps():
        started_s = time.monotonic()
        try:
            proof = step()
        except Exception as error:  # noqa: BLE001  a step's guard: whatever it was, the log is wanted too
            problem = str(error) if isinstance(error, ValetError) else f"{type(error).__name__}: {error}"
            telling.failed(name, problem, time.monotonic() - started_s, valet.log_tail())
            return
        telling.seen(name, proof, time.monotonic() - started_s)


class Telling:
    """The timeline as it is printed, and the JSON that says the same."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._started_s = time.monotonic()
        self._steps: list[dict[str, Any]] = []
        self._problem: str | None = None
        self._log_tail: list[str] = []

    @property
    def is_ok(self) -> bool:
        return self._problem is None and bool(self._steps)

    def begin(self) -> None:
        """Say what this is."""
        self._say("A model steps aside for a game and comes back. Everything here is real but small and")
        self._say("happens in a temporary folder; your own models, games and settings are left alone.")
        self._say(
            f"After a game: {END_DEBOUNCE_S:.0f} s to be sure that it has ended, {GRACE_S:.0f} s of grace; "
            "usually it is 12 s and 30 s.\n"
        )

    def seen(self, name: str, proof: Proof, took_s: float) -> None:
        """A step was seen to happen."""
        self._add(name, proof.text, took_s, is_ok=True, detail=proof.detail)

    def failed(self, name: str, problem: str, took_s: float, log_tail: list[str]) -> None:
        """A step was not seen to happen."""
        self._problem, self._log_tail = problem, log_tail
        self._add(name, problem, took_s, is_ok=False, detail={})

    def interrupted(self) -> None:
        """Somebody ended it; everything is cleaned up by now."""
        self._problem = "Interrupted; nothing was left behind."
        self.close()

    def close(self) -> None:
        """Say how it went."""
        total_s = time.monotonic() - self._started_s
        if self._is_json:
            answer = {"ok": self.is_ok, "seconds": round(total_s, 3), "steps": self._steps}
            if self._problem is not None:
                answer |= {"problem": self._problem, "log_tail": self._log_tail}
            print(as_json(answer))
        elif self.is_ok:
            self._say(f"\nAll {len(self._steps)} steps were seen, in {plain(f'{total_s:.1f} s')}.")
        else:
            self._say(f"\n{plain(self._problem)}")
            if self._log_tail:
                self._say("\nThe end of the valet's log:")
                self._say("\n".join(f"  {plain(line)}" for line in self._log_tail))

    def _add(self, name: str, text: str, took_s: float, *, is_ok: bool, detail: dict[str, Any]) -> None:
        at_s = time.monotonic() - self._started_s
        step = {"name": name, "ok": is_ok, "seconds": round(took_s, 3), "at_seconds": round(at_s, 3)}
        self._steps.append({**step, "text": plain(text), "detail": detail})
        self._say(
            f"{at_s:6.2f} s  {'✓' if is_ok else '✗'}  {plain(text)}  ({duration_ms(took_s)})".replace(
                "\u00a0", " "
            )
        )

    def _say(self, text: str) -> None:
        if not self._is_json:
            print(text, flush=True)
