"""The loader: brings a model into memory, once however many ask, and gives up when a pause begins.

Decides: who has to leave first (by `core.residency`). Must not: know requests or the journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.config import ModelsSettings
from tray_valet.core.errors import LoadFailed, ProviderUnreachable, ValetError, VramExhausted
from tray_valet.core.models import ConditionType, Demand, LoadedModel, LoadRequest, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.residency import Resident, has_to_wait, to_unload_for
from tray_valet.services.fit import Fit
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.revival import Revival

_LOG = logging.getLogger(__name__)
_UNLOAD_WAIT_S = 10.0
_PLACE_WAIT_S = 120.0  # how long a load waits until busy models are not
_PLACE_LOOK_S = 0.1


class Loader:
    """Single-flight loads. `is_busy` tells whether requests are in flight on a model; `closed_by(demand)`
    is the gate: no load begins while it is closed, whoever asks. `is_wanted` tells whether requests wait
    for a model: it does not leave only because it is idle for this moment. `revival` knows of trouble with
    models, `fit` of room for them."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        settings: Callable[[], ModelsSettings],
        is_busy: Callable[[ModelRef], bool],
        closed_by: Callable[[Demand], ValetError | None],
        is_wanted: Callable[[ModelRef], bool],
        revival: Revival,
        fit: Fit,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._record = record
        self._settings = settings
        self._is_busy = is_busy
        self._closed_by = closed_by
        self._is_wanted = is_wanted
        self.revival = revival
        self.fit = fit
        self._on_their_way: set[ModelRef] = set()  # loads that have their place
        self._loads: dict[ModelRef, asyncio.Task[LoadedModel]] = {}
        self._stopped_by: dict[ModelRef, ValetError] = {}
        self._unloading: dict[ModelRef, int] = {}  # by how many at once
        self._last_used_s: dict[ModelRef, float] = {}
        self._left = asyncio.Event()  # set whenever an unload is over

    @property
    def loading(self) -> tuple[ModelRef, ...]:
        return tuple(self._loads)

    @property
    def unloading(self) -> frozenset[ModelRef]:
        """The models that are on their way out, but for a pause."""
        return frozenset(self._unloading)

    def is_leaving(self, ref: ModelRef) -> bool:
        """Whether a model is being unloaded now: nothing is to be sent to it."""
        return ref in self._unloading

    def touch(self, ref: ModelRef, ttl_s: float | None = None) -> None:
        """Note that a model was used just now; `ttl_s` as in `Provider.touch`."""
        self._last_used_s[ref] = self._clock.monotonic_s()
        if slot := self._fleet.slots.get(ref.provider):
            slot.provider.touch(ref.model, ttl_s)

    async def ensure(
        self,
        slot: Slot,
        request: LoadRequest,
        *,
        makes_room: bool = True,
        client: str = "",
        is_manual: bool = False,
        is_doubtful: bool = False,
    ) -> LoadedModel:
        """Return the model, ready: loaded already, or loaded now; all who ask share one load.

        `makes_room`: whether groups and `max_concurrent` apply (a restore puts back exactly what was
        there). A load goes on when the one who asked leaves. `is_manual`: somebody asked for this very
        load, so earlier failures and crashes are forgotten. `is_doubtful`: that it was seen loaded is not
        to be relied on, so its provider is asked. Raises what the provider raises, the gate's refusal, the
        error given to `stop`, or at once what went wrong too often before.
        """
        ref = ModelRef(slot.name, request.model)
        if not slot.provider.can_unload:  # it loads by itself, when it is asked something
            if refusal := self._closed_by(slot.demand(request.model)):
                raise refusal
            return await slot.provider.load(request)
        if is_manual:
            self.revival.reset(ref)
        request = self.revival.completed(ref, request)
        while True:
            task = self._loads.get(ref)
            if task is not None and task.done():
                task = None  # its end is not noted yet; joining it again and again would prevent that
            if task is None and not is_doubtful and (loaded := self._as_it_is(ref, request)):
                return loaded
            is_joining = task is not None
            if task is None:
                task = self._begin(slot, ref, request, makes_room, client)
            loaded = await self._result(ref, task)
            # The load that was joined may have been for another context than the one asked for here.
            if not is_joining or request.context_length in (None, loaded.context_length):
                return loaded

    def _as_it_is(self, ref: ModelRef, request: LoadRequest) -> LoadedModel | None:
        """The loaded model, where it will do for this request."""
        loaded = self._fleet.is_loaded(ref)
        if loaded is None or ref in self._unloading:
            return None
        if request.context_length is not None or request.ttl_s is not None:
            return None
        is_quick = not loaded.is_in_background or request.is_in_background
        return loaded if is_quick or self._is_busy(ref) else None

    def _begin(
        self, slot: Slot, ref: ModelRef, request: LoadRequest, makes_room: bool, client: str
    ) -> asyncio.Task[LoadedModel]:
        if refusal := self._closed_by(slot.demand(request.model)):
            raise refusal
        # A restore counts its own tries.
        if makes_room and (known := self.revival.refusal(ref)):
            raise known
        work = self._load(slot, ref, request, makes_room, client)
        task = asyncio.create_task(work, name=f"load {ref}")
        self._loads[ref] = task
        task.add_done_callback(lambda ended: self._note_end(ref, ended))
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

    async def unload(
        self, slot: Slot, model: str, *, drain: Callable[[ModelRef], Awaitable[None]] | None = None
    ) -> None:
        """Unload one model and wait until it is gone. Raises what the provider raises, or LoadFailed.

        `drain` ends what is in flight on it, bounded, once nothing new is admitted to it.
        """
        ref = ModelRef(slot.name, model)
        self.revival.note_unloaded(ref)
        await self.stop([ref], LoadFailed(f"{model} was unloaded while it was loading.", was_ended=True))
        was_loaded = self._fleet.is_loaded(ref) is not None
        self._unloading[ref] = self._unloading.get(ref, 0) + 1
        try:
            if was_loaded:
                self._record(ev.ModelUnloading(provider=ref.provider, model=model))
            if drain is not None and slot.provider.can_unload:
                await drain(ref)
            await self._unload(slot, ref)
        finally:
            self._unloading[ref] -= 1
            if not self._unloading[ref]:
                del self._unloading[ref]
            self._left.set()
        if was_loaded:
            self._record(ev.ModelGone(provider=ref.provider, model=model))

    async def _unload(self, slot: Slot, ref: ModelRef) -> None:
        await slot.provider.unload(ref.model)
        deadline_s = self._clock.monotonic_s() + _UNLOAD_WAIT_S
        while True:
            await self._fleet.refresh([slot])
            if self._fleet.is_loaded(ref) is None:
                return
            if self._clock.monotonic_s() > deadline_s:
                raise LoadFailed(f"{slot.name} did not let go of {ref.model} in {_UNLOAD_WAIT_S:.0f} s.")
            await asyncio.sleep(0.1)

    async def _load(
        self, slot: Slot, ref: ModelRef, request: LoadRequest, makes_room: bool, client: str
    ) -> LoadedModel:
        self._stopped_by.pop(ref, None)
        started_s = self._clock.monotonic_s()
        while ref in self._unloading:
            self._left.clear()
            await self._left.wait()  # bounded: an unload gives up after a while
        before = self._fleet.is_loaded(ref)
        if before is None or request.context_length not in (None, before.context_length):
            self._record(ev.ModelLoading(provider=ref.provider, model=ref.model))
        await self.revival.wait_turn(ref)
        if makes_room:
            await self._make_room(ref)
            await self._make_it_fit(slot, ref, request)
        if refusal := self._closed_by(slot.demand(ref.model)):
            raise refusal  # a pause began while room was made
        try:
            loaded = await slot.provider.load(self._as_it_may_be(ref, request))
        except ValetError as error:
            self._note_failure(slot, ref, error, makes_room)
            if ref.model in slot.loading:
                await self._fleet.refresh([slot])  # else it would be said to load until the next look
            raise
        self._fleet.clear(slot, ConditionType.LOAD_FAILED)
        self.revival.note_started(ref)
        self.touch(ref)
        await self._fleet.refresh([slot])
        took_s = self._clock.monotonic_s() - started_s
        if before is None or before.context_length != loaded.context_length:
            self._record(ev.ModelReady(provider=ref.provider, model=ref.model, took_s=took_s))
        if makes_room:
            self._record(
                ev.ModelLoaded(
                    model=request.model,
                    took_s=took_s,
                    size_bytes=loaded.size_bytes,
                    client=client,
                )
            )
        return loaded

    def _note_end(self, ref: ModelRef, ended: asyncio.Task[LoadedModel]) -> None:
        if self._loads.get(ref) is ended:
            del self._loads[ref]
            self._on_their_way.discard(ref)
        # Whoever waited may have left; what is foreseen was noted, and is not asyncio's to complain about.
        error = None if ended.cancelled() else ended.exception()
        if error is not None and not isinstance(error, ValetError):
            _LOG.error("%s could not be loaded", ref, exc_info=error)
        self.fit.note_done(ref)

    def _as_it_may_be(self, ref: ModelRef, request: LoadRequest) -> LoadRequest:
        """The request; a runner that has answers to give is not started anew only to be quicker."""
        loaded = self._fleet.is_loaded(ref)
        if loaded is None or not loaded.is_in_background or not self._is_busy(ref):
            return request
        return msgspec.structs.replace(request, is_in_background=True)

    def _note_failure(self, slot: Slot, ref: ModelRef, error: ValetError, makes_room: bool) -> None:
        if isinstance(error, LoadFailed) and error.was_ended:
            return
        if isinstance(error, ProviderUnreachable):
            self._fleet.doubt(slot.name)
        self._fleet.note(slot, ConditionType.LOAD_FAILED, f"{ref.model}: {error}")
        is_told = self.revival.note_failed(ref, error)
        if makes_room and not is_told:  # a restore says itself what failed, and what comes next
            self._record(ev.LoadRefused(model=ref.model, message=str(error)))

    async def _make_room(self, wanted: ModelRef) -> None:
        """Take a place: unload what groups and `max_concurrent` say, and wait for what is busy.

        Raises LoadFailed where no place comes free for long.
        """
        ends_s = self._clock.monotonic_s() + _PLACE_WAIT_S
        while True:
            for ref in to_unload_for(wanted, self._residents(), self._settings()):
                await self._set_aside(ref)
            if not has_to_wait(wanted, self._residents(), self._on_their_way, self._settings()):
                self._on_their_way.add(wanted)
                return
            if self._clock.monotonic_s() > ends_s:
                raise LoadFailed(
                    f"{wanted.model} found no place: as many models as may be loaded at once are busy.",
                    remedy="Ask again later, or raise models.max_concurrent.",
                    was_ended=True,
                )
            await asyncio.sleep(_PLACE_LOOK_S)

    async def _make_it_fit(self, slot: Slot, wanted: ModelRef, request: LoadRequest) -> None:
        """Unload what nobody uses until the model fits. Raises VramExhausted; then nothing was unloaded."""
        try:
            leaving = await self.fit.to_unload(slot, wanted, request, self._residents)
        except VramExhausted as error:
            self._note_failure(slot, wanted, error, makes_room=True)
            raise
        for ref in leaving:
            await self._set_aside(ref)

    async def _set_aside(self, ref: ModelRef) -> None:
        await self.unload(self._fleet.slots[ref.provider], ref.model)
        self._record(ev.ModelUnloaded(model=ref.model))

    def _residents(self) -> list[Resident]:
        return [
            Resident(
                ref=(ref := ModelRef(slot.name, model.name)),
                last_used_s=self._last_used_s.get(ref, 0.0),
                is_busy=self._is_busy(ref) or ref in self._loads or self._is_wanted(ref),
            )
            for slot, model in self._fleet.residents()
            if slot.provider.can_unload
        ]
