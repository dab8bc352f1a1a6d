"""The router as OpenAI's own client sees it."""

from __future__ import annotations

import openai
import pytest

from tests.web.upstream import Upstream
from tests.web.wire import Site, router_site, serving
from tray_valet.core.errors import Paused

MESSAGES = [{"role": "user", "content": "Hi"}]


def _client(site: Site) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{site.server.url}/v1", api_key="none", max_retries=0, timeout=20)


async def test_openais_client_reads_answers_streams_models_and_errors() -> None:
    engine = Upstream()
    async with serving(engine, name="engine") as server, router_site() as site, _client(site) as client:
        site.valet.upstream_url = server.url
        whole = await client.chat.completions.create(model="llama3", messages=MESSAGES)  # type: ignore[arg-type]
        assert whole.choices[0].message.content == "Hello."
        assert "llama3:latest" in [model.id async for model in client.models.list()]

        engine.plan = "streamed"
        stream = await client.chat.completions.create(model="llama3", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        assert [part.choices[0].delta.content async for part in stream] == ["word0", "word1", "word2"]

        engine.plan = "stepwise"
        stream = await client.chat.completions.create(model="llama3", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
        await anext(stream)
        site.valet.leases[-1].revoke(Paused("Hades is running."))
        with pytest.raises(openai.APIError) as ended:
            await anext(stream)
        assert ended.value.code == "paused"

        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="lama3", messages=MESSAGES)  # type: ignore[arg-type]
        assert unknown.value.code == "model_not_found"

        site.valet.start_game("Hades")
        with pytest.raises(openai.InternalServerError) as paused:
            await client.chat.completions.create(model="llama3", messages=MESSAGES)  # type: ignore[arg-type]
        assert (paused.value.status_code, paused.value.code) == (503, "paused")
        assert "Hades" in paused.value.message
