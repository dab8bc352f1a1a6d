"""Leases: the requests in flight, by model.

Decides: nothing; it keeps account and tells those who wait for a model to be idle.
Must not: admit (the dispatcher does), or know why a lease is revoked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from tray_valet.core.commands import NOTHING_FAILED, Overrides, Wish
from tray_valet.core.errors import ValetError
from tray_valet.core.models import ModelRef, Upstream
from tray_valet.core.routing import Candidate


class Keeper(Protocol):
    """Who gives leases: the dispatcher."""

    def has_next(self, lease: ActiveLease) -> bool: ...

    def finish(self, lease: ActiveLease) -> None: ...


class ActiveLease(AbstractAsyncContextManager["ActiveLease"]):
    """A request in flight on a ready model; revoked when the model must go."""

    __slots__ = (
        "_is_over",
        "_keeper",
        "_on_revoked",
        "begun_s",
        "client",
        "failed",
        "is_counted",
        "keep_alive_s",
        "load_s",
        "overrides",
        "queue_s",
        "reason",
        "ref",
        "revoked_by",
        "upstream",
        "wish",
    )

    def __init__(
        self,
        wish: Wish,
        candidate: Candidate,
        upstream: Upstream,
        *,
        begun_s: float,
        keeper: Keeper,
        failed: Mapping[ModelRef, ValetError] = NOTHING_FAILED,
    ) -> None:
        self.wish = wish
        self.ref = candidate.ref
        self.upstream = upstream
        self.overrides: Overrides | None = candidate.overrides
        self.reason = ""
        self.client = wish.client
        self.keep_alive_s = candidate.keep_alive_s
        self.begun_s = begun_s  # monotonic seconds
        self.failed = failed  # who was asked before, and how that failed
        self.queue_s = 0.0
        self.load_s = 0.0
        self.is_counted = True  # False: it needs no model, so it pins none
        self.revoked_by: ValetError | None = None
        self._keeper = keeper
        self._is_over = False
        self._on_revoked: Callable[[ValetError], None] | None = None

    @property
    def has_next(self) -> bool:
        """Whether another candidate could be asked at this moment."""
        return self._keeper.has_next(self)

    def end(self) -> None:
        """The request is over."""
        if not self._is_over:
            self._is_over = True
            self._keeper.finish(self)

    async def __aenter__(self) -> ActiveLease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def when_revoked(self, call: Callable[[ValetError], None]) -> None:
        """Have `call` called when the request must end; at once if that is so already."""
        self._on_revoked = call
        if self.revoked_by is not None:
            call(self.revoked_by)

    def revoke(self, why: ValetError) -> None:
        """Tell the request that it must end now."""
        if self.revoked_by is None:
            self.revoked_by = why
            if self._on_revoked is not None:
                self._on_revoked(why)


class Leases:
    """Owns what is in flight. Everything is on the loop thread."""

    def __init__(self) -> None:
        self._leases: dict[ModelRef, set[ActiveLease]] = {}
        self._idle_calls: dict[ModelRef, list[asyncio.Future[None]]] = {}
        self.total = 0

    def count(self, ref: ModelRef) -> int:
        """How many requests run on a model now."""
        return len(self._leases.get(ref, ()))

    def on(self, ref: ModelRef) -> tuple[ActiveLease, ...]:
        """The requests that run on a model now."""
        return tuple(self._leases.get(ref, ()))

    def add(self, lease: ActiveLease) -> None:
        """Take a request into account."""
        leases = self._leases.get(lease.ref)
        if leases is None:
            self._leases[lease.ref] = {lease}
        else:
            leases.add(lease)
        self.total += 1

    def remove(self, lease: ActiveLease) -> None:
        """A request is over; whoever waits for its model to be idle is told when it was the last."""
        leases = self._leases[lease.ref]
        leases.remove(lease)
        self.total -= 1
        if leases:
            return
        del self._leases[lease.ref]
        for call in self._idle_calls.pop(lease.ref, ()):
            if not call.done():
                call.set_result(None)

    async def wait_idle(self, ref: ModelRef, timeout_s: float) -> bool:
        """Wait until no request runs on a model; say whether that came true in time."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                while ref in self._leases:
                    call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._idle_calls.setdefault(ref, []).append(call)
                    await call
        except TimeoutError:
            return ref not in self._leases
        return True

    async def revoke(self, ref: ModelRef, why: ValetError, timeout_s: float = 1.0) -> int:
        """End every request on a model; returns their number once their sockets are cut (or after
        `timeout_s`)."""
        leases = self.on(ref)
        for lease in leases:
            lease.revoke(why)
        await self.wait_idle(ref, timeout_s)
        return len(leases)
