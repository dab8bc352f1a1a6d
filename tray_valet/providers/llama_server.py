"""The provider `llama-server`: one child process for each loaded model.

Decides: which runner serves which model, that a model is loaded once however many ask, and what is
reported of it. Must not: decide which models stay (services do), or restart what crashed (they are told).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.dialects import LLAMA_SERVER_PATHS
from tray_valet.core.downloads import PullProgress
from tray_valet.core.engines import Engine
from tray_valet.core.errors import EngineMissing, LoadFailed, NotSupported, UnknownModel
from tray_valet.core.memory_forecast import MemoryNeed
from tray_valet.core.models import (
    InstalledModel,
    LoadedModel,
    LoadRequest,
    Observation,
    ProviderKind,
    Upstream,
    check_context_length,
)
from tray_valet.core.ports import ChildTie, Clock, CpuPriority, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.providers import llama_server_yield
from tray_valet.providers.llama_server_files import ModelFiles, missing_problem
from tray_valet.providers.llama_server_memory import ModelMemory
from tray_valet.providers.llama_server_slot import Slot
from tray_valet.providers.llama_server_starts import RunnerStarts
from tray_valet.providers.runner import (
    Runner,
    RunnerExit,
    RunnerState,
    RunnerSurroundings,
)
from tray_valet.providers.runner_command import threads_in_background
from tray_valet.providers.runner_port import LOOPBACK, PortRange
from tray_valet.providers.runner_probe import RunnerProbe
from tray_valet.providers.runner_records import RunnerRecords

_LOG = logging.getLogger(__name__)
_CLOSE_S = 3.0
_LOAD_ATTEMPTS = 8  # others may have it reloaded with their context in between
_CLOSE_GRACE_S = 1.5  # leaves time for the kill


class LlamaServerProvider:
    """`Provider` over llama.cpp servers that are our own children. Lives on the loop."""

    kind: Final = ProviderKind.LLAMA_SERVER  # whichever engine is behind it
    can_unload: Final = True
    can_pull: Final = False
    paths: Final = LLAMA_SERVER_PATHS

    def __init__(
        self,
        name: str,
        settings: LlamaServerSettings,
        *,
        locate: Callable[[str | None], Engine],
        base_dir: Path,
        environ: Mapping[str, str],
        table: ProcessTable,
        tie: ChildTie,
        records: RunnerRecords,
        clock: Clock,
        default_ttl_s: float = float("inf"),
        on_crash: Callable[[RunnerExit], None] = lambda _notice: None,
        priority: CpuPriority | None = None,
        vram_multiplier: Callable[[], float] = lambda: 1.1,
        core_count: int = os.cpu_count() or 1,
    ) -> None:
        """`locate(llama_server_path)` finds the engine before each load and raises EngineMissing.

        `base_dir`: what relative paths in the settings are relative to. `default_ttl_s`: seconds unused
        until `ttl_left_s` is 0, where a load does not say. `on_crash` is called on the loop. `priority`
        lowers runners on the CPU during a game, None = they stay as they are.
        """
        self.name: Final = name
        self._settings = settings
        self._files = ModelFiles(base_dir)
        self._memory = ModelMemory(self._files, vram_multiplier, environ)
        self._priority = priority
        self._is_yielding = False
        self._missing: dict[str, str] | None = None  # models without a file, as last looked
        self._table = table
        self._clock = clock
        self._default_ttl_s = default_ttl_s
        self._slots: dict[str, Slot] = {}
        self._probe = RunnerProbe()
        self._is_closing = False
        self._starts = RunnerStarts(
            locate=locate,
            files=self._files,
            environ=environ,
            surroundings=RunnerSurroundings(
                provider=name,
                tie=tie,
                table=table,
                records=records,
                ports=PortRange(settings.first_port),
                probe=self._probe,
                clock=clock,
            ),
            on_crash=on_crash,
            priority=priority,
            background_threads=threads_in_background(core_count),
        )

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The address of the first port; each model has a port of its own from there on."""
        return f"http://{LOOPBACK}:{self._settings.first_port}"

    @property
    def is_local(self) -> bool:
        """True, unless the settings say that its models do not count as ours."""
        return self._settings.local is not False

    def canonical(self, model: str) -> str:
        """The name as it is: aliases are exact."""
        return model

    def reconfigure(self, settings: LlamaServerSettings) -> None:
        """Take new settings. Loaded models stay; one whose settings changed restarts at its next load."""
        if settings.first_port != self._settings.first_port:
            # Runners that are there keep the range they were started with.
            surroundings = msgspec.structs.replace(
                self._starts.surroundings, ports=PortRange(settings.first_port)
            )
            self._starts = msgspec.structs.replace(self._starts, surroundings=surroundings)
        self._settings = settings

    # -- looking -------------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        """What our children hold now. Never unreachable: there is no server when nothing is loaded."""
        if self._missing is None:
            self._missing = await self._look_for_files()
        missing = {model: why for model, why in self._missing.items() if model in self._settings.models}
        resident = [slot for slot in self._slots.values() if slot.is_resident]
        versions = (slot.runner.properties.version for slot in resident if slot.runner)
        return Observation(
            loaded=tuple(map(self._described, resident)),
            loading=tuple(slot.model for slot in self._slots.values() if slot.is_loading),
            version=next(filter(None, versions), None),
            problems=missing_problem(missing),
            unloadable=missing,
        )

    async def installed(self) -> tuple[InstalledModel, ...]:
        """The configured models whose files are there."""
        self._missing = await self._look_for_files()
        return await asyncio.to_thread(self._files.installed, self._settings)

    async def runners(self) -> tuple[ProcessIdentity, ...]:
        """All our children, those that are still loading included."""
        running = (slot.runner.processes for slot in self._slots.values() if slot.runner)
        return tuple(identity for processes in running for identity in processes)

    def states(self) -> dict[str, RunnerState]:
        """The state of each model's runner, `off` for those never started."""
        slots = {model: self._slots.get(model) for model in self._settings.models}
        return {
            model: slot.runner.state if slot and slot.runner else RunnerState.OFF
            for model, slot in slots.items()
        }

    def upstream(self, model: str) -> Upstream:
        """Where the loaded model answers. Raises UnknownModel when it is not loaded, or nobody's."""
        self._definition(model)
        slot = self._slots.get(model)
        if slot is None or slot.runner is None or not slot.is_ready:
            raise UnknownModel(f"{model} is not loaded at {self.name}.", param="model")
        return Upstream(
            base_url=slot.runner.base_url,
            model=model,
            headers=slot.runner.headers,
            kind=ProviderKind.LLAMA_SERVER,
            streams_whole=True,
        )

    def log_tail(self, model: str) -> tuple[str, ...]:
        """The last 200 lines of its runner, also after a crash; () if it never had one."""
        slot = self._slots.get(model)
        return slot.runner.log_tail() if slot and slot.runner else ()

    # -- doing ---------------------------------------------------------------------------------------

    async def load(self, request: LoadRequest) -> LoadedModel:
        """Load, or join the load in progress; see the port.

        `context_length` None accepts whatever the model is loaded with. `ttl_s` None leaves the time to
        live of a loaded model as it is, counted anew.
        """
        model, context_length = request.model, check_context_length(request.context_length)
        self._definition(model)
        slot = self._slots.setdefault(model, Slot(model))
        was_loaded = slot.is_ready
        attempts = itertools.count()
        while not self._serves(slot, request):
            if self._is_closing:
                raise LoadFailed(f"{model} is not loaded: {self.name} is closing down.", was_ended=True)
            if next(attempts) >= _LOAD_ATTEMPTS:
                raise LoadFailed(f"{model} ends right after it is loaded.", log_tail=self.log_tail(model))
            if slot.is_loading:
                await slot.join(context_length)
            else:
                was_loaded = False
                work = self._starts.bring_up(slot, self._settings, request, lambda: self._is_yielding)
                await slot.load(work, context_length)
        if request.ttl_s is not None or not was_loaded:
            slot.ttl_s = self._default_ttl_s if request.ttl_s is None else request.ttl_s
        slot.used_at_s = self._clock.monotonic_s()
        return self._described(slot)

    def touch(self, model: str, ttl_s: float | None = None) -> None:
        """Count its time to live anew, since it was used now; take a new one if one is given."""
        if slot := self._slots.get(model):
            slot.used_at_s = self._clock.monotonic_s()
            slot.ttl_s = slot.ttl_s if ttl_s is None else ttl_s

    def yield_cpu(self, is_yielding: bool) -> None:
        """Put runners on the CPU at idle priority, or back."""
        self._is_yielding = is_yielding
        if self._priority is not None:
            change = llama_server_yield.lower if is_yielding else llama_server_yield.restore
            change(self._slots.values(), self._priority)

    async def needs(self, request: LoadRequest) -> MemoryNeed | None:
        """What that load takes, by the file's metadata; None where nothing is loaded for it, or it cannot
        be (the load itself says why)."""
        slot, settings = self._slots.get(request.model), self._settings
        definition = settings.models.get(request.model)
        if definition is None or (slot and self._serves(slot, request)):
            return None
        try:
            engine = self._starts.locate(settings.llama_server_path)
            return await asyncio.to_thread(
                self._memory.need, settings, request.model, request.context_length, engine
            )
        except (LoadFailed, EngineMissing):
            return None

    async def unload(self, model: str) -> None:
        """End its runner: SIGTERM, after 2 s SIGKILL; a load in progress is given up. Raises CannotKill."""
        await self._end(model, lambda runner: runner.stop())

    async def kill(self, model: str) -> None:
        """End its runner with SIGKILL; a load in progress is given up. Raises CannotKill."""
        await self._end(model, lambda runner: runner.kill())

    def look_afresh(self) -> None:
        """Nothing to do: it always knows its runners."""

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Raises NotSupported: its models are files that the settings name."""
        raise self._own_files(model)

    async def delete(self, model: str) -> None:
        """Raises NotSupported."""
        raise self._own_files(model)

    async def models_folder(self) -> str | None:
        """The folder of the settings; None where they name none."""
        return self._settings.base_models_path

    def _own_files(self, model: str) -> NotSupported:
        return NotSupported(
            f"{self.name} loads files of your own; it downloads and deletes none.",
            remedy=f"Put a GGUF file on the disk and name it in the settings: providers.{self.name}.models.",
            param="provider",
        )

    async def close(self) -> None:
        """End all runners, within 3 s."""
        self._is_closing = True
        ends = [self._end(model, lambda runner: runner.stop(_CLOSE_GRACE_S)) for model in self._slots]
        try:
            async with asyncio.timeout(_CLOSE_S):
                results = await asyncio.gather(*ends, return_exceptions=True)
        except TimeoutError:
            results = [TimeoutError("a runner did not end in time")]
        for problem in filter(None, results):
            _LOG.error("%s: %s", self.name, problem)
        await self._probe.close()

    # -- inside --------------------------------------------------------------------------------------

    async def _look_for_files(self) -> dict[str, str]:
        return await asyncio.to_thread(self._files.missing, self._settings)

    def _definition(self, model: str) -> LlamaServerModelSettings:
        try:
            return self._settings.models[model]
        except KeyError:
            raise UnknownModel(
                f"{self.name} has no model {model}.",
                remedy=f"Add it under providers.{self.name}.models in the settings.",
                param="model",
            ) from None

    def _serves(self, slot: Slot, request: LoadRequest) -> bool:
        """Say whether what is loaded is what is wanted, as long as the machine is somebody else's or not."""
        return slot.serves(
            self._definition(slot.model),
            request.context_length,
            is_in_background=request.is_in_background or self._is_yielding,
        )

    async def _end(self, model: str, end: Callable[[Runner], Awaitable[None]]) -> None:
        slot = self._slots.get(model)
        if slot is None:
            return
        await slot.give_up()
        if slot.runner is not None:
            await end(slot.runner)

    def _described(self, slot: Slot) -> LoadedModel:
        processes = slot.runner.processes if slot.runner else ()
        usage = self._table.usage(processes)
        return LoadedModel(
            name=slot.model,
            # What lies on a GPU is not resident; then the file's size is the better guess.
            size_bytes=max(usage.resident_bytes, slot.file_bytes),
            context_length=slot.context_length,
            ttl_left_s=slot.ttl_left_s(self._clock.monotonic_s()),
            needs_gpu=slot.definition is None or not slot.definition.cpu_only,
            pid=slot.runner.pid if slot.runner else None,
            is_in_background=slot.is_lowered,
            slots=max(1, slot.runner.properties.total_slots) if slot.runner else None,
        )
