"""What the tests of the Ollama provider share: a provider at the stand-in, ways to wait and to disturb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from tests.standins.ollama import OllamaStandin
from tray_valet.providers.ollama import OllamaProvider
from tray_valet.providers.ollama_api import OllamaLimits
from tray_valet.sensing.linux_processes import LinuxProcesses
from tray_valet.services.clock import SystemClock

HF_NAME = "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"
QUICK_LIMITS = OllamaLimits(connect_s=0.5, call_s=0.4, heartbeat_s=0.1, heartbeat_misses=2)


class ClockAhead(SystemClock):
    """The machine's clock with its wall moved by `offset_s`."""

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s

    def wall_s(self) -> float:
        return super().wall_s() + self.offset_s


def provider_at(url: str, **changes: Any) -> OllamaProvider:
    return OllamaProvider("ollama", url, **{"clock": SystemClock(), "processes": LinuxProcesses()} | changes)


async def in_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(call, *args, **kwargs)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so; the test's own time limit ends the wait."""
    while True:
        if await holds():
            return
        await asyncio.sleep(0.02)


async def start_generation(standin: OllamaStandin, model: str, **body: Any) -> asyncio.Task[httpx.Response]:
    """Have another client generate, and return when tokens are being made."""

    async def generate() -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            fields = {"model": model, "prompt": "Hi", "stream": False, **body}
            return await client.post(f"{standin.url}/api/generate", json=fields)

    task = asyncio.create_task(generate(), name="other-client")
    await until(lambda: is_generating(standin))
    return task


async def is_generating(standin: OllamaStandin) -> bool:
    return bool((await in_thread(standin.state))["generating"])


async def has_runner(provider: OllamaProvider) -> bool:
    return bool(await provider.runners())


async def has_no_runner(provider: OllamaProvider) -> bool:
    return not await provider.runners()


async def was_called(standin: OllamaStandin, path: str, times: int) -> bool:
    return len(await in_thread(standin.calls, path)) >= times


class ScriptedOllama(httpx.AsyncBaseTransport):
    """Answers of look-alikes and of versions that the stand-in does not play."""

    def __init__(self, answers: Mapping[str, tuple[int, str | bytes]]) -> None:
        self.answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, body = self.answers.get(request.url.path, (404, "404 page not found"))
        return httpx.Response(status, content=body)
