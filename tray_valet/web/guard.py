"""The guard: what every request to either API must pass, outermost check first.

Decides: Host (400) → Origin and Sec-Fetch-Site (403) → size (413) → key (401, 403) → JSON only (415).
Must not: know what the requests mean, or trust anything the caller says about itself.

`checks.py` tells why these. The client's address is that of the socket, never X-Forwarded-For.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from tray_valet.core.errors import ValetError
from tray_valet.web.answering import Answering, UsualHeaders
from tray_valet.web.bodies import ClientGoneError, declared_length, read_body, replay, too_large
from tray_valet.web.checks import WRITES, check_host, check_json, check_origin
from tray_valet.web.errors import Answer, EdgeCode, ErrorType, HttpError, answer_for, unexpected
from tray_valet.web.keys import Keys
from tray_valet.web.policies import GuardPolicy
from tray_valet.web.requests import BODY_KEY, CLIENT_KEY, BodyHolder, RequestHead

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no lifespan, no WebSockets
        head = RequestHead(scope)
        policy = self._policy()
        answering = Answering(send, head, policy, self._usual)
        self._in_flight += 1
        try:
            await self._handle(scope, receive, head, policy, answering)
        except ClientGoneError:
            return
        except (HttpError, ValetError) as error:
            await answering.refuse(self._shape(head.path, error), receive)
        except Exception:  # noqa: BLE001  # the HTTP edge: whatever went wrong becomes a 500 and a log line
            _log.exception("A request failed unexpectedly: %s %s", head.method, head.path[:200])
            await answering.refuse(self._shape_unexpected(head.path), receive)
        finally:
            self._in_flight -= 1

    async def _handle(
        self, scope: Scope, receive: Receive, head: RequestHead, policy: GuardPolicy, answering: Answering
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
        holder: BodyHolder | None = scope.pop(BODY_KEY, None)
        body = holder.whole_body() if holder is not None else None
        if body is None:
            body = await read_body(
                receive,
                max_bytes=policy.max_body_bytes,
                timeout_s=policy.body_timeout_s,
                keep=refusal is None,
                holder=holder,
            )
        elif len(body) > policy.max_body_bytes:
            raise too_large(policy.max_body_bytes)
        answering.has_body_left = False
        if refusal is not None:
            raise refusal
        if body and head.method in WRITES:
            check_json(head, policy)
        if self._in_flight > policy.max_in_flight:
            raise _overloaded()
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
