"""Keys of the router as clients show them: each client's own api_key works, a wrong one is a 401."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.whole.router_homes import local, metric, request_lines, router_url, write_secrets
from tests.whole.valet_process import ValetProcess, until
from tray_valet.engine.tiny_model import REPLY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests' valet runs on Linux")

ALICES, BOBS = "sk-alice-1", "sk-bob-2"
ASK: Any = [{"role": "user", "content": "Who are you?"}]
# Every path that tells or does something; none may be open without a key.
PATHS = (
    ("GET", "/v1/models"),
    ("GET", "/v1/models/one"),
    ("GET", "/v1/models/status"),
    ("GET", "/v1/models/status/stream"),
    ("GET", "/v1/models/failed"),
    ("GET", "/v1/queue/stats"),
    ("GET", "/v1/telemetry/summary"),
    ("GET", "/v1/health/models"),
    ("GET", "/vram"),
    ("GET", "/metrics"),
    ("GET", "/metrics/stream"),
    ("GET", "/api/tags"),
    ("GET", "/api/ps"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/api/chat"),
    ("POST", "/v1/models/eject"),
    ("POST", "/v1/models/one/reset"),
)


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path_factory.mktemp("keys") / "home"
    settings = {
        "games": {"enabled": False},
        "router": {"api_keys": {"alice": "keyring:alice", "bob": "keyring:bob"}},
        "providers": {"local": local(home, tiny_model, {"one": []})},
    }
    environ = write_secrets(home, {"alice": ALICES, "bob": BOBS})
    with ValetProcess(home, settings, environ=environ) as process:
        yield process
    log = (home / "logs" / "tray-valet.log").read_text() + json.dumps(request_lines(home))
    assert ALICES not in log, "no key is ever written down"
    assert BOBS not in log


def test_openais_key_is_taken_and_a_wrong_one_is_an_authentication_error(valet: ValetProcess) -> None:
    url = f"{router_url(valet)}/v1"
    with openai.OpenAI(base_url=url, api_key=ALICES, max_retries=0) as client:
        assert client.chat.completions.create(model="one", messages=ASK).choices[0].message.content == REPLY
    for wrong in ("sk-alice-2", "sk-alice", f"{ALICES}x"):
        with openai.OpenAI(base_url=url, api_key=wrong, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                client.chat.completions.create(model="one", messages=ASK)
            assert refused.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                client.models.list()


def test_anthropics_key_is_taken_and_a_wrong_one_is_an_authentication_error(valet: ValetProcess) -> None:
    asked: dict[str, Any] = {"model": "one", "messages": ASK, "max_tokens": 90}
    with anthropic.Anthropic(base_url=router_url(valet), api_key=BOBS, max_retries=0) as client:
        assert client.messages.create(**asked).content[0].type == "text"
    with anthropic.Anthropic(base_url=router_url(valet), api_key="sk-no", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            client.messages.create(**asked)
        body: Any = refused.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")


def test_ollamas_client_shows_its_key_in_a_header(valet: ValetProcess) -> None:
    right = ollama.Client(host=router_url(valet), headers={"Authorization": f"Bearer {ALICES}"})
    assert [model.model for model in right.list().models] == ["one"]
    with pytest.raises(ollama.ResponseError) as refused:
        ollama.Client(host=router_url(valet)).list()
    assert refused.value.status_code == 401
    assert "API key" in refused.value.error


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nothing_is_open_without_a_key(valet: ValetProcess, method: str, path: str) -> None:
    body = b'{"model": "one"}' if method == "POST" else None
    answer = valet.router.request(method, path, content=body)
    assert answer.status_code == 401, answer.text
    wrong = valet.router.request(method, path, content=body, headers={"x-api-key": "nope"})
    assert wrong.status_code == 401


def test_the_name_of_the_key_is_in_the_request_log_and_the_key_goes_to_no_engine(valet: ValetProcess) -> None:
    body = {"model": "one", "messages": ASK}
    for key in (ALICES, BOBS):
        answer = valet.router.post("/v1/chat/completions", json=body, headers={"x-api-key": key})
        assert answer.status_code == 200
    until(
        lambda: {line.get("client") for line in request_lines(valet.home)} >= {"alice", "bob"},
        "both names are written down",
    )


def test_wrong_keys_load_nothing_and_make_no_series(valet: ValetProcess) -> None:
    valet.post("/unload", {"model": "one"})
    for number in range(50):
        valet.router.post(
            "/v1/chat/completions",
            json={"model": f"m{number}", "messages": ASK},
            headers={"Authorization": f"Bearer {number}"},
        )
    assert valet.loaded() == {}
    headers = {"Authorization": f"Bearer {ALICES}"}
    assert (
        "m49"
        not in httpx.get(f"{router_url(valet)}/metrics", headers=headers, trust_env=False, timeout=60).text
    )


def test_a_key_set_while_it_runs_is_asked_for_at_once(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    plain = {
        "games": {"enabled": False},
        "providers": {"local": local(home, tiny_model, {"one": []})},
    }
    environ = write_secrets(home, {"alice": ALICES})
    with ValetProcess(home, plain, environ=environ) as valet:
        assert valet.router.get("/v1/models").status_code == 200
        assert metric(valet, "valet_build_info") == 1
        valet.write_settings(plain | {"router": {"api_keys": {"alice": "keyring:alice"}}})
        until(lambda: valet.router.get("/v1/models").status_code == 401, "the key is asked for")
        curl = ["curl", "-s", "-H", f"Authorization: Bearer {ALICES}", f"{router_url(valet)}/v1/models"]

        def listed() -> list[str]:
            answer = json.loads(subprocess.run(curl, capture_output=True, check=True, timeout=60).stdout)
            return [model["id"] for model in answer.get("data", [])]

        until(lambda: listed() == ["one"], "the key itself has been looked up, and is taken")
