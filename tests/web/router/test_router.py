"""The router, between real sockets: a client here, an engine there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.web.at_once import is_open_already as is_open_already
from tests.web.at_once import open_to
from tests.web.fake_valet import FakeValet
from tests.web.upstream import EVENT, Upstream
from tests.web.wire import Site, router_site, serving
from tray_valet.core.config import Settings
from tray_valet.core.errors import (
    LoadFailed,
    Paused,
    ProviderUnreachable,
    QueueFull,
    VramExhausted,
)
from tray_valet.web.relay.relay import Relay

CHAT = "/v1/chat/completions"
ASK = {"model": "llama3", "messages": [{"role": "user", "content": "Hi"}]}


@asynccontextmanager
async def routed(plan: str = "whole", valet: FakeValet | None = None) -> AsyncIterator[tuple[Site, Upstream]]:
    engine = Upstream()
    engine.plan = plan
    valet = valet or FakeValet()
    relay = Relay(valet)
    async with serving(engine, name="engine") as server, router_site(valet, relay=relay) as site:
        site.valet.upstream_url = server.url
        await open_to(relay, server.url)
        yield site, engine
        engine.go_on.set()


class Stream:
    """A client that reads an answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, site: Site, body: Any) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(site.request_bytes("POST", CHAT, body))
        return cls(reader, writer)

    async def head(self) -> bytes:
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)).lower()

    async def chunk(self) -> bytes:
        size = int((await asyncio.wait_for(self.reader.readline(), 30)).strip(), 16)
        data = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return data

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 30)

    def leave(self) -> None:
        self.writer.transport.abort()


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_whole_answer_comes_back_as_it_is_and_says_who_answered() -> None:
    async with routed() as (site, engine):
        reply = await site.call("POST", CHAT, ASK)
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == "Hello."
        assert reply.headers["x-valet-provider"] == "ollama"
        assert reply.headers["x-valet-model"] == "llama3:latest"
        assert reply.headers["x-valet-reason"] == '"ollama/llama3:latest" is loaded'
        assert reply.headers["x-own"] == "1"
        assert reply.headers["x-accel-buffering"] == "no"
        assert engine.paths == [CHAT]
        assert site.valet.in_flight == 0


async def test_only_the_model_is_rewritten_every_other_value_stays_byte_for_byte() -> None:
    body = (
        b'{ "seed": 123456789012345678901234567890, "temperature": 1.10, "model" : "llama3",\n'
        b'  "messages": [ {"role":"user", "content":"\\u00e9\xc3\xa9 \\/"} ], "x": {"b":1,"a":[1, 2]},'
        b' "n": 1e-7 }'
    )
    async with routed() as (site, engine):
        assert (await site.call("POST", CHAT, body)).status == 200
        sent = engine.requests[0][1]
        assert json.loads(sent) == {**json.loads(body), "model": "llama3:latest"}
        for value in (
            b"123456789012345678901234567890",
            b"1.10",
            b'[ {"role":"user", "content":"\\u00e9\xc3\xa9 \\/"} ]',
            b'{"b":1,"a":[1, 2]}',
            b"1e-7",
        ):
            assert value in sent


async def test_what_is_for_us_alone_does_not_go_upstream() -> None:
    valet = FakeValet(
        settings=msgspec.convert({"router": {"api_keys": {"laptop": "keyring:laptop"}}}, Settings)
    )
    async with routed(valet=valet) as (site, engine):
        private = {
            "Authorization": "Bearer sk-laptop",
            "Cookie": "a=b",
            "Accept-Encoding": "gzip, br",
            "Connection": "close, X-Hop",
            "X-Hop": "1",
            "TE": "trailers",
            "User-Agent": "test/1",
        }
        assert (await site.call("POST", CHAT, ASK, {**private})).status == 200
        headers = engine.requests[0][0]
        assert not {"authorization", "cookie", "accept-encoding", "x-hop", "te", "x-api-key"} & set(headers)
        assert headers["user-agent"] == "test/1"
        assert headers["x-engine"] == "fake"
        assert headers["host"] == site.valet.upstream_url.removeprefix("http://")
        assert int(headers["content-length"]) == len(engine.requests[0][1])
        assert site.valet.called("admit") == [{"model": "llama3", "client": "laptop"}]


