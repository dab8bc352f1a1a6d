"""The router API: what is passed on, what is answered here.

Decides: which of the two a path is, and the methods of those that are passed on.
Must not: choose providers or wait (the valet admits), pass bytes on (`relay.py` does) or make answers
(`router/answers.py` does). A raw ASGI app: frameworks cost more than the whole rest here.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from tray_valet.core.commands import Valet
from tray_valet.core.dialects import OPERATIONS
from tray_valet.web.edge.errors import not_allowed
from tray_valet.web.edge.kept_answer import KeptAnswer
from tray_valet.web.edge.known_head import KnownHead
from tray_valet.web.edge.requests import ANSWER_KEY
from tray_valet.web.relay.relay import Relay, Underway
from tray_valet.web.router.answers import RouterAnswers


class RouterApi:
    """The ASGI app of the router API. `resident_bytes`: memory of this process, for /metrics."""

    def __init__(
        self,
        valet: Valet,
        *,
        relay: Relay | None = None,
        resident_bytes: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._relay = relay or Relay(valet)
        self.expect, self.drop = self._relay.expect, self._relay.drop
        self._answers = RouterAnswers(valet, resident_bytes=resident_bytes)

    async def close(self) -> None:
        """Close the connections to the upstreams."""
        await self._relay.close()

    def end_streams(self) -> None:
        """End what is in flight: the server is about to stop."""
        self._relay.end_streams()
        self._answers.end_streams()

    def ask_now(self, scope: Scope, body: bytes, client: str, known: KnownHead | None) -> Underway | None:
        """See `Relay.ask_now`."""
        return self._relay.ask_now(scope, body, client, known) if scope["method"] == "POST" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in OPERATIONS:
            await self._answers(scope, receive, send)
            return
        if scope["method"] != "POST":
            raise not_allowed(scope["method"], ("POST",))
        if ANSWER_KEY in scope:
            await self._relay(scope, receive, send)
            return
        kept = scope[ANSWER_KEY] = KeptAnswer((await receive())["body"])
        await self._relay(scope, receive, send)
        await kept.send_by(send)
