"""One request over several candidates, between real sockets: what the client gets, and what is noted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.web.at_once import is_open_already as is_open_already
from tests.web.at_once import open_to
from tests.web.fake_valet import FakeValet
from tests.web.raw_engine import RawEngine, raw_engine
from tests.web.wire import Reply, Site, router_site
from tray_valet.core.commands import Overrides
from tray_valet.core.config_providers import Priority
from tray_valet.core.errors import LoadFailed, Paused
from tray_valet.core.models import ProviderKind
from tray_valet.core.traffic import Exchanged, Outcome
from tray_valet.web.relay.relay import Relay

CHAT, MESSAGES, OLLAMA_CHAT = "/v1/chat/completions", "/v1/messages", "/api/chat"
ASK: dict[str, Any] = {"model": "llama3", "messages": [{"role": "user", "content": "Hi"}]}
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LINES = EVENTS.replace(b"text/event-stream", b"application/x-ndjson")
END = b"0\r\n\r\n"


def whole(body: bytes, status: str = "200 OK", more: bytes = b"") -> list[bytes | None]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return [head.encode() + more + b"\r\n" + body]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


ANSWER = whole(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}')
WORD = chunk(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
STREAM: list[bytes | None] = [EVENTS, WORD, WORD, chunk(b"data: [DONE]\n\n"), END]


@asynccontextmanager
async def routed(
    *answers: list[bytes | None], sign_s: float = 5.0
) -> AsyncIterator[tuple[Site, list[RawEngine]]]:
    """A router in front of an engine for each answer, first candidate first."""
    valet = FakeValet()
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(raw_engine(answer)) for answer in answers]
        valet.candidates = [(f"engine{n}", engine.url) for n, engine in enumerate(engines)]
        relay = Relay(valet, sign_of_life_s=sign_s)
        site = await stack.enter_async_context(router_site(valet, relay=relay))
        await open_to(relay, *(engine.url for engine in engines))
        yield site, engines


def noted(site: Site) -> Exchanged:
    assert len(site.valet.exchanged) == 1
    return site.valet.exchanged[0]


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Reader:
    """A client that reads a streamed answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def ask(cls, site: Site, path: str, body: Any) -> Reader:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(site.request_bytes("POST", path, body))
        return cls(reader, writer)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)

    async def piece(self) -> bytes:
        size = int((await asyncio.wait_for(self.reader.readline(), 30)).strip(), 16)
        data = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return data


# -- failover ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        whole(b'{"error":"broken"}', "500 Internal Server Error"),
        whole(b'{"error":"busy"}', "503 Service Unavailable"),
        whole(b'{"error":"slow down"}', "429 Too Many Requests"),
        [None],
        [b"HTTP/1.1 200 OK\r\nContent-Le", None],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", None],
        [EVENTS, None],
        [b"nonsense\r\n\r\n"],
    ],
    ids=["500", "503", "429", "closed", "half a head", "head only", "stream's head only", "no http"],
)
async def test_a_candidate_that_fails_before_its_first_byte_gives_way_to_the_next(first: Any) -> None:
    async with routed(first, ANSWER) as (site, engines):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.headers["x-valet-provider"]) == (200, "engine1")
        assert [len(engine.requests) for engine in engines] == [1, 1]
        record = noted(site)
        assert (record.outcome, record.attempts, record.provider) == (Outcome.ANSWERED, 2, "engine1")
        assert (record.prompt_tokens, record.completion_tokens) == (3, 5)


async def test_a_candidate_that_is_not_there_gives_way_to_the_next() -> None:
    async with raw_engine(ANSWER) as gone:
        pass
    async with routed(ANSWER) as (site, _):
        site.valet.candidates.insert(0, ("gone", gone.url))
        assert (await site.call("POST", CHAT, ASK)).headers["x-valet-provider"] == "engine0"


async def test_a_silent_candidate_gives_way_to_the_next() -> None:
    async with routed([b""], ANSWER) as (site, engines):
        await site.valet.update_settings({"router": {"request_timeout_seconds": 3}})
        assert (await site.call("POST", CHAT, ASK)).headers["x-valet-provider"] == "engine1"
        await asyncio.wait_for(engines[0].left.wait(), 30)


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "422 Unprocessable"])
async def test_a_clients_own_mistake_is_told_by_the_first(status: str) -> None:
    async with routed(whole(b'{"error":{"message":"no"}}', status), ANSWER) as (site, engines):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.json["error"]["message"]) == (int(status[:3]), "no")
        assert engines[1].requests == []
        assert (noted(site).outcome, noted(site).status) == (Outcome.ANSWERED, int(status[:3]))


