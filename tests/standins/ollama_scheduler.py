"""The stand-in's scheduler: what is loaded, for how long, in which runner process.

Follows server/sched.go of Ollama: loads wait for one another, models that are there are used meanwhile; an
unload is noted at once and happens when the last request has ended; the time to live runs from the end of
the last request; a runner that died stays in the list until it is used or unloaded; a load whose client
hangs up is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ollama_models import StandinModel

INTERPRETER = os.path.realpath(sys.executable)
RUNNER = Path(__file__).with_name("ollama_runner.py")
DEFAULT_KEEP_ALIVE_NS = 300 * 10**9


class LoadError(Exception):
    """What Ollama answers with 500 when a model does not load, or its runner dies."""


@dataclass(kw_only=True)
class Settings:
    """What a test can change while the stand-in runs (`POST /_standin`)."""

    load_s: float = 0.0
    tokens_per_s: float = 200.0
    answer_tokens: int = 0  # 0: the fixed sentence
    max_loaded: int = 3  # OLLAMA_MAX_LOADED_MODELS
    num_parallel: int = 1  # OLLAMA_NUM_PARALLEL
    default_context: int = 4096  # OLLAMA_CONTEXT_LENGTH
    default_keep_alive_ns: int = DEFAULT_KEEP_ALIVE_NS
    load_error: str = ""  # every load fails with this
    free_bytes: int | None = None  # a load that needs more fails as out of memory
    offset_minutes: int = -420  # the server's time zone
    is_old: bool = False  # /api/tags without capabilities and context length, as older versions
    abort_s: float = 0.2  # from a client's leaving to the end of the load it asked for
    pull_s: float = 0.2
    hang: list[str] = field(default_factory=list)  # paths that never answer
    fail: dict[str, int] = field(default_factory=dict)  # paths that answer with this status
    delay_s: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class Runner:
    """One loaded model."""

    model: StandinModel
    process: asyncio.subprocess.Process
    num_ctx: int
    is_ctx_auto: bool
    session_ns: int
    slots: asyncio.Semaphore
    references: int = 0
    expires_ns: int = 0  # 0: not set yet
    timer: asyncio.TimerHandle | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_dead(self) -> bool:
        if self.process.returncode is not None:
            return True
        try:  # asyncio hears of it by a thread, and may do so late
            return psutil.Process(self.process.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def listed_expiry_ns(self) -> int:
        """While the first request runs no time is set: `loadedModels` estimates it."""
        return self.expires_ns or time.time_ns() + self.session_ns


class Scheduler:
    """Owns the runners. Lives on the loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.loaded: dict[str, Runner] = {}  # by weights' file, as Ollama does
        self._pending = asyncio.Lock()  # first come, first served
        self._ports = itertools.count(random.randrange(49152, 60000))
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def use(
        self, model: StandinModel, num_ctx: int | None, keep_alive_ns: int | None
    ) -> AsyncIterator[Runner]:
        """Have the model loaded and in use. Raises LoadError."""
        runner = await self._acquire(model, num_ctx, keep_alive_ns)
        try:
            yield runner
        finally:
            self._release(runner)

    def expire(self, model: StandinModel) -> None:
        """Unload as soon as no request uses it."""
        if (runner := self.loaded.get(model.blob_path)) is not None:
            runner.expires_ns = time.time_ns()
            self._expire(runner)

    async def close(self) -> None:
        """End every runner."""
        for runner in list(self.loaded.values()):
            self._drop(runner)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=3)

    # -- parts ----------------------------------------------------------------------------------------

    async def _acquire(self, model: StandinModel, num_ctx: int | None, keep_alive_ns: int | None) -> Runner:
        wanted_ctx = self._effective_ctx(model, num_ctx)
        runner = self.loaded.get(model.blob_path)
        if runner is None or self._needs_reload(runner, wanted_ctx, is_auto=num_ctx is None):
            async with self._pending:
                runner = await self._ready(model, wanted_ctx, keep_alive_ns, is_auto=num_ctx is None)
                return self._used(runner, keep_alive_ns)
        return self._used(runner, keep_alive_ns)

    async def _ready(
        self, model: StandinModel, num_ctx: int, keep_alive_ns: int | None, *, is_auto: bool
    ) -> Runner:
        """Runs alone. Make room, start the runner."""
        runner = self.loaded.get(model.blob_path)
        if runner is not None and not self._needs_reload(runner, num_ctx, is_auto=is_auto):
            return runner
        if runner is not None:
            await self._expired(runner)
        while len(self.loaded) >= self.settings.max_loaded:
            idle = [r for r in self.loaded.values() if not r.references]
            await self._expired(min(idle or self.loaded.values(), key=lambda r: r.session_ns))
        process = await self._start(model, num_ctx)
        runner = Runner(
            model=model,
            process=process,
            num_ctx=num_ctx,
            is_ctx_auto=is_auto,
            session_ns=self.settings.default_keep_alive_ns if keep_alive_ns is None else keep_alive_ns,
            slots=asyncio.Semaphore(self.settings.num_parallel),
        )
        self.loaded[model.blob_path] = runner
        return runner

    def _effective_ctx(self, model: StandinModel, num_ctx: int | None) -> int:
        wanted = self.settings.default_context if num_ctx is None else max(num_ctx, 4)
        return min(wanted, model.context_length)

    def _needs_reload(self, runner: Runner, num_ctx: int, *, is_auto: bool) -> bool:
        is_same = runner.num_ctx == num_ctx or (runner.is_ctx_auto and is_auto)
        return runner.is_dead or not is_same

    def _used(self, runner: Runner, keep_alive_ns: int | None) -> Runner:
        runner.references += 1
        self._stop_timer(runner)
        if keep_alive_ns is not None:
            runner.session_ns = keep_alive_ns
        return runner

    def _release(self, runner: Runner) -> None:
        runner.references -= 1
        if runner.references:
            return
        if runner.session_ns <= 0:
            self._drop(runner)
            return
        runner.expires_ns = time.time_ns() + runner.session_ns
        delay_s = runner.session_ns / 1e9
        if delay_s < 10**8:  # a loop's timers end somewhere; nobody waits three years
            runner.timer = asyncio.get_running_loop().call_later(delay_s, self._expire, runner)

    def _expire(self, runner: Runner) -> None:
        self._stop_timer(runner)
        runner.session_ns = 0
        if not runner.references:
            self._drop(runner)

    async def _expired(self, runner: Runner) -> None:
        """Expire and wait until it has gone; a request in flight is waited for."""
        self._expire(runner)
        await runner.gone.wait()

    def _drop(self, runner: Runner) -> None:
        self._stop_timer(runner)
        if self.loaded.get(runner.model.blob_path) is runner:
            del self.loaded[runner.model.blob_path]
        task = asyncio.create_task(self._end(runner.process), name="end-runner")
        task.add_done_callback(lambda done: (self._tasks.discard(done), runner.gone.set()))
        self._tasks.add(task)

    @staticmethod
    def _stop_timer(runner: Runner) -> None:
        if runner.timer is not None:
            runner.timer.cancel()
            runner.timer = None

    async def _give_up(self, process: asyncio.subprocess.Process) -> None:
        """`WaitUntilRunning` looks for a client that left only so often."""
        await asyncio.sleep(self.settings.abort_s)
        await self._end(process)

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        """As `stopProcess`: killed, and waited for."""
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _start(self, model: StandinModel, num_ctx: int) -> asyncio.subprocess.Process:
        if self.settings.load_error:
            raise LoadError(self.settings.load_error)
        free_bytes = self.settings.free_bytes
        if free_bytes is not None and model.memory_bytes > free_bytes:
            raise LoadError(
                f"model requires more system memory ({model.memory_bytes / 2**20:.1f} MiB) "
                f"than is available ({free_bytes / 2**20:.1f} MiB)"
            )
        process = await self._spawn(model, num_ctx)
        load_s = self.settings.load_s if model.load_s is None else model.load_s
        died = asyncio.create_task(process.wait(), name="runner-died")
        try:
            assert process.stdout is not None
            await process.stdout.readline()
            await asyncio.wait({died}, timeout=load_s or 0.0)
            if process.returncode is not None or died.done():
                raise LoadError(f"llama-server process has terminated: {_exit_text(process.returncode)}")
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(process))
            raise
        except BaseException:
            await asyncio.shield(self._end(process))
            raise
        finally:
            died.cancel()
        return process

    async def _spawn(self, model: StandinModel, num_ctx: int) -> asyncio.subprocess.Process:
        parallel = self.settings.num_parallel
        # Its first argument is what it is called; the interpreter finds its library by PYTHONHOME.
        return await asyncio.create_subprocess_exec(
            "/usr/lib/ollama/llama-server",
            *("-S", str(RUNNER), "--model", model.blob_path, "--port", str(next(self._ports))),
            *("--host", "127.0.0.1", "--no-webui", "-c", str(num_ctx * parallel), "-np", str(parallel)),
            *("--hold-bytes", str(model.memory_bytes)),
            executable=INTERPRETER,
            env={**os.environ, "PYTHONHOME": sys.base_prefix},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        return "signal: killed" if code == -9 else f"signal: {-code}"
    return f"exit status {code}"
