"""HTTP/1.1 on a socket: uvicorn's httptools protocol, with limits of our own and JSON refusals.

Decides: how long a head may take, how large it may be, which request targets are taken.
Must not: know paths or keys; that is the guard's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tray_valet.web.edge.answer_cycle import AnswerCycle
from tray_valet.web.edge.errors import EdgeCode, ErrorType, HttpError, answer_for
from tray_valet.web.edge.known_head import KnownHead, known_head
from tray_valet.web.edge.large_body import BodyMemory
from tray_valet.web.edge.requests import CYCLE_KEY

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 1024
_STRANGE_HEADS = 16  # a client whose heads differ that often is not waited for to repeat one
_HEAD_END = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_SHORT_BYTES = 256  # clients ask for the same few targets over and over
_MASK = b"x-mask-"  # as long as `upgrade`
_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


class ValetHttpProtocol(HttpToolsProtocol):
    """One connection. A head must be whole within `HEAD_TIMEOUT_S` and `MAX_HEAD_BYTES`.

    A connection has one timer for all that it is given time for. It is left alone while it runs out no later
    than needed, and looks then at what time there is: two timers a request would cost more than its parsing.
    """

    cycle: AnswerCycle
    body_memory: BodyMemory  # one for all connections of a server
    _fed_bytes = 0  # since the head began: no less than what has come of it
    _due_s: float | None = None  # when (loop time) the connection ends unless something happens
    _timer: asyncio.TimerHandle | None = None
    _has_begun = False  # a head has, and is not whole
    _is_head_timed = False
    _is_refused = False
    _is_in_head = True
    _is_lost = False
    _next_cycle: AnswerCycle | None = None  # of what is being parsed
    _serve_now: Callable[[Any], bool] | None = None  # the guard's
    _worker: asyncio.Task[None] | None = None
    _answered: AnswerCycle | None = None  # the request that is being answered, or was the last
    _due_cycle: AnswerCycle | None = None  # the request that the worker is to take up
    _idle_call: asyncio.Future[None] | None = None  # by which it is called when there is one
    _known: KnownHead | None = None  # the last head that may come again
    _strange_heads = 0  # how often it was another

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are far too many."""
        super().connection_made(transport)
        self._serve_now = getattr(self.app, "serve_now", None)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._end_in(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell who works for it."""
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)
        if self._idle_call is not None and not self._idle_call.done():
            self._idle_call.set_result(None)
        if self._answered is not None:
            if not self._answered.response_complete:
                self._answered.disconnected = True  # uvicorn tells the last one only, of several in a row
            self._answered.tell_gone()

    def listen_for_end(self, cycle: AnswerCycle) -> None:
        """Notice when the client of this request leaves."""
        if self._is_lost:
            self.loop.call_soon(cycle.tell_gone)
        elif not self.pipeline:
            self.flow.resume_reading()  # a body that came in one large piece has stopped it

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and say in JSON what is wrong with a head that it refuses."""
        if self._is_refused:
            return  # the answer is on its way; what still comes in is not a request
        was_in_head = self._has_begun
        is_between = self._is_in_head and not was_in_head
        if is_between and self._take_again(data):
            return
        self._fed_bytes = self._fed_bytes + len(data) if was_in_head else len(data)
        try:
            self.parser.feed_data(self._without_upgrade(data) if self._is_in_head else data)
        except httptools.HttpParserUpgrade:
            pass  # there is nothing here to change to
        except (httptools.HttpParserError, ValueError):
            self.send_400_response("The request is malformed.")
        cycle, self._next_cycle = self._next_cycle, None
        if self._has_begun:  # most heads are whole by now
            self._await_head(has_just_begun=not was_in_head)
        elif is_between and self._is_in_head:
            self._remember(data)
        if cycle is not None and not self._is_refused:
            self._begin(cycle)

    def _take_again(self, data: bytes) -> bool:
        """Whether `data` was a request with the head of an earlier one: it is begun without being parsed."""
        known, earlier = self._known, self.cycle
        if known is None or not earlier.response_complete:
            return False
        body = known.body_in(data)
        if body is None:
            return False
        self._due_s = None
        cycle = self.cycle = AnswerCycle(self, body, is_kept=True)
        cycle.known = known
        self._begin(cycle)
        return True

    def _remember(self, data: bytes) -> None:
        """Know the head of the one request that `data` was the next time, if it is one to be known by."""
        if self._strange_heads >= _STRANGE_HEADS or self._is_refused or self.cycle.more_body:
            return
        self._strange_heads += 1
        scope = dict(self.scope)
        scope.pop(CYCLE_KEY, None)
        self._known = known_head(data, scope)

    def on_message_begin(self) -> None:
        """A new head begins."""
        super().on_message_begin()
        self._has_begun, self._is_head_timed = True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, as uvicorn does."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        if name != _MASK:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the request, if its target is a path of ours; after the one that is being answered."""
        self._has_begun = self._is_in_head = False
        self._due_s = None
        if self._fed_bytes > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError("head too large")
        self._reconcile_target()
        scope, parser = self.scope, self.parser
        version = scope["http_version"] = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"], scope["raw_path"], scope["query_string"] = _taken_apart(self.url)
        earlier = self.cycle
        is_kept = version != "1.0" and parser.should_keep_alive()
        cycle = AnswerCycle(self, is_kept=is_kept, is_question_back=self.expect_100_continue)
        cycle.scope, cycle.is_http_10 = scope, version == "1.0"
        self.cycle = scope[CYCLE_KEY] = cycle  # type: ignore[literal-required]
        if earlier is None or earlier.response_complete:
            self._next_cycle = cycle  # when all that has come of its body is with it
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body; read no more for now where nobody has asked for that much."""
        cycle = self.cycle
        if not cycle.response_complete and cycle.add(body):
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """The request is whole; what follows is another head."""
        self._is_in_head = True
        super().on_message_complete()

    def body_is_whole(self) -> None:
        """The rest of a body came past the parser, which is still in the middle of it: take another."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with a request that has come in meanwhile, or wait a while for another."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._begin(cast(AnswerCycle, self.pipeline.pop()[0]))
        elif not self._has_begun:
            self._end_in(self.timeout_keep_alive)

    def _begin(self, cycle: AnswerCycle) -> None:
        """Have a request answered: where we stand if that can be, else by the connection's task."""
        self._answered = cycle
        if self._serve_now is None or cycle.more_body or not self._serve_now(cycle):
            self.give_to_worker(cycle)

    def give_to_worker(self, cycle: AnswerCycle) -> None:
        """Have a request answered by the connection's task: one for each would be dear."""
        self._due_cycle = cycle
        if self._worker is None:
            self._worker = self.loop.create_task(self._work(), name="answer a connection's requests")
        elif (call := self._idle_call) is not None:
            self._idle_call = None
            if not call.done():
                call.set_result(None)

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while (cycle := self._due_cycle) is not None and not task.cancelling():
            self._due_cycle = None
            self.tasks.add(task)
            await cycle.run_asgi(cycle.continued_by or self.app)
            cycle.end()
            self.tasks.discard(task)
            del cycle
            if self._due_cycle is None and not self._is_lost:
                self._idle_call = self.loop.create_future()
                await self._idle_call
        self._worker = None
        if self._due_cycle is not None:  # what cancelled the one before came too late, and is not for this
            self.give_to_worker(self._due_cycle)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in JSON like everything else."""
        self._refuse(400, msg)

    def _without_upgrade(self, data: bytes) -> bytes:
        """Hide offers to change the protocol: httptools drops the body of a request that makes one.

        Java's HttpClient offers h2c with every request; a server may pass that over (RFC 9110, 7.8).
        """
        end = data.find(_HEAD_END)
        if end < 0:
            end = len(data)
        if _UPGRADE.search(data, 0, end) is None:
            return data
        return _UPGRADE.sub(b"\r\n" + _MASK + b":", data[:end]) + data[end:]

    def _reconcile_target(self) -> None:
        """Make the guard see the authority of an absolute-form target (RFC 9112, 3.2.2).

        A server must believe it over the Host header. Ours believes neither if they differ: two Host
        headers are refused.
        """
        if self.url.startswith(b"/"):
            return
        _, separator, rest = self.url.partition(b"://")
        if not separator:
            raise ValueError("the request target is neither a path nor a URL")
        for stop in (b"/", b"?", b"#"):
            rest = rest.partition(stop)[0]
        if [value.strip().lower() for name, value in self.headers if name == b"host"] != [rest.lower()]:
            self.headers.append((b"host", rest))

    def _head_bytes(self) -> int:
        """What has come of the head, save a line that is not whole."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self) -> None:
        self._refuse(431, f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")

    def _await_head(self, *, has_just_begun: bool) -> None:
        """A head goes on in what comes next, and only the head: nothing may follow it yet."""
        if has_just_begun:
            self._fed_bytes = self._head_bytes()  # other requests came in before it
        if not self._is_head_timed:
            self._is_head_timed = True
            self._end_in(HEAD_TIMEOUT_S)
        if self._fed_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def _end_in(self, seconds: float) -> None:
        """Have the connection end after that time, unless a whole head comes in."""
        due_s = self._due_s = self.loop.time() + seconds
        timer = self._timer
        if timer is not None:
            if timer.when() <= due_s:
                return
            timer.cancel()
        self._timer = self.loop.call_at(due_s, self._look_at_time)

    def _look_at_time(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        if self._due_s > self.loop.time():
            self._timer = self.loop.call_at(self._due_s, self._look_at_time)
        elif self._has_begun or self.cycle is None:
            self._give_up()
        elif not self.transport.is_closing():
            self.transport.close()

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        # The last one's answer, and that of one before it whose turn it is still, would come after ours.
        unanswered = [c for c in (self._answered, self.cycle) if c is not None and not c.response_complete]
        for cycle in unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        if any(cycle.response_started for cycle in unanswered):
            self.transport.abort()  # in the middle of an answer there is no place for another
            return
        refusal = HttpError(status, ErrorType.INVALID_REQUEST, EdgeCode.MALFORMED, message)
        body = answer_for(refusal).body
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n%s"
            % (status, _PHRASES[status], len(body), body)
        )
        # Not closed at once: unread data would reset the connection before the answer is read.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(0.5, self._give_up)


def _taken_apart(url: bytes) -> tuple[str, bytes, bytes]:
    """A request target's path, that as it came, and its query. Raises HttpParserInvalidURLError."""
    return _known_target(url) if len(url) <= _SHORT_BYTES else _known_target.__wrapped__(url)


@lru_cache(maxsize=128)
def _known_target(url: bytes) -> tuple[str, bytes, bytes]:
    parsed = httptools.parse_url(url)
    raw: bytes = parsed.path
    path = raw.decode("ascii")
    return unquote(path) if "%" in path else path, raw, parsed.query or b""


def protocol_class() -> type[Any]:
    """The class that uvicorn is to use for each connection of one server."""
    return type("ServersProtocol", (ValetHttpProtocol,), {"body_memory": BodyMemory()})
