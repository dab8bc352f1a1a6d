"""The service desk: starts, stops and restarts the server behind a provider, as the user asks.

Decides: which provider is meant, that there is one action at a time for each, and that an action is only
called done when it was seen. Must not: choose a way (`core/service_plan.py`) or know a system.

What is known at once to be impossible is raised by `begin`; what turns out later is a fact.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.config_providers import OllamaSettings
from tray_valet.core.errors import (
    LoadFailed,
    NotSupported,
    ProviderUnreachable,
    Refused,
    TimedOut,
    ValetError,
)
from tray_valet.core.events_providers import ServiceFailed, ServiceStarted, ServiceStopped
from tray_valet.core.models import OWN_RUNNERS, ProviderKind
from tray_valet.core.ports import Clock
from tray_valet.core.service_plan import (
    EngineService,
    ServiceAction,
    ServiceBegun,
    ServicePlan,
    ServiceSite,
    can_restart,
    plan_for,
)
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.provider_set import FOUND_OLLAMA
from tray_valet.services.runner_service import RunnerService
from tray_valet.services.server_end import ServerEnd

_LOG = logging.getLogger(__name__)
_LOOK_S = 15.0  # at the system's services
_RUN_S = 30.0  # a command of the system
_ANSWERS_S = 30.0  # from its start to its first answer
_SILENT_S = 2.0  # from its end until its address is quiet
_PEEK_S = 1.5
_POLL_S = 0.1
_WHERE_ELSE = {
    ProviderKind.LM_STUDIO: "Use LM Studio's own window, or: lms server start, lms server stop.",
    ProviderKind.VLLM: "Start and stop vLLM where you run it (vllm serve …).",
}
_LOG_REMEDY = "What it wrote is in ollama-serve.log, beside the valet's own log."
_ONGOING = {
    ServiceAction.START: "is being started",
    ServiceAction.STOP: "is being stopped",
    ServiceAction.RESTART: "is being restarted",
}


class _Target(msgspec.Struct, frozen=True):
    """What an action is about. `slot` None: an Ollama that is looked for, but has not been found yet."""

    name: str
    kind: ProviderKind
    url: str
    slot: Slot | None


class _Job(msgspec.Struct, frozen=True):
    """One action on one server, as planned."""

    action: ServiceAction
    target: _Target
    service: EngineService
    site: ServiceSite
    plan: ServicePlan
    is_forced: bool

    @property
    def is_one_command(self) -> bool:
        """Whether the system restarts it by a command of its own."""
        return self.action is ServiceAction.RESTART and can_restart(self.plan.start_by)


class ServiceDesk:
    """Takes the user's word. `service_of` gives the service of the server at an address, or None;
    `finds_ollama` looks for an Ollama at its default address and takes it in (returns whether);
    `is_ollama_sought`: no provider is named in the settings."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        end: ServerEnd,
        runners: RunnerService,
        *,
        service_of: Callable[[ProviderKind, str], EngineService | None],
        is_ollama_sought: Callable[[], bool],
        finds_ollama: Callable[[], Awaitable[bool]],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._record = record
        self._end = end
        self._runners = runners
        self._service_of = service_of
        self._is_ollama_sought = is_ollama_sought
        self._finds_ollama = finds_ollama
        self._busy: dict[str, ServiceAction] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(
        self, action: ServiceAction, provider: str | None, *, is_forced: bool = False
    ) -> ServiceBegun:
        """Begin an action and return; `provider` None: the one that has a service.

        `is_forced`: runners are killed before the server is stopped. Raises NotFound, NotSupported with
        the remedy, Refused while another action is under way.
        """
        target = self._target(action, provider)
        if ongoing := self._busy.get(target.name):
            raise Refused(
                f"{target.name} {_ONGOING[ongoing]} already.",
                remedy="Wait until it is done.",
                param="provider",
            )
        self._busy[target.name] = action
        try:
            work, message = await self._prepare(action, target, is_forced)
        except BaseException:
            del self._busy[target.name]
            raise
        if work is None:
            del self._busy[target.name]
            return ServiceBegun(action=action, provider=target.name, message=message, is_done=True)
        task = asyncio.create_task(self._guarded(action, target, work), name=f"{action} {target.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return ServiceBegun(action=action, provider=target.name, message=message)

    async def close(self) -> None:
        """Give up what is under way; servers stay as they are. Within 1 s."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    # -- which, and how --------------------------------------------------------------------------------

    def _target(self, action: ServiceAction, provider: str | None) -> _Target:
        is_sought = self._is_ollama_sought() and FOUND_OLLAMA not in self._fleet.slots
        is_meant = provider == FOUND_OLLAMA or (provider is None and action is ServiceAction.START)
        if is_sought and is_meant:
            return _Target(FOUND_OLLAMA, ProviderKind.OLLAMA, OllamaSettings().url, None)
        if provider is None:
            provider = self._usual()
        slot = self._fleet.slot(provider)
        return _Target(slot.name, slot.provider.kind, slot.provider.endpoint, slot)

    def _usual(self) -> str:
        """The one with a service of its own; else the first of this machine."""
        slots = self._fleet.slots.values()
        with_service = [s for s in slots if self._service_of(s.provider.kind, s.provider.endpoint)]
        local = [s for s in slots if s.provider.is_local]
        chosen = next(iter((*with_service, *local, *slots)), None)
        if chosen is None:
            raise NotSupported("There is no provider.", remedy="Name one in the settings (providers).")
        return chosen.name

    async def _prepare(
        self, action: ServiceAction, target: _Target, is_forced: bool
    ) -> tuple[Callable[[], Awaitable[ev.Fact]] | None, str]:
        if target.slot is not None and target.kind in OWN_RUNNERS:
            return self._runners.prepare(action, target.slot, is_forced=is_forced)
        service = self._service_of(target.kind, target.url)
        if service is None:
            raise _elsewhere(action, target)
        try:
            async with asyncio.timeout(_LOOK_S):
                is_answering, site = await asyncio.gather(
                    self._answers(target), asyncio.to_thread(service.look)
                )
        except TimeoutError:
            raise TimedOut("The system did not say in time which services there are.") from None
        plan = plan_for(action, site, provider=target.name, url=target.url, is_answering=is_answering)
        if plan.start_by is None and action is ServiceAction.START:
            tail = "." if is_answering else ", but does not answer."
            return None, f"{target.name} is running already{tail}"
        if plan.stop_by is None and action is ServiceAction.STOP:
            return None, f"{target.name} is not running."
        by = plan.start_by or plan.stop_by
        job = _Job(action, target, service, site, plan, is_forced)
        return lambda: self._do(job), f"{target.name} {_ONGOING[action]} ({by})."

    # -- doing it --------------------------------------------------------------------------------------

    async def _guarded(
        self, action: ServiceAction, target: _Target, work: Callable[[], Awaitable[ev.Fact]]
    ) -> None:
        slot = target.slot
        is_stopped = False
        if slot is not None:
            self._fleet.take_in_hand(slot)
        try:
            fact = await work()
            is_stopped = isinstance(fact, ServiceStopped) and target.kind not in OWN_RUNNERS
        except ValetError as error:
            fact = ServiceFailed(provider=target.name, action=action.value, message=str(error))
        except TimeoutError:
            message = "The system did not answer in time."
            fact = ServiceFailed(provider=target.name, action=action.value, message=message)
        except Exception:  # noqa: BLE001  # a task guard
            _LOG.exception("The %s of %s failed unexpectedly", action.value, target.name)
            message = "Something went wrong inside Tray Valet; its log says what."
            fact = ServiceFailed(provider=target.name, action=action.value, message=message)
        finally:
            del self._busy[target.name]
            if slot is not None:
                self._fleet.hand_back(slot, is_stopped=is_stopped)
        self._record(fact)
        self._fleet.look_soon()

    async def _do(self, job: _Job) -> ev.Fact:
        began_s = self._clock.monotonic_s()
        is_restart = job.action is ServiceAction.RESTART
        was_killed = False
        if job.action is not ServiceAction.START:
            was_killed = await self._stop(job)
        if job.action is ServiceAction.STOP:
            took_s = self._clock.monotonic_s() - began_s
            return ServiceStopped(provider=job.target.name, took_s=took_s, was_killed=was_killed)
        assert job.plan.start_by is not None
        word = ServiceAction.RESTART if job.is_one_command else ServiceAction.START
        async with asyncio.timeout(_RUN_S):
            await asyncio.to_thread(job.service.run, word, job.plan.start_by)
        await self._until_answering(job)
        took_s = self._clock.monotonic_s() - began_s
        return ServiceStarted(provider=job.target.name, took_s=took_s, is_restart=is_restart)

    async def _stop(self, job: _Job) -> bool:
        """Returns whether force was needed. Raises ValetError, TimeoutError."""
        if slot := job.target.slot:
            await self._runners.give_up_loads(slot)
        if job.is_forced:
            await self._end.kill(job.site.runners)
        is_kept_by_it = job.site.server is None or job.site.server.kept_by is job.plan.stop_by
        if job.is_one_command and is_kept_by_it:
            return False  # the system's own restart ends it
        if job.plan.stop_by is not None and not job.is_one_command:
            async with asyncio.timeout(_RUN_S):
                await asyncio.to_thread(job.service.run, ServiceAction.STOP, job.plan.stop_by)
        was_killed = await self._end.end(job.site)
        if job.action is ServiceAction.STOP:
            await self._until_silent(job.target)
        return was_killed

    async def _until_answering(self, job: _Job) -> None:
        deadline_s = self._clock.monotonic_s() + _ANSWERS_S
        target = job.target
        while not await (self._answers(target) if target.slot else self._finds_ollama()):
            if why := await asyncio.to_thread(job.service.why_ended):
                raise LoadFailed(why, remedy=_LOG_REMEDY)
            if self._clock.monotonic_s() >= deadline_s:
                raise ProviderUnreachable(
                    f"It was told to start, but nothing answers at {target.url} after {_ANSWERS_S:.0f} s.",
                    remedy=f"Does it listen at another address? {_LOG_REMEDY}",
                )
            await asyncio.sleep(_POLL_S)
        if target.slot is not None:
            await self._fleet.refresh([target.slot])

    async def _until_silent(self, target: _Target) -> None:
        deadline_s = self._clock.monotonic_s() + _SILENT_S
        while await self._answers(target):
            if self._clock.monotonic_s() >= deadline_s:
                raise Refused(
                    f"It has ended, but something answers at {target.url} again.",
                    remedy="Something starts it anew: another service, or a container.",
                )
            await asyncio.sleep(_POLL_S)

    async def _answers(self, target: _Target) -> bool:
        if target.slot is None:
            return False  # it is sought all the time, and would be there
        try:
            async with asyncio.timeout(_PEEK_S):
                await target.slot.provider.observe()
        except (TimeoutError, ValetError):
            return False
        return True


def _elsewhere(action: ServiceAction, target: _Target) -> NotSupported:
    if target.kind in _WHERE_ELSE:
        return NotSupported(
            f"{target.name} has no service that can be controlled.", remedy=_WHERE_ELSE[target.kind]
        )
    return NotSupported(
        f"{target.name} runs at {target.url}, not on this machine.",
        remedy=f"{action.value.capitalize()} it where it runs.",
    )
