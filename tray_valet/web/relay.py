"""The relay: one request from its arrival to its one outcome, over as many candidates as it takes.

Decides: when the next candidate is asked, what the client is told in the end, and what is noted of it.
Must not: choose candidates (the valet admits), or touch bytes (`exchange.py` does).

A request is served in the server's own task and makes none: what ends it from outside cancels what it
waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from tray_valet.core.commands import Lease, Valet
from tray_valet.core.dialects import Dialect, Framing
from tray_valet.core.errors import (
    Paused,
    ProviderUnreachable,
    TimedOut,
    UnknownModel,
    UpstreamFailed,
    ValetError,
)
from tray_valet.core.models import ModelRef
from tray_valet.core.traffic import Outcome
from tray_valet.web.bodies import ClientGoneError
from tray_valet.web.call import Call
from tray_valet.web.cloud_client import CloudClient
from tray_valet.web.delivery import SIGN_OF_LIFE_S
from tray_valet.web.ends import Ends, SilenceWatch
from tray_valet.web.errors import EdgeCode, HttpError
from tray_valet.web.exchange import Exchange, RejectedError, is_failure
from tray_valet.web.load_commands import unloaded_answer
from tray_valet.web.request_body import Asked, is_bare, keep_alive_is_zero, read_request
from tray_valet.web.requests import CLIENT_KEY, GONE_KEY
from tray_valet.web.router_lists import with_suggestion
from tray_valet.web.upstream_client import LocalClient, UpstreamClient

_MAY_FAIL_OVER = (ProviderUnreachable, UpstreamFailed, TimedOut)
_MOST_ATTEMPTS = 32


class Relay:
    """An ASGI app for the paths of `core.dialects.OPERATIONS`; the guard hands bodies over whole."""

    def __init__(
        self,
        valet: Valet,
        *,
        local: UpstreamClient | None = None,
        cloud: UpstreamClient | None = None,
        sign_of_life_s: float = SIGN_OF_LIFE_S,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._valet = valet
        self._local = local or LocalClient()
        self._cloud = cloud or CloudClient()
        self._sign_of_life_s = sign_of_life_s
        self._wall_s = wall_s
        self._open: set[Ends] = set()
        self._silences = SilenceWatch()
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Close the connections to the upstreams."""
        self._silences.close()
        await self._local.close()
        await self._cloud.close()

    def end_streams(self) -> None:
        """End what is in flight: the server is about to stop."""
        self._is_closing = True
        for ends in tuple(self._open):
            ends.end_all(shutting_down())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        if self._is_closing:
            raise shutting_down()
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        call = Call(scope, send, loop, at=self._wall_s())
        ends = call.ends
        self._open.add(ends)
        watcher = _watch_client(scope, receive, ends)
        try:
            await self._answer(call, message.get("body", b""), scope)
        finally:
            ends.close()
            self._open.discard(ends)
            call.delivery.abandon()
            if watcher is not None:
                watcher.cancel()
            elif forget := scope.get(GONE_KEY):
                forget(None)
            self._valet.note_exchange(call.record())

    async def _answer(self, call: Call, body: bytes, scope: Scope) -> None:
        """Serve the request, tell its client of a failure, and settle its outcome."""
        call.outcome = Outcome.FAILED  # of what is not foreseen; the guard answers
        call.error_code = EdgeCode.INTERNAL.value
        try:
            try:
                await self._serve(call, body, scope)
            except asyncio.CancelledError:
                why = call.ends.reason()
                if why is None:
                    raise
                raise why from None
            except UnknownModel as error:
                raise with_suggestion(error, call.asked_for, self._valet.catalog()) from None
        except ClientGoneError:
            call.left()
            raise
        except RejectedError as error:
            call.ends.close()
            if is_failure(error.status):
                call.fail(error)
                await call.delivery.fail(error)
                return
            call.settle(Outcome.ANSWERED, "")
            await call.delivery.send_whole(error.status, error.headers, error.body)
        except (ValetError, HttpError) as error:
            if isinstance(call.ends.final, ClientGoneError):
                call.left()
                raise ClientGoneError from error
            call.ends.close()
            call.fail(error)
            await call.delivery.fail(error)
        else:
            call.settle(Outcome.ANSWERED, "")

    async def _serve(self, call: Call, body: bytes, scope: Scope) -> None:
        asked = call.asked = read_request(
            call.operation,
            body,
            scope["headers"],
            client=scope.get(CLIENT_KEY, ""),
            query=scope.get("query_string", b""),
        )
        if call.operation.dialect is Dialect.OLLAMA and is_bare(call.operation.path, asked.fields):
            if keep_alive_is_zero(asked.fields):
                await self._unload(call, asked)
                return
        elif asked.is_stream and call.operation.framing is Framing.EVENTS:
            call.delivery.promise(self._sign_of_life_s)
        failed: dict[ModelRef, ValetError] = {}
        while True:
            async with self._valet.admit(asked.wish, failed=failed) as lease:
                call.note_lease(lease)
                try:
                    await self._attempt(call, asked, lease)
                except ValetError as error:
                    if not _may_go_on(call, lease, error):
                        raise
                    if error is not lease.revoked_by:
                        failed |= {**lease.failed, lease.ref: error}
                else:
                    return

    async def _attempt(self, call: Call, asked: Asked, lease: Lease) -> None:
        """Ask one candidate. What ends the attempt from outside is raised as its reason."""
        ends = call.ends
        if lease.revoked_by is not None:
            raise lease.revoked_by
        lease.when_revoked(ends.end)
        is_cloud = lease.upstream.base_url.startswith("https:")
        silence = self._silences.watch(
            ends, call.loop, float(self._valet.settings.router.request_timeout_seconds), lease.ref
        )
        exchange = Exchange(
            self._cloud if is_cloud else self._local,
            lease,
            asked,
            call.delivery,
            call.tail,
            silence=silence,
        )
        try:
            await exchange.run()
        except asyncio.CancelledError:
            why = ends.reason()
            if why is None:
                raise
            raise why from None
        finally:
            self._silences.forget(silence)
            exchange.close()

    async def _unload(self, call: Call, asked: Asked) -> None:
        """Ollama's way to say that a model is to go: nothing is loaded for it."""
        await self._valet.unload(asked.wish.model)
        body = unloaded_answer(asked.operation.path, asked.wish.model, self._wall_s())
        await call.delivery.send_whole(200, [(b"content-type", b"application/json; charset=utf-8")], body)


def shutting_down() -> Paused:
    """Why an answer ends when the valet itself does."""
    return Paused("Tray Valet is shutting down.", retry_after_s=10.0)


def _may_go_on(call: Call, lease: Lease, error: ValetError) -> bool:
    """Whether the request may be admitted again: nothing has gone out, and there is a point in it."""
    if call.delivery.has_answer or call.ends.final is not None or call.attempts >= _MOST_ATTEMPTS:
        return False
    if error is lease.revoked_by:
        return isinstance(error, Paused)  # its route says what that means
    return isinstance(error, _MAY_FAIL_OVER) and lease.has_next


def _watch_client(scope: Scope, receive: Receive, ends: Ends) -> asyncio.Task[None] | None:
    """Have the request ended when its client leaves. A task only where the server tells it no other way."""
    when_gone: Callable[[Any], None] | None = scope.get(GONE_KEY)
    if when_gone is not None:
        when_gone(lambda: ends.end_all(ClientGoneError()))
        return None
    return asyncio.create_task(_wait_gone(receive, ends), name="router: client leaves")


async def _wait_gone(receive: Receive, ends: Ends) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    ends.end_all(ClientGoneError())
