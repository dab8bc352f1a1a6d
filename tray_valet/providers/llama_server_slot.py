"""The place of one model at the llama-server provider: its runner, its load in progress, its time to live.

Decides: that a load is shared by all who ask for the same, and when the last of them has left.
Must not: start processes or read settings.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

from tray_valet.core.config_providers import LlamaServerModelSettings
from tray_valet.core.errors import LoadFailed
from tray_valet.providers.runner import Runner, RunnerState

_GIVE_UP_S = 3.0  # a cancelled load kills its process and waits for the end of it


class Slot:
    """Mutable; belongs to its provider alone."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.runner: Runner | None = None
        self.definition: LlamaServerModelSettings | None = None  # what the runner was started with
        self.asked_context: int | None = None  # tokens, from the request or the flags
        self.file_bytes = 0
        self.has_few_threads = False  # it was started beside a game
        self.is_lowered = False  # its runner is at idle priority
        self.ttl_s = math.inf
        self.used_at_s = 0.0
        self._load: asyncio.Task[None] | None = None
        self._load_context: int | None = None
        self._waiting = 0

    @property
    def is_loading(self) -> bool:
        return self._load is not None and not self._load.done()

    @property
    def is_ready(self) -> bool:
        return self.runner is not None and self.runner.state is RunnerState.READY

    @property
    def is_resident(self) -> bool:
        """Whether a process holds the model: also one that is being ended, or that will not end."""
        if self.runner is None or not self.runner.is_running:
            return False
        return not self.is_loading or self.runner.state in (RunnerState.READY, RunnerState.STOPPING)

    @property
    def context_length(self) -> int | None:
        """Tokens: what was asked for if the engine gave that much (it rounds up), else what it gave."""
        given = self.runner.properties.whole_context if self.runner else 0
        if self.asked_context is not None and (given >= self.asked_context or not given):
            return self.asked_context
        return given or None

    def serves(
        self, definition: LlamaServerModelSettings, context_length: int | None, *, is_in_background: bool
    ) -> bool:
        """Say whether what is loaded is what is wanted; None = any context will do.

        One that stands back for a game is not what is wanted once nobody needs that.
        """
        wanted = (None, self.asked_context, self.context_length)
        is_quick_enough = is_in_background or not self.is_lowered
        is_as_defined = self.is_ready and self.definition == definition
        return is_as_defined and is_quick_enough and context_length in wanted

    def ttl_left_s(self, now_s: float) -> float | None:
        """Seconds until it counts as unused, 0 at least; None = never."""
        if math.isinf(self.ttl_s):
            return None
        return max(0.0, self.ttl_s - (now_s - self.used_at_s))

    async def load(self, work: Coroutine[Any, Any, None], context_length: int | None) -> None:
        """Begin a load and wait for it; see `join`."""
        self._load_context = context_length
        self._load = asyncio.create_task(work, name=f"load-{self.model}")
        self._load.add_done_callback(_retrieve)
        await self.join(context_length)

    async def join(self, context_length: int | None) -> None:
        """Wait for the load in progress; raise what it raises if it is for the same context.

        The load is given up when the last of those who wait for it is cancelled.
        """
        task = self._load
        if task is None:
            return
        if context_length not in (None, self._load_context):
            await asyncio.wait({task})
            return
        self._waiting += 1
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if self._waiting == 1:
                await self.give_up()
            raise
        finally:
            self._waiting -= 1
        if task.cancelled():
            raise LoadFailed(f"{self.model} was unloaded while it was loading.", was_ended=True)
        task.result()

    async def give_up(self) -> None:
        """Cancel the load in progress, if any, and wait until its process is gone."""
        if self._load is not None and not self._load.done():
            self._load.cancel()
            await asyncio.wait({self._load}, timeout=_GIVE_UP_S)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the exception of a load that nobody waits for any more, so that asyncio doesn't complain."""
    if not task.cancelled():
        task.exception()
