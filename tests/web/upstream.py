"""A small real engine: an OpenAI-like server whose answers a test steers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import Receive, Scope, Send

EVENT = b'data: {"choices":[{"delta":{"content":"word%d"}}]}\n\n'


class Upstream:
    """ASGI app. `plan` says how the next requests are answered."""

    def __init__(self) -> None:
        self.plan = "whole"
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()  # `stepwise` and `hang` wait for it
        self.left = asyncio.Event()  # the caller closed the connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.requests.append(({n.decode(): v.decode("latin-1") for n, v in scope["headers"]}, body))
        self.paths.append(scope["path"])
        self.asked.set()
        leaving = asyncio.create_task(self._watch(receive))
        try:
            await getattr(self, f"_{self.plan}")(send)
        finally:
            leaving.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def _whole(self, send: Send) -> None:
        answer = {"object": "chat.completion", "choices": [{"message": {"content": "Hello."}}]}
        await _answer(
            send, 200, json.dumps(answer).encode(), [(b"connection", b"keep-alive"), (b"x-own", b"1")]
        )

    async def _error(self, send: Send) -> None:
        body = b'{"error":{"message":"context too long","type":"invalid_request_error","code":null}}'
        await _answer(send, 400, body, [])

    async def _streamed(self, send: Send) -> None:
        await _start_events(send)
        for number in range(3):
            await _event(send, EVENT % number)
        await _event(send, b"data: [DONE]\n\n", more=False)

    async def _stepwise(self, send: Send) -> None:
        await _start_events(send)
        await _event(send, EVENT % 0)
        await self._wait()
        await _event(send, EVENT % 1, more=False)

    async def _half_event(self, send: Send) -> None:
        await _start_events(send)
        await _event(send, b'data: {"choices":')
        await self._wait()

    async def _endless(self, send: Send) -> None:
        await _start_events(send)
        while not self.left.is_set():
            await _event(send, EVENT % 0)
            await asyncio.sleep(0)

    async def _hang(self, send: Send) -> None:
        await self._wait()

    async def _breaks(self, send: Send) -> None:
        await _start_events(send)
        await _event(send, EVENT % 0)
        raise RuntimeError("the engine died")  # the server cuts the connection

    async def _wait(self) -> None:
        waits = [asyncio.create_task(self.go_on.wait()), asyncio.create_task(self.left.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def _answer(send: Send, status: int, body: bytes, headers: list[Any]) -> None:
    usual = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": usual + headers})
    await send({"type": "http.response.body", "body": body})


async def _start_events(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _event(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})
