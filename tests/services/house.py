"""The watchdog's services around fake providers: the real rules and loops, no processes, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings, ModelsSettings, Settings
from tray_valet.core.dialects import OPERATIONS
from tray_valet.core.downloads import PullProgress
from tray_valet.core.errors import NotSupported, ProviderUnreachable, UnknownModel, ValetError
from tray_valet.core.holds import GameCause, Hold, HoldKind
from tray_valet.core.memory_forecast import MemoryNeed
from tray_valet.core.metrics import GpuSample, HostSample, MachineSample
from tray_valet.core.models import (
    InstalledModel,
    LoadedModel,
    LoadRequest,
    Observation,
    ProviderKind,
    Upstream,
)
from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage
from tray_valet.core.watchdog import State
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.clock import SystemClock
from tray_valet.services.dispatcher import Dispatcher
from tray_valet.services.evictor import Evictor
from tray_valet.services.fit import Fit
from tray_valet.services.fleet import Fleet
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.leases import Leases
from tray_valet.services.loader import Loader
from tray_valet.services.memory_probe import MemoryProbe
from tray_valet.services.reload_fights import ReloadFights
from tray_valet.services.restorer import Restorer
from tray_valet.services.revival import Revival
from tray_valet.services.watchdog import Watchdog

GB = 2**30
RUNNER = ProcessIdentity(4242, 1)


class FakeProvider:
    """A provider in memory. What it does wrong is set by the test."""

    def __init__(
        self, name: str = "fake", models: Sequence[str] = ("a", "b"), runner: ProcessIdentity = RUNNER
    ) -> None:
        self._name = name
        self.runner = runner
        self.thawed = (
            asyncio.Event()
        )  # cleared: it answers nothing; its processes can still be seen and ended
        self.thawed.set()
        self.models = tuple(models)
        self.loaded: dict[str, LoadedModel] = {}
        self.calls: list[tuple[str, str]] = []
        self.requests: list[LoadRequest] = []
        self.is_away = False
        self.ignores_unload = False
        self.kill_error: ValetError | None = None
        self.load_errors: list[ValetError] = []
        self.load_s = 0.0
        self.holds_memory_s = 0.0  # the process keeps its memory so long after the model is unlisted
        self.memory_bytes = 0
        self.size_bytes = 4 * GB
        self.cpu_only: frozenset[str] = frozenset()
        self.slots: int | None = None
        self.touches: list[tuple[str, float | None]] = []
        self.memory_needs: dict[str, MemoryNeed] = {}

    name = property(lambda self: self._name)
    kind = ProviderKind.OLLAMA
    endpoint = "http://127.0.0.1:1"
    is_local = True
    can_unload = True
    can_pull = False
    paths = frozenset(OPERATIONS)

    def canonical(self, model: str) -> str:
        return model

    async def observe(self) -> Observation:
        if self.is_away:
            raise ProviderUnreachable("Nothing answers.")
        await self.thawed.wait()
        return Observation(loaded=tuple(self.loaded.values()))

    async def installed(self) -> tuple[InstalledModel, ...]:
        await self.thawed.wait()
        return tuple(InstalledModel(name=name, needs_gpu=name not in self.cpu_only) for name in self.models)

    async def load(self, request: LoadRequest) -> LoadedModel:
        self.calls.append(("load", request.model))
        self.requests.append(request)
        if self.is_away:
            raise ProviderUnreachable("Nothing answers.")
        if request.model not in self.models:
            raise UnknownModel(f"no {request.model}")
        if self.load_errors:
            raise self.load_errors.pop(0)
        await asyncio.sleep(self.load_s)
        self.put(request.model, request.context_length or 4096)
        return self.loaded[request.model]

    def put(self, model: str, context_length: int = 4096, ttl_left_s: float | None = 300.0) -> None:
        """Have it loaded, as by another client."""
        self.memory_bytes += self.size_bytes
        self.loaded[model] = LoadedModel(
            name=model,
            size_bytes=self.size_bytes,
            context_length=context_length,
            ttl_left_s=ttl_left_s,
            needs_gpu=model not in self.cpu_only,
            slots=self.slots,
        )

    async def unload(self, model: str) -> None:
        self.calls.append(("unload", model))
        await self.thawed.wait()
        if not self.ignores_unload:
            self._let_go(model)

    async def kill(self, model: str) -> None:
        self.calls.append(("kill", model))
        if self.kill_error:
            raise self.kill_error
        self.holds_memory_s = 0.0
        self.memory_bytes = 0
        self._let_go(model)

    def _let_go(self, model: str) -> None:
        if self.loaded.pop(model, None) is None:
            return
        loop = asyncio.get_running_loop()
        loop.call_later(self.holds_memory_s, self._free)

    def _free(self) -> None:
        if self.holds_memory_s < 100:
            self.memory_bytes = max(0, self.memory_bytes - self.size_bytes)

    async def runners(self) -> tuple[ProcessIdentity, ...]:
        return (self.runner,) if self.memory_bytes and not self.is_away else ()

    def upstream(self, model: str) -> Upstream:
        return Upstream(base_url="http://127.0.0.1:1", model=model, kind=self.kind)

    def touch(self, model: str, ttl_s: float | None = None) -> None:
        self.touches.append((model, ttl_s))

    def yield_cpu(self, is_yielding: bool) -> None:
        self.calls.append(("yield_cpu", str(is_yielding)))

    async def needs(self, request: LoadRequest) -> MemoryNeed | None:
        return self.memory_needs.get(request.model)

    def look_afresh(self) -> None:
        pass

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        raise NotSupported("It has no downloads.")

    async def delete(self, model: str) -> None:
        raise NotSupported("It deletes nothing.")

    async def models_folder(self) -> str | None:
        return None

    def log_tail(self, model: str) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        pass


class FakeTable:
    """Processes whose memory is what the provider says."""

    def __init__(self, *providers: FakeProvider) -> None:
        self.providers = list(providers)
        self.dead: set[ProcessIdentity] = set()

    def usage(self, processes: Sequence[ProcessIdentity]) -> ProcessUsage:
        n_bytes = sum(p.memory_bytes for p in self.providers if p.runner in processes)
        return ProcessUsage(ram_bytes=n_bytes, resident_bytes=n_bytes)

    def is_alive(self, identity: ProcessIdentity) -> bool:
        return identity not in self.dead

    def describe(self, pid: int) -> Process | None:
        return Process(identity=ProcessIdentity(pid, 1))

    def all_pids(self) -> Sequence[int]:
        return ()

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        return ()

    def listening_on(self, port: int) -> ProcessIdentity | None:
        return None

    def clients_of(self, port: int) -> tuple[ProcessIdentity, ...]:
        return ()

    def terminate(self, identity: ProcessIdentity) -> None: ...

    def kill(self, identity: ProcessIdentity) -> None: ...


class NoGpus:
    missing_because = "none here"

    def sample(self) -> tuple[GpuSample, ...]:
        return ()

    def close(self) -> None: ...


class House:
    """The services, wired as the product wires them."""

    def __init__(self, state_dir: Path, provider: FakeProvider, eviction: EvictionSettings) -> None:
        clock = SystemClock()
        self.table = FakeTable(provider)
        self.providers = self.table.providers  # a test may add others before it runs
        self.facts: list[ev.Fact] = []
        self.sample: MachineSample | None = None
        self.holds = HoldBook(clock, self.table, self.facts.append, lambda: self.watchdog.wake())
        self.fleet = Fleet(clock, self.facts.append, self._on_fleet_change)
        self.journal = JournalBook(state_dir / "journal.json", clock, write_atomically, self.facts.append)
        self.settings = Settings(eviction=eviction)
        self.leases = Leases()
        self.dispatcher = Dispatcher(
            self.fleet,
            clock,
            self.leases,
            lambda: self.settings,
            lambda demand: self.watchdog.closed_by(demand),
            lambda ref: self.restorer.request_for(ref),
            lambda: any(hold.kind is HoldKind.GAME for hold in self.holds.in_effect),
        )
        probe = MemoryProbe(self.table, NoGpus())
        self.loader = Loader(
            self.fleet,
            clock,
            self.facts.append,
            ModelsSettings,
            lambda ref: bool(self.leases.count(ref)),
            lambda demand: self.watchdog.closed_by(demand),
            lambda ref: False,
            Revival(
                self.fleet,
                clock,
                self.facts.append,
                lambda demand: self.watchdog.closed_by(demand),
                lambda ref: None,
                lambda slot, request: self.loader.ensure(slot, request),
            ),
            Fit(self.fleet, self._measured, probe.with_vram, ModelsSettings),
        )
        self.dispatcher.loader = self.loader
        self.evictor = Evictor(
            self.fleet,
            self.leases,
            self.loader,
            self.journal,
            probe,
            clock,
            self.facts.append,
            lambda: eviction,
        )
        self.restorer = Restorer(self.fleet, self.loader, self.journal, clock, self.facts.append)
        self.fights = ReloadFights(self.fleet, self.table, clock, self.facts.append, lambda: None)
        self.watchdog = Watchdog(
            clock,
            self.holds,
            self.fleet,
            self.evictor,
            self.restorer,
            self.fights,
            self.facts.append,
            lambda: self.sample,
            self.dispatcher.gate_changed,
        )
        self.clock = clock

    async def _measured(self) -> MachineSample:
        return self.sample or machine(1024 * GB)

    def _on_fleet_change(self) -> None:
        self.dispatcher.fleet_changed()
        self.watchdog.wake()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[House]:
        """All loops, with a look at the providers ten times a second."""
        self.journal.read()
        await self.fleet.replace(self.providers)
        await self.fleet.refresh()
        await self.fleet.installed()
        async with self._loops():
            yield self

    @asynccontextmanager
    async def running_without_waiting(self) -> AsyncIterator[House]:
        """The same, before any provider has answered."""
        await self.fleet.replace(self.providers)
        async with self._loops():
            yield self

    @asynccontextmanager
    async def _loops(self) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(self.watchdog.run()),
            asyncio.create_task(self.holds.run()),
            asyncio.create_task(self.fleet.run(lambda: 0.1)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def game(self, name: str = "Hades", wait_s: float = 0.0) -> Hold:
        """Place a game's hold."""
        hold = Hold(
            id=f"game:{name.lower()}",
            kind=HoldKind.GAME,
            owner="valet",
            cause=GameCause(name=name, place=f"steamapps/common/{name}"),
            since=0.0,
            wait_s=wait_s,
        )
        self.holds.place(hold)
        return hold

    async def reaches(self, *states: State, within_s: float = 30.0) -> State:
        """Wait for one of these states."""
        state = await self.watchdog.settled(frozenset(states), within_s)
        assert state in states, f"{state}; {self.facts}"
        return state

    def seen(self, kind: type[ev.Fact]) -> list[ev.Fact]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


def machine(ram_free_bytes: int) -> MachineSample:
    host = HostSample(ram_total_bytes=32 * GB, ram_available_bytes=ram_free_bytes, cpu_pct=0.0, core_count=8)
    return MachineSample(host=host)
