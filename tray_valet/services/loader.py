"""The loader: brings a model into memory, once however many ask, and gives up when a pause begins.

Decides: who has to leave first (by `core.residency`). Must not: know requests or the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tray_valet.core import events as ev
from tray_valet.core.config import ModelsSettings
from tray_valet.core.errors import LoadFailed, ValetError
from tray_valet.core.models import ConditionType, Demand, LoadedModel, LoadRequest, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.residency import Resident, to_unload_for
from tray_valet.services.fleet import Fleet, Slot

_UNLOAD_WAIT_S = 10.0


class Loader:
    """Single-flight loads. `is_busy` tells whether requests are in flight on a model; `closed_by(demand)`
    is the gate: no load begins while it is closed, whoever asks."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        settings: Callable[[], ModelsSettings],
        is_busy: Callable[[ModelRef], bool],
        closed_by: Callable[[Demand], ValetError | None],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._record = record
        self._settings = settings
        self._is_busy = is_busy
        self._closed_by = closed_by
        self._loads: dict[ModelRef, asyncio.Task[LoadedModel]] = {}
        self._stopped_by: dict[ModelRef, ValetError] = {}
        self._last_used_s: dict[ModelRef, float] = {}

    @property
    def loading(self) -> tuple[ModelRef, ...]:
        return tuple(self._loads)

    def touch(self, ref: ModelRef) -> None:
        """Note that a model was used just now."""
        self._last_used_s[ref] = self._clock.monotonic_s()
        if slot := self._fleet.slots.get(ref.provider):
            slot.provider.touch(ref.model)

    async def ensure(
        self, slot: Slot, request: LoadRequest, *, makes_room: bool = True, client: str = ""
    ) -> LoadedModel:
        """Return the model, ready: loaded already, or loaded now; all who ask share one load.

        `makes_room`: whether groups and `max_concurrent` apply (a restore puts back exactly what was
        there). A load goes on when the one who asked leaves. Raises what the provider raises, the
        gate's refusal, or the error given to `stop`.
        """
        ref = ModelRef(slot.name, request.model)
        while True:
            task = self._loads.get(ref)
            wants_it_as_it_is = request.context_length is None and request.ttl_s is None
            if task is None and wants_it_as_it_is and (loaded := self._fleet.is_loaded(ref)):
                return loaded
            is_joining = task is not None
            if task is None:
                task = self._begin(slot, ref, request, makes_room, client)
            loaded = await self._result(ref, task)
            # The load that was joined may have been for another context than the one asked for here.
            if not is_joining or request.context_length in (None, loaded.context_length):
                return loaded

    def _begin(
        self, slot: Slot, ref: ModelRef, request: LoadRequest, makes_room: bool, client: str
    ) -> asyncio.Task[LoadedModel]:
        if refusal := self._closed_by(slot.demand(request.model)):
            raise refusal
        work = self._load(slot, ref, request, makes_room, client)
        task = asyncio.create_task(work, name=f"load {ref}")
        self._loads[ref] = task
        task.add_done_callback(lambda _: self._loads.pop(ref, None))
        return task

    async def _result(self, ref: ModelRef, task: asyncio.Task[LoadedModel]) -> LoadedModel:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and ref in self._stopped_by:
                raise self._stopped_by[ref] from None
            raise

    async def stop(self, refs: Iterable[ModelRef], why: ValetError) -> None:
        """Give these loads up; whoever waits for them gets `why`."""
        tasks = []
        for ref in refs:
            if task := self._loads.get(ref):
                self._stopped_by[ref] = why
                task.cancel()
                tasks.append(task)
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def unload(self, slot: Slot, model: str) -> None:
        """Unload one model and wait until it is gone. Raises what the provider raises, or LoadFailed."""
        await slot.provider.unload(model)
        deadline_s = self._clock.monotonic_s() + _UNLOAD_WAIT_S
        ref = ModelRef(slot.name, model)
        while True:
            await self._fleet.refresh([slot])
            if self._fleet.is_loaded(ref) is None:
                return
            if self._clock.monotonic_s() > deadline_s:
                raise LoadFailed(f"{slot.name} did not let go of {model} in {_UNLOAD_WAIT_S:.0f} s.")
            await asyncio.sleep(0.1)

    async def _load(
        self, slot: Slot, ref: ModelRef, request: LoadRequest, makes_room: bool, client: str
    ) -> LoadedModel:
        self._stopped_by.pop(ref, None)
        started_s = self._clock.monotonic_s()
        if makes_room:
            await self._make_room(ref)
        try:
            loaded = await slot.provider.load(request)
        except ValetError as error:
            self._fleet.note(slot, ConditionType.LOAD_FAILED, f"{request.model}: {error}")
            if makes_room:  # a restore says itself what failed, and what comes next
                self._record(ev.LoadRefused(model=request.model, message=str(error)))
            raise
        self._fleet.clear(slot, ConditionType.LOAD_FAILED)
        self.touch(ref)
        await self._fleet.refresh([slot])
        if makes_room:
            self._record(
                ev.ModelLoaded(
                    model=request.model,
                    took_s=self._clock.monotonic_s() - started_s,
                    size_bytes=loaded.size_bytes,
                    client=client,
                )
            )
        return loaded

    async def _make_room(self, wanted: ModelRef) -> None:
        residents = [
            Resident(
                ref=(ref := ModelRef(slot.name, model.name)),
                last_used_s=self._last_used_s.get(ref, 0.0),
                is_busy=self._is_busy(ref),
            )
            for slot, model in self._fleet.residents()
            if slot.provider.can_unload
        ]
        for ref in to_unload_for(wanted, residents, self._settings()):
            await self.unload(self._fleet.slots[ref.provider], ref.model)
            self._record(ev.ModelUnloaded(model=ref.model))
