"""The ports: what the services need from the outside world, as Protocols.

Every adapter (Linux, Windows, macOS; Ollama, llama-server …) is checked by one contract test class per
port. Adapters translate foreign errors into `core.errors`; they never return a bool for success.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from tray_valet.core.downloads import PullProgress
from tray_valet.core.game_library import LibraryScan
from tray_valet.core.memory_forecast import MemoryNeed
from tray_valet.core.metrics import DiskSample, GpuSample, HostSample
from tray_valet.core.models import (
    InstalledModel,
    LoadedModel,
    LoadRequest,
    Observation,
    ProviderKind,
    Upstream,
)
from tray_valet.core.notices import ChoiceKind, Notice, Subject
from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage


class Clock(Protocol):
    """Time. `monotonic_s` for durations, `wall_s` (Unix seconds) for what people and files see."""

    def monotonic_s(self) -> float: ...

    def wall_s(self) -> float: ...


class Provider(Protocol):
    """One configured provider. All methods run on the loop and bound their own waits."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> ProviderKind: ...

    @property
    def endpoint(self) -> str:
        """The address people know it by (`http://127.0.0.1:11434`)."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether its models take memory of this machine."""
        ...

    @property
    def can_unload(self) -> bool:
        """Whether it can be told to unload; if not, its gate is closed during a pause, and that is all."""
        ...

    @property
    def can_pull(self) -> bool:
        """Whether it can be told to download and delete models."""
        ...

    @property
    def paths(self) -> frozenset[str]:
        """The router's paths (`core.dialects`) that it serves."""
        ...

    def canonical(self, model: str) -> str:
        """The one spelling of a model's name here (`llama3` → `llama3:latest` at Ollama)."""
        ...

    async def observe(self) -> Observation:
        """Look at what is loaded now, within 5 s. Raises ProviderUnreachable."""
        ...

    async def installed(self) -> tuple[InstalledModel, ...]:
        """List what could be loaded. Raises ProviderUnreachable."""
        ...

    async def load(self, request: LoadRequest) -> LoadedModel:
        """Load and return when the model is ready, however long that takes.

        Already loaded with the same context: answers at once (and sets the TTL anew). Cancelling the
        call gives the load up and leaves nothing running. Raises UnknownModel, LoadFailed,
        ProviderUnreachable, EngineMissing.
        """
        ...

    async def unload(self, model: str) -> None:
        """Ask for the model to go. Returning says that it was asked, not that it is gone: look with
        `observe`. Not loaded: fine. Raises ProviderUnreachable, NotSupported."""
        ...

    async def kill(self, model: str) -> None:
        """End the process that holds the model, at once. Raises CannotKill with the remedy where that
        process is not ours to end, NotSupported where there is none."""
        ...

    async def runners(self) -> tuple[ProcessIdentity, ...]:
        """The processes on this machine that hold its models; () where it cannot be told."""
        ...

    def upstream(self, model: str) -> Upstream:
        """Where requests for a *loaded* model go. Raises UnknownModel."""
        ...

    def touch(self, model: str, ttl_s: float | None = None) -> None:
        """Note that the model was used just now, so that its idle time starts again; `ttl_s` (seconds,
        `math.inf` = for ever) is how long that is from now on, None = as before. Providers that see every
        request themselves have nothing to do."""
        ...

    def yield_cpu(self, is_yielding: bool) -> None:
        """Begin (or end) giving way on the CPU: runners there go to idle priority while something else has
        the machine. Quick. Providers whose processes are not ours have nothing to do."""
        ...

    async def needs(self, request: LoadRequest) -> MemoryNeed | None:
        """What memory that load would take more than now; None where it cannot be told, or is not ours to
        judge. Raises UnknownModel, LoadFailed."""
        ...

    def look_afresh(self) -> None:
        """Have the next look really ask, however short a while ago it was asked."""
        ...

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download a model, telling how far it is; it ends when the model is there. A download that was
        broken off goes on where it was, where the provider can do that. Raises UnknownModel (there is none
        of that name anywhere), NotSupported, UpstreamFailed, ProviderUnreachable."""
        ...

    async def delete(self, model: str) -> None:
        """Delete a model from the disk. Raises UnknownModel, NotSupported, ProviderUnreachable."""
        ...

    async def models_folder(self) -> str | None:
        """The folder that holds its models on this machine; None where there is none or it is not told."""
        ...

    def log_tail(self, model: str) -> tuple[str, ...]:
        """The last lines its runner wrote; () where it is not our child."""
        ...

    async def close(self) -> None:
        """End our own runners and connections, within 3 s."""
        ...


class ProcessTable(Protocol):
    """The system's processes, looked up on demand. Cheap calls; may be made from worker threads."""

    def describe(self, pid: int) -> Process | None:
        """What runs there now; None when it is gone or not ours to see."""
        ...

    def all_pids(self) -> Sequence[int]: ...

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """Whether that very process lives (zombies do not)."""
        ...

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        """Children, their children and so on, without `pid` itself."""
        ...

    def listening_on(self, port: int) -> ProcessIdentity | None:
        """Who listens on that TCP port of loopback or of all addresses; None when unknown."""
        ...

    def clients_of(self, port: int) -> tuple[ProcessIdentity, ...]:
        """Who is connected to that TCP port of this machine, but for us; () also when it cannot be told."""
        ...

    def usage(self, processes: Sequence[ProcessIdentity]) -> ProcessUsage:
        """Memory and CPU of those that still live, added up."""
        ...

    def terminate(self, identity: ProcessIdentity) -> None:
        """Ask it to end. Gone already: fine. Raises CannotKill."""
        ...

    def kill(self, identity: ProcessIdentity) -> None:
        """End it at once. Gone already: fine. Raises CannotKill."""
        ...