async def test_where_all_fail_it_is_502_with_the_last_ones_own_words() -> None:
    last = whole(b'{"error":{"message":"second is broken too"}}', "507 No Room")
    async with routed(whole(b'{"error":1}', "500 Oops"), last) as (site, _):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_failed")
        assert reply.json["error"]["message"].endswith(" answered 507: second is broken too")
        assert (noted(site).attempts, noted(site).outcome) == (2, Outcome.FAILED)


async def test_an_engines_words_that_are_not_utf_8_are_left_out() -> None:
    async with routed(whole(b'{"error":{"message":"d\xe9faut"}}', "500 Oops")) as (site, _):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.json["error"]["message"]) == (502, "engine0 answered 500.")


async def test_what_an_engine_does_not_know_is_its_own_answer() -> None:
    own = whole(b'{"error":{"message":"no embeddings here"}}', "501 Not Implemented", b"X-Own: 1\r\n")
    async with routed(own) as (site, _):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.headers["x-own"]) == (501, "1")
        assert reply.json["error"]["message"] == "no embeddings here"


async def test_the_words_of_an_engine_are_kept_where_the_next_is_gone_meanwhile() -> None:
    async with routed(whole(b'{"error":{"message":"mine"}}', "500 Oops"), [None]) as (site, _):
        admit = site.valet._lease

        def only_the_first(name: str, failed: Any) -> Any:
            if failed:
                raise next(reversed(failed.values()))
            return admit(name, failed)

        site.valet._lease = only_the_first  # type: ignore[method-assign]
        reply = await site.call("POST", CHAT, ASK)
        assert reply.status == 502
        assert reply.json["error"]["message"].endswith(" answered 500: mine")


