"""Reload fights: sees who loads models past the router during a pause, and says so.

Decides: which program it was, as far as its connection tells. Must not: unload anything (the watchdog has
that done, at the time that the rules of `core/reload_fights.py` give).

A connection may be gone when its model is seen. So while a pause lasts, the table of sockets is looked at
once a second, and who has just been there is remembered. A look takes about 2 µs for each socket of the
machine on Linux (8 ms for 3,000); where it takes long it is taken less often: the CPU is the game's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from tray_valet.core import events as ev
from tray_valet.core import reload_fights as rules
from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.models import ConditionType, LoadedModel
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.reload_fights import Fight
from tray_valet.services.fleet import Fleet, Slot

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_MOST_SHARE = 0.02  # of one core is spent on looking
_LOOK_TIMEOUT_S = 2.0
_RECENT_S = 15.0  # a model that is seen now was asked for within that time, mostly
_KEPT_S = 60.0


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """A program that was connected to a provider. Monotonic seconds."""

    process: ProcessIdentity
    name: str
    first_s: float
    last_s: float


class ReloadFights:
    """Owns the fight of one pause. Runs on the loop; looks in worker threads."""

    def __init__(
        self,
        fleet: Fleet,
        table: ProcessTable,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        router_url: Callable[[], str | None],
    ) -> None:
        self._fleet = fleet
        self._table = table
        self._clock = clock
        self._record = record
        self._router_url = router_url
        self._fight = Fight()
        self._visitors: dict[str, dict[ProcessIdentity, Visitor]] = {}  # by provider
        self._clear_at_s = clock.monotonic_s()  # when everything was out last
        self._is_paused = asyncio.Event()
        self._number = 0  # of the pause
        self._look_cpu_s = 0.0  # what the last look cost; not the time that a busy machine kept it waiting
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what the watchdog tells -----------------------------------------------------------------------

    def begin(self) -> None:
        """A pause begins, perhaps in the wait after another."""
        self.end()
        self._is_paused.set()

    def end(self) -> None:
        """The pause is over: what was seen in it says nothing about the next."""
        self._number += 1
        self._fight = Fight()
        self._visitors = {}
        self._is_paused.clear()
        for slot in self._fleet.slots.values():
            self._fleet.clear(slot, ConditionType.RELOADED)

    def cleared(self) -> None:
        """Everything is out, for the first time or again."""
        self._clear_at_s = self._clock.monotonic_s()
        self._fight = rules.evicted(self._fight, self._clear_at_s)

    def note(self, reloaded: Sequence[tuple[Slot, LoadedModel]]) -> float:
        """Models have come in past the router: say who did it, as soon as that is seen.

        Returns when they are to be set aside (monotonic seconds).
        """
        now_s = self._clock.monotonic_s()
        self._fight = rules.reloaded(self._fight, now_s)
        evict_at_s = rules.evict_at_s(self._fight, now_s)
        task = asyncio.create_task(
            self._tell(tuple(reloaded), evict_at_s - now_s, self._number), name="who loads past the router"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return evict_at_s

    # -- saying it -------------------------------------------------------------------------------------

    async def _tell(
        self, reloaded: tuple[tuple[Slot, LoadedModel], ...], out_in_s: float, number: int
    ) -> None:
        try:
            await self._look()
        except OSError as error:
            _LOG.warning("Who is connected to the providers cannot be seen: %s", error)
        if number != self._number:
            return  # that pause is over
        for slot, model in reloaded:
            client, pid = self._suspect(slot)
            self._fight, times = rules.counted(self._fight, slot.name, client)
            self._fleet.note(
                slot,
                ConditionType.RELOADED,
                f"{rules.called(client, pid)} loads {model.name} here during a pause, past the valet. "
                + rules.remedy(client, self._router_url()),
            )
            self._record(
                ev.ModelReloadedDuringPause(
                    provider=slot.name,
                    model=model.name,
                    times=times,
                    client=client,
                    pid=pid,
                    out_in_s=round(out_in_s, 1),
                )
            )

    def _suspect(self, slot: Slot) -> tuple[str, int]:
        """The name and PID of the program that has most likely loaded there; ("", 0) when it is not known.

        One that was named already in this pause and is still there; else those that have come since the
        provider was clear; else whoever is there. The PID is 0 where several processes share the name.
        """
        since_s = self._clock.monotonic_s() - _RECENT_S
        there = [v for v in self._visitors.get(slot.name, {}).values() if v.last_s >= since_s]
        named = [v for v in there if (slot.name, v.name) in self._fight.counts]
        come = [v for v in there if v.first_s >= self._clear_at_s]
        chosen = named or come or there
        name = rules.told(tuple(v.name for v in chosen))
        return name, chosen[0].process.pid if name and len(chosen) == 1 else 0

    # -- who is connected ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look who is connected while a pause lasts, until cancelled."""
        while True:
            await self._is_paused.wait()
            try:
                await self._look()
            except OSError as error:
                _LOG.debug("Who is connected to the providers cannot be seen: %s", error)
            await asyncio.sleep(max(_LOOK_EVERY_S, self._look_cpu_s / _MOST_SHARE))

    async def _look(self) -> None:
        ports = {slot.name: port for slot in self._fleet.slots.values() if (port := _port_of(slot))}
        known = {process: v.name for there in self._visitors.values() for process, v in there.items()}
        number = self._number
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                seen = await asyncio.to_thread(self._clients, ports, known)
        except TimeoutError:
            return
        if number != self._number:
            return
        now_s = self._clock.monotonic_s()
        for provider, clients in seen.items():
            there = self._visitors.setdefault(provider, {})
            for process, name in clients.items():
                old = there.get(process)
                first_s = old.first_s if old else now_s
                there[process] = Visitor(process=process, name=name, first_s=first_s, last_s=now_s)
            for visitor in [v for v in there.values() if now_s - v.last_s > _KEPT_S]:
                del there[visitor.process]

    def _clients(
        self, ports: Mapping[str, int], known: Mapping[ProcessIdentity, str]
    ) -> dict[str, dict[ProcessIdentity, str]]:
        """By provider, the processes that are connected to it, with their names. In a worker thread."""
        began_s = time.thread_time()
        found = {provider: self._clients_at(port, known) for provider, port in ports.items()}
        self._look_cpu_s = time.thread_time() - began_s
        return found

    def _clients_at(self, port: int, known: Mapping[ProcessIdentity, str]) -> dict[ProcessIdentity, str]:
        found = self._table.clients_of(port)
        strangers = [process for process in found if process not in known]
        server = self._table.listening_on(port) if strangers else None
        its_own = {server, *self._table.descendants(server.pid)} if server is not None else set()
        clients = {process: known[process] for process in found if process in known}
        for process in strangers:
            described = self._table.describe(process.pid) if process not in its_own else None
            if described is not None and described.identity == process:
                clients[process] = rules.program_name(described)
        return clients


def _port_of(slot: Slot) -> int | None:
    """The port of loopback that a provider's programs call; None where it is elsewhere."""
    if not slot.provider.is_local or not slot.provider.can_unload:
        return None
    address = split_url(slot.provider.endpoint)
    return address.port if address is not None and is_loopback_host(address.host) else None