async def test_a_stream_passes_event_by_event_before_the_answer_is_complete() -> None:
    async with routed("stepwise") as (site, engine):
        stream = await Stream.open(site, {**ASK, "stream": True})
        assert b"content-type: text/event-stream" in await stream.head()
        assert await stream.chunk() == EVENT % 0
        engine.go_on.set()
        assert await stream.chunk() == EVENT % 1
        assert await stream.chunk() == b""


async def test_a_whole_stream_is_the_engines_to_the_byte() -> None:
    async with routed("streamed") as (site, _):
        reply = await site.call("POST", CHAT, {**ASK, "stream": True})
        assert reply.body == b"".join(EVENT % n for n in range(3)) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("plan", ["stepwise", "endless", "hang"])
async def test_a_client_that_leaves_stops_the_engine_within_a_second(plan: str) -> None:
    async with routed(plan) as (site, engine):
        stream = await Stream.open(site, {**ASK, "stream": True})
        await asyncio.wait_for(engine.asked.wait(), 30)
        if plan != "hang":  # a long prefill: nothing has come yet
            await stream.head()
        stream.leave()
        await asyncio.wait_for(engine.left.wait(), 3)
        await _until(lambda: site.valet.in_flight == 0)


async def test_a_client_that_leaves_while_the_model_loads_ends_the_wait() -> None:
    valet = FakeValet()
    valet.admitting = asyncio.Event()
    async with routed(valet=valet) as (site, engine):
        stream = await Stream.open(site, ASK)
        await _until(lambda: valet.called("admit"))
        stream.leave()
        await _until(lambda: valet.is_admission_cancelled)
        assert engine.requests == []


async def test_a_lease_that_is_revoked_ends_the_stream_with_an_error_event() -> None:
    async with routed("stepwise") as (site, engine):
        stream = await Stream.open(site, {**ASK, "stream": True})
        await stream.head()
        assert await stream.chunk() == EVENT % 0
        site.valet.leases[0].revoke(Paused("The models are set aside: Hades is running."))
        event = await stream.chunk()
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        error = json.loads(event[len(b"data: ") :])["error"]
        assert (error["code"], error["type"]) == ("paused", "unavailable_error")
        assert "Hades" in error["message"]
        assert await stream.rest() == b"0\r\n\r\n"
        await asyncio.wait_for(engine.left.wait(), 30)


async def test_an_error_event_does_not_run_into_a_half_sent_one() -> None:
    async with routed("half_event") as (site, _):
        stream = await Stream.open(site, {**ASK, "stream": True})
        await stream.head()
        await asyncio.sleep(0.2)  # half an event has come from the engine by now, and nothing after it
        site.valet.leases[0].revoke(Paused("Hades is running."))
        event = await stream.chunk()
        assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "paused"


async def test_a_lease_that_is_revoked_ends_a_whole_answer_with_503() -> None:
    async with routed("hang") as (site, engine):
        asking = asyncio.create_task(site.call("POST", CHAT, ASK))
        await asyncio.wait_for(engine.asked.wait(), 30)
        site.valet.start_game("Hades")
        site.valet.leases[0].revoke(Paused("Hades is running.", retry_after_s=30))
        reply = await asking
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "paused", "42")
        await asyncio.wait_for(engine.left.wait(), 30)


async def test_a_revoked_lease_ends_even_when_the_client_does_not_read() -> None:
    async with routed("endless") as (site, engine):
        stream = await Stream.open(site, {**ASK, "stream": True})
        stream.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.wait_for(engine.asked.wait(), 30)
        await asyncio.sleep(0.3)  # let the buffers fill
        site.valet.leases[0].revoke(Paused("Hades is running."))
        await asyncio.wait_for(engine.left.wait(), 30)
        await _until(lambda: site.valet.in_flight == 0)
        stream.leave()


