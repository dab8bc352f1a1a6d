"""Starting the runner of one model: the work of a load, from the file to the process that serves.

Decides: what a runner is started with. Must not: decide that one is started, or whom it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.engines import Engine
from tray_valet.core.models import LoadRequest
from tray_valet.core.ports import CpuPriority
from tray_valet.providers import llama_server_yield
from tray_valet.providers.llama_server_files import ModelFiles
from tray_valet.providers.llama_server_slot import Slot
from tray_valet.providers.runner import TERMINATE_GRACE_S, Runner, RunnerExit, RunnerSurroundings
from tray_valet.providers.runner_command import RunnerCommand, configured_context, runner_command


class RunnerStarts(msgspec.Struct, frozen=True, kw_only=True):
    """What every start needs. `background_threads`: how many a runner gets beside a game."""

    locate: Callable[[str | None], Engine]
    files: ModelFiles
    environ: Mapping[str, str]
    surroundings: RunnerSurroundings
    on_crash: Callable[[RunnerExit], None]
    priority: CpuPriority | None
    background_threads: int

    async def bring_up(
        self,
        slot: Slot,
        settings: LlamaServerSettings,
        request: LoadRequest,
        is_yielding: Callable[[], bool],
    ) -> None:
        """End what is there, start the new runner, wait until it serves.

        `is_yielding()`: whether runners on the CPU stand back now. Raises LoadFailed, EngineMissing.
        """
        definition, context_length = settings.models[slot.model], request.context_length
        has_few_threads = request.is_in_background and definition.cpu_only
        engine = self.locate(settings.llama_server_path)
        path, slot.file_bytes = await asyncio.to_thread(self.files.found, settings, slot.model)
        if slot.runner is not None:
            await _replace(slot.runner)

        def command_for(port: int, api_key: str) -> RunnerCommand:
            return runner_command(
                engine,
                settings,
                alias=slot.model,
                model_path=str(path),
                context_length=context_length,
                port=port,
                api_key=api_key,
                environ=self.environ,
                background_threads=self.background_threads if has_few_threads else None,
            )

        slot.runner = Runner(slot.model, str(path), command_for, self.surroundings, self._told(slot))
        slot.definition = definition
        slot.asked_context = context_length or configured_context(definition.flags)
        slot.has_few_threads = slot.is_lowered = has_few_threads
        await slot.runner.start()
        if self.priority is not None and (has_few_threads or is_yielding()):
            slot.is_lowered = False  # where the start itself could not do it, or a game began meanwhile
            llama_server_yield.lower([slot], self.priority)
            slot.is_lowered = slot.is_lowered or has_few_threads

    def _told(self, slot: Slot) -> Callable[[RunnerExit], None]:
        """Tell of a crash with what it takes to load the model as it was."""

        def tell(notice: RunnerExit) -> None:
            request = LoadRequest(model=slot.model, context_length=slot.asked_context, ttl_s=slot.ttl_s)
            self.on_crash(msgspec.structs.replace(notice, request=request))

        return tell


async def _replace(runner: Runner) -> None:
    """End a runner to make room for its successor; at once if that is cancelled meanwhile."""
    try:
        await runner.stop(TERMINATE_GRACE_S)
    except asyncio.CancelledError:
        await runner.kill()
        raise
