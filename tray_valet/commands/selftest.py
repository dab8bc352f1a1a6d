"""`tray-valet selftest`: one real pause and restore with the user's own provider and model.

Decides: how the steps are told, with which valet (the running one, or with --offline one of its own in a
temporary folder), and the exit code. Must not: know what the steps do (`selftest_story.py` does).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tray_valet.commands.client import Client
from tray_valet.commands.failures import ExitCode, NoValet
from tray_valet.commands.interruption import EndingSignals, Interrupted, ending_signals
from tray_valet.commands.selftest_story import SelfTest, Shown
from tray_valet.commands.tables import as_json, plain
from tray_valet.core.errors import Refused, ValetError
from tray_valet.core.wording import duration


def selftest(
    find_client: Callable[[], Client],
    model: str | None,
    *,
    default: str | None,
    is_offline: bool,
    is_json: bool,
) -> int:
    """Do it and tell it; returns 0 only if every step was seen to happen.

    `default` is the settings' default model. Raises NoValet, or why the test is refused (a game runs, the
    models are set aside, no such model).
    """
    telling = _Telling(is_json=is_json, is_offline=is_offline)
    try:
        with ending_signals() as signals:
            if is_offline:
                _offline(telling, model, signals)
            else:
                _play(telling, SelfTest(find_client(), model, default=default), signals)
    except Interrupted as interruption:
        telling.interrupted()
        return 128 + interruption.number
    telling.close()
    return int(ExitCode.DONE if telling.is_ok else ExitCode.FAILED)


def _play(telling: _Telling, test: SelfTest, signals: EndingSignals) -> None:
    telling.test = test
    try:
        with signals.raised():
            _tell(telling, test)
    finally:
        telling.left = test.tidy()


def _tell(telling: _Telling, test: SelfTest) -> None:
    telling.say("One real pause and restore. Requests that come meanwhile are refused or wait.")
    for name, step in test.steps():
        began_s = time.monotonic()
        try:
            shown = step()
        except (Refused, NoValet):
            raise  # nothing was done
        except ValetError as error:
            telling.failed(name, error, time.monotonic() - began_s)
            return
        telling.seen(name, shown, time.monotonic() - began_s)


def _offline(telling: _Telling, model: str | None, signals: EndingSignals) -> None:
    """With a valet, engine and model of its own."""
    from tray_valet.commands.demo_home import LARGE, DemoHome, check_engine
    from tray_valet.commands.demo_valet import DemoValet
    from tray_valet.desktop.child_tie import system_child_tie

    check_engine()
    tie = system_child_tie()
    home = DemoHome()
    valet = DemoValet(home, tie, os.environ, signals)
    try:
        with signals.raised():
            telling.say("With a valet, an engine and a model of its own, in a temporary folder.")
            home.write_models()
            home.write_settings()
            client = valet.start()
        _play(telling, SelfTest(client, model, default=LARGE), signals)
    finally:
        valet.end()
        home.remove()


class _Telling:
    """The steps as they are printed, and the JSON that says the same."""

    def __init__(self, *, is_json: bool, is_offline: bool) -> None:
        self._is_json = is_json
        self._is_offline = is_offline
        self._began_s = time.monotonic()
        self._steps: list[dict[str, Any]] = []
        self._problem = ""
        self._next = ""
        self._failed_step: str | None = None
        self.left: list[str] = []
        self.test: SelfTest | None = None

    @property
    def is_ok(self) -> bool:
        return not self._problem and bool(self._steps) and not self.left

    def say(self, text: str) -> None:
        """A line for people."""
        if not self._is_json:
            print(text.replace("\u00a0", " "), flush=True)

    def seen(self, name: str, shown: Shown, took_s: float) -> None:
        """A step was seen to happen."""
        self._add(name, shown.text, took_s, is_ok=True, detail=shown.detail)

    def failed(self, name: str, error: ValetError, took_s: float) -> None:
        """A step was not."""
        self._problem, self._next, self._failed_step = error.message, error.remedy, name
        self._add(name, error.message, took_s, is_ok=False, detail={})

    def interrupted(self) -> None:
        """Somebody ended it; everything is put back by now."""
        self._problem = "Interrupted; everything was put back as it was."
        self.close()

    def close(self) -> None:
        """Say how it went."""
        took_s = time.monotonic() - self._began_s
        if self._is_json:
            print(as_json(self._answer(took_s)))
            return
        for sentence in self.left:
            self.say(f"! {sentence}")
        if self._problem:
            step = f"The step “{self._failed_step}” failed. " if self._failed_step else ""
            self.say(f"\n{step}{plain(self._problem)}")
            if self._next:
                self.say(plain(self._next))
        elif self.is_ok:
            self.say(f"\nAll {len(self._steps)} steps were seen, in {duration(took_s)}.")

    def _answer(self, took_s: float) -> dict[str, Any]:
        test = self.test
        model = test.model if test is not None else {}
        return {
            "ok": self.is_ok,
            "offline": self._is_offline,
            "model": model.get("name"),
            "provider": model.get("provider"),
            "seconds": round(took_s, 3),
            "steps": self._steps,
            "compared": [] if test is None else [msgspec.to_builtins(each) for each in test.compared],
            "failed_step": self._failed_step,
            "problem": self._problem or None,
            "next": self._next or None,
            "left": self.left,
        }

    def _add(self, name: str, text: str, took_s: float, *, is_ok: bool, detail: dict[str, Any]) -> None:
        step = {"name": name, "ok": is_ok, "seconds": round(took_s, 3), "text": plain(text)}
        self._steps.append({**step, "detail": detail})
        self.say(f"{'✓' if is_ok else '✗'} {name:9} {plain(text)}")
