"""The watchdog: folds everything known into one level, looks the next state up, and starts what it asks for.

Decides: when the evictor and the restorer run. Must not: sense, load or unload anything itself.

It is woken by every change (holds, fleet, an action that ended, a timer) and computes the level afresh
each time; there are no ticks to miss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tray_valet.core import events as ev
from tray_valet.core.errors import Paused
from tray_valet.core.eviction import stops_cpu_models
from tray_valet.core.holds import Hold, ends_in_s
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import Demand
from tray_valet.core.ports import Clock
from tray_valet.core.watchdog import Facts, State, level, next_state
from tray_valet.core.wording import listed, refusal, retry_after_s, technical_reason, who
from tray_valet.services.evictor import EvictionWish, Evictor
from tray_valet.services.fleet import Fleet
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.reload_fights import ReloadFights
from tray_valet.services.restorer import Restorer

_LOG = logging.getLogger(__name__)
_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 30.0
_FIT_CHECK_S = 2.0
_MOVING = (State.PAUSING, State.PAUSED)
_EVICT, _RESTORE = "evict", "restore"  # the actions' names


class Watchdog:
    """Owns the state. Everything runs on the loop thread."""

    def __init__(
        self,
        clock: Clock,
        holds: HoldBook,
        fleet: Fleet,
        evictor: Evictor,
        restorer: Restorer,
        fights: ReloadFights,
        record: Callable[[ev.Fact], None],
        sample: Callable[[], MachineSample | None],
        on_gate: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._holds = holds
        self._fleet = fleet
        self._evictor = evictor
        self._restorer = restorer
        self._fights = fights
        self._record = record
        self._sample = sample
        self._on_gate = on_gate
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._action: asyncio.Task[None] | None = None
        self._is_clear = False  # memory was confirmed clear since this pause began
        self._passes_failed = 0
        self._retry_at_s = 0.0
        self._ignores_fit = False
        self._force_next = False
        self._was_held = False
        self.state = State.RUNNING
        self.reason = "started"
        self.since = clock.wall_s()

    # -- what others ask -----------------------------------------------------------------------------

    def wake(self) -> None:
        """Something changed: look again."""
        self._woken.set()

    def force(self) -> None:
        """The pause that follows, or is under way, gives answers no time and kills runners at once."""
        self._force_next = True
        self._retry_at_s = 0.0
        if self._action is not None and self._action.get_name() == _EVICT:
            self._action.cancel()
        self.wake()

    def resume_anyway(self) -> None:
        """The user resumed: bring the models back even if the forecast says that they do not fit."""
        self._ignores_fit = self.state in _MOVING
        self.wake()

    @property
    def does_not_fit(self) -> str:
        """Why the models cannot come back yet; "" when they can, or may."""
        if self._ignores_fit or self.state not in _MOVING:
            return ""
        return self._restorer.lacks_room(self._sample())

    def closed_by(self, demand: Demand) -> Paused | None:
        """The gate: why a request for a model may not go on now, or None."""
        holds = self._holds.in_effect
        if demand is Demand.NOTHING or (not holds and self.state not in _MOVING):
            return None
        if demand is Demand.CPU and not stops_cpu_models(holds):
            return None
        return self.refusal(holds)

    def refusal(self, holds: tuple[Hold, ...]) -> Paused:
        """What programs are told while the gate is closed."""
        own_end_s = ends_in_s(holds, self._clock.monotonic_s())
        wait_left_s = self._holds.wait_left_s
        again_s = retry_after_s(holds, wait_left_s, own_end_s)
        sentence = refusal(holds, wait_left_s, again_s, own_end_s, self._holds.holds.last_ended)
        return Paused(sentence, retry_after_s=again_s)

    async def settled(self, states: frozenset[State], timeout_s: float) -> State:
        """Wait until the state is one of these; returns the state, in time or not."""
        self.wake()
        try:
            async with asyncio.timeout(timeout_s):
                while self._woken.is_set() or self.state not in states:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.state

    # -- the loop ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look, decide, act, until cancelled; an action in progress is cancelled with it."""
        try:
            while True:
                self._woken.clear()
                self._step()
                self._changed.set()
                try:
                    async with asyncio.timeout(self._next_look_s()):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            if self._action is not None:
                self._action.cancel()
                await asyncio.wait([self._action], timeout=2)

    def _step(self) -> None:
        holds = self._holds.in_effect
        if holds and not self._was_held and self.state is not State.PAUSING:
            # A pause begins, perhaps in the wait after another: look afresh, and note what is found.
            self._is_clear = self._ignores_fit = False
            self._evictor.begin()
            self._fights.begin()
        self._was_held = bool(holds)
        after = next_state(self.state, level(self._facts(holds)))
        if after is not self.state:
            self._enter(after)
        elif self.state in _MOVING and holds:
            self.reason = technical_reason(holds[0].cause)  # the first one may have ended
        self._act()

    def _facts(self, holds: tuple[Hold, ...]) -> Facts:
        has_missing = bool(self._restorer.missing)
        waits = self._holds.wait_left_s > 0 or (has_missing and bool(self.does_not_fit))
        return Facts(
            is_held=bool(holds),
            is_waiting=waits,
            has_residents=not self._is_clear or self._has_targets(holds),
            has_missing=has_missing,
            # One that hangs, with its models in memory, is not gone: they have to go all the same.
            is_down=self._fleet.is_all_down and not (holds and self._evictor.targets(holds)),
        )

    def _has_targets(self, holds: tuple[Hold, ...]) -> bool:
        targets = self._evictor.targets(holds)
        if targets and holds and self.state is State.PAUSED:
            self._is_clear, self._retry_at_s = False, 0.0
            if reloaded := [target for target in targets if self._evictor.is_reload(target)]:
                # Out again, at a pace that does not make the game stutter, and said.
                self._retry_at_s = self._fights.note(reloaded)
        return bool(targets)

    def _enter(self, after: State) -> None:
        self.reason = self._reason_for(after, self._holds.in_effect)
        before, self.state = self.state, after
        self.since = self._clock.wall_s()
        if after in (State.RUNNING, State.RESUMING, State.PROVIDER_DOWN):
            self._is_clear = False
            self._passes_failed = 0
            self._retry_at_s = 0.0
            self._force_next = False
            self._fights.end()
        elif before not in _MOVING:
            self._fights.begin()  # also when a provider comes back in mid-hold
        if after is State.RUNNING:
            self._ignores_fit = False
        self._record(ev.StateChanged(before=before, after=after, reason=self.reason))
        self._on_gate()
        self._fleet.look_soon()

    def _reason_for(self, after: State, holds: tuple[Hold, ...]) -> str:
        if after in _MOVING and holds:
            return technical_reason(holds[0].cause)
        if after is State.PROVIDER_DOWN:
            down = next((s for s in self._fleet.slots.values() if s.is_down), None)
            how = "stopped by you" if down and down.is_stopped else "unreachable"
            return f"provider {down.name} {how}" if down else "no provider answers"
        if after is State.RUNNING and self.state is State.PROVIDER_DOWN:
            return "a provider answers again"
        if after in (State.RESUMING, State.RUNNING):
            ended = self._holds.holds.last_ended
            if self._ignores_fit:
                return "manual resume"
            if self.state is State.RESUMING:
                return self.reason  # why it began
            return f"{technical_reason(ended.cause)} — ended" if ended else "started"
        return self.reason

    # -- acting --------------------------------------------------------------------------------------

    def _act(self) -> None:
        if self._action is not None and self._action.done():
            self._action = None
        if self._action is not None:
            # What the action was begun for may be over; its end wakes us again.
            is_eviction = self._action.get_name() == _EVICT
            if (is_eviction and self.state is not State.PAUSING) or (
                not is_eviction and self.state in _MOVING
            ):
                self._action.cancel()
        elif self.state is State.PAUSING:
            if self._clock.monotonic_s() >= self._retry_at_s:
                self._start(_EVICT, self._evict)
        elif self.state is State.RESUMING:
            self._start(_RESTORE, self._restorer.restore)

    def _start(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        self._action = asyncio.create_task(self._guarded(name, do), name=name)
        self._action.add_done_callback(lambda _: self.wake())

    async def _guarded(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        try:
            await do()
        except Exception:  # noqa: BLE001  # a task guard
            _LOG.exception("The %s failed unexpectedly; it is tried again", name)
            self._passes_failed += 1
            await asyncio.sleep(self._back_off_s())

    async def _evict(self) -> None:
        is_forced, self._force_next = self._force_next, False
        holds = self._holds.in_effect
        names = tuple(dict.fromkeys(w for w in map(who, holds) if w))
        wish = EvictionWish(
            holds=holds,
            refusal=self.refusal(holds),
            cause=listed(names),
            is_forced=is_forced,
        )
        if await self._evictor.evict(wish):
            self._is_clear, self._passes_failed = True, 0
            self._fights.cleared()
        else:
            self._passes_failed += 1
            self._retry_at_s = self._clock.monotonic_s() + self._back_off_s()
            if self._passes_failed == 1 and self._evictor.still_held:
                self._record(ev.PauseUnfinished(cause=wish.cause, message=self._evictor.still_held))

    def _back_off_s(self) -> float:
        return min(_RETRY_MOST_S, _RETRY_FIRST_S * 2.0 ** (self._passes_failed - 1))

    def _next_look_s(self) -> float | None:
        """Seconds until something changes by time alone; None = nothing does."""
        now_s = self._clock.monotonic_s()
        times = []
        if (left_s := self._holds.wait_left_s) > 0:
            times.append(left_s + 0.001)
        if self.state is State.PAUSING and self._action is None:
            times.append(max(0.01, self._retry_at_s - now_s))
        if self.state in _MOVING and not self._holds.in_effect and self.does_not_fit:
            times.append(_FIT_CHECK_S)
        return min(times, default=None)
