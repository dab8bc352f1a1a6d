"""The guard: what every request to either API must pass, outermost check first.

Decides: Host (400) → Origin and Sec-Fetch-Site (403) → size (413) → key (401, 403) → JSON only (415).
Must not: know what the requests mean, or trust anything the caller says about itself.

Why these: any web page can make a browser send requests to 127.0.0.1. The Host check stops names that
an attacker lets point here (DNS rebinding), the Origin check stops pages of other sites, and the JSON
check stops forms. The client's address is that of the socket, never X-Forwarded-For.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tray_valet.core.errors import ValetError
from tray_valet.web.bodies import ClientGoneError, declared_length, discard_rest, read_body, replay, too_large
from tray_valet.web.errors import Answer, EdgeCode, ErrorType, HttpError, answer_for, unexpected
from tray_valet.web.keys import Keys
from tray_valet.web.policies import GuardPolicy
from tray_valet.web.requests import (
    BODY_KEY,
    CLIENT_KEY,
    Authority,
    Origin,
    RequestHead,
    host_of,
    parse_authority,
    parse_origin,
)

_log = logging.getLogger(__name__)
_BROWSERS_ONLY = (b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_OWN_SITE = frozenset({"", "same-origin", "none"})
_Headers = list[tuple[bytes, bytes]]
_ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_PAGE_POLICY = b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"


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
        self._date = _Date()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no lifespan, no WebSockets
        head = RequestHead(scope)
        policy = self._policy()
        answering = _Answering(send, head, policy, self._date)
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
        self, scope: Scope, receive: Receive, head: RequestHead, policy: GuardPolicy, answering: _Answering
    ) -> None:
        check_host(head, policy)
        allowed = check_origin(head, policy)
        answering.allow_origin(allowed)
        is_preflight = head.method == "OPTIONS" and bool(head.all(b"access-control-request-method"))
        if allowed is not None and is_preflight:
            await answering.preflight()
            return
        length = declared_length(head)
        if length is not None and length > policy.max_body_bytes:
            raise too_large(policy.max_body_bytes)
        body = await self._body_of_admitted(scope, receive, head, policy, answering)
        if body and head.method in _WRITES:
            check_json(head, policy)
        if self._in_flight > policy.max_in_flight:
            raise HttpError(
                503,
                ErrorType.UNAVAILABLE,
                EdgeCode.OVERLOADED,
                "Too many requests are open at once. Try again in a moment.",
                headers=((b"retry-after", b"1"),),
            )
        await self._app(scope, replay(body, receive), answering.send)

    async def _body_of_admitted(
        self, scope: Scope, receive: Receive, head: RequestHead, policy: GuardPolicy, answering: _Answering
    ) -> bytes:
        """Size first, then key; a caller without a key gets its body counted but not stored."""
        refusal: HttpError | None = None
        try:
            scope[CLIENT_KEY] = self._keys.admit(head)
        except HttpError as error:
            refusal = error
        take = scope.get(BODY_KEY)
        body: bytes | None = take() if take is not None else None
        if body is None:
            body = await read_body(
                receive,
                max_bytes=policy.max_body_bytes,
                timeout_s=policy.body_timeout_s,
                keep=refusal is None,
            )
        elif len(body) > policy.max_body_bytes:
            raise too_large(policy.max_body_bytes)
        answering.has_body_left = False
        if refusal is not None:
            raise refusal
        return body


def check_host(head: RequestHead, policy: GuardPolicy) -> None:
    """Raise 400 unless the Host header names this machine as the settings know it."""
    values = head.all(b"host")
    authority = parse_authority(values[0].decode("latin-1").strip()) if len(values) == 1 else None
    if authority is None or not _is_ours(authority, head, policy):
        raise HttpError(
            400,
            ErrorType.INVALID_REQUEST,
            EdgeCode.BAD_HOST,
            "The Host header does not name this machine. Names beside localhost go into allowed_hosts.",
        )


def check_origin(head: RequestHead, policy: GuardPolicy) -> Origin | None:
    """Raise 403 for a page that is not ours. Return the origin if the settings' cors_origins list it."""
    values = head.all(b"origin")
    origin = parse_origin(values[0].decode("latin-1").strip()) if len(values) == 1 else None
    if values:
        if origin is not None and origin in policy.origins:
            return origin
        if origin is not None and _is_own_origin(origin, head, policy):
            return None
        raise _foreign_page()
    if head.text(b"sec-fetch-site").lower() not in _OWN_SITE or len(head.all(b"sec-fetch-site")) > 1:
        if not _is_plain_navigation(head, policy):
            raise _foreign_page()
    elif head.method in _WRITES and not head.all(b"sec-fetch-site"):
        # Browsers too old for both headers still send the page they came from.
        _check_referer(head, policy)
    return None


def is_from_browser(head: RequestHead) -> bool:
    """Whether a browser may have sent it: one that a page made, without a word of where from, has its name.

    Pages can neither leave these headers out of what they make a browser send nor change all of them; old
    browsers lack some, so each counts.
    """
    agent = head.all(b"user-agent")
    return any(map(head.all, _BROWSERS_ONLY)) or any(b"mozilla" in value.lower() for value in agent)