async def test_after_the_first_byte_nobody_else_is_asked() -> None:
    async with routed([EVENTS, WORD, None], STREAM) as (site, engines):
        reply = await site.call("POST", CHAT, {**ASK, "stream": True})
        last = reply.body.rstrip().split(b"\n\n")[-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
        assert engines[1].requests == []
        assert (noted(site).outcome, noted(site).error_code) == (Outcome.CUT, "upstream_failed")


async def test_a_whole_answer_that_breaks_off_is_cut_not_ended() -> None:
    half: list[bytes | None] = [b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\nabc", None]
    async with routed(half) as (site, _):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.headers["content-length"], reply.body) == ("200000", b"abc")
        assert noted(site).outcome is Outcome.CUT


async def test_a_pause_before_the_first_byte_asks_the_route_again() -> None:
    async with routed([b""], ANSWER) as (site, engines):
        asking = asyncio.create_task(site.call("POST", CHAT, ASK))
        await until(lambda: engines[0].requests)
        site.valet.candidates.pop(0)  # the route's next one needs no GPU
        site.valet.leases[0].revoke(Paused("Hades is running."))
        assert (await asking).headers["x-valet-provider"] == "engine1"
        await asyncio.wait_for(engines[0].left.wait(), 30)


async def test_a_model_that_is_unloaded_on_request_is_not_loaded_again_for_it() -> None:
    async with routed([b""]) as (site, engines):
        asking = asyncio.create_task(site.call("POST", CHAT, ASK))
        await until(lambda: engines[0].requests)
        site.valet.leases[0].revoke(LoadFailed("It was unloaded.", was_ended=True))
        assert (await asking).code == "load_failed"
        assert len(site.valet.leases) == 1


# -- outcomes ------------------------------------------------------------------------------------------


async def test_a_refusal_before_any_engine_was_asked_is_noted_as_one() -> None:
    async with routed(ANSWER) as (site, _):
        site.valet.start_game("Hades")
        await site.call("POST", CHAT, ASK)
        record = noted(site)
        assert (record.outcome, record.status, record.error_code) == (Outcome.REFUSED, 503, "paused")
        assert (record.asked, record.provider, record.attempts) == ("llama3", "", 0)


async def test_a_request_that_a_pause_takes_back_from_its_engine_and_refuses_is_noted_as_refused() -> None:
    async with routed([b""]) as (site, engines):
        asking = asyncio.create_task(site.call("POST", CHAT, ASK))
        await until(lambda: engines[0].requests)
        site.valet.start_game("Hades")
        site.valet.leases[0].revoke(Paused("Hades is running."))
        assert (await asking).code == "paused"
        record = noted(site)
        assert (record.outcome, record.status, record.attempts) == (Outcome.REFUSED, 503, 1)


async def test_a_refusal_after_an_engine_has_failed_is_noted_as_a_failure() -> None:
    async with routed(whole(b"{}", "500 Oops"), [b""]) as (site, engines):
        asking = asyncio.create_task(site.call("POST", CHAT, ASK))
        await until(lambda: engines[1].requests)
        site.valet.start_game("Hades")
        site.valet.leases[-1].revoke(Paused("Hades is running."))
        assert (await asking).code == "paused"
        assert (noted(site).outcome, noted(site).error_code) == (Outcome.FAILED, "paused")


async def test_an_engine_that_fails_is_noted_as_a_failure() -> None:
    async with routed([None]) as (site, _):
        assert (await site.call("POST", CHAT, ASK)).status == 502
        assert (noted(site).outcome, noted(site).provider) == (Outcome.FAILED, "engine0")


async def test_a_client_that_leaves_is_noted_as_such() -> None:
    async with routed([EVENTS, WORD, b""]) as (site, engines):
        client = await Reader.ask(site, CHAT, {**ASK, "stream": True})
        await client.head()
        await client.piece()
        client.writer.transport.abort()
        await asyncio.wait_for(engines[0].left.wait(), 30)
        await until(lambda: site.valet.exchanged)
        assert noted(site).outcome is Outcome.CLIENT_LEFT


async def test_an_answer_is_noted_with_all_that_is_known() -> None:
    async with routed(STREAM) as (site, _):
        await site.call("POST", CHAT, {**ASK, "stream": True}, {"X-Request-Priority": "High"})
        record = noted(site)
        assert (record.outcome, record.status, record.is_stream) == (Outcome.ANSWERED, 200, True)
        assert (record.path, record.priority, record.completion_tokens) == (CHAT, "high", 2)
        assert record.first_byte_s is not None
        assert 0 < record.first_byte_s <= record.total_s
        assert record.answer_bytes > 100


async def test_a_request_that_is_malformed_is_noted_once() -> None:
    async with routed(ANSWER) as (site, _):
        assert (await site.call("POST", CHAT, b"{")).status == 400
        assert (noted(site).outcome, noted(site).error_code) == (Outcome.REFUSED, "invalid_json")


# -- signs of life -------------------------------------------------------------------------------------


async def test_a_streaming_client_gets_signs_of_life_while_the_model_loads() -> None:
    async with routed(STREAM, sign_s=0.05) as (site, _):
        site.valet.admitting = asyncio.Event()
        client = await Reader.ask(site, CHAT, {**ASK, "stream": True})
        head = await client.head()
        assert b"200 OK" in head
        assert b"text/event-stream" in head
        for _ in range(2):
            assert (await client.piece()).startswith(b": ")
        site.valet.admitting.set()
        rest = b""
        while b"[DONE]" not in rest:
            rest += await client.piece()
        assert rest.count(b'"content":"a"') == 2


async def test_a_long_prefill_gets_signs_of_life_and_failover_still_works() -> None:
    async with routed([b""], STREAM, sign_s=0.05) as (site, engines):
        client = await Reader.ask(site, CHAT, {**ASK, "stream": True})
        await client.head()
        assert (await client.piece()).startswith(b": ")
        site.valet.candidates.pop(0)
        site.valet.leases[0].revoke(Paused("Hades is running."))
        rest = b""
        while b"[DONE]" not in rest:
            rest += await client.piece()
        assert b"error" not in rest
        assert len(engines[1].requests) == 1


@pytest.mark.parametrize(
    ("path", "begins"),
    [(CHAT, b"data: {"), (MESSAGES, b"event: error\ndata: {")],
    ids=["openai", "anthropic"],
)
async def test_after_a_sign_of_life_errors_are_events_of_the_dialect(path: str, begins: bytes) -> None:
    async with routed(STREAM, sign_s=0.05) as (site, _):
        site.valet.admitting = asyncio.Event()
        client = await Reader.ask(site, path, {**ASK, "stream": True})
        await client.head()
        await client.piece()
        site.valet.candidates = [("gone", "http://127.0.0.1:9")]
        site.valet.admitting.set()
        event = await client.piece()
        while event.startswith(b": "):
            event = await client.piece()
        assert event.startswith(begins)
        assert event.endswith(b"\n\n")
        assert json.loads(event.partition(b"data: ")[2])["error"]["code"] == "provider_unreachable"
        assert await asyncio.wait_for(client.reader.read(), 30) == END


async def test_after_a_sign_of_life_an_engines_refusal_is_an_event() -> None:
    refusal = whole(b'{"error":{"message":"context too long"}}', "400 Bad Request")
    async with routed(refusal, sign_s=0.05) as (site, _):
        site.valet.admitting = asyncio.Event()
        client = await Reader.ask(site, CHAT, {**ASK, "stream": True})
        await client.head()
        await client.piece()
        site.valet.admitting.set()
        event = await client.piece()
        while event.startswith(b": "):
            event = await client.piece()
        assert event.startswith(b"data: ")
        assert json.loads(event[6:])["error"]["message"] == "context too long"


@pytest.mark.parametrize(("path", "stream"), [(CHAT, False), (OLLAMA_CHAT, True), ("/v1/embeddings", True)])
async def test_nobody_else_gets_signs_of_life(path: str, stream: bool) -> None:
    async with routed(ANSWER, sign_s=0.02) as (site, _):
        site.valet.admitting = asyncio.Event()
        asking = asyncio.create_task(site.call("POST", path, {**ASK, "stream": stream}))
        await asyncio.sleep(0.2)
        site.valet.admitting.set()
        assert (await asking).body == ANSWER[0].partition(b"\r\n\r\n")[2]  # type: ignore[union-attr]


async def test_a_client_that_leaves_between_signs_of_life_ends_the_wait() -> None:
    async with routed(STREAM, sign_s=0.05) as (site, engines):
        site.valet.admitting = asyncio.Event()
        client = await Reader.ask(site, CHAT, {**ASK, "stream": True})
        await client.head()
        client.writer.transport.abort()
        await until(lambda: site.valet.is_admission_cancelled)
        assert engines[0].requests == []
        await until(lambda: site.valet.exchanged)
        assert noted(site).outcome is Outcome.CLIENT_LEFT


# -- what goes to the engine ---------------------------------------------------------------------------


def sent(engine: RawEngine) -> Any:
    return json.loads(engine.requests[0].partition(b"\r\n\r\n")[2])


async def test_routes_set_and_strip_fields() -> None:
    async with routed(ANSWER) as (site, engines):
        site.valet.overrides = Overrides(set={"temperature": 0.5, "model": "no"}, strip=("top_p",))
        await site.call("POST", CHAT, {**ASK, "temperature": 1, "top_p": 0.1, "seed": 3})
        body = sent(engines[0])
        assert (body["temperature"], body["seed"], body["model"]) == (0.5, 3, "llama3:latest")
        assert "top_p" not in body


async def test_context_and_time_to_live_reach_ollama_in_its_own_words() -> None:
    answer = whole(b'{"model":"m","message":{"role":"assistant","content":"Hi"},"done":true,"eval_count":2}')
    async with routed(answer) as (site, engines):
        site.valet.upstream_fields = {"kind": ProviderKind.OLLAMA}
        site.valet.overrides = Overrides(context_length=8192, keep_alive_s=60.0)
        reply = await site.call("POST", CHAT, ASK)
        assert engines[0].requests[0].startswith(b"POST /api/chat HTTP/1.1")
        assert sent(engines[0])["options"]["num_ctx"] == 8192
        assert reply.json["choices"][0]["message"]["content"] == "Hi"
        assert noted(site).completion_tokens == 2


async def test_a_whole_answer_is_put_together_where_only_a_stream_can_be_stopped() -> None:
    stop = chunk(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
    stream: list[bytes | None] = [EVENTS, WORD, WORD, stop, chunk(b"data: [DONE]\n\n"), END]
    async with routed(stream) as (site, engines):
        site.valet.upstream_fields = {"streams_whole": True}
        reply = await site.call("POST", CHAT, ASK)
        assert sent(engines[0])["stream"] is True
        assert reply.headers["content-type"] == "application/json"
        assert reply.json["choices"][0]["message"]["content"] == "aa"


async def test_a_client_that_leaves_a_whole_answer_stops_the_stream_behind_it() -> None:
    async with routed([EVENTS, WORD]) as (site, engines):
        site.valet.upstream_fields = {"streams_whole": True}
        client = await Reader.ask(site, CHAT, ASK)
        await until(lambda: engines[0].requests)
        client.writer.transport.abort()
        await asyncio.wait_for(engines[0].left.wait(), 3)


async def test_the_query_is_passed_on() -> None:
    async with routed(ANSWER) as (site, engines):
        await site.call("POST", MESSAGES + "?beta=true", ASK)
        assert engines[0].requests[0].startswith(b"POST /v1/messages?beta=true HTTP/1.1")


@pytest.mark.parametrize(("text", "priority"), [("high", Priority.HIGH), ("LOW", Priority.LOW)])
async def test_the_priority_of_the_header_counts(text: str, priority: Priority) -> None:
    async with routed(ANSWER) as (site, _):
        await site.call("POST", CHAT, ASK, {"X-Request-Priority": text})
        assert site.valet.wishes[0].priority is priority


async def test_another_priority_is_refused_and_the_known_ones_named() -> None:
    async with routed(ANSWER) as (site, _):
        reply = await site.call("POST", CHAT, ASK, {"X-Request-Priority": "urgent"})
        assert reply.status == 400
        assert "high, normal, low" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"num_ctx": 8192}, 8192), ({"num_ctx": 4}, None), ({"num_ctx": "x"}, None), ({}, None), (None, None)],
)
async def test_ollamas_own_context_is_part_of_the_wish(options: Any, expected: int | None) -> None:
    async with routed(ANSWER) as (site, _):
        await site.call("POST", OLLAMA_CHAT, {**ASK, "options": options})
        assert site.valet.wishes[0].context_length == expected