async def test_an_engine_that_dies_in_mid_stream_ends_it_with_an_error_event() -> None:
    async with routed("breaks") as (site, _):
        reply = await site.call("POST", CHAT, {**ASK, "stream": True})
        first, second = reply.body.split(b"\n\n")[:2]
        assert first + b"\n\n" == EVENT % 0
        assert json.loads(second.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"


async def test_an_engine_that_is_silent_for_too_long_is_504() -> None:
    valet = FakeValet(settings=msgspec.convert({"router": {"request_timeout_seconds": 1}}, Settings))
    async with routed("hang", valet) as (site, engine):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.code) == (504, "timed_out")
        await asyncio.wait_for(engine.left.wait(), 30)


async def test_nothing_at_the_engines_address_is_502() -> None:
    async with router_site() as site:
        async with serving(Upstream(), name="engine") as server:
            site.valet.upstream_url = server.url
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.code) == (502, "provider_unreachable")
        assert site.valet.silent == ["ollama"], "it is to be looked at"


async def test_the_engines_own_errors_pass_as_they_are() -> None:
    async with routed("error") as (site, _):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.json["error"]["message"]) == (400, "context too long")
        assert reply.headers["x-valet-provider"] == "ollama"


async def test_during_a_pause_the_refusal_names_the_cause_and_when_to_come_back() -> None:
    async with routed() as (site, engine):
        site.valet.start_game("Hades")
        reply = await site.call("POST", CHAT, ASK)
        error = reply.json["error"]
        assert (reply.status, error["type"], error["code"]) == (503, "unavailable_error", "paused")
        assert "Hades" in error["message"]
        assert reply.headers["retry-after"] == "42"
        assert engine.requests == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (LoadFailed("Broken."), 503, "load_failed"),
        (ProviderUnreachable("Silent."), 502, "provider_unreachable"),
        (QueueFull("Full."), 429, "queue_full"),
        (VramExhausted("No room.", required_bytes=2**33, available_bytes=2**32), 503, "vram_exhausted"),
    ],
)
async def test_refused_admissions_have_their_status(error: Any, status: int, code: str) -> None:
    valet = FakeValet()
    valet.fails["admit"] = error
    async with routed(valet=valet) as (site, _):
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.code) == (status, code)


