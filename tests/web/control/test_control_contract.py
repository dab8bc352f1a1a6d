"""The control API against its own description: every route, good requests and bad ones.

The requests are generated from /openapi.json; the server, its guard and the handlers are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import (
    CHECKS,
    load_all_checks,
)

from tests.standins.ollama import OllamaStandin
from tests.web.fake_desks import FakeDesks
from tests.web.fake_valet import FakeValet
from tests.web.wire import SECRETS, TOKEN
from tests.whole.valet_process import ValetProcess
from tray_valet.desktop.window_opener import WindowShown, WindowWay
from tray_valet.web.control.api import ControlApi
from tray_valet.web.control.openapi.description import document
from tray_valet.web.control.openapi.operations import OPERATIONS
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys
from tray_valet.web.edge.policies import control_policy
from tray_valet.web.edge.server import WebServer

load_all_checks()
_CHECKS = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "unsupported_method",
        "negative_data_rejection",
        "allow_header_conformance",
    ]
)
_ENDLESS = ["/events"]
_ENDS_IT = ["/quit", "/setup/apply", "/stop", "/stop/force", "/restart", "/open"]
_EXAMPLES = settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
_schema = schemathesis.openapi.from_dict(document())


class _Scene:
    """A server around a fake valet, on a loop of its own."""

    def __init__(self, config_file: Path) -> None:
        self._config_file = config_file
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="contract server")
        self.url = ""

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    async def _serve(self) -> None:
        valet = FakeValet()
        self.valet, self.desks = valet, FakeDesks(valet, self._config_file)
        self.api = api = ControlApi(
            valet,
            clock=valet.clock,
            open_window=_open_window,
            desks=self.desks.for_api,
            router=lambda: _answering,
        )
        keys = ControlKeys(lambda: valet.settings, token=lambda: TOKEN, resolve_secret=SECRETS.get)
        guard = Guard(api, policy=lambda: control_policy(valet.settings), keys=keys)
        self._server = WebServer(guard, name="control", host="127.0.0.1", port=0, on_stopping=api.end_streams)
        await self._server.start()
        self.url = self._server.url

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(grace_s=0.5), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _open_window() -> WindowShown:
    return WindowShown(way=WindowWay.BROWSER, url="http://127.0.0.1:8765/ui/")


async def _answering(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-valet-provider", b"ollama")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Scene]:
    scene = _Scene(tmp_path_factory.mktemp("contract") / "config.yaml")
    scene.start()
    yield scene
    scene.stop()


def _look_at(case: schemathesis.Case, url: str) -> None:
    response = case.call(base_url=url, timeout=60)
    assert response.status_code != 500, response.text
    case.validate_response(response, checks=_CHECKS)


@_schema.exclude(path=_ENDLESS).parametrize()
@_EXAMPLES
def test_every_answer_is_as_it_is_described(case: schemathesis.Case, scene: _Scene) -> None:
    scene.valet.clock.now_s += 60.0  # no cooldown: every request is looked at
    _look_at(case, scene.url)


@pytest.fixture(scope="module")
def whole_valet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValetProcess]:
    with OllamaStandin() as ollama:
        model = {"provider": "ollama", "model": "llama3"}
        wishes = {
            "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
            "routes": {"assistant": {"candidates": [model]}},
        }
        with ValetProcess(tmp_path_factory.mktemp("contract") / "home", wishes) as valet:
            yield valet


@pytest.mark.slow
@_schema.exclude(path=[*_ENDLESS, *_ENDS_IT]).parametrize()
@_EXAMPLES
def test_a_whole_valet_answers_as_it_is_described(case: schemathesis.Case, whole_valet: ValetProcess) -> None:
    _look_at(case, str(whole_valet.control.base_url).rstrip("/"))


def test_every_route_is_described_and_nothing_else(scene: _Scene) -> None:
    described = {(op.method.upper(), re.sub(r"\{[^}]*\}", "{}", op.path)) for op in OPERATIONS}
    served = {
        (method, re.sub(r"\{[^}]*\}", "{}", route.path))
        for route in scene.api.routes
        for method in route.methods or ()
        if method != "HEAD" and not route.path.startswith("/ui")
    }
    assert served == {each for each in described if not each[1].startswith("/ui")}


def test_every_operation_has_an_example_that_is_as_described() -> None:
    description = document()
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody")
            if body is not None:
                _check_example(description, body["content"], f"{method} {path} body")
            first = next(iter(operation["responses"].values()))
            _check_example(description, first["content"], f"{method} {path}")


def _check_example(description: dict[str, Any], content: dict[str, Any], where: str) -> None:
    (told,) = content.values()
    assert "example" in told, where
    root = {**told["schema"], "components": description["components"]}
    errors = [error.message for error in jsonschema_rs.validator_for(root).iter_errors(told["example"])]
    assert errors == [], where


def test_the_events_begin_with_a_snapshot_as_described(scene: _Scene) -> None:
    with httpx.stream("GET", f"{scene.url}/events", timeout=10, trust_env=False) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "event: snapshot"
        status = json.loads(next(lines).removeprefix("data: "))
    description = document()
    root = {"$ref": "#/components/schemas/Status", "components": description["components"]}
    jsonschema_rs.validator_for(root).validate(status)
