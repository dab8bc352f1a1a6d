"""The provider for an Ollama server.

Decides: how the port's words become Ollama's calls, and what Ollama's answers mean.
Must not: start or stop the server, keep a model from going, or touch a process that is no runner of this
very server.

Facts: server/routes.go and server/sched.go of Ollama, checked against a server built from its source. An
unload is answered at once, waits for a running generation and does not end it; only /api/ps says when a
model has gone. Models that are still on their way in are not in /api/ps, but their processes are there.
Loads wait for one another. A runner that died stays in /api/ps until the model is unloaded or asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import httpx
import msgspec

from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.dialects import OLLAMA_PATHS
from tray_valet.core.downloads import PullProgress
from tray_valet.core.errors import (
    CannotKill,
    InvalidValue,
    LoadFailed,
    NotSupported,
    ProviderUnreachable,
    UnknownModel,
    ValetError,
)
from tray_valet.core.memory_forecast import MemoryNeed
from tray_valet.core.models import (
    InstalledModel,
    LoadedModel,
    LoadRequest,
    Observation,
    ProviderKind,
    Upstream,
)
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import Process, ProcessIdentity
from tray_valet.providers.http_client import new_client
from tray_valet.providers.ollama_api import (
    OllamaApi,
    OllamaLimits,
    deleted_while_loaded,
    unknown_model,
)
from tray_valet.providers.ollama_catalogue import OllamaCatalogue
from tray_valet.providers.ollama_folder import folder_of_server
from tray_valet.providers.ollama_loads import SharedLoads
from tray_valet.providers.ollama_processes import holding, slots_of
from tray_valet.providers.ollama_pulls import OllamaPulls
from tray_valet.providers.ollama_runners import KILL_REMEDY, OllamaRunners
from tray_valet.providers.ollama_times import keep_alive_of
from tray_valet.providers.ollama_wire import loaded_models

_log = logging.getLogger(__name__)
_VERSION_AGE_S = 600.0  # the version is asked for this often
_VERSION_WAIT_S = 0.4
_FOLDER_S = 3.0  # to find out where the models lie
_POLL_S = 0.05
_UNSPECIFIED_HOSTS = frozenset({"0.0.0.0", "::"})  # what OLLAMA_HOST is often set to: this machine


class OllamaProvider:
    """`Provider` over one Ollama server's HTTP API. Lives on the loop."""

    kind: Final = ProviderKind.OLLAMA
    can_unload: Final = True
    can_pull: Final = True
    paths: Final = OLLAMA_PATHS

    def __init__(
        self,
        name: str,
        url: str,
        *,
        clock: Clock,
        processes: ProcessTable | None = None,
        client: httpx.AsyncClient | None = None,
        is_local: bool | None = None,
        headers: Mapping[str, str] | None = None,
        limits: OllamaLimits | None = None,
    ) -> None:
        """`is_local` None: local if the address is loopback. A `client` handed in is not closed here.

        `headers` go with every request (an `Authorization`, where a proxy in front asks for one).
        Raises InvalidValue for an address that is none.
        """
        parts = split_url(url)
        if parts is None:
            raise InvalidValue(f"{url!r} is not an http address.", param=f"providers.{name}.url")
        is_here = is_loopback_host(parts.host) or parts.host in _UNSPECIFIED_HOSTS
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self.name: Final = name
        self.endpoint: Final = url.rstrip("/")
        self.is_local: Final = is_here if is_local is None else is_local
        self._clock = clock
        self._limits = limits or OllamaLimits()
        self._headers = dict(headers or {})
        http = client or new_client(
            self.endpoint,
            is_loopback=is_here,
            max_connections=32,
            max_idle=4,
            timeout=httpx.Timeout(self._limits.call_s, connect=self._limits.connect_s),
        )
        self._own_client = None if client else http
        self._api = OllamaApi(self.endpoint, http, self._limits, self._headers)
        self._catalogue = OllamaCatalogue(self._api)
        self._place = (processes, port) if processes and is_here else None
        self._runners = OllamaRunners(*self._place, clock) if self._place else None
        self._pulls = OllamaPulls(self.endpoint, http, self._limits, self._headers, self._api.version)
        self._loads = SharedLoads(self._load, give_up_s=2.5 * self._limits.give_up_s)
        self._loaded: frozenset[str] = frozenset()  # as last seen
        self._slots: dict[tuple[str, int | None], int | None] = {}  # by name and context
        self._version: str | None = None
        self._version_asked_s = float("-inf")

    def canonical(self, model: str) -> str:
        """Spell a name as Ollama does: tag added, other registries' paths kept, case as it is there."""
        return self._catalogue.spelled(model)

    def upstream(self, model: str) -> Upstream:
        """Where requests for a model go. Raises UnknownModel for one that was never seen here."""
        name = self.canonical(model)
        if name not in self._loaded and not self._catalogue.has(name) and not self._catalogue.is_cloud(name):
            raise unknown_model(name)
        return Upstream(base_url=self.endpoint, model=name, headers=self._headers, kind=ProviderKind.OLLAMA)

    def touch(self, model: str, ttl_s: float | None = None) -> None:
        """Nothing to do: Ollama sees every request itself."""

    def yield_cpu(self, is_yielding: bool) -> None:
        """Its processes are not ours."""

    async def needs(self, request: LoadRequest) -> MemoryNeed | None:
        """None: Ollama makes room itself."""
        return None

    def log_tail(self, model: str) -> tuple[str, ...]:
        """Nothing: Ollama's runners write into Ollama's own log."""
        return ()

    # -- looking --------------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        """Look at what is loaded in this machine's memory, within 5 s. Raises ProviderUnreachable."""
        answer = await self._api.ps()
        loaded = loaded_models(answer, now_s=self._clock.wall_s(), cloud=self._catalogue.cloud)
        self._loaded = frozenset(model.name for model in loaded)
        self._catalogue.learn_spellings(self._loaded)
        if self._runners is not None:
            await self._catalogue.learn_blobs(self._loaded)
            loaded = await self._with_slots(loaded)
        loading = tuple(name for name in self._loads.names if name not in self._loaded)
        return Observation(loaded=loaded, loading=loading, version=await self._current_version())

    async def installed(self) -> tuple[InstalledModel, ...]:
        """List what is on disk, cloud models too (`needs_gpu` False). Raises ProviderUnreachable."""
        return await self._catalogue.read()

    async def runners(self) -> tuple[ProcessIdentity, ...]:
        """The processes that hold (or are loading) its models; () where it cannot be told.

        They are told by parentage: below the process that listens at the address, on this machine.
        """
        return tuple(process.identity for process in await self._runner_processes())

    # -- loading and unloading ------------------------------------------------------------------------

    async def load(self, request: LoadRequest) -> LoadedModel:
        """Load and return when the model is ready; minutes are fine, a server that died is noticed.

        `ttl_s` below one second counts as one: 0 is how Ollama is told to unload. The context of the
        answer is the one that Ollama reports: it cuts a wish down to what the model was trained for. A
        cloud model is ready as it is. Raises UnknownModel, LoadFailed, ProviderUnreachable.
        """
        return await self._loads.load(msgspec.structs.replace(request, model=self.canonical(request.model)))

    async def unload(self, model: str) -> None:
        """Ask for the model to go; a running generation is finished first, whatever it takes.

        Raises ProviderUnreachable, UpstreamFailed; NotSupported when its files were deleted meanwhile.
        """
        name = self.canonical(model)
        if self._catalogue.is_cloud(name):
            return
        try:
            await self._api.unload(name)
        except UnknownModel as error:
            if _named(await self.observe(), name) is not None:
                raise deleted_while_loaded(name) from error

    async def kill(self, model: str) -> None:
        """End the process that holds the model, then have Ollama drop its entry.

        Raises CannotKill with the remedy (another user's process, another machine), NotSupported where
        no process can be told to hold it.
        """
        name = self.canonical(model)
        if self._runners is None:
            raise CannotKill(
                f"The processes of {self.endpoint} cannot be ended from here.",
                remedy="Restart Ollama where it runs.",
            )
        for identity in await self._processes_of(name):
            await self._runners.end(identity)
        try:
            async with asyncio.timeout(self._limits.give_up_s):
                await self._api.unload(name)  # else the dead runner's model stays in /api/ps
        except (ValetError, TimeoutError) as error:
            _log.info("%s: ended the runner of %s; Ollama keeps its entry (%s)", self.name, name, error)

    # -- the disk --------------------------------------------------------------------------------------

    def look_afresh(self) -> None:
        """Have the next look ask for the version too."""
        self._version_asked_s = float("-inf")

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download a model; Ollama goes on where an earlier download was broken off."""
        return self._pulls.pull(self.canonical(model))

    async def delete(self, model: str) -> None:
        """Delete a model from Ollama's disk. Raises UnknownModel, UpstreamFailed, ProviderUnreachable."""
        await self._api.delete(self.canonical(model))

    async def models_folder(self) -> str | None:
        """Where its models lie, for a server on this machine."""
        if self._place is None:
            return None
        try:
            async with asyncio.timeout(_FOLDER_S):
                return await asyncio.to_thread(folder_of_server, *self._place)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Give up loads and close the connections, within 3 s. Ollama's models stay as they are."""
        await self._loads.close()
        if self._own_client is not None:
            await self._own_client.aclose()

    # -- parts ----------------------------------------------------------------------------------------

    async def _load(self, request: LoadRequest) -> LoadedModel:
        name = request.model
        if self._catalogue.is_cloud(name):
            return LoadedModel(name=name, needs_gpu=False)
        before = _named(await self.observe(), name)
        context_length = request.context_length
        if context_length is None and before is not None:
            # Asking without a context would make Ollama start the runner anew with its default.
            context_length = before.context_length
        try:
            await self._api.load(name, context_length=context_length, keep_alive=keep_alive_of(request.ttl_s))
        except asyncio.CancelledError:
            if before is None:
                await self._leave_nothing(name)
            raise
        return await self._loaded_now(name, context_length)

    async def _loaded_now(self, name: str, context_length: int | None) -> LoadedModel:
        """Look whether the load did what was asked."""
        model = _named(await self.observe(), name)
        if model is None:
            raise LoadFailed(f"Ollama loaded {name} and let it go again at once.")
        if context_length is not None and model.context_length not in (context_length, None):
            _log.warning(
                "%s: %s has a context of %s tokens, not the %s asked for",
                self.name,
                name,
                model.context_length,
                context_length,
            )
        return model

    async def _leave_nothing(self, name: str) -> None:
        """After a load was given up: it may have become ready in the same moment, or be dying still."""
        try:
            async with asyncio.timeout(self._limits.give_up_s):
                await self._api.unload(name)
                blobs = await self._catalogue.blobs_of(name)
                while True:
                    if not holding(await self._runner_processes(), model=name, blobs=blobs):
                        return
                    await asyncio.sleep(_POLL_S)
        except (ValetError, TimeoutError) as error:
            _log.debug("%s: giving up the load of %s: %s", self.name, name, error)

    async def _processes_of(self, name: str) -> tuple[ProcessIdentity, ...]:
        """The processes to end for a model. Raises NotSupported."""
        runners = await self._runner_processes()
        blobs = await self._catalogue.blobs_of(name)
        if held := holding(runners, model=name, blobs=blobs):
            return held
        try:
            async with asyncio.timeout(self._limits.give_up_s):
                await self.observe()
        except (ProviderUnreachable, TimeoutError):
            _log.info("%s does not answer; going by what was loaded when it last did", self.name)
        if not blobs and self._loaded == {name} and runners:
            return tuple(process.identity for process in runners)  # nothing else is loaded
        raise NotSupported(f"No process can be told to hold {name}.", remedy=KILL_REMEDY)

    async def _with_slots(self, loaded: tuple[LoadedModel, ...]) -> tuple[LoadedModel, ...]:
        """The same models with their runners' slots; looked up once for as long as a model stays."""
        if any((m.name, m.context_length) not in self._slots for m in loaded):
            runners = await self._runner_processes()
            for model in loaded:
                blobs = await self._catalogue.blobs_of(model.name)
                held = holding(runners, model=model.name, blobs=blobs)
                told = (slots_of(process) for process in runners if process.identity in held)
                self._slots[model.name, model.context_length] = next(iter(told), None)
        kept = {(m.name, m.context_length) for m in loaded}
        self._slots = {key: slots for key, slots in self._slots.items() if key in kept}
        return tuple(
            msgspec.structs.replace(m, slots=self._slots.get((m.name, m.context_length))) for m in loaded
        )

    async def _runner_processes(self) -> tuple[Process, ...]:
        return await self._runners.seen() if self._runners else ()

    async def _current_version(self) -> str | None:
        now_s = self._clock.monotonic_s()
        if now_s - self._version_asked_s >= _VERSION_AGE_S:
            self._version_asked_s = now_s
            try:
                async with asyncio.timeout(_VERSION_WAIT_S):
                    self._version = await self._api.version() or None
            except (ProviderUnreachable, TimeoutError) as error:
                # /api/ps has answered, so it is there; look-alikes may not tell a version.
                _log.debug("%s: no version: %s", self.name, error)
        return self._version


def _named(observation: Observation, name: str) -> LoadedModel | None:
    return next((m for m in observation.loaded if m.name.casefold() == name.casefold()), None)
