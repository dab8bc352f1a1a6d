"""What the router answers itself: lists, management, monitoring, over a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import jsonschema_rs
import ollama
import openai
import pytest

from tests.web.fake_valet import FakeValet
from tests.web.wire import Site, router_site
from tray_valet.core.commands import CatalogEntry, ModelState, QueueState
from tray_valet.core.dialects import OPERATIONS
from tray_valet.core.errors import LoadFailed
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import InstalledModel, ModelRef
from tray_valet.core.traffic import Exchanged, Outcome
from tray_valet.web.router.openapi import document

LLAMA = ModelRef("ollama", "llama3:latest")
GIB = 2**30
OWN_GETS = (
    "/",
    "/health",
    "/vram",
    "/metrics",
    "/openapi.json",
    "/v1/models",
    "/v1/models/llama3",
    "/v1/models/llama3/status",
    "/v1/models/failed",
    "/v1/models/status",
    "/v1/queue/stats",
    "/v1/telemetry/summary",
    "/v1/health/models",
    "/api/tags",
    "/api/ps",
    "/api/version",
)


@pytest.mark.parametrize("path", OWN_GETS)
async def test_every_path_answers_get_and_head_and_refuses_the_rest(path: str) -> None:
    async with router_site() as site:
        got = await site.call("GET", path)
        head = await site.call("HEAD", path)
        assert (got.status, head.status, head.body) == (200, 200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            refused = await site.call(method, path, {})
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_r12_no_own_answer_is_a_500_whatever_state_the_valet_is_in() -> None:
    valet = FakeValet()
    valet.models = {}
    async with router_site(valet) as site:
        for path in OWN_GETS:
            status = (await site.call("GET", path)).status
            assert status in (200, 404), path
        valet.provider_state = "unreachable"
        for path in OWN_GETS:
            assert (await site.call("GET", path)).status in (200, 404, 503), path


async def test_the_greeting_is_the_one_that_clients_of_ollama_look_for() -> None:
    async with router_site() as site:
        reply = await site.call("GET", "/")
        assert reply.body.startswith(b"Ollama is running")
        assert b"Tray Valet" in reply.body


# -- lists -------------------------------------------------------------------------------------------------


class _Named(FakeValet):
    """With an alias, a model of another provider, and details."""

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return (
            CatalogEntry(name="assistant", ref=LLAMA, status="off", is_alias=True),
            *super().catalog(),
            CatalogEntry(
                name="local/llama3:latest",
                ref=ModelRef("local", "llama3:latest"),
                status="off",
                size_bytes=7,
                created=1_700_000_000,
                modified_at="2023-11-14T22:13:20.123456789+00:00",
                digest="sha256:cd",
                details={"format": "gguf", "family": "llama", "quantization_level": "Q4_K_M"},
            ),
        )


async def _client_call(site: Site, name: str, *arguments: Any) -> Any:
    client = ollama.AsyncClient(host=f"http://{site.host}")
    return await getattr(client, name)(*arguments)


async def test_ollamas_client_lists_aliases_and_models_of_every_provider() -> None:
    async with router_site(_Named()) as site:
        listed = (await _client_call(site, "list")).models
        names = [model.model for model in listed]
        assert names == ["assistant", "llama3:latest", "hf.co/user/model:Q4", "local/llama3:latest"]
        last = listed[-1]
        assert (last.digest, last.size, last.modified_at.year) == ("cd", 7, 2023)
        assert last.details.format == "gguf"
        assert list(last.details.families) == ["llama"]
        for name in names:
            assert (await site.call("GET", f"/v1/models/{name}")).status == 200, name


async def test_anthropics_and_openais_clients_list_the_same_models() -> None:
    async with router_site(_Named()) as site:
        url = f"http://{site.host}"
        theirs = anthropic.AsyncAnthropic(base_url=url, api_key="x")
        listed = [model async for model in theirs.models.list()]
        assert [model.id for model in listed][:2] == ["assistant", "llama3:latest"]
        assert (listed[0].type, listed[0].display_name) == ("model", "assistant")
        assert (await theirs.models.retrieve("local/llama3:latest")).created_at.year == 2023
        ours = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x")
        assert [model.id async for model in ours.models.list()] == [model.id for model in listed]
        assert (await ours.models.retrieve("assistant")).owned_by == "ollama"
        with pytest.raises(openai.NotFoundError):
            await ours.models.retrieve("nothing")


async def test_ollamas_client_sees_what_is_in_memory_and_for_how_long() -> None:
    async with router_site() as site:
        await site.valet.load("llama3", num_ctx=8192)
        (model,) = (await _client_call(site, "ps")).models
        assert (model.name, model.size, model.size_vram) == ("llama3:latest", 4 * GIB, 3 * GIB)
        assert model.context_length == 8192
        assert model.expires_at.timestamp() == pytest.approx(site.valet.clock.wall_s() + 300)


async def test_a_model_without_a_time_to_live_expires_centuries_from_now() -> None:
    import msgspec

    async with router_site() as site:
        await site.valet.load("llama3")
        loaded = site.valet.loaded["llama3:latest"]
        site.valet.loaded["llama3:latest"] = msgspec.structs.replace(loaded, ttl_left_s=None)
        (model,) = (await _client_call(site, "ps")).models
        assert model.expires_at.year > 2300


async def test_the_version_is_that_of_the_ollama_behind() -> None:
    async with router_site() as site:
        assert (await site.call("GET", "/api/version")).json["version"] == "0.12.0"


async def test_models_answer_at_once_while_a_provider_hangs() -> None:
    class Hanging(FakeValet):
        async def installed(self) -> tuple[tuple[str, InstalledModel], ...]:
            await asyncio.Event().wait()
            raise AssertionError

    async with router_site(Hanging()) as site:
        for path in ("/v1/models", "/api/tags", "/api/ps", "/v1/models/status"):
            assert (await asyncio.wait_for(site.call("GET", path), 30)).status == 200


async def test_a_model_whose_name_ends_like_a_command_is_still_found() -> None:
    valet = FakeValet()
    valet.models["me/status"] = InstalledModel(name="me/status")
    async with router_site(valet) as site:
        assert (await site.call("GET", "/v1/models/me/status")).json["id"] == "me/status"
        assert (await site.call("GET", "/v1/models/me/status/status")).json["alias"] == "me/status"


# -- management --------------------------------------------------------------------------------------------


async def test_eject_takes_a_model_out_of_memory() -> None:
    async with router_site() as site:
        await site.valet.load("llama3")
        reply = await site.call("POST", "/v1/models/eject", {"model": "llama3"})
        assert (reply.status, reply.json["ejected"]) == (200, True)
        assert "llama3" in reply.json["message"]
        assert site.valet.loaded == {}
        again = await site.call("POST", "/v1/models/eject", {"model": "llama3"})
        assert (again.status, again.json["ejected"]) == (200, False)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "nothing"}, 404, "model_not_found"),
        ({}, 400, "invalid_value"),
        ({"model": 7}, 400, "invalid_value"),
        ({"model": "../x"}, 400, "invalid_value"),
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
    ],
)
async def test_a_bad_eject_is_refused(body: Any, status: int, code: str) -> None:
    async with router_site() as site:
        reply = await site.call("POST", "/v1/models/eject", body)
        assert (reply.status, reply.code) == (status, code)
        assert site.valet.called("unload") == []


async def test_a_failed_unload_is_not_a_200() -> None:
    async with router_site() as site:
        site.valet.fails["unload"] = LoadFailed("ollama did not let go of llama3 in 10 s.")
        reply = await site.call("POST", "/v1/models/eject", {"model": "llama3"})
        assert (reply.status, reply.code) == (503, "load_failed")


def _failed(name: str = "hf.co/user/model:Q4", status: str = "failed") -> ModelState:
    return ModelState(
        name=name,
        ref=ModelRef("ollama", name),
        status=status,
        error="The file is damaged.",
        attempts=3,
        retry_in_s=4.04,
    )


async def test_failed_models_are_listed_until_they_are_reset() -> None:
    async with router_site() as site:
        assert (await site.call("GET", "/v1/models/failed")).json == {
            "failed_models": [],
            "message": "No model has failed.",
        }
        site.valet.troubles["hf.co/user/model:Q4"] = _failed()
        shape = (await site.call("GET", "/v1/models/failed")).json
        (failed,) = shape["failed_models"]
        assert (failed["model"], failed["attempts"]) == ("hf.co/user/model:Q4", 3)
        assert failed["error"] == "The file is damaged."
        reply = await site.call("POST", "/v1/models/hf.co/user/model:Q4/reset")
        assert (reply.status, reply.json["status"]) == (200, "off")
        assert (await site.call("GET", "/v1/models/failed")).json["failed_models"] == []
        assert (await site.call("POST", "/v1/models/nothing/reset")).status == 404
        assert (await site.call("GET", "/v1/models/llama3/reset")).headers["allow"] == "POST"


async def test_the_status_of_one_and_of_all() -> None:
    async with router_site(_Named()) as site:
        await site.valet.load("llama3")
        one = (await site.call("GET", "/v1/models/assistant/status")).json
        assert (one["alias"], one["status"], one["vram_mb"]) == ("assistant", "ready", 3072)
        slashes = (await site.call("GET", "/v1/models/hf.co%2Fuser%2Fmodel:Q4/status")).json
        assert (slashes["status"], slashes["port"]) == ("off", None)
        every = (await site.call("GET", "/v1/models/status")).json
        assert every["server"]["status"] == "ready"
        assert every["models"]["llama3:latest"]["status"] == "ready"
        assert every["summary"] == {"ready": 1, "off": 2}
        assert (await site.call("GET", "/v1/models/nothing/status")).status == 404


async def test_a_pause_is_told_as_the_servers_status() -> None:
    async with router_site() as site:
        site.valet.start_game("Hades")
        server = (await site.call("GET", "/v1/models/status")).json["server"]
        assert (server["status"], "Hades" in server["reason"]) == ("paused", True)


# -- monitoring --------------------------------------------------------------------------------------------


async def test_vram_adds_up_all_gpus() -> None:
    async with router_site() as site:
        await site.valet.load("llama3")
        shape = (await site.call("GET", "/vram")).json
        info = shape["gpu_info"]
        assert (info["total_mb"], info["used_mb"], info["free_mb"]) == (16384, 8192, 8192)
        assert (info["usage_percentage"], info["total_gb"], info["baseline_used_mb"]) == (50.0, 16.0, 5120)
        assert (shape["tracked_models_count"], shape["loaded_models_count"]) == (2, 1)
        assert shape["total_allocated_by_models_mb"] == 3072
        (model,) = shape["models"]
        assert (model["model_alias"], model["vram_used_mb"], model["status"]) == (
            "llama3:latest",
            3072,
            "ready",
        )
        assert (shape["can_load_more"], shape["estimated_free_for_new_model_mb"]) == (True, 8192)
        assert (shape["status"], shape["reason"]) == ("healthy", None)
        site.valet.start_game()
        assert (await site.call("GET", "/vram")).json["can_load_more"] is False


async def test_vram_without_a_gpu_is_zeros_and_a_reason() -> None:
    class WithoutGpu(FakeValet):
        async def sample(self) -> MachineSample:
            import msgspec

            return msgspec.structs.replace(await super().sample(), gpus=())

    async with router_site(WithoutGpu()) as site:
        shape = (await site.call("GET", "/vram")).json
        assert set(shape["gpu_info"].values()) == {0}
        assert (shape["status"], bool(shape["reason"])) == ("healthy", True)


async def test_queues_are_told_by_model() -> None:
    async with router_site() as site:
        counted = {"admitted_total": 9, "finished_total": 7, "rejected_total": 1}
        site.valet.lines = (QueueState(ref=LLAMA, waiting=3, in_flight=2, slots=2, **counted),)
        shape = (await site.call("GET", "/v1/queue/stats")).json
        assert shape["summary"] == {
            "total_queued": 3,
            "total_processing": 2,
            "total_processed": 7,
            "total_rejected": 1,
        }
        line = shape["per_model"]["llama3:latest"]
        assert (line["queue_length"], line["total_requests"], line["current_processing"]) == (3, 13, 2)
        assert line["processing"] is True


async def test_telemetry_is_in_seconds_as_numbers() -> None:
    async with router_site() as site:
        empty = (await site.call("GET", "/v1/telemetry/summary")).json
        assert (empty["total_requests"], empty["success_rate"], empty["per_model"]) == (0, 1.0, {})
        for total_s in (0.1, 0.2, 0.3):
            site.valet.note_exchange(_record(total_s=total_s, completion_tokens=5, prompt_tokens=2))
        site.valet.note_exchange(_record(outcome=Outcome.FAILED, status=502, total_s=1.0))
        for number in range(50):
            unknown = _record(outcome=Outcome.REFUSED, status=404, provider="", model="", asked=f"x{number}")
            site.valet.note_exchange(unknown)
        shape = (await site.call("GET", "/v1/telemetry/summary")).json
        assert (shape["total_requests"], shape["successful"], shape["failed"]) == (54, 3, 51)
        assert list(shape["per_model"]) == ["llama3:latest"]
        model = shape["per_model"]["llama3:latest"]
        assert (model["total_requests"], model["total_errors"], model["error_rate"]) == (4, 1, 0.25)
        assert (model["total_tokens"], model["avg_response_time"]) == (21, 0.4)
        assert (model["p95_response_time"], shape["response_time_stats"]["max"]) == (1.0, 1.0)


async def test_the_health_of_models_leaves_out_those_that_are_off() -> None:
    async with router_site() as site:
        await site.valet.load("llama3")
        site.valet.troubles["hf.co/user/model:Q4"] = _failed(status="crashed")
        shape = (await site.call("GET", "/v1/health/models")).json
        assert (shape["llama3:latest"]["status"], shape["llama3:latest"]["healthy"]) == ("ready", True)
        assert shape["hf.co/user/model:Q4"]["healthy"] is False


async def test_the_api_describes_every_path_that_it_answers() -> None:
    async with router_site() as site:
        paths = (await site.call("GET", "/openapi.json")).json["paths"]
        described = {(path, method) for path, methods in paths.items() for method in methods}
        for path, method in described:
            assert paths[path][method]["summary"]
            target = path.replace("{name}", "llama3")
            wrong = "GET" if method != "get" else "DELETE"
            reply = await site.call(wrong, target, {} if wrong == "DELETE" else None)
            if method not in ("get",) and "get" in paths[path]:
                continue
            assert reply.status == 405, path  # it is there, and not for that method
        ids = [paths[path][method]["operationId"] for path, method in described]
        assert len(ids) == len(set(ids))
        for path in OWN_GETS:
            assert path.replace("llama3", "{name}") in paths


def test_every_request_and_failure_has_an_example_that_is_as_described() -> None:
    described = document()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            contents = [
                answer["content"] for status, answer in operation["responses"].items() if status != "200"
            ]
            if method != "get" and "{name}" not in path:
                contents.append(operation["requestBody"]["content"])
            for content in contents:
                told = content["application/json"]
                root = {**told["schema"], "components": described["components"]}
                jsonschema_rs.validator_for(root).validate(told["example"])


async def test_the_examples_of_requests_are_taken() -> None:
    async with router_site() as site:
        for path, methods in document()["paths"].items():
            if path not in OPERATIONS:
                continue
            example = methods["post"]["requestBody"]["content"]["application/json"]["example"]
            asked = {**example, "model": "no-such-model"}
            assert len(asked) > 1 or path == "/api/show"
            assert (await site.call("POST", path, asked)).status == 404, path


# -- streams -----------------------------------------------------------------------------------------------


class _Events:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def next(self) -> tuple[str, dict[str, Any]]:
        while True:
            size = int((await asyncio.wait_for(self._reader.readline(), 30)).strip(), 16)
            if size == 0:
                return "end", {}
            data = (await self._reader.readexactly(size + 2)).decode()
            if data.startswith("event"):
                lines = dict(line.split(": ", 1) for line in data.strip().split("\n"))
                return lines["event"], json.loads(lines["data"])


@asynccontextmanager
async def _listening(site: Site, path: str) -> AsyncIterator[_Events]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    try:
        writer.write(site.request_bytes("GET", path, headers={"Connection": None}))
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).lower()
        assert b"text/event-stream" in head
        assert b"x-accel-buffering: no" in head
        yield _Events(reader, writer)
    finally:
        writer.close()


STREAM = "/v1/models/status/stream"


async def test_the_status_stream_tells_all_first_and_then_what_changes() -> None:
    async with router_site() as site, _listening(site, STREAM) as events:
        kind, data = await events.next()
        assert (kind, data["models"]["llama3:latest"]["status"]) == ("full_status", "off")
        await site.valet.load("llama3")
        kind, data = await events.next()
        assert (kind, data["alias"], data["status"]) == ("model_update", "llama3:latest", "ready")
        assert (data["vram_mb"], data["port"]) == (3072, None)
        site.valet.troubles["hf.co/user/model:Q4"] = _failed()  # no fact tells of it: it is seen within 1 s
        kind, data = await events.next()
        assert (kind, data["alias"], data["status"]) == ("model_update", "hf.co/user/model:Q4", "failed")
        site.valet.start_game("Hades")
        kind, data = await events.next()
        assert (kind, data["status"]) == ("server_update", "paused")
        kind, data = await events.next()
        assert (kind, data["alias"], data["status"]) == ("model_update", "llama3:latest", "off")


@pytest.mark.parametrize("path", [STREAM, "/metrics/stream"])
async def test_head_of_a_stream_is_its_head_alone(path: str) -> None:
    async with router_site() as site:
        reply = await site.call("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert (await site.call("POST", path, {})).headers["allow"] == "GET, HEAD"


async def test_a_model_that_is_deleted_is_told_as_off() -> None:
    async with router_site() as site, _listening(site, STREAM) as events:
        await events.next()
        del site.valet.models["llama3:latest"]
        kind, data = await events.next()
        assert (kind, data["alias"], data["status"]) == ("model_update", "llama3:latest", "off")


@pytest.mark.parametrize("path", [STREAM, "/metrics/stream"])
async def test_r16_an_open_stream_ends_with_the_server(path: str) -> None:
    async with router_site() as site, _listening(site, path) as events:
        await events.next()
        await asyncio.wait_for(site.server.stop(grace_s=1.0), 30)
        for _ in range(5):
            if (await events.next())[0] == "end":
                break
        else:
            raise AssertionError("it goes on")


@pytest.mark.parametrize("path", [STREAM, "/metrics/stream"])
async def test_listeners_are_bounded_and_leave_room_when_they_go(path: str) -> None:
    async with router_site() as site:
        feed = site.api._answers._streams[path][1]
        feed._max_clients = 1
        async with _listening(site, path) as events:
            await events.next()
            assert (await site.call("GET", path)).status == 429
        async with asyncio.timeout(30):
            while feed._clients:  # noqa: ASYNC110  # it leaves when the server sees that it has
                await asyncio.sleep(0.01)
        async with _listening(site, path) as events:
            assert (await events.next())[0] in ("full_status", "metrics")


async def test_the_metrics_stream_tells_the_main_figures() -> None:
    async with router_site() as site, _listening(site, "/metrics/stream") as events:
        kind, data = await events.next()
        assert (kind, data["requests"]["total"], data["server"]["status"]) == ("metrics", 0, "ready")
        assert data["models"]["llama3:latest"]["status"] == "off"
        assert data["gpus"][0]["vram_total_bytes"] == 8 * GIB
        site.valet.note_exchange(_record())
        assert (await events.next())[1]["requests"]["total"] == 1


def _record(**changes: Any) -> Exchanged:
    fields: dict[str, Any] = {
        "at": 1.0,
        "asked": "llama3",
        "path": "/v1/chat/completions",
        "provider": "ollama",
        "model": "llama3:latest",
        "status": 200,
        "total_s": 0.1,
    }
    return Exchanged(**(fields | changes))
