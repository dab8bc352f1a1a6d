"""`tray-valet run -- PROGRAM`: the models are aside before the program starts and until it has ended.

Decides: the order of things, how signals and the exit code pass through. Must not: ever keep a program
from starting, disturb it, or outlive it; a game must start, with a valet or without one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tray_valet.commands.client import Client
from tray_valet.commands.failures import CannotStart, ExitCode
from tray_valet.core.errors import ValetError

# Longer than the valet's own bound with default settings; then the program starts all the same.
HOLD_TIMEOUT_S = 30.0
END_TIMEOUT_S = 5.0
# Signals to us are meant for the program. Some do not exist on every system.
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGQUIT")
_FROM_TERMINAL = frozenset({"SIGINT", "SIGQUIT"})


def run(program: Sequence[str], *, reason: str, find_client: Callable[[], Client]) -> int:
    """Run `program` with the models aside; returns its exit code (128 + N if signal N ended it).

    `find_client` is asked twice, because the valet may have been restarted in between. Raises CannotStart,
    before anything is set aside, if there is no such program.
    """
    path = _program_path(program[0])
    hold_id = _place_hold(program[0], reason, find_client)
    try:
        return _run_program(path, program)
    finally:
        if hold_id is not None:
            _end_hold(hold_id, find_client)


def _program_path(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    has_folder = os.path.dirname(name) != ""
    folders = [""] if has_folder else os.environ.get("PATH", os.defpath).split(os.pathsep)
    if any(os.path.exists(os.path.join(folder, name)) for folder in folders):
        raise CannotStart(f"{name} may not be run.", ExitCode.NOT_EXECUTABLE)
    raise CannotStart(f"There is no program {name}.", ExitCode.NOT_FOUND)


def _place_hold(name: str, reason: str, find_client: Callable[[], Client]) -> str | None:
    """The id of the hold, or None: whatever is the matter with the valet, the program is started."""
    body: dict[str, Any] = {"owner": Path(name).name or name, "pid": os.getpid()}
    if reason:
        body["reason"] = reason
    try:
        answer = find_client().post("/holds", body, timeout_s=HOLD_TIMEOUT_S)
    except ValetError as error:
        _say(f"{error.message} Starting {body['owner']} all the same.")
        return None
    except Exception as error:  # noqa: BLE001  a mistake of ours must not keep a game from starting
        _say(
            f"Something went wrong ({error or type(error).__name__}). Starting {body['owner']} all the same."
        )
        return None
    if not isinstance(answer, dict) or "id" not in answer:
        return None
    if answer.get("state", "paused") != "paused":
        _say("The models are still stepping aside.")
    return str(answer["id"])


def _end_hold(hold_id: str, find_client: Callable[[], Client]) -> None:
    try:
        find_client().delete(f"/holds/{hold_id}", timeout_s=END_TIMEOUT_S)
    except Exception:  # noqa: BLE001  the program has ended; its exit code is all that is left to tell
        # The hold is bound to our process and ends with it.
        return


def _run_program(path: str, program: Sequence[str]) -> int:
    child: subprocess.Popen[bytes] | None = None
    is_starting = False
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        # The program begins a little before Popen returns; from then on the terminal's signals reach it too.
        if is_starting and _came_from_terminal(number):
            return
        if child is None:
            early.append(number)
        else:
            _pass_on(child, number)

    previous = _catch_signals(forward)
    try:
        # Handlers, unlike ignored signals, do not reach the program. Stdio, group and what else we were given
        # open are as if it had been started in our place; what we opened ourselves is not inheritable.
        is_starting = True
        try:
            child = subprocess.Popen(list(program), executable=path, close_fds=False)
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)  # a script's interpreter, for one
            raise CannotStart(
                f"{program[0]} cannot be started: {error.strerror or error}.",
                ExitCode.NOT_FOUND if is_missing else ExitCode.NOT_EXECUTABLE,
            ) from None
        for number in early:
            _pass_on(child, number)
        code = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def _catch_signals(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    previous: dict[int, Any] = {}
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        # What our parent has ignored (nohup) stays ignored, for the program too.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    return previous


def _came_from_terminal(number: int) -> bool:
    """Whether the terminal has sent this to the whole foreground group, and so to the program already."""
    if signal.Signals(number).name not in _FROM_TERMINAL:
        return False
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except (OSError, AttributeError):
        return False  # no terminal
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _pass_on(child: subprocess.Popen[bytes], number: int) -> None:
    try:
        child.send_signal(number)
    except (OSError, ValueError):
        return  # it has just ended, or the system has no such signal


def _say(text: str) -> None:
    print(f"tray-valet: {text}", file=sys.stderr, flush=True)
