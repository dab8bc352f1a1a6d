"""GET /events: a snapshot, then what happens; newest wins; it ends when it must."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.web.fake_valet import FakeValet
from tests.web.wire import Reply, Site, control_site
from tray_valet.core.events_providers import ProviderBack, ProviderLost
from tray_valet.web.control.event_stream import EventStream


class Listener:
    """A client of the stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def at(cls, site: Site) -> Listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(site.request_bytes("GET", "/events", headers={"Connection": None}))
        listener = cls(reader, writer)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).lower()
        assert b"200 ok" in head
        assert b"content-type: text/event-stream" in head
        assert b"x-accel-buffering: no" in head
        assert b"cache-control: no-store" in head
        return listener

    async def event(self) -> tuple[str, dict[str, Any]]:
        frame = await self.frame()
        lines = dict(line.split(": ", 1) for line in frame.strip().split("\n"))
        return lines["event"], json.loads(lines["data"])

    async def frame(self) -> str:
        size = int((await asyncio.wait_for(self.reader.readline(), 30)).strip(), 16)
        if size == 0:
            return ""
        data = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return data.decode()


async def test_a_snapshot_comes_first_and_then_every_fact() -> None:
    async with control_site() as site:
        listener = await Listener.at(site)
        kind, data = await listener.event()
        assert (kind, data["watchdog"]["state"]) == ("snapshot", "running")
        site.valet.start_game()
        kind, data = await listener.event()
        assert kind == "game_started"
        assert data["text"]
        assert data["at"] > 0
        assert data["fact"]["name"] == "Lantern Keep"
        assert (await listener.event())[0] == "hold_placed"
        listener.writer.close()


async def test_a_quiet_stream_has_a_heartbeat() -> None:
    async with control_site() as site:
        site.api._events._heartbeat_s = 0.05
        listener = await Listener.at(site)
        await listener.event()
        assert (await listener.frame()).startswith(": ")
        listener.writer.close()


async def test_a_reader_that_falls_behind_gets_a_fresh_snapshot() -> None:
    async with control_site() as site:
        listener = await Listener.at(site)
        await listener.event()
        for number in range(20_000):  # far more than the buffers between us hold
            site.valet.recorder.record(ProviderLost(provider=f"p{number}", message="x" * 500))
            if number % 500 == 0:
                await asyncio.sleep(0)
        site.valet.recorder.record(ProviderBack(provider="last"))
        kinds = []
        while "snapshot" not in kinds:
            kinds.append((await listener.event())[0])
        assert len(kinds) < 20_000
        listener.writer.close()


async def test_a_client_that_leaves_frees_its_place() -> None:
    async with control_site() as site:
        listener = await Listener.at(site)
        await listener.event()
        listener.writer.close()
        async with asyncio.timeout(30):
            while site.api._events._clients:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not site.valet.recorder._followers


async def test_there_is_a_limit_of_listeners() -> None:
    async with control_site() as site:
        site.api._events._max_clients = 1
        listener = await Listener.at(site)
        reply = await site.call("GET", "/events")
        assert (reply.status, reply.code) == (429, "queue_full")
        listener.writer.close()


async def test_head_answers_without_a_stream() -> None:
    async with control_site() as site:
        reply: Reply = await site.call("HEAD", "/events")
        assert reply.status == 200


async def test_open_streams_end_with_the_valet() -> None:
    async with control_site() as site:
        listener = await Listener.at(site)
        await listener.event()
        site.valet.recorder.close()
        assert await listener.frame() == ""


async def test_r16_the_server_stops_at_once_with_open_streams() -> None:
    async with control_site() as site:
        listeners = [await Listener.at(site) for _ in range(3)]
        async with asyncio.timeout(15):
            await site.server.stop(grace_s=30)
        for listener in listeners:
            await listener.event()
            assert await listener.frame() == ""


async def test_the_server_stops_with_a_reader_that_reads_nothing() -> None:
    async with control_site() as site:
        listener = await Listener.at(site)
        for _ in range(200):
            site.valet.recorder.record(ProviderLost(provider="p", message="x" * 100_000))
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await site.server.stop(grace_s=0.5)
        listener.writer.close()


def test_a_stream_can_be_made_before_there_is_a_loop() -> None:
    EventStream(FakeValet()).close()
