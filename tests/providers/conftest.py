"""Fixtures: the Ollama stand-in as a real process, and providers that talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.providers.ollama_bench import QUICK_LIMITS, provider_at
from tests.standins.ollama import OllamaStandin
from tray_valet.providers.ollama import OllamaProvider


@pytest.fixture(scope="module")
def running_standin() -> Iterator[OllamaStandin]:
    with OllamaStandin() as standin:
        yield standin


@pytest.fixture
def standin(running_standin: OllamaStandin) -> OllamaStandin:
    running_standin.reset()
    return running_standin


@pytest.fixture
async def provider(standin: OllamaStandin) -> AsyncIterator[OllamaProvider]:
    provider = provider_at(standin.url)
    yield provider
    await provider.close()


@pytest.fixture
async def hurried(standin: OllamaStandin) -> AsyncIterator[OllamaProvider]:
    """One that waits for tenths of a second where the real one waits for seconds."""
    provider = provider_at(standin.url, limits=QUICK_LIMITS)
    yield provider
    await provider.close()