class ProcessWatch(Protocol):
    """Reports process starts (every `exec` counts) and the exits of followed processes.

    `run` reports on the loop thread until it is cancelled. What runs at the start is reported first.
    """

    @property
    def source(self) -> str:
        """How it sees: `proc connector`, `poll 4 Hz` …, for `doctor` and `explain`."""
        ...

    async def run(
        self, on_started: Callable[[Process], None], on_exited: Callable[[ProcessIdentity], None]
    ) -> None: ...

    def follow(self, identity: ProcessIdentity) -> None:
        """Report this process's exit. If it is gone already, that is reported too."""
        ...


class LibraryScanner(Protocol):
    """Reads what one store (or all of them) has installed. Called in a worker thread; never raises."""

    def scan(self) -> LibraryScan: ...


class HostSensor(Protocol):
    """RAM, CPU and disk of the machine; a call never blocks longer than a few milliseconds."""

    def sample(self) -> HostSample: ...

    def disk(self, path: str) -> DiskSample | None: ...


class GpuSensor(Protocol):
    """Every GPU that can be measured; () without a driver is normal. Called in a worker thread."""

    def sample(self) -> tuple[GpuSample, ...]: ...

    @property
    def missing_because(self) -> str | None:
        """Why there are no figures (`no NVIDIA driver`), or None."""
        ...

    def let_sleep(self) -> None:
        """Give back what keeps a GPU awake that could sleep; the next sample opens it again."""
        ...

    def close(self) -> None: ...


class PressureNotices(Protocol):
    """The system's own word that memory runs short. A reason to look, never a reason to pause."""

    @property
    def source(self) -> str:
        """Who tells it (`PSI` …), for `doctor` and `explain`."""
        ...

    @property
    def missing_because(self) -> str | None:
        """Why none will come, or None. Known once `run` has tried."""
        ...

    async def run(self, on_notice: Callable[[], None]) -> None:
        """Call `on_notice` on the loop thread, once a second at most, until cancelled.

        Where the system tells nothing it only waits.
        """
        ...


class ChildTie(Protocol):
    """Ties a child process's life to ours, the way this system can do it."""

    def wrap(self, argv: Sequence[str], *, is_in_background: bool = False) -> list[str]:
        """The command to start instead, so that the child dies when we do. `is_in_background`: and so that
        it runs at idle CPU and I/O priority from its first instruction, where this system can do that
        here (`CpuPriority.lower` does it elsewhere)."""
        ...

    def adopt(self, pid: int) -> None:
        """Called right after the start, with the child's PID."""
        ...


class CpuPriority(Protocol):
    """How much of CPU and disk a running process of ours gets beside others."""

    def lower(self, pid: int) -> None:
        """Put all threads of a running process at idle CPU and I/O priority. Gone: fine. Raises
        NotSupported."""
        ...

    def restore(self, pid: int) -> None:
        """Put them back to normal. Gone: fine. Raises NotSupported where the system forbids that."""
        ...


class Notifier(Protocol):
    """Shows notices the way this system does. On the loop; every wait is bounded; nothing here raises.

    There is one notice of a subject at a time: a newer one takes the place of the older.
    """

    @property
    def source(self) -> str:
        """Who shows them (`D-Bus`, `tray`, `osascript` …), for `doctor`."""
        ...

    @property
    def missing_because(self) -> str | None:
        """Why the last notice could not be shown, or None when it was (or none was tried yet)."""
        ...

    def listen(self, on_choice: Callable[[Subject, ChoiceKind], None]) -> None:
        """Say who is told, on the loop thread, what the user answers. Some systems have no answers."""
        ...

    async def show(self, notice: Notice, *, has_sound: bool) -> None:
        """Show it, cut to what the system takes. If it cannot be shown, `missing_because` says why."""
        ...

    async def withdraw(self, subject: Subject) -> None:
        """Take a notice back that is no longer so, where the system can."""
        ...

    async def close(self) -> None:
        """Give the connection back; what is shown stays."""
        ...
