"""A crowd of clients of the router: each request carries a number of its own and ends in exactly one way."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import httpx
import msgspec


class Fate(StrEnum):
    """How a request ended, as its client saw it."""

    ANSWERED = "answered"
    REFUSED = "refused"  # a clear no, before anything was answered
    CUT = "cut"  # a stream that was ended, and that said so


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """One request's end. `by`: the model that answered, "" where none did."""

    number: int
    route: str
    is_stream: bool
    fate: Fate
    by: str = ""
    tokens: int = 0


class Crowd:
    """Clients that ask again and again. `ask(for_s)` until told; every ending is kept."""

    def __init__(self, url: str, *, tokens: int, **fields: Any) -> None:
        self.endings: list[Ending] = []
        self._url = url
        self._tokens = tokens
        self._fields = fields
        self._numbers = itertools.count(1)
        self._is_over = asyncio.Event()

    def end(self) -> None:
        """Let nobody ask again."""
        self._is_over.set()

    async def ask(self, routes: Sequence[str], clients: int, *, pause_s: float) -> None:
        """Have so many clients ask at once, in turns of routes, half of them for streams."""
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=60, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            for n in range(clients):
                route, is_stream = routes[n % len(routes)], n // len(routes) % 2 == 1
                group.create_task(self._again_and_again(client, route, is_stream, pause_s))

    def fates(self, route: str, *, is_stream: bool | None = None) -> Counter[Fate]:
        """How a route's requests ended."""
        return Counter(e.fate for e in self.endings if e.route == route and is_stream in (None, e.is_stream))

    async def _again_and_again(
        self, client: httpx.AsyncClient, route: str, is_stream: bool, pause_s: float
    ) -> None:
        while not self._is_over.is_set():
            number = next(self._numbers)
            body = {
                "model": route,
                "messages": [{"role": "user", "content": f"number {number}"}],
                "max_tokens": self._tokens,
                "stream": is_stream,
                **self._fields,
            }
            ending = await (self._stream if is_stream else self._whole)(client, number, route, body)
            self.endings.append(ending)
            await asyncio.sleep(pause_s)

    async def _whole(
        self, client: httpx.AsyncClient, number: int, route: str, body: dict[str, Any]
    ) -> Ending:
        answer = await client.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            return self._refusal(number, route, answer, is_stream=False)
        told = answer.json()
        assert told["choices"][0]["message"]["content"], told
        tokens = told["usage"]["completion_tokens"]
        assert tokens == self._tokens, told
        by = answer.headers["x-valet-model"]
        return Ending(number=number, route=route, is_stream=False, fate=Fate.ANSWERED, by=by, tokens=tokens)

    async def _stream(
        self, client: httpx.AsyncClient, number: int, route: str, body: dict[str, Any]
    ) -> Ending:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return self._refusal(number, route, answer, is_stream=True)
            events = [line[6:] async for line in answer.aiter_lines() if line.startswith("data: ")]
        by = answer.headers.get("x-valet-model", "")  # a stream that began with a sign of life has none
        assert events, "a stream says something"
        pieces = [json.loads(event) for event in events if event != "[DONE]"]
        if events[-1] == "[DONE]":
            assert not any("error" in piece for piece in pieces), pieces[-1]
            deltas = sum(bool(c["delta"].get("content")) for p in pieces for c in p["choices"])
            assert deltas >= self._tokens - 1, f"{deltas} pieces of {self._tokens}"
            return Ending(
                number=number, route=route, is_stream=True, fate=Fate.ANSWERED, by=by, tokens=self._tokens
            )
        assert pieces[-1]["error"]["code"] == "paused", pieces[-1]
        assert pieces[-1]["error"]["message"]
        return Ending(number=number, route=route, is_stream=True, fate=Fate.CUT, by=by)

    @staticmethod
    def _refusal(number: int, route: str, answer: httpx.Response, *, is_stream: bool) -> Ending:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (
            503,
            "paused",
            "unavailable_error",
        ), error
        assert "Hades" in error["message"], error
        assert int(answer.headers["retry-after"]) >= 1
        return Ending(number=number, route=route, is_stream=is_stream, fate=Fate.REFUSED)
