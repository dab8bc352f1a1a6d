"""The relay: one request from its arrival to its one outcome, over as many candidates as it takes.

Decides: when the next candidate is asked, what the client is told in the end, and what is noted of it.
Must not: choose candidates (the valet admits), or touch bytes (`exchange.py` does).

Most requests find everything ready; they are served where they come in, in the events of the two sockets
(`ask_now`, `expect`): tasks cost more than all the rest. Should anything come up, a task goes on from there.
It makes no other: what ends it from outside cancels what it waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from tray_valet.core.commands import Lease, Valet
from tray_valet.core.dialects import OPERATIONS, Framing, Operation
from tray_valet.core.errors import (
    Paused,
    ProviderUnreachable,
    TimedOut,
    UnknownModel,
    UpstreamFailed,
    ValetError,
)
from tray_valet.core.models import ModelRef, ProviderKind
from tray_valet.core.traffic import Outcome
from tray_valet.web.edge.bodies import Body, ClientGoneError
from tray_valet.web.edge.errors import EdgeCode, HttpError
from tray_valet.web.edge.known_head import KnownHead
from tray_valet.web.edge.requests import ANSWER_KEY, CLIENT_KEY, KNOWN_KEY, DirectAnswer
from tray_valet.web.relay.asking import Asking, ask_at_once
from tray_valet.web.relay.attempt import Attempt
from tray_valet.web.relay.call import Call
from tray_valet.web.relay.cloud_client import CloudClient
from tray_valet.web.relay.delivery import SIGN_OF_LIFE_S, SignsOfLife
from tray_valet.web.relay.ends import Ends, SilenceWatch, shutting_down
from tray_valet.web.relay.exchange import RejectedError, is_failure, is_for_another
from tray_valet.web.relay.near_names import with_suggestion
from tray_valet.web.relay.ollama_unload import unloaded_answer
from tray_valet.web.relay.request_body import (
    Asked,
    check_texts,
    is_command,
    keep_alive_is_zero,
    read_request,
)
from tray_valet.web.relay.upstream_client import LocalClient, UpstreamClient

WorkOn = Callable[[Callable[[], Awaitable[None]]], None]
Begun = tuple[Lease, Attempt]
Underway = tuple[Asked, Lease, UpstreamClient, Asking | None]  # between `ask_now` and `expect`
_MAY_FAIL_OVER = (ProviderUnreachable, UpstreamFailed, TimedOut)
_MOST_ATTEMPTS = 32
_CRASH_SEEN_S = 0.2  # a runner that has ended is missed by then
_SOON_S = 0.1  # a question that was sent into an end that had begun already


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
        operation = OPERATIONS[scope["path"]]
        call = Call(operation, scope.get(CLIENT_KEY, ""), scope[ANSWER_KEY], at=self._wall_s())
        self._open_up(call)
        await self._work(call, scope)

    def ask_now(self, scope: Scope, body: bytes, client: str, known: KnownHead | None) -> Underway | None:
        """Put a request to its engine without a task, if nothing is in the way; None: nothing has happened.

        `expect` is due in the same breath: all that the answer needs is made while the engine works already.
        """
        operation = OPERATIONS.get(scope["path"])
        if operation is None or self._is_closing:
            return None
        try:
            asked = _read(operation, scope, body, client, known)
        except ValetError:
            return None  # it is read once more, and refused
        if is_command(asked):
            return None
        lease = self._valet.admit_now(asked.wish)
        if lease is None:
            return None
        try:
            upstreams = self._client_for(lease)
            return asked, lease, upstreams, ask_at_once(upstreams, asked, lease)
        except BaseException:
            lease.end()
            raise

    def expect(
        self, underway: Underway, answer: DirectAnswer, work_on: WorkOn, on_over: Callable[[], None]
    ) -> None:
        """Serve what `ask_now` has begun. `on_over` is called when that was all; should something come up,
        `work_on` gets what a task has to do, and `on_over` is not called."""
        asked, lease, upstreams, asking = underway
        call = Call(asked.operation, asked.wish.client, answer, at=self._wall_s())
        call.asked = asked
        try:
            self._open_up(call)
            self._promise(call, asked)
            attempt = self._attempt(call, asked, lease, upstreams, asking)
            self._begin(call, lease, attempt, work_on, on_over)
        except BaseException:
            self._forget(call)
            raise

    def drop(self, underway: Underway) -> None:
        """Take back what `ask_now` has begun, after a mistake of ours."""
        _, lease, _, asking = underway
        if asking is not None and asking.connection is not None:
            asking.connection.abort()
        lease.end()

    def _begin(
        self, call: Call, lease: Lease, attempt: Attempt, work_on: WorkOn, on_over: Callable[[], None]
    ) -> None:
        def over() -> None:
            attempt.close()
            lease.end()
            call.settle(Outcome.ANSWERED, "")
            self._closed(call)
            on_over()

        def leave() -> None:
            attempt.leave_to_task()
            work_on(lambda: self._work(call, None, (lease, attempt)))

        attempt.begin(over, leave)

    async def _work(self, call: Call, scope: Scope | None, begun: Begun | None = None) -> None:
        """Serve a request, or go on with one that has begun, in the task that runs this. `scope`: of one that
        was not read yet."""
        call.ends.attach(asyncio.current_task())
        try:
            await self._answer(call, scope, begun)
        finally:
            self._closed(call)

    def _open_up(self, call: Call) -> None:
        ends = call.ends
        self._open.add(ends)
        call.when_gone(lambda: ends.end_all(ClientGoneError()))

    def _closed(self, call: Call) -> None:
        self._forget(call)
        call.end()
        self._valet.note_exchange(call)

    def _forget(self, call: Call) -> None:
        call.ends.close()
        self._open.discard(call.ends)
        call.delivery.abandon()
        call.when_gone(None)

    async def _answer(self, call: Call, scope: Scope | None, begun: Begun | None) -> None:
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

    async def _serve(self, call: Call, scope: Scope | None, begun: Begun | None) -> None:
        leased, attempt = begun or (None, None)
        asked = call.asked
        if asked is None:
            assert scope is not None
            body, known = scope[ANSWER_KEY].body, scope.get(KNOWN_KEY)
            asked = call.asked = _read(call.operation, scope, body, call.client, known)
            if is_command(asked):
                if keep_alive_is_zero(asked.fields):
                    await self._unload(call, asked)
                    return
            else:
                self._promise(call, asked)
            if asked.is_large and (leased := self._valet.admit_now(asked.wish)) is None:
                check_texts(asked.fields)  # it has to wait: nothing is loaded for what nobody can read
        failed: dict[ModelRef, ValetError] = {}
        while True:
            async with leased or self._valet.admit(asked.wish, failed=failed) as lease:
                asked_s = call.begun_s
                try:
                    if attempt is None:
                        asked_s = time.monotonic()
                        attempt = self._attempt(call, asked, lease, self._client_for(lease))
                    await attempt.run()
                except ValetError as error:
                    if isinstance(error, ProviderUnreachable):
                        self._valet.note_silent(lease.ref.provider)
                    wait_s = 0.0
                    if _may_go_on(call, lease, error):
                        if error is not lease.revoked_by:
                            failed |= {**lease.failed, lease.ref: error}
                            call.has_failed = True
                    elif _came_too_late(call, lease, error, time.monotonic() - asked_s):
                        wait_s = _CRASH_SEEN_S
                    else:
                        raise
                else:
                    return
            leased = attempt = None
            await asyncio.sleep(wait_s)

    def _promise(self, call: Call, asked: Asked) -> None:
        if asked.is_stream and call.operation.framing is Framing.EVENTS:
            call.delivery.promise(self._signs)

    def _client_for(self, lease: Lease) -> UpstreamClient:
        return self._cloud if lease.upstream.base_url.startswith("https:") else self._local

    def _attempt(
        self, call: Call, asked: Asked, lease: Lease, client: UpstreamClient, asking: Asking | None = None
    ) -> Attempt:
        call.note_lease(lease)
        limit_s = float(self._valet.settings.router.request_timeout_seconds)
        return Attempt(call, asked, lease, client, self._silences, limit_s, asking)

    async def _unload(self, call: Call, asked: Asked) -> None:
        """Ollama's way to say that a model is to go: nothing is loaded for it."""
        await self._valet.unload(asked.wish.model)
        body = unloaded_answer(asked.operation.path, asked.wish.model, self._wall_s())
        await call.delivery.send_whole(200, [(b"content-type", b"application/json; charset=utf-8")], body)


