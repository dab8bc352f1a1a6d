"""The child process of a runner: started tied to us, written down, drained, ended, seen to end.

Decides: how a process is started and ended, and in what words its end is told.
Must not: know what a model is, or when a runner is ready (`runner.py` does).

On Linux the tie holds as long as the *thread* that started the child: `spawn` belongs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tray_valet.core.ports import ChildTie, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.providers.runner_command import RunnerCommand
from tray_valet.providers.runner_log import RunnerLog, telling_line

_LAST_WORDS_S = 0.5  # for output that is still in the pipe when the process has ended
_READ_BYTES = 65_536


class RunnerProcess:
    """A running or ended child. Where the program is a script, `helpers` are the processes it started."""

    def __init__(
        self, process: asyncio.subprocess.Process, name: str, table: ProcessTable, log: RunnerLog
    ) -> None:
        """Use `spawn`."""
        described = table.describe(process.pid)
        self.identity = described.identity if described else None  # None: it has ended already
        self.helpers: tuple[ProcessIdentity, ...] = ()
        self._process = process
        self._name = name
        self._table = table
        self._log = log
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def spawn(
        cls, command: RunnerCommand, name: str, table: ProcessTable, tie: ChildTie, log: RunnerLog
    ) -> RunnerProcess:
        """Start the command, its life tied to ours. Raises OSError; nothing is left running then."""
        process = await asyncio.create_subprocess_exec(
            *tie.wrap(command.argv, is_in_background=command.is_in_background),
            env=command.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in our terminal is not meant for it
            creationflags=_creation_flags(is_in_background=command.is_in_background),
        )
        try:
            tie.adopt(process.pid)
        except OSError:
            process.kill()
            await process.wait()
            raise
        return cls(process, name, table, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def members(self) -> tuple[ProcessIdentity, ...]:
        """What holds memory now; () once the child has ended."""
        return () if self.has_ended or self.identity is None else (self.identity, *self.helpers)

    def watch(self, on_end: Callable[[int], None]) -> None:
        """Read all that it writes from now on, and call `on_end(exit_code)` once it has ended."""
        self._keep(self._watch(on_end), "watch")

    async def wait_end(self, within_s: float) -> bool:
        """Wait for its end; say whether it came within that time."""
        try:
            async with asyncio.timeout(within_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def terminate(self) -> None:
        """Ask all members to end. Raises CannotKill."""
        self._signal(self._table.terminate, self._process.terminate)

    def kill(self) -> None:
        """End all members at once. Raises CannotKill."""
        self._signal(self._table.kill, self._process.kill)

    def find_helpers(self) -> None:
        """Look up what the child has started itself (a walk over all processes: not for hot paths)."""
        self.helpers = self._table.descendants(self.pid)

    def last_words(self) -> str:
        """Why it ended, as a clause: the telling line of its log, or the signal that ended it."""
        return end_in_words(self._process.returncode, self._log.tail())

    def _signal(self, by_identity: Callable[[ProcessIdentity], None], by_handle: Callable[[], None]) -> None:
        """By PID and start time; by asyncio's handle while the start time is not known."""
        for member in self.members:
            by_identity(member)
        if self.identity is None and self._process.returncode is None:
            by_handle()

    async def _watch(self, on_end: Callable[[int], None]) -> None:
        assert self._process.stdout is not None
        draining = self._keep(self._drain(self._process.stdout), "log")
        try:
            exit_code = await self._process.wait()
            await asyncio.wait({draining}, timeout=_LAST_WORDS_S)
        finally:
            draining.cancel()
        try:
            on_end(exit_code)
        finally:
            self._ended.set()

    async def _drain(self, pipe: asyncio.StreamReader) -> None:
        while data := await pipe.read(_READ_BYTES):
            self._log.feed(data)

    def _keep(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"runner-{what}-{self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _creation_flags(*, is_in_background: bool) -> int:
    """What Windows is told of a new process; the names exist there alone."""
    names = ("CREATE_NO_WINDOW", *(("IDLE_PRIORITY_CLASS",) if is_in_background else ()))
    flags = 0
    for name in names:
        flags |= getattr(subprocess, name, 0)
    return flags


def end_in_words(exit_code: int | None, log_tail: Sequence[str]) -> str:
    """Say why a process ended. `exit_code` negative = ended by that signal."""
    if exit_code is not None and exit_code < 0:
        name = _signal_name(-exit_code)
        hint = " (often for lack of memory)" if name == "SIGKILL" else ""
        return f"its runner was ended by {name}{hint}."
    return telling_line(log_tail) or f"its runner ended with exit code {exit_code} and no message."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
