"""One candidate that is asked: with or without a task, and whatever may end that from outside.

Decides: nothing. Must not: choose candidates, or say what their failures mean (`relay.py` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tray_valet.core.commands import Lease
from tray_valet.web.relay.asking import Asking
from tray_valet.web.relay.call import Call
from tray_valet.web.relay.ends import SilenceWatch
from tray_valet.web.relay.exchange import Exchange
from tray_valet.web.relay.request_body import Asked
from tray_valet.web.relay.upstream_client import UpstreamClient


class Attempt:
    """Made when there is a lease; `begin` may do without a task, `run` asks or goes on. `close` it."""

    __slots__ = ("_ends", "_exchange", "_lease", "_silence", "_silences")

    def __init__(
        self,
        call: Call,
        asked: Asked,
        lease: Lease,
        client: UpstreamClient,
        silences: SilenceWatch,
        silence_limit_s: float,
        asking: Asking | None = None,
    ) -> None:
        """`asking`: the question, where it was put already or may be."""
        self._ends = call.ends
        self._lease = lease
        self._silences = silences
        self._silence = silences.silence(call.ends, silence_limit_s, lease.ref)
        self._exchange = Exchange(
            client, lease, asked, call.delivery, call.tail, silence=self._silence, asking=asking
        )
        silences.watch(self._silence)

    def begin(self, over: Callable[[], None], leave: Callable[[], None]) -> None:
        """Wait for the answer where we stand, if the question is on its way.

        Either `over` is called when the answer has been passed on, or `leave` (at once, or later), when it
        takes a task to `run` this.
        """
        exchange, ends = self._exchange, self._ends
        ends.when_ended(leave)
        try:
            has_begun = exchange.begin(lambda: over() if exchange.is_over else leave())
        except BaseException:
            self.close()
            raise
        if has_begun:
            self._lease.when_revoked(ends.end)
        else:
            leave()

    def leave_to_task(self) -> None:
        """`run` is going to be called; what ends the attempt until then, it finds."""
        self._ends.attach(None)
        self._exchange.leave_to_task()

    async def run(self) -> None:
        """Ask, or go on. What ends the attempt from outside is raised as its reason."""
        ends, lease = self._ends, self._lease
        try:
            if (why := ends.reason() or lease.revoked_by) is not None:
                raise why
            lease.when_revoked(ends.end)
            await self._exchange.run()
        except asyncio.CancelledError:
            why = ends.reason()
            if why is None:
                raise
            raise why from None
        finally:
            self.close()

    def close(self) -> None:
        """End what is still going on with the engine."""
        self._silences.forget(self._silence)
        self._exchange.close()
