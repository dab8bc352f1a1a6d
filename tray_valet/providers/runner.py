"""One runner: a child process that holds one model, from its start to its confirmed end.

Decides: when it is ready, whether the one that answers is really our child, and when it counts as stuck.
Must not: decide which model runs, or start again after a crash (whoever owns it hears of the crash).

Facts this rests on: llama-server exits within 20 ms for a bad file, flag or port, and only its log says
why; it stalls when its output is not read; SIGTERM hangs while a client is served, SIGKILL does not.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from enum import StrEnum

import msgspec

from tray_valet.core.errors import CannotKill, LoadFailed
from tray_valet.core.models import LoadRequest
from tray_valet.core.ports import ChildTie, Clock, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.providers.runner_command import RunnerCommand
from tray_valet.providers.runner_log import RunnerLog, says_port_in_use
from tray_valet.providers.runner_port import LOOPBACK, PortRange
from tray_valet.providers.runner_probe import Health, RunnerProbe, RunnerProperties
from tray_valet.providers.runner_process import RunnerProcess
from tray_valet.providers.runner_records import RunnerRecord, RunnerRecords

_LOG = logging.getLogger(__name__)

TERMINATE_GRACE_S = 2.0
STALL_S = 600.0  # a load may take for ever, as long as anything at all moves within this time
_KILL_WAIT_S = 2.0
_PORT_ATTEMPTS = 5
_STALL_LOOK_S = 5.0
_IDENTITY_ATTEMPTS = 3
_IDENTITY_PAUSE_S = 0.2


class RunnerState(StrEnum):
    """The life of a runner."""

    OFF = "off"
    STARTING = "starting"  # the process runs, nobody answers yet
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    CRASHED = "crashed"  # it ended by itself after it was ready
    FAILED = "failed"  # it never became ready


class RunnerExit(msgspec.Struct, frozen=True, kw_only=True):
    """Notice of a crash. `reason` is one plain clause; `exit_code` negative = ended by that signal.

    `request` loads the model as it was, where the one who started the runner knows that.
    """

    model: str
    exit_code: int
    reason: str
    log_tail: tuple[str, ...]
    request: LoadRequest | None = None


class RunnerSurroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What every runner of a provider is handed."""

    provider: str
    tie: ChildTie
    table: ProcessTable
    records: RunnerRecords
    ports: PortRange
    probe: RunnerProbe
    clock: Clock


class _PortLostError(Exception):
    """Somebody else listens where our child was to listen."""


