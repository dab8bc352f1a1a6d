"""Loads on their way: one for each model, shared by everyone who waits for it.

Decides: who joins which load, and that a load ends when the last one waiting has left.
Must not: know how a model is loaded; that is handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tray_valet.core.models import LoadedModel, LoadRequest

Work = Callable[[LoadRequest], Coroutine[Any, Any, LoadedModel]]


class _Flight:
    def __init__(self, request: LoadRequest, task: asyncio.Task[LoadedModel]) -> None:
        self.request = request
        self.task = task
        self.waiting = 0


class SharedLoads:
    """The loads of one provider. Lives on the loop."""

    def __init__(self, work: Work, *, give_up_s: float) -> None:
        """`work` does one load; cancelled, it has `give_up_s` seconds to leave nothing behind."""
        self._work = work
        self._give_up_s = give_up_s
        self._flights: dict[str, _Flight] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The models on their way in, oldest first."""
        return tuple(self._flights)

    async def load(self, request: LoadRequest) -> LoadedModel:
        """Load, together with whoever asked for the same; a different wish for the model comes after."""
        while (flight := self._flights.get(request.model)) is not None and (
            flight.request != request or flight.task.cancelling()
        ):
            await asyncio.wait({flight.task})
        if flight is None:
            task = asyncio.create_task(self._run(request), name=f"load-{request.model}")
            flight = self._flights[request.model] = _Flight(request, task)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                await self._give_up(flight)

    async def close(self) -> None:
        """Give up every load, within `give_up_s`."""
        tasks = {flight.task for flight in self._flights.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._give_up_s)

    async def _run(self, request: LoadRequest) -> LoadedModel:
        try:
            return await self._work(request)
        finally:
            self._flights.pop(request.model, None)

    async def _give_up(self, flight: _Flight) -> None:
        flight.task.cancel()
        await asyncio.wait({flight.task}, timeout=self._give_up_s)