# -- Ollama's load and unload --------------------------------------------------------------------------


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", 0.0])
@pytest.mark.parametrize(
    ("path", "bare"), [(OLLAMA_CHAT, {"messages": []}), (OLLAMA_CHAT, {}), ("/api/generate", {"prompt": ""})]
)
async def test_an_empty_request_with_keep_alive_0_unloads(path: str, bare: Any, keep_alive: Any) -> None:
    async with routed(ANSWER) as (site, _):
        reply = await site.call("POST", path, {"model": "llama3", **bare, "keep_alive": keep_alive})
        assert (reply.status, reply.json["done"], reply.json["done_reason"]) == (200, True, "unload")
        assert site.valet.called("unload") == [{"model": "llama3", "provider": None}]
        assert site.valet.called("admit") == []


@pytest.mark.parametrize("keep_alive", [None, "5m", 10, -1])
async def test_an_empty_request_loads(keep_alive: Any) -> None:
    async with routed(ANSWER) as (site, engines):
        await site.call("POST", "/api/generate", {"model": "llama3", "keep_alive": keep_alive})
        assert site.valet.called("unload") == []
        assert len(engines[0].requests) == 1


async def test_a_request_with_keep_alive_0_that_asks_something_is_answered() -> None:
    async with routed(ANSWER) as (site, engines):
        await site.call("POST", "/api/generate", {"model": "llama3", "prompt": "Hi", "keep_alive": 0})
        assert site.valet.called("unload") == []
        assert len(engines[0].requests) == 1