class Runner:
    """The process for one model with one context. Started once; a new one is made for the next start."""

    def __init__(
        self,
        model: str,
        model_path: str,
        command_for: Callable[[int, str], RunnerCommand],
        surroundings: RunnerSurroundings,
        on_crash: Callable[[RunnerExit], None],
    ) -> None:
        """`command_for(port, api_key)` builds the command line."""
        self.model = model
        self.state = RunnerState.OFF
        self.properties = RunnerProperties()
        self._model_path = model_path
        self._command_for = command_for
        self._with = surroundings
        self._on_crash = on_crash
        self._port = 0
        self._api_key = ""
        self._log = RunnerLog()
        self._process: RunnerProcess | None = None

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs to be let in."""
        return {"Authorization": f"Bearer {self._api_key}"}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def processes(self) -> tuple[ProcessIdentity, ...]:
        """What holds memory for it now; () once it has ended."""
        return self._process.members if self._process else ()

    @property
    def is_running(self) -> bool:
        """Whether its process is there, whatever it does."""
        return self._process is not None and not self._process.has_ended

    def log_tail(self) -> tuple[str, ...]:
        """The last 200 lines of its output."""
        return self._log.tail()

    async def start(self) -> None:
        """Start the process and wait until it serves the model, however long that takes.

        Cancelled: the process is ended. Raises LoadFailed with the line of the log that says why.
        """
        for _ in range(_PORT_ATTEMPTS):
            try:
                await self._start_on(self._with.ports.take())
                return
            except _PortLostError:
                await self._give_up()
            except BaseException:
                self.state = RunnerState.FAILED
                await self._give_up()
                raise
        self.state = RunnerState.FAILED
        raise LoadFailed(
            f"{self.model} could not be loaded: other programs took the ports meant for it.",
            log_tail=self.log_tail(),
        )

    async def stop(self, grace_s: float = TERMINATE_GRACE_S) -> None:
        """Ask the process to end; kill it if it has not within `grace_s` seconds. Ended already: fine.

        Raises CannotKill if it is there even then.
        """
        if self._process is None or self._process.has_ended:
            return
        self.state = RunnerState.STOPPING
        self._process.terminate()
        if not await self._process.wait_end(grace_s):
            await self.kill()

    async def kill(self) -> None:
        """End the process at once and wait for its end. Raises CannotKill if it is there after 2 s."""
        if self._process is None or self._process.has_ended:
            return
        self.state = RunnerState.STOPPING
        self._process.kill()
        if not await self._process.wait_end(_KILL_WAIT_S):
            raise CannotKill(
                f"The runner of {self.model} (PID {self._process.pid}) does not end.",
                remedy="It may hang in a driver; if it stays, restart the computer.",
            )

    async def _start_on(self, port: int) -> None:
        self._port, self._api_key, self._log = port, secrets.token_urlsafe(24), RunnerLog()
        self.state = RunnerState.STARTING
        try:
            command = self._command_for(port, self._api_key)
            if command.ignored:
                _LOG.warning("%s: flags that are not the user's: %s", self.model, " ".join(command.ignored))
            process = await RunnerProcess.spawn(
                command, self.model, self._with.table, self._with.tie, self._log
            )
        except OSError as error:
            self._with.ports.release(port)
            raise LoadFailed(f"{self.model} could not be loaded: {error}.") from error
        except BaseException:
            self._with.ports.release(port)
            raise
        self._process = process
        self._record(process.identity)
        process.watch(lambda exit_code: self._note_end(process, port, exit_code))
        await self._become_ready(process)
        self.state = RunnerState.READY

    async def _become_ready(self, process: RunnerProcess) -> None:
        """Ask until the child serves. Raises LoadFailed when it ends or is stuck, _PortLostError."""
        patience = _Patience(self._with.clock)
        while True:
            health = await self._with.probe.health(self.base_url)
            if process.has_ended:
                raise self._failure(process)
            if health is Health.READY:
                await self._check_identity(process)
                return
            if health is Health.LOADING:
                self.state = RunnerState.LOADING
            if patience.is_look_due():
                usage = self._with.table.usage(process.members)
                if patience.is_over((self._log.line_count, usage.cpu_s, usage.resident_bytes)):
                    raise self._no_good(f"its runner did nothing for {STALL_S:.0f} s.")
            await process.wait_end(patience.next_s())

    async def _check_identity(self, process: RunnerProcess) -> None:
        """Make sure that our child answers: it owns the port and knows this run's key.

        Raises _PortLostError if another process does, LoadFailed if the child is no llama-server.
        """
        listener = self._with.table.listening_on(self._port)
        if listener is not None and listener != process.identity:
            process.find_helpers()
            if listener not in process.helpers:
                raise _PortLostError
            self._record(listener)
        for _ in range(_IDENTITY_ATTEMPTS):
            properties = await self._with.probe.properties(self.base_url, self._api_key)
            if process.has_ended:
                raise self._failure(process)
            if properties is not None:
                self.properties = properties
                return
            await process.wait_end(_IDENTITY_PAUSE_S)
        if listener is None:
            raise _PortLostError  # nobody can say whose port it is, and who answers does not know the key
        raise self._no_good("its runner does not answer as llama-server does.")

    async def _give_up(self) -> None:
        """End the process after a failed start, also when this very task is being cancelled."""
        process = self._process
        if process is None or process.has_ended:
            return
        process.find_helpers()  # a script may have started the server, or be about to
        try:
            process.kill()
        except CannotKill as error:
            _LOG.error("the runner of %s cannot be ended: %s", self.model, error)
        await process.wait_end(_KILL_WAIT_S)

    def _note_end(self, process: RunnerProcess, port: int, exit_code: int) -> None:
        """Called once for each process, when it is gone."""
        for helper in process.helpers:  # a script that is gone must not leave its server behind
            try:
                self._with.table.kill(helper)
            except CannotKill as error:
                _LOG.error("a runner of %s cannot be ended: %s", self.model, error)
        for identity in process.members:
            self._with.records.remove(identity)
        self._with.ports.release(port)
        if process is not self._process:  # one that lost its port and took long to end
            return
        if self.state is RunnerState.STOPPING:
            self.state = RunnerState.OFF
        if self.state is RunnerState.READY:
            self.state = RunnerState.CRASHED
            reason = process.last_words()
            _LOG.warning("the runner of %s ended by itself: %s", self.model, reason)
            self._on_crash(
                RunnerExit(model=self.model, exit_code=exit_code, reason=reason, log_tail=self.log_tail())
            )

    def _record(self, identity: ProcessIdentity | None) -> None:
        if identity is not None:
            self._with.records.add(
                RunnerRecord(
                    provider=self._with.provider,
                    model=self.model,
                    identity=identity,
                    port=self._port,
                    model_path=self._model_path,
                )
            )

    def _failure(self, process: RunnerProcess) -> LoadFailed | _PortLostError:
        """What it means that the child has ended before it was ready."""
        return _PortLostError() if says_port_in_use(self.log_tail()) else self._no_good(process.last_words())

    def _no_good(self, because: str) -> LoadFailed:
        return LoadFailed(f"{self.model} could not be loaded: {because}", log_tail=self.log_tail())


class _Patience:
    """How long to wait between two looks at a starting runner, and when it counts as stuck."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s = self._moved_s = self._looked_s = clock.monotonic_s()
        self._seen: tuple[float, ...] = ()

    def next_s(self) -> float:
        """Short at first: a small model is ready in 50 ms."""
        elapsed_s = self._clock.monotonic_s() - self._started_s
        if elapsed_s < 1:
            return 0.01
        return 0.05 if elapsed_s < 10 else 0.25

    def is_look_due(self) -> bool:
        return self._clock.monotonic_s() - self._looked_s >= _STALL_LOOK_S

    def is_over(self, seen: tuple[float, ...]) -> bool:
        """Say whether `seen` (figures that grow while it works) has been the same for too long."""
        self._looked_s = self._clock.monotonic_s()
        if seen != self._seen:
            self._seen, self._moved_s = seen, self._looked_s
        return self._looked_s - self._moved_s >= STALL_S