def _read(operation: Operation, scope: Scope, body: Body, client: str, known: KnownHead | None) -> Asked:
    query: bytes = scope.get("query_string", b"")
    return read_request(operation, body, scope["headers"], client=client, query=query, known=known)


def _came_too_late(call: Call, lease: Lease, error: ValetError, took_s: float) -> bool:
    """Whether a runner of ours was gone already, and nobody had missed it: who asks a moment later waits for
    the one that takes its place. A request that may have brought it down is not among them."""
    is_gone = isinstance(error, ProviderUnreachable) or (type(error) is UpstreamFailed and took_s < _SOON_S)
    is_ours = lease.upstream.kind is ProviderKind.LLAMA_SERVER
    return is_ours and is_gone and call.attempts == 1 and not call.is_ended


def _may_go_on(call: Call, lease: Lease, error: ValetError) -> bool:
    """Whether the request may be admitted again: nothing has gone out, and there is a point in it."""
    if call.is_ended or call.attempts >= _MOST_ATTEMPTS:
        return False
    if error is lease.revoked_by:
        return isinstance(error, Paused)  # its route says what that means
    if isinstance(error, RejectedError) and not is_for_another(error.status):
        return False  # the request is at fault
    return isinstance(error, _MAY_FAIL_OVER) and lease.has_next