# -- dialects and types --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shape"),
    [(CHAT, {"error"}), (MESSAGES, {"type", "error", "request_id"}), (OLLAMA_CHAT, {"error", "code"})],
)
async def test_errors_have_the_form_of_the_dialect_that_was_asked(path: str, shape: set[str]) -> None:
    async with routed([None]) as (site, _):
        replies = [
            await site.call("POST", path, ASK),
            await site.call("POST", path, b"{"),
            await site.call("POST", path, {**ASK, "model": "no-such"}),
            await site.call("GET", path),
            await site.call("POST", path, ASK, {"Origin": "https://evil.example"}),
        ]
        assert [reply.status for reply in replies] == [502, 400, 404, 405, 403]
        for reply in replies:
            assert shape <= set(reply.json)


async def test_a_stream_of_lines_that_breaks_off_ends_with_a_line() -> None:
    async with routed([LINES, chunk(b'{"a":1}\n{"b"'), None]) as (site, _):
        reply = await site.call("POST", OLLAMA_CHAT, ASK)
        first, second = reply.body.splitlines()
        assert first == b'{"a":1}'
        assert json.loads(second)["code"] == "upstream_failed"


async def typed(site: Site, kind: str | None, more: dict[str, str | None]) -> Reply:
    return await site.call("POST", OLLAMA_CHAT, ASK, {"Content-Type": kind, **more})


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
async def test_programs_need_not_declare_json(kind: str | None) -> None:
    async with routed(ANSWER) as (site, engines):
        assert (await typed(site, kind, {"User-Agent": "curl/8.0"})).status == 200
        assert b"content-type: application/json" in engines[0].requests[0].lower()


@pytest.mark.parametrize(
    "more",
    [
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Dest": "empty"},
        {"Referer": "http://127.0.0.1/"},
        {"User-Agent": "Mozilla/5.0 (Macintosh)"},
        {"Origin": "null"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_whatever_may_be_a_page_must(kind: str | None, more: dict[str, str | None]) -> None:
    async with routed(ANSWER) as (site, engines):
        assert (await typed(site, kind, more)).status in (403, 415)
        assert engines[0].requests == []
