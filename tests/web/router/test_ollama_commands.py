"""Ollama's commands for models on disk pass through to the Ollama that they are for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import ollama
import pytest

from tests.standins.ollama import OllamaStandin
from tests.web.fake_valet import FakeValet
from tests.web.wire import router_site
from tray_valet.core.models import ProviderKind
from tray_valet.core.snapshot import Snapshot


class _Behind(FakeValet):
    """Its Ollama is at `url`; `kind` changes what it is."""

    def __init__(self, url: str, kind: ProviderKind = ProviderKind.OLLAMA) -> None:
        super().__init__()
        self.url = url
        self.kind = kind

    def snapshot(self) -> Snapshot:
        snapshot = super().snapshot()
        views = tuple(
            msgspec.structs.replace(view, url=self.url, kind=self.kind) for view in snapshot.providers
        )
        return msgspec.structs.replace(snapshot, providers=views)


@pytest.fixture(scope="module")
def standin() -> Iterator[OllamaStandin]:
    with OllamaStandin() as running:
        yield running


async def test_a_pull_streams_its_progress_through(standin: OllamaStandin) -> None:
    async with router_site(_Behind(standin.url)) as site:
        client = ollama.AsyncClient(host=f"http://{site.host}")
        seen = [part.status async for part in await client.pull("qwen2.5:0.5b", stream=True)]
        assert seen[-1] == "success"
        assert (await client.delete("qwen2.5:0.5b")).status == "success"
        assert site.valet.called("admit") == []  # no lease: it takes no GPU


async def test_a_prefix_names_the_ollama_and_is_taken_off(standin: OllamaStandin) -> None:
    async with router_site(_Behind(standin.url)) as site:
        reply = await site.call("POST", "/api/pull", {"model": "ollama/qwen2.5:0.5b", "stream": False})
        assert (reply.status, reply.json["status"]) == (200, "success")
        assert standin.calls("/api/pull")[-1]["body"]["model"] == "qwen2.5:0.5b"
        assert reply.headers["x-valet-provider"] == "ollama"


async def test_ollamas_own_refusal_passes_through(standin: OllamaStandin) -> None:
    async with router_site(_Behind(standin.url)) as site:
        reply = await site.call("DELETE", "/api/delete", {"model": "nothing-of-the-kind"})
        assert reply.status == 404
        assert isinstance(reply.json["error"], str)


async def test_without_an_ollama_it_is_501_and_says_what_there_is() -> None:
    async with router_site(_Behind("http://127.0.0.1:9", ProviderKind.LLAMA_SERVER)) as site:
        reply = await site.call("POST", "/api/pull", {"model": "x"})
        assert (reply.status, reply.json["code"]) == (501, "not_supported")
        assert "llama-server" in reply.json["error"]


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ({"model": 5}, 400), ({"model": "../x"}, 400), (b"{", 400)]
)
async def test_a_bad_command_is_refused_in_ollamas_form(body: Any, status: int) -> None:
    async with router_site(_Behind("http://127.0.0.1:9")) as site:
        reply = await site.call("POST", "/api/create", body)
        assert (reply.status, isinstance(reply.json["error"], str)) == (status, True)


async def test_an_ollama_that_is_gone_is_502() -> None:
    async with router_site(_Behind("http://127.0.0.1:9")) as site:
        reply = await site.call("POST", "/api/pull", {"model": "x"})
        assert (reply.status, reply.json["code"]) == (502, "provider_unreachable")
        assert site.valet.silent == ["ollama"], "it is to be looked at"


async def test_a_client_that_leaves_ends_the_pull() -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{}\n")
        came.set()
        await reader.read()  # until the other side closes
        while await reader.read(100):
            pass
        gone.set()
        writer.close()

    async with _engine(endless) as url, router_site(_Behind(url)) as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(site.request_bytes("POST", "/api/pull", {"model": "x"}))
        await asyncio.wait_for(came.wait(), 30)
        writer.close()
        await asyncio.wait_for(gone.wait(), 30)


async def test_a_client_that_leaves_before_the_answer_begins_ends_the_pull() -> None:
    async with _silent() as (url, came, gone), router_site(_Behind(url)) as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(site.request_bytes("POST", "/api/pull", {"model": "x", "stream": False}))
        await asyncio.wait_for(came.wait(), 30)
        writer.close()
        await asyncio.wait_for(gone.wait(), 30)


async def test_a_command_that_has_no_answer_yet_is_refused_when_the_server_stops() -> None:
    async with _silent() as (url, came, gone), router_site(_Behind(url)) as site:
        call = asyncio.create_task(site.call("POST", "/api/create", {"model": "x", "stream": False}))
        await asyncio.wait_for(came.wait(), 30)
        site.api.end_streams()
        reply = await asyncio.wait_for(call, 30)
        assert (reply.status, reply.headers["retry-after"]) == (503, "10")
        assert "shutting down" in reply.json["error"]
        await asyncio.wait_for(gone.wait(), 30)


async def test_what_passes_through_is_asked_for_uncompressed() -> None:
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with _engine(note) as url, router_site(_Behind(url)) as site:
        await site.call("POST", "/api/copy", {"source": "x", "destination": "y"})
    (accepted,) = [line for line in heads[0].lower().split(b"\r\n") if line.startswith(b"accept-encoding")]
    assert accepted == b"accept-encoding: identity"


@pytest.mark.parametrize(("closes", "word"), [(True, "broke off"), (False, "shutting down")])
async def test_a_pull_that_is_cut_says_so_in_its_last_line(closes: bool, word: str) -> None:
    came = asyncio.Event()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 99\r\n\r\n{}\n"
        )
        await writer.drain()
        came.set()
        if not closes:
            await reader.read()
        writer.close()

    async with _engine(cut) as url, router_site(_Behind(url)) as site:
        call = asyncio.create_task(site.call("POST", "/api/pull", {"model": "x"}))
        await asyncio.wait_for(came.wait(), 30)
        if not closes:
            await asyncio.sleep(0.1)
            site.api.end_streams()
        lines = (await asyncio.wait_for(call, 30)).body.splitlines()
        assert lines[0] == b"{}"
        assert word in json.loads(lines[-1])["error"]


@asynccontextmanager
async def _engine(answer: Any) -> AsyncIterator[str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def _silent() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """An Ollama that is asked and says nothing: its url, and whether somebody has come, and gone."""
    came, gone = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        came.set()
        while await reader.read(100):
            pass
        gone.set()
        writer.close()

    async with _engine(listen) as url:
        yield url, came, gone