def check_json(head: RequestHead, policy: GuardPolicy) -> None:
    """Raise 415 unless the body is declared to be JSON, or need not be."""
    kinds = head.all(b"content-type")
    if len(kinds) == 1 and kinds[0].partition(b";")[0].strip().lower() == b"application/json":
        return
    if policy.is_json_declared or is_from_browser(head):
        raise HttpError(
            415,
            ErrorType.INVALID_REQUEST,
            EdgeCode.NOT_JSON,
            "The body must be JSON. Send the header “Content-Type: application/json”.",
        )


def _check_referer(head: RequestHead, policy: GuardPolicy) -> None:
    referer = head.text(b"referer")
    if not referer:
        return
    scheme, _, rest = referer.partition("://")
    origin = parse_origin(f"{scheme}://{rest.split('/', 1)[0].split('?', 1)[0]}")
    if origin is None or not (origin in policy.origins or _is_own_origin(origin, head, policy)):
        raise _foreign_page()


def _is_plain_navigation(head: RequestHead, policy: GuardPolicy) -> bool:
    """A link that a person followed to a page of ours: nothing is readable by the page it was on."""
    return (
        head.method in ("GET", "HEAD")
        and head.path in policy.page_paths
        and head.text(b"sec-fetch-mode") == "navigate"
        and head.text(b"sec-fetch-dest") == "document"
    )


def _is_ours(authority: Authority, head: RequestHead, policy: GuardPolicy) -> bool:
    if Authority(authority.host, None) in policy.hosts or authority in policy.hosts:
        return True
    # Bound to every address: the one this connection came in by. An address cannot be rebound.
    came_in_by = host_of(head.server_host) if policy.any_address and head.server_host else None
    return came_in_by is not None and authority.host == came_in_by.host


def _is_own_origin(origin: Origin, head: RequestHead, policy: GuardPolicy) -> bool:
    """Same scheme, one of our hosts, and our port, or the port that a tunnel gave us (Host's own)."""
    if origin.scheme != head.scheme or not _is_ours(Authority(origin.host, origin.port), head, policy):
        return False
    shown = parse_origin(f"{head.scheme}://{head.text(b'host')}")
    return origin.port in (head.server_port, shown.port if shown else None)


def _foreign_page() -> HttpError:
    return HttpError(
        403,
        ErrorType.PERMISSION,
        EdgeCode.ORIGIN_REFUSED,
        "Web pages of other origins may not call. Origins that may go into cors_origins.",
    )


class _Date:
    """The header `Date`, written once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        """The time of this second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True).encode()
        return self._text


class _Answering:
    """Sends answers with the headers that all of them carry."""

    def __init__(self, send: Send, head: RequestHead, policy: GuardPolicy, date: _Date) -> None:
        self._send = send
        self._head = head
        self._date = date
        self._is_page = head.path in policy.page_paths or head.path.startswith("/ui/")
        self._origin: str | None = None
        self._is_started = False
        self.has_body_left = bool(head.all(b"content-length") or head.all(b"transfer-encoding"))

    def allow_origin(self, origin: Origin | None) -> None:
        """Let the page of that origin read the answer."""
        self._origin = self._head.text(b"origin") if origin is not None else None

    async def send(self, message: Message) -> None:
        """ASGI `send`, adding our headers to the start of the answer."""
        if not self._is_started and message["type"] == "http.response.start":
            self._is_started = True
            message["headers"] = self._complete(list(message.get("headers", ())))
        await self._send(message)

    async def refuse(self, answer: Answer, receive: Receive) -> None:
        """Answer with an error. After the start of another answer the server ends the connection."""
        if self._is_started:
            return
        headers: _Headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer.body)).encode()),
            *answer.headers,
        ]
        if not self.has_body_left:
            await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await self._send({"type": "http.response.body", "body": answer.body, "more_body": False})
            return
        headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await discard_rest(receive)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def preflight(self) -> None:
        """Tell the browser what pages of an allowed origin may do."""
        headers: _Headers = [
            (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
            (b"access-control-allow-headers", b"content-type, authorization, x-api-key, x-request-priority"),
            (b"access-control-max-age", b"600"),
        ]
        if self._head.text(b"access-control-request-private-network").lower() == "true":
            headers.append((b"access-control-allow-private-network", b"true"))
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _complete(self, headers: _Headers) -> _Headers:
        present = {name for name, _ in headers}
        headers.extend(pair for pair in _ALWAYS if pair[0] not in present)
        headers.append((b"vary", b"Origin"))
        headers.append((b"date", self._date.now()))
        if b"cache-control" not in present:
            headers.append((b"cache-control", b"no-cache" if self._is_page else b"no-store"))
        if b"content-security-policy" not in present:
            headers.append((b"content-security-policy", _PAGE_POLICY if self._is_page else _DATA_POLICY))
        if self._origin is None:
            headers.append((b"cross-origin-resource-policy", b"same-origin"))
            return headers
        headers.append((b"access-control-allow-origin", self._origin.encode("latin-1")))
        headers.append(
            (
                b"access-control-expose-headers",
                b"Retry-After, X-Valet-Provider, X-Valet-Model, X-Valet-Reason",
            )
        )
        return headers
