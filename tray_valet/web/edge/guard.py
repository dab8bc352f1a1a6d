"""The guard: what every request to either API must pass, outermost check first.

Decides: Host (400) → Origin and Sec-Fetch-Site (403) → size (413) → key (401, 403) → JSON only (415).
Must not: know what the requests mean, or trust anything the caller says about itself.

`checks.py` tells why these. The client's address is that of the socket, never X-Forwarded-For.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tray_valet.core.errors import ValetError
from tray_valet.web.edge.answering import Answering, UsualHeaders
from tray_valet.web.edge.bodies import Body, ClientGoneError, declared_length, read_body, replay, too_large
from tray_valet.web.edge.checks import WRITES, check_host, check_json, check_origin
from tray_valet.web.edge.errors import Answer, EdgeCode, ErrorType, HttpError, answer_for, unexpected
from tray_valet.web.edge.keys import Keys
from tray_valet.web.edge.policies import GuardPolicy
from tray_valet.web.edge.requests import (
    ANSWER_KEY,
    CLIENT_KEY,
    CYCLE_KEY,
    Cycle,
    PromptApp,
    RequestHead,
)

_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware around one API. `policy` is asked for each request: settings change live."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        policy: Callable[[], GuardPolicy],
        keys: Keys,
        shape: Callable[[str, ValetError | HttpError], Answer] = lambda path, error: answer_for(error),
        shape_unexpected: Callable[[str], Answer] = lambda path: unexpected(),
    ) -> None:
        """`shape` makes the answer of a refusal at a path, `shape_unexpected` that of a mistake of ours."""
        self._app = app
        self._policy = policy
        self._keys = keys
        self._shape = shape
        self._shape_unexpected = shape_unexpected
        self._in_flight = 0
        self._usual = UsualHeaders()
        self._prompt: PromptApp | None = app if isinstance(app, PromptApp) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no lifespan, no WebSockets
        head = RequestHead(scope)
        policy = self._policy()
        cycle: Cycle | None = scope.pop(CYCLE_KEY, None)
        answering = Answering(send, cycle, head, policy, self._usual)
        self._in_flight += 1
        try:
            await self._guarded(
                receive, head, answering, self._handle(scope, receive, cycle, head, policy, answering)
            )
        finally:
            scope.pop(ANSWER_KEY, None)  # it refers to the scope

    def serve_now(self, cycle: Cycle) -> bool:
        """Serve a request without a task, if its body is whole, it passes every check and nothing is in its
        way; say whether that has begun. Else nothing has happened, and `__call__` is due."""
        prompt, body = self._prompt, cycle.whole_body()
        if prompt is None or body is None:
            return False
        known = cycle.known
        scope = cycle.scope if known is None else known.scope
        head = RequestHead(scope) if known is None or known.head is None else known.head
        policy = self._policy()
        try:
            if known is None or known.passed_by is not policy:
                check_host(head, policy)
                if check_origin(head, policy) is not None:
                    return False  # a page that may call: the answer to it has headers of its own
                check_json(head, policy)
                if known is not None:
                    known.head, known.passed_by = head, policy
            if len(body) > policy.max_body_bytes or self._in_flight >= policy.max_in_flight:
                return False
            client = self._keys.admit(head)
        except HttpError:
            return False  # it is refused where it can be told
        try:
            begun = prompt.ask_now(scope, body, client, known)
            if begun is None:
                return False
            self._expect(prompt, begun, cycle, head, policy, body)
        except Exception:  # noqa: BLE001  # a callback's guard: a task tries again, and answers if it fails too
            _log.exception("A request could not be served at once: %s", head.path[:200])
            return False
        return True

    def _expect(
        self,
        prompt: PromptApp,
        begun: Any,
        cycle: Cycle,
        head: RequestHead,
        policy: GuardPolicy,
        body: bytes,
    ) -> None:
        """Make what the answer to a request needs that its app has begun."""
        self._in_flight += 1
        try:
            answering = Answering(cycle.send, cycle, head, policy, self._usual)
            answering.body = body
            answering.has_body_left = False
            prompt.expect(begun, answering, partial(self._work_on, cycle, head, answering), self._over)
        except BaseException:
            self._over()
            prompt.drop(begun)
            raise
        cycle.forget_body()
        cycle.forget_self()

    def _work_on(
        self, cycle: Cycle, head: RequestHead, answering: Answering, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Have a task go on with a request that was begun without one."""

        async def go_on(_scope: Scope, receive: Receive, _send: Send) -> None:
            await self._guarded(receive, head, answering, work())

        cycle.hand_over(go_on)

    def _over(self) -> None:
        self._in_flight -= 1

    async def _guarded(
        self,
        receive: Receive,
        head: RequestHead,
        answering: Answering,
        work: Awaitable[None],
    ) -> None:
        try:
            await work
        except ClientGoneError:
            return
        except (HttpError, ValetError) as error:
            await answering.refuse(self._shape(head.path, error), receive)
        except Exception:  # noqa: BLE001  # the HTTP edge: whatever went wrong becomes a 500 and a log line
            _log.exception("A request failed unexpectedly: %s %s", head.method, head.path[:200])
            await answering.refuse(self._shape_unexpected(head.path), receive)
        finally:
            self._over()

    async def _handle(
        self,
        scope: Scope,
        receive: Receive,
        cycle: Cycle | None,
        head: RequestHead,
        policy: GuardPolicy,
        answering: Answering,
    ) -> None:
        check_host(head, policy)
        allowed = check_origin(head, policy)
        if allowed is not None:
            answering.allow_origin(allowed)
            if head.method == "OPTIONS" and head.has(b"access-control-request-method"):
                await answering.preflight()
                return
        length = declared_length(head)
        if length is not None and length > policy.max_body_bytes:
            raise too_large(policy.max_body_bytes)
        # Size first, then key; a caller without a key gets its body counted but not stored.
        refusal = self._admit(scope, head)
        body: Body | None = cycle.whole_body() if cycle is not None else None
        if body is None:
            body = await read_body(
                receive,
                max_bytes=policy.max_body_bytes,
                timeout_s=policy.body_timeout_s,
                keep=refusal is None,
                cycle=cycle,
                size_bytes=length,
            )
        else:
            if len(body) > policy.max_body_bytes:
                raise too_large(policy.max_body_bytes)
            assert cycle is not None
            cycle.forget_body()
        answering.has_body_left = False
        if refusal is not None:
            raise refusal
        if body and head.method in WRITES:
            check_json(head, policy)
        if self._in_flight > policy.max_in_flight:
            raise _overloaded()
        if cycle is not None:
            scope[ANSWER_KEY] = answering
            answering.body = body
        await self._app(scope, replay(body, receive), answering.send)

    def _admit(self, scope: Scope, head: RequestHead) -> HttpError | None:
        """Note the caller's name; the refusal of one that has no key."""
        try:
            scope[CLIENT_KEY] = self._keys.admit(head)
        except HttpError as error:
            return error
        return None


def _overloaded() -> HttpError:
    return HttpError(
        503,
        ErrorType.UNAVAILABLE,
        EdgeCode.OVERLOADED,
        "Too many requests are open at once. Try again in a moment.",
        headers=((b"retry-after", b"1"),),
    )
