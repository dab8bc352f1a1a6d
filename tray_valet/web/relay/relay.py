"""The relay: one request from its arrival to its one outcome, over as many candidates as it takes.

Decides: when the next candidate is asked, what the client is told in the end, and what is noted of it.
Must not: choose candidates (the valet admits), or touch bytes (`exchange.py` does).

Most requests find everything ready; they are served where they come in, in the events of the two sockets
(`serve_now`): tasks cost more than all the rest. Should anything come up, a task goes on from there. It makes
no other: what ends it from outside cancels what it waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from tray_valet.core.commands import Admission, Lease, Valet
from tray_valet.core.dialects import OPERATIONS, Framing, Operation
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
from tray_valet.web.edge.bodies import ClientGoneError
from tray_valet.web.edge.errors import EdgeCode, HttpError
from tray_valet.web.edge.requests import ANSWER_KEY, CLIENT_KEY, KNOWN_KEY
from tray_valet.web.relay.attempt import Attempt
from tray_valet.web.relay.call import Call
from tray_valet.web.relay.cloud_client import CloudClient
from tray_valet.web.relay.delivery import SIGN_OF_LIFE_S, SignsOfLife
from tray_valet.web.relay.ends import Ends, SilenceWatch, shutting_down
from tray_valet.web.relay.exchange import RejectedError, is_failure
from tray_valet.web.relay.near_names import with_suggestion
from tray_valet.web.relay.ollama_unload import unloaded_answer
from tray_valet.web.relay.request_body import Asked, is_command, keep_alive_is_zero, read_request
from tray_valet.web.relay.upstream_client import LocalClient, UpstreamClient

WorkOn = Callable[[Callable[[], Awaitable[None]]], None]
Begun = tuple[Admission, Attempt]
_MAY_FAIL_OVER = (ProviderUnreachable, UpstreamFailed, TimedOut)
_MOST_ATTEMPTS = 32


class Relay:
    """An ASGI app for the paths of `core.dialects.OPERATIONS`, on our own server: the guard hands bodies over
    whole, and answers go out the quick way (`requests.DirectAnswer`)."""

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
        self._signs = SignsOfLife(sign_of_life_s)
        self._wall_s = wall_s
        self._open: set[Ends] = set()
        self._silences = SilenceWatch()
        self._is_closing = False

    async def close(self) -> None:
        """Close the connections to the upstreams."""
        self._silences.close()
        self._signs.close()
        await self._local.close()
        await self._cloud.close()

    def end_streams(self) -> None:
        """End what is in flight: the server is about to stop."""
        self._is_closing = True
        for ends in tuple(self._open):
            ends.end_all(shutting_down())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_closing:
            raise shutting_down()
        call = self._opened(scope)
        await self._work(call, scope)

    def serve_now(self, scope: Scope, work_on: WorkOn, on_over: Callable[[], None]) -> bool:
        """Serve a request without a task, if nothing is in its way; say whether that has begun.

        `on_over` is called when that was all. Should something come up, `work_on` gets what a task has to do,
        and `on_over` is not called.
        """
        operation = OPERATIONS.get(scope["path"])
        if operation is None or self._is_closing:
            return False
        try:
            asked = self._read(operation, scope)
        except ValetError:
            return False  # it is read once more, and refused
        if is_command(asked):
            return False
        admission = self._valet.admit(asked.wish)
        lease = admission.now()
        if lease is None:
            return False
        call = self._opened(scope)
        call.asked = asked
        try:
            self._begin(call, scope, admission, lease, work_on, on_over)
        except BaseException:
            admission.end()
            self._forget(call)
            raise
        return True

    def _begin(
        self,
        call: Call,
        scope: Scope,
        admission: Admission,
        lease: Lease,
        work_on: WorkOn,
        on_over: Callable[[], None],
    ) -> None:
        asked = call.asked
        assert asked is not None
        self._promise(call, asked)
        attempt = self._attempt(call, asked, lease)

        def over() -> None:
            attempt.close()
            admission.end()
            call.settle(Outcome.ANSWERED, "")
            self._closed(call)
            on_over()

        def leave() -> None:
            attempt.leave_to_task()
            work_on(lambda: self._work(call, scope, (admission, attempt)))

        attempt.begin(over, leave)

    async def _work(self, call: Call, scope: Scope, begun: Begun | None = None) -> None:
        """Serve a request, or go on with one that has begun, in the task that runs this."""
        call.ends.attach(asyncio.current_task())
        try:
            await self._answer(call, scope, begun)
        finally:
            self._closed(call)

    def _opened(self, scope: Scope) -> Call:
        call = Call(scope, scope[ANSWER_KEY], at=self._wall_s())
        ends = call.ends
        self._open.add(ends)
        call.when_gone(lambda: ends.end_all(ClientGoneError()))
        return call

    def _closed(self, call: Call) -> None:
        self._forget(call)
        call.end()
        self._valet.note_exchange(call)

    def _forget(self, call: Call) -> None:
        call.ends.close()
        self._open.discard(call.ends)
        call.delivery.abandon()
        call.when_gone(None)

    async def _answer(self, call: Call, scope: Scope, begun: Begun | None) -> None:
        """Serve the request, tell its client of a failure, and settle its outcome."""
        call.outcome = Outcome.FAILED  # of what is not foreseen; the guard answers
        call.error_code = EdgeCode.INTERNAL.value
        try:
            try:
                await self._serve(call, scope, begun)
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

    async def _serve(self, call: Call, scope: Scope, begun: Begun | None) -> None:
        admission, attempt = begun or (None, None)
        asked = call.asked
        if asked is None:
            asked = call.asked = self._read(call.operation, scope)
            if is_command(asked):
                if keep_alive_is_zero(asked.fields):
                    await self._unload(call, asked)
                    return
            else:
                self._promise(call, asked)
        failed: dict[ModelRef, ValetError] = {}
        while True:
            async with admission or self._valet.admit(asked.wish, failed=failed) as lease:
                try:
                    await (attempt or self._attempt(call, asked, lease)).run()
                except ValetError as error:
                    if not _may_go_on(call, lease, error):
                        raise
                    if error is not lease.revoked_by:
                        failed |= {**lease.failed, lease.ref: error}
                else:
                    return
            admission = attempt = None

    def _read(self, operation: Operation, scope: Scope) -> Asked:
        return read_request(
            operation,
            scope[ANSWER_KEY].body,
            scope["headers"],
            client=scope.get(CLIENT_KEY, ""),
            query=scope.get("query_string", b""),
            known=scope.get(KNOWN_KEY),
        )

    def _promise(self, call: Call, asked: Asked) -> None:
        if asked.is_stream and call.operation.framing is Framing.EVENTS:
            call.delivery.promise(self._signs)

    def _attempt(self, call: Call, asked: Asked, lease: Lease) -> Attempt:
        call.note_lease(lease)
        is_cloud = lease.upstream.base_url.startswith("https:")
        limit_s = float(self._valet.settings.router.request_timeout_seconds)
        client = self._cloud if is_cloud else self._local
        return Attempt(call, asked, lease, client, self._silences, limit_s)

    async def _unload(self, call: Call, asked: Asked) -> None:
        """Ollama's way to say that a model is to go: nothing is loaded for it."""
        await self._valet.unload(asked.wish.model)
        body = unloaded_answer(asked.operation.path, asked.wish.model, self._wall_s())
        await call.delivery.send_whole(200, [(b"content-type", b"application/json; charset=utf-8")], body)


def _may_go_on(call: Call, lease: Lease, error: ValetError) -> bool:
    """Whether the request may be admitted again: nothing has gone out, and there is a point in it."""
    if call.delivery.has_answer or call.ends.final is not None or call.attempts >= _MOST_ATTEMPTS:
        return False
    if error is lease.revoked_by:
        return isinstance(error, Paused)  # its route says what that means
    return isinstance(error, _MAY_FAIL_OVER) and lease.has_next
