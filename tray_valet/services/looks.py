"""When each provider is looked at.

Decides: the pace of the looks: in rounds, again soon after one that failed, at once where a request failed.
Must not: look itself, or say that a provider is down (the fleet does both).

Down is said after several failed looks. Were they a round apart each, a provider that died would be taken for
well for half a minute; so those after the first follow shortly. A look that was slow to fail is given as long
a pause as it took: a machine that stutters has its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from weakref import WeakKeyDictionary, WeakSet

from tray_valet.core.ports import Clock
from tray_valet.services.slot import Slot

_TURN_S = 1.0  # a look that takes longer is left to itself
_AGAIN_S = 1.0  # looks that are not a round's are this far apart, at least


class Looks:
    """Runs the looks, one at a time for each provider. `slots()` are those to look at; `look(slot)` looks
    and notes what it sees; `is_in_doubt(slot)` tells whether another look would settle what it did not."""

    def __init__(
        self,
        clock: Clock,
        slots: Callable[[], Iterable[Slot]],
        look: Callable[[Slot], Awaitable[None]],
        is_in_doubt: Callable[[Slot], bool],
    ) -> None:
        self._clock = clock
        self._slots = slots
        self._look = look
        self._is_in_doubt = is_in_doubt
        self._look_now = asyncio.Event()
        self._under_way: dict[Slot, asyncio.Task[None]] = {}
        self._begun_s: WeakKeyDictionary[Slot, float] = WeakKeyDictionary()
        self._doubted: WeakSet[Slot] = WeakSet()  # since their last look began
        self._interval_s: Callable[[], float] | None = None  # None = it does not run

    async def run(self, interval_s: Callable[[], float]) -> None:
        """Look at every provider again and again, until cancelled. A slow one is not waited for."""
        self._interval_s = interval_s
        try:
            while True:
                self._look_now.clear()
                for slot in self._slots():
                    self._begin(slot)
                if self._under_way:
                    await asyncio.wait(self._under_way.values(), timeout=_TURN_S)
                for slot in [slot for slot, look in self._under_way.items() if look.done()]:
                    self._under_way.pop(slot).result()
                try:
                    async with asyncio.timeout(interval_s()):
                        await self._look_now.wait()
                except TimeoutError:
                    continue
        finally:
            self._interval_s = None
            for look in self._under_way.values():
                look.cancel()
            self._under_way.clear()

    def soon(self) -> None:
        """Begin the next round now."""
        self._look_now.set()

    def doubt(self, slot: Slot) -> None:
        """Look at this provider at once, or a second after its last look: a request got no answer there."""
        self._doubted.add(slot)
        if self._interval_s is not None:
            self._begin(slot)

    def _begin(self, slot: Slot) -> None:
        under_way = self._under_way.get(slot)
        if under_way is None or under_way.done():
            looking = self._look_until_sure(slot)
            self._under_way[slot] = asyncio.create_task(looking, name=f"look at {slot.name}")

    async def _look_until_sure(self, slot: Slot) -> None:
        if slot in self._doubted:
            await asyncio.sleep(self._begun_s.get(slot, float("-inf")) + _AGAIN_S - self._clock.monotonic_s())
        while slot in self._slots():
            if slot in self._doubted or self._is_in_doubt(slot):
                slot.provider.look_afresh()  # what it remembers is what is in doubt
            self._doubted.discard(slot)
            begun_s = self._begun_s[slot] = self._clock.monotonic_s()
            await self._look(slot)
            if not (self._is_in_doubt(slot) or slot in self._doubted):
                return
            assert self._interval_s is not None
            took_s = self._clock.monotonic_s() - begun_s
            await asyncio.sleep(min(max(_AGAIN_S, took_s), self._interval_s()))
