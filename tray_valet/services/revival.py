"""The revival: starts crashed runners again, and keeps requests from starting over and over what fails.

Decides: by `core.revival`, when a model is started again and whether a load may be tried at all. Must not:
know processes (providers tell of crashes) or how a model is loaded (it is handed the loader's way).

Nothing is started while a pause has the gate closed for it; what comes back after a pause is the
restorer's to say, and finding a model loaded already is fine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.errors import LoadFailed, Paused, ValetError
from tray_valet.core.models import ConditionType, Demand, LoadRequest, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.revival import (
    REMEDY,
    Crash,
    History,
    Patience,
    Trouble,
    after_crash,
    after_failed_start,
    after_start,
    told,
    trouble_of,
    without_restart,
)
from tray_valet.core.wording import reason_of
from tray_valet.services.fleet import Fleet, Slot

_LOG = logging.getLogger(__name__)
_GATE_LOOK_S = 0.5  # how soon after a pause a crashed runner is started


class _Case:
    """One model's trouble. Mutable; belongs to the revival alone."""

    def __init__(self, definition: object) -> None:
        self.history = History()
        self.definition = definition  # the settings that it was seen with
        self.reason = ""
        self.log_tail: tuple[str, ...] = ()
        self.request: LoadRequest | None = None
        self.changed = asyncio.Event()
        self.restart: asyncio.Task[None] | None = None