async def test_an_unknown_model_is_404_and_the_nearest_is_named() -> None:
    async with router_site() as site:
        reply = await site.call("POST", CHAT, {**ASK, "model": "lama3"})
        assert (reply.status, reply.code) == (404, "model_not_found")
        assert "Did you mean “llama3:latest”?" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (None, "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b"null", "invalid_json", None),
        (b'"model"', "invalid_json", None),
        (b'{"model":"llama3"} x', "invalid_json", None),
        (b'{"a":' * 100_000, "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"model":"llama3"}', "invalid_json", None),
        (b'{"\xff":1,"model":"llama3"}', "invalid_json", None),
        (b"{}", "invalid_value", "model"),
        (b'{"model":null}', "invalid_value", "model"),
        (b'{"model":7}', "invalid_value", "model"),
        (b'{"model":["llama3"]}', "invalid_value", "model"),
        (b'{"model":{"a":1}}', "invalid_value", "model"),
        (b'{"model":""}', "invalid_value", "model"),
        (b'{"model":"a b"}', "invalid_value", "model"),
        (b'{"model":"../x"}', "invalid_value", "model"),
        (b'{"model":"\\ud800"}', "invalid_json", None),
        (b'{"model":"\xff"}', "invalid_value", "model"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_bad_requests_are_400_in_openais_form(body: Any, code: str, param: str | None) -> None:
    async with router_site() as site:
        reply = await site.call("POST", CHAT, body)
        error = reply.json["error"]
        assert (reply.status, error["code"], error["param"]) == (400, code, param)
        assert error["type"] == "invalid_request_error"
        assert site.valet.called("admit") == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/v1/models/llama3", 405),
        ("POST", "/health", 405),
        ("POST", "/", 405),
        ("GET", "/v1/chat/completions/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/models/nothing", 404),
        ("GET", "/v1/models/..%2F..%2Fetc", 400),
    ],
)
async def test_everything_else_is_an_error_in_json(method: str, path: str, status: int) -> None:
    async with router_site() as site:
        reply = await site.call(method, path)
        assert reply.status == status
        assert set(reply.json["error"]) >= {"message", "type", "param", "code"}
        assert (status == 405) == ("allow" in reply.headers)


async def test_models_are_listed_as_openai_does_with_their_state() -> None:
    async with router_site() as site:
        await site.valet.load("llama3")
        listed = (await site.call("GET", "/v1/models")).json
        assert listed["object"] == "list"
        first = listed["data"][0]
        assert (
            first.items()
            >= {
                "id": "llama3:latest",
                "object": "model",
                "created": 0,
                "owned_by": "ollama",
                "status": "ready",
                "vram_mb": 3072,
            }.items()
        )
        assert (await site.call("GET", "/v1/models/llama3:latest")).json == first
        for name in ("llama3", "ollama/llama3:latest", "ollama/llama3"):
            assert (await site.call("GET", f"/v1/models/{name}")).json == first
        other = (await site.call("GET", "/v1/models/hf.co%2Fuser%2Fmodel%3AQ4")).json
        assert other["id"] == "hf.co/user/model:Q4"


@pytest.mark.parametrize(("state", "code", "status"), [("ready", 200, "ok"), ("unreachable", 503, "down")])
async def test_health_is_that_of_the_providers(state: str, code: int, status: str) -> None:
    async with router_site() as site:
        site.valet.provider_state = state
        reply = await site.call("GET", "/health")
        assert (reply.status, reply.json["status"]) == (code, status)
        assert reply.json["checks"]["valet"]["state"] == "running"


async def test_a_pause_is_not_an_illness() -> None:
    async with router_site() as site:
        site.valet.start_game()
        reply = await site.call("GET", "/health")
        assert (reply.status, reply.json["checks"]["valet"]["state"]) == (200, "paused")


async def test_pages_of_other_origins_cannot_use_the_models() -> None:
    async with routed() as (site, engine):
        reply = await site.call("POST", CHAT, ASK, {"Origin": "https://evil.example"})
        assert reply.status == 403
        assert engine.requests == []


async def test_bodies_of_megabytes_pass_and_larger_ones_are_413() -> None:
    async with routed() as (site, engine):
        picture = "x" * (3 * 2**20)
        assert (await site.call("POST", CHAT, {**ASK, "image": picture})).status == 200
        assert len(engine.requests[0][1]) > 3 * 2**20
    async with router_site(max_body_bytes=2**20) as site:
        assert (await site.call("POST", CHAT, {**ASK, "image": picture})).status == 413


async def test_open_streams_end_with_an_error_event_when_the_server_stops() -> None:
    async with routed("stepwise") as (site, _):
        stream = await Stream.open(site, {**ASK, "stream": True})
        await stream.head()
        await stream.chunk()
        async with asyncio.timeout(30):
            await site.server.stop(grace_s=3)
        rest = await stream.rest()
        assert b"shutting down" in rest
        assert rest.endswith(b"0\r\n\r\n")
        assert site.valet.in_flight == 0


async def test_many_at_once_are_all_answered() -> None:
    async with routed() as (site, _):
        replies = await asyncio.gather(*(site.call("POST", CHAT, ASK) for _ in range(40)))
        assert [reply.status for reply in replies] == [200] * 40
        assert site.valet.in_flight == 0
