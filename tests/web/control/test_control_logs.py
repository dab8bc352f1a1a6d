"""`GET /logs`: the valet's own log, or what a model's runner wrote."""

from __future__ import annotations

from tests.web.wire import control_site


async def test_a_runners_last_lines() -> None:
    async with control_site() as site:
        answer = await site.call("GET", "/logs?runner=llama3")
        assert (answer.status, answer.json) == (
            200,
            {"runner": "llama3", "lines": ["llama3:latest: ready"]},
        )


async def test_without_a_runner_it_is_the_valets_own() -> None:
    async with control_site() as site:
        for path in ("/logs", "/logs?runner="):
            answer = (await site.call("GET", path)).json
            assert answer == {"runner": None, "lines": ['{"message": "Tray Valet started."}']}


async def test_an_unknown_model_has_no_runner() -> None:
    async with control_site() as site:
        answer = await site.call("GET", "/logs?runner=lama4")
        assert (answer.status, answer.code) == (404, "model_not_found")
