"""Calls of the systems' own tools for services, and programs started so that they outlive us.

Decides: how such a call is bounded and how a program is let go. Must not: know a service.
No call goes through a shell. Sources: subprocess in the Python documentation (DETACHED_PROCESS,
CREATE_NO_WINDOW, start_new_session); setsid(2).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tray_valet.core.child_environment import child_environment
from tray_valet.core.service_plan import ServiceRefused

CALL_S = 10.0
MISSING = 127  # as shells say that there is no such program
_LOG_LIMIT_BYTES = 5 * 2**20
_LAST_LINE_BYTES = 4096


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended. `code` None: not within its time. `text`: what it wrote, both streams."""

    code: int | None
    text: str = ""

    @property
    def is_done(self) -> bool:
        return self.code == 0


Call = Callable[[Sequence[str]], Called]


def call(argv: Sequence[str], *, timeout_s: float = CALL_S) -> Called:
    """Call a tool and wait for it, `timeout_s` at most; it never asks for a password."""
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=child_environment(os.environ),
            creationflags=flags,
        )
    except subprocess.TimeoutExpired:
        return Called(code=None)
    except OSError as error:
        return Called(code=MISSING, text=error.strerror or str(error))
    return Called(code=done.returncode, text=done.stdout.strip())


def refused(tool: str, called: Called, remedy: str) -> ServiceRefused:
    """The error for a call that did not do what it should."""
    if called.code is None:
        return ServiceRefused(f"{tool} did not answer in time.", remedy=remedy)
    said = called.text.splitlines()[-1].strip()[:300] if called.text else f"it ended with {called.code}"
    return ServiceRefused(f"{tool} refused: {said.rstrip('.')}.", remedy=remedy)


class DetachedProgram:
    """A program that goes on when we end: a session of its own, no input, its output in a file."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], log_file: Path) -> None:
        """Start it. Raises ServiceRefused."""
        self._name = Path(argv[0]).name
        self._log_file = log_file
        home = os.path.expanduser("~")  # as it is where the system knows none
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            _turn_over(log_file)
            with log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=home if os.path.isdir(home) else None,
                    env=dict(environ),
                    creationflags=_detached_flags(),
                    start_new_session=sys.platform != "win32",
                )
        except OSError as error:
            raise ServiceRefused(
                f"{argv[0]} cannot be started: {error.strerror or error}.", remedy="Is it installed whole?"
            ) from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def why_ended(self) -> str:
        """How it ended, with the last line it wrote; "" while it runs. Also lets the system forget it."""
        code = self._process.poll()
        if code is None:
            return ""
        last = self._last_line()
        return f"{self._name} ended with {code}" + (f": {last}" if last else ".")

    def _last_line(self) -> str:
        try:
            with self._log_file.open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - _LAST_LINE_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _turn_over(log_file: Path) -> None:
    """Keep one older file; the program writes on by itself, so this happens at its start."""
    if log_file.exists() and log_file.stat().st_size > _LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_name(log_file.name + ".1"))


def _detached_flags() -> int:
    # By name, since other systems' subprocess lacks them.
    names = ("DETACHED_PROCESS", "CREATE_NO_WINDOW", "CREATE_NEW_PROCESS_GROUP")
    return sum(int(getattr(subprocess, name, 0)) for name in names)