class Revival:
    """Owns what is remembered of models in trouble. Lives on the loop.

    `closed_by(demand)` is the gate; `definition_of(ref)` what the settings say of a model;
    `start(slot, request)` loads one as a request would.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        closed_by: Callable[[Demand], ValetError | None],
        definition_of: Callable[[ModelRef], object],
        start: Callable[[Slot, LoadRequest], Awaitable[object]],
        patience: Patience | None = None,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._record = record
        self._closed_by = closed_by
        self._definition_of = definition_of
        self._start = start
        self._patience = patience or Patience()
        self._cases: dict[ModelRef, _Case] = {}

    # -- what is told --------------------------------------------------------------------------------

    def note_crash(self, crash: Crash) -> None:
        """Take note that a runner has ended by itself, and see to its next start."""
        case = self._case(crash.ref)
        case.request, case.reason, case.log_tail = crash.request, crash.reason, crash.log_tail
        self._change(crash.ref, case, after_crash(case.history, self._clock.monotonic_s(), self._patience))
        self._say(crash.ref, case, is_start=False)

    def note_failed(self, ref: ModelRef, error: ValetError) -> bool:
        """Take note that a load failed; say whether it was to follow a crash (it is told here, then)."""
        if not isinstance(error, LoadFailed):
            return False
        case = self._case(ref)
        was_restart = case.history.next_start_s is not None
        case.reason, case.log_tail = reason_of(ref.model, error.message), error.log_tail
        now_s = self._clock.monotonic_s()
        self._change(ref, case, after_failed_start(case.history, now_s, self._patience))
        if was_restart:
            self._say(ref, case, is_start=True)
        return was_restart

    def note_started(self, ref: ModelRef) -> None:
        """Take note that a model is ready."""
        if case := self._cases.get(ref):
            now_s = self._clock.monotonic_s()
            self._change(ref, case, after_start(case.history, now_s, self._patience))
            self._tidy(ref, case)

    def note_unloaded(self, ref: ModelRef) -> None:
        """Take note that a model was unloaded on purpose: it is not started by itself."""
        if case := self._cases.get(ref):
            self._change(ref, case, without_restart(case.history))
            self._end_restart(case)
            self._tidy(ref, case)

    def reset(self, ref: ModelRef) -> None:
        """Forget all trouble with a model: the next load starts it anew, at once. None there: fine."""
        case = self._cases.pop(ref, None)
        if case is not None:
            case.history = History()
            case.changed.set()
            self._end_restart(case)
            self._show_given_up(ref.provider)

    async def close(self) -> None:
        """End the restarts that wait."""
        tasks = [case.restart for case in self._cases.values() if case.restart is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    # -- what is asked -------------------------------------------------------------------------------

    def states(self) -> Mapping[ModelRef, Trouble]:
        """The models in trouble, and what is the matter with each."""
        for ref in tuple(self._cases):
            self._look(ref)
        now_s = self._clock.monotonic_s()
        return {
            ref: trouble
            for ref, case in self._cases.items()
            if (
                trouble := trouble_of(
                    ref.model, case.history, case.reason, case.log_tail, now_s, self._patience
                )
            )
            is not None
        }

    def refusal(self, ref: ModelRef) -> LoadFailed | None:
        """Why a load of this model is not even tried now; None when it may be."""
        case = self._look(ref)
        if case is None:
            return None
        history, now_s = case.history, self._clock.monotonic_s()
        is_refused = history.refused_until_s is not None and now_s < history.refused_until_s
        if not history.is_given_up and not is_refused:
            return None
        error = LoadFailed(
            told(ref.model, case.history, case.reason, self._patience), log_tail=case.log_tail, remedy=REMEDY
        )
        if history.refused_until_s is not None:
            error.retry_after_s = max(1.0, history.refused_until_s - now_s)
        return error

    def completed(self, ref: ModelRef, request: LoadRequest) -> LoadRequest:
        """The request, with what it leaves open as the crashed runner had it."""
        case = self._look(ref)
        if case is None or case.request is None or case.history.next_start_s is None:
            return request
        before = case.request
        return msgspec.structs.replace(
            request,
            context_length=before.context_length
            if request.context_length is None
            else request.context_length,
            ttl_s=before.ttl_s if request.ttl_s is None else request.ttl_s,
        )

    async def wait_turn(self, ref: ModelRef) -> None:
        """Wait until a crashed model's next start is due; at once where nothing is the matter."""
        while (case := self._look(ref)) is not None and case.history.next_start_s is not None:
            left_s = case.history.next_start_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            case.changed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await case.changed.wait()
            except TimeoutError:
                continue

    # -- inside --------------------------------------------------------------------------------------

    def _case(self, ref: ModelRef) -> _Case:
        case = self._look(ref)
        if case is None:
            case = self._cases[ref] = _Case(self._definition_of(ref))
        return case

    def _look(self, ref: ModelRef) -> _Case | None:
        """The trouble with a model, unless its settings have changed since, or nothing is left of it."""
        case = self._cases.get(ref)
        if case is not None and case.definition != self._definition_of(ref):
            self.reset(ref)
            return None
        return case

    def _change(self, ref: ModelRef, case: _Case, history: History) -> None:
        was_given_up = case.history.is_given_up
        case.history = history
        case.changed.set()
        if history.is_given_up != was_given_up:
            self._show_given_up(ref.provider)
        if history.next_start_s is not None and (case.restart is None or case.restart.done()):
            case.restart = asyncio.create_task(self._restart(ref, case), name=f"restart {ref}")

    def _tidy(self, ref: ModelRef, case: _Case) -> None:
        if case.history.is_clean:
            self._cases.pop(ref, None)

    def _end_restart(self, case: _Case) -> None:
        if case.restart is not None and case.restart is not asyncio.current_task():
            case.restart.cancel()

    async def _restart(self, ref: ModelRef, case: _Case) -> None:
        """Start it when it is due and the gate is open, until it is ready, given up or not wanted."""
        try:
            while case.history.next_start_s is not None and case.request is not None:
                await self.wait_turn(ref)
                slot = self._fleet.slots.get(ref.provider)
                if slot is None or self._cases.get(ref) is not case or case.history.next_start_s is None:
                    return
                if self._closed_by(slot.demand(ref.model)) is not None:
                    await asyncio.sleep(_GATE_LOOK_S)
                    continue
                await self._start_once(ref, case, slot, case.request)
        except Exception:  # noqa: BLE001  # a task guard
            _LOG.exception("%s could not be started again", ref)

    async def _start_once(self, ref: ModelRef, case: _Case, slot: Slot, request: LoadRequest) -> None:
        due_s = case.history.next_start_s
        try:
            await self._start(slot, request)
        except Paused:
            await asyncio.sleep(_GATE_LOOK_S)
        except LoadFailed as error:
            _LOG.warning("%s was not started again: %s", ref, error)
            # The loader has noted it. Given up while it was loading (it was unloaded): nothing follows.
            if case.history.next_start_s is not None:
                await self.wait_turn(ref)
        except ValetError as error:  # no room, no engine, no such model: a next try would end the same way
            _LOG.warning("%s is not started again by itself: %s", ref, error)
            self._change(ref, case, without_restart(case.history))
        else:
            # Unless the loader has noted it, and perhaps a crash since: that one is not to be forgotten.
            if case.history.next_start_s == due_s:
                self.note_started(ref)

    def _say(self, ref: ModelRef, case: _Case, *, is_start: bool) -> None:
        history = case.history
        if history.is_given_up:
            self._record(
                ev.RunnerGivenUp(
                    provider=ref.provider,
                    model=ref.model,
                    message=case.reason,
                    times=len(history.crashes),
                    within_s=self._patience.window_s,
                )
            )
            return
        now_s = self._clock.monotonic_s()
        self._record(
            ev.RunnerCrashed(
                provider=ref.provider,
                model=ref.model,
                message=case.reason,
                retry_in_s=None if history.next_start_s is None else max(0.0, history.next_start_s - now_s),
                is_start=is_start,
            )
        )

    def _show_given_up(self, provider: str) -> None:
        """Keep the provider's condition in step with its models that were given up."""
        slot = self._fleet.slots.get(provider)
        if slot is None:
            return
        given_up = [
            f"{told(ref.model, case.history, case.reason, self._patience)} {REMEDY}"
            for ref, case in self._cases.items()
            if ref.provider == provider and case.history.is_given_up
        ]
        if given_up:
            self._fleet.note(slot, ConditionType.GIVEN_UP, " ".join(given_up))
        else:
            self._fleet.clear(slot, ConditionType.GIVEN_UP)
