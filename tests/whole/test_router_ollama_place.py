"""The router where Ollama stood: Ollama's own client and curl notice nothing, browsers' pages get nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.ports import quiet_port
from tests.standins.ollama import OllamaStandin
from tests.whole.router_homes import router_url
from tests.whole.valet_process import ValetProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests' valet runs on Linux")
ASK: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def standin() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "llama3:latest=40", "--model", "llama3:8b=8") as running:
        yield running


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory, standin: OllamaStandin) -> Iterator[ValetProcess]:
    port = quiet_port()
    settings = {
        "games": {"enabled": False},
        "router": {"port": port},
        "eviction": {"drain_seconds": 0.2},
        "providers": {"ollama": {"kind": "ollama", "url": standin.url}},
        "routes": {
            "long": {
                "candidates": [{"provider": "ollama", "model": "llama3"}],
                "num_ctx": 8192,
                "keep_alive": "42m",
            },
            "forever": {"candidates": [{"provider": "ollama", "model": "llama3:8b"}], "keep_alive": -1},
            "shaped": {
                "candidates": [
                    {"provider": "ollama", "model": "llama3", "set": {"top_p": 0.5}, "strip": ["seed"]}
                ]
            },
        },
    }
    with ValetProcess(tmp_path_factory.mktemp("place") / "home", settings) as process:
        assert process.places["router"]["url"].endswith(f":{port}")
        yield process


@pytest.fixture(autouse=True)
def nothing_loaded(standin: OllamaStandin, valet: ValetProcess) -> None:
    standin.reset()
    until(lambda: valet.loaded() == {}, "the valet sees that nothing is loaded")


@pytest.fixture
def client(valet: ValetProcess, monkeypatch: pytest.MonkeyPatch) -> ollama.Client:
    """As a program makes it that was told by OLLAMA_HOST only."""
    monkeypatch.setenv("OLLAMA_HOST", router_url(valet).removeprefix("http://"))
    return ollama.Client()


def pause(valet: ValetProcess) -> str:
    return f"/holds/{valet.post('/holds', {'owner': 'renderer', 'reason': 'a frame'}, status=201)['id']}"


def resume(valet: ValetProcess, hold: str) -> None:
    assert valet.control.delete(hold).status_code == 200
    valet.wait_state("running")


def test_a_program_told_by_ollama_host_chats_generates_embeds_and_looks(
    client: ollama.Client, standin: OllamaStandin
) -> None:
    direct = ollama.Client(host=standin.url)
    whole = client.chat("llama3", messages=ASK)
    assert whole.message.content == direct.chat("llama3", messages=ASK).message.content
    assert whole.eval_count
    pieces = [part.message.content or "" for part in client.chat("llama3", messages=ASK, stream=True)]
    assert len(pieces) > 5
    assert "".join(pieces) == whole.message.content
    assert client.generate("llama3:latest", "Hi").response == whole.message.content
    assert "".join(part.response or "" for part in client.generate("llama3", "Hi", stream=True))
    assert client.embed("llama3", ["a", "b"]).embeddings == direct.embed("llama3", ["a", "b"]).embeddings
    assert client.show("llama3").template == direct.show("llama3").template
    assert {"llama3:latest", "llama3:8b", "long"} <= {str(model.model) for model in client.list().models}


def test_what_is_loaded_is_seen_as_ollama_says_it(client: ollama.Client, standin: OllamaStandin) -> None:
    client.chat("llama3", messages=ASK, options={"num_ctx": 2048}, keep_alive="10m")
    [there] = standin.loaded().values()
    assert there["context_length"] == 2048, "options pass through"

    def seen() -> dict[str, Any]:
        return {str(m.model): m.context_length for m in client.ps().models}

    until(lambda: seen() == {"llama3:latest": 2048}, "the router lists it", lambda: str(seen()))


def test_the_version_is_that_of_the_ollama_behind(valet: ValetProcess, standin: OllamaStandin) -> None:
    theirs = httpx.get(f"{standin.url}/api/version", trust_env=False, timeout=60).json()["version"]
    assert valet.router.get("/api/version").json()["version"] == theirs
    assert valet.router.get("/").text.startswith("Ollama is running")
    assert valet.router.head("/").status_code == 200


async def test_the_async_client_streams(valet: ValetProcess) -> None:
    client = ollama.AsyncClient(host=router_url(valet))
    parts = [part async for part in await client.chat("llama3", messages=ASK, stream=True)]
    assert parts[-1].done
    assert parts[-1].done_reason == "stop"


def test_an_unload_without_a_prompt_loads_nothing(client: ollama.Client, standin: OllamaStandin) -> None:
    assert client.generate("llama3", "", keep_alive=0).done_reason == "unload"
    assert standin.state()["runners"] == {}
    client.generate("llama3", "Hi")
    assert set(standin.loaded()) == {"llama3:latest"}
    assert client.generate("llama3", keep_alive=0).done_reason == "unload"
    assert standin.loaded() == {}
    client.generate("llama3", "Hi")
    assert client.chat("llama3", messages=[], keep_alive=0).done_reason == "unload"
    assert standin.loaded() == {}


def test_a_load_without_a_prompt_loads(client: ollama.Client, standin: OllamaStandin) -> None:
    assert client.generate("llama3", "").done_reason == "load"
    assert set(standin.loaded()) == {"llama3:latest"}


def test_looking_at_models_loads_none_of_them(client: ollama.Client, standin: OllamaStandin) -> None:
    standin.set(tokens_per_s=20, answer_tokens=40)
    busy = client.chat("llama3:8b", messages=ASK, stream=True)
    next(busy)
    for listed in client.list().models:
        assert client.show(str(listed.model)).details
    assert standin.state()["generating"] == 1, "and they wait for nobody's answer"
    assert set(standin.loaded()) == {"llama3:8b"}
    assert len(list(busy)) > 10


def test_an_unload_is_served_during_a_pause_and_a_load_is_not(
    valet: ValetProcess, client: ollama.Client, standin: OllamaStandin
) -> None:
    hold = pause(valet)
    try:
        assert client.generate("llama3", "", keep_alive=0).done_reason == "unload"
        with pytest.raises(ollama.ResponseError) as refused:
            client.generate("llama3", "")
        assert refused.value.status_code == 503
        assert "renderer" in refused.value.error
        with pytest.raises(ollama.ResponseError):
            client.embed("llama3", "a")
        assert standin.state()["runners"] == {}
        assert client.list().models, "lists are answered"
        assert client.show("llama3").template, "what loads nothing is answered, too"
    finally:
        resume(valet, hold)


def test_curl_without_a_content_type_works(valet: ValetProcess) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "--noproxy", "*", *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=30, text=True).stdout

    body = json.dumps({"model": "llama3", "prompt": "Why?"})
    lines = curl(f"{router_url(valet)}/api/generate", "-d", body).splitlines()
    assert len(lines) > 5
    assert json.loads(lines[-1])["done"] is True
    chat = json.dumps({"model": "llama3", "messages": ASK, "stream": False})
    assert json.loads(curl(f"{router_url(valet)}/api/chat", "-d", chat))["message"]["content"]
    assert json.loads(curl(f"{router_url(valet)}/v1/chat/completions", "-d", chat))["choices"]
    unload = json.dumps({"model": "llama3", "keep_alive": 0})
    assert '"unload"' in curl(f"{router_url(valet)}/api/generate", "-d", unload)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example:11434"}, 400),
    ],
)
def test_pages_of_other_sites_are_refused_and_load_nothing(
    valet: ValetProcess, standin: OllamaStandin, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"model": "llama3", "prompt": "Hi"}).encode()
    # What a page can send without being asked for permission first.
    simple = {"Content-Type": "text/plain", **headers}
    answer = valet.router.post("/api/generate", content=body, headers=simple)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str), "in Ollama's form"
    assert valet.router.get("/api/tags", headers=headers).status_code == status
    assert standin.state()["runners"] == {}


def test_an_unknown_model_is_ollamas_404(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as unknown:
        client.chat("llama3:70b", messages=ASK)
    assert unknown.value.status_code == 404
    assert "llama3:70b" in unknown.value.error


def test_a_stream_that_a_pause_ends_is_an_error_for_ollamas_client(
    valet: ValetProcess, client: ollama.Client, standin: OllamaStandin
) -> None:
    standin.set(tokens_per_s=50, answer_tokens=100_000)
    parts = client.chat("llama3", messages=ASK, stream=True)
    next(parts)
    hold = pause(valet)
    try:
        with pytest.raises(ollama.ResponseError) as ended:
            for _ in parts:
                pass
        assert "renderer" in ended.value.error
        assert standin.loaded() == {}
    finally:
        resume(valet, hold)


def test_a_pull_and_a_delete_pass_through(client: ollama.Client, standin: OllamaStandin) -> None:
    assert [part.status for part in client.pull("tiny", stream=True)][-1] == "success"
    assert client.delete("tiny").status == "success"
    assert client.list().models


# -- what a route says reaches Ollama though its OpenAI routes ignore it ---------------------------------


def ttl_s(standin: OllamaStandin, name: str) -> float:
    expires = datetime.fromisoformat(standin.loaded()[name]["expires_at"])
    return (expires - datetime.now(expires.tzinfo)).total_seconds()


@pytest.mark.parametrize("is_stream", [False, True])
def test_num_ctx_and_keep_alive_of_a_route_reach_ollama_from_openais_client(
    valet: ValetProcess, standin: OllamaStandin, is_stream: bool
) -> None:
    with openai.OpenAI(base_url=f"{router_url(valet)}/v1", api_key="none", max_retries=0) as client:
        answer: Any = client.chat.completions.create(model="long", messages=ASK, stream=is_stream)
        if is_stream:
            assert "".join(c.choices[0].delta.content or "" for c in answer if c.choices)
        else:
            assert answer.choices[0].message.content
    assert standin.loaded()["llama3:latest"]["context_length"] == 8192
    assert 41 * 60 < ttl_s(standin, "llama3:latest") <= 42 * 60


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_they_reach_it_from_the_other_openai_paths(
    valet: ValetProcess, standin: OllamaStandin, path: str
) -> None:
    asked = {"model": "long", "input": "Hi", "prompt": "Hi"}
    answer = valet.router.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    assert standin.loaded()["llama3:latest"]["context_length"] == 8192
    assert 41 * 60 < ttl_s(standin, "llama3:latest") <= 42 * 60


def test_for_ever_is_for_ever_and_the_clients_own_wish_goes_before_the_routes(
    valet: ValetProcess, client: ollama.Client, standin: OllamaStandin
) -> None:
    assert valet.chat("forever").status_code == 200
    assert ttl_s(standin, "llama3:8b") > 10 * 365 * 86_400
    client.chat("long", messages=ASK, options={"num_ctx": 1024}, keep_alive="1m")
    assert standin.loaded()["llama3:latest"]["context_length"] == 1024
    assert ttl_s(standin, "llama3:latest") <= 60


def test_a_route_sets_and_strips_parameters(valet: ValetProcess, standin: OllamaStandin) -> None:
    assert valet.chat("shaped", seed=5, top_p=0.9, unknown={"a": [1.50]}).status_code == 200
    calls = [c for path in ("/v1/chat/completions", "/api/chat") for c in standin.calls(path)]
    body = calls[-1]["body"]
    options = body.get("options") or {}
    assert (body.get("top_p") or options.get("top_p")) == 0.5
    assert "seed" not in body
    assert "seed" not in options


def test_many_clients_at_once_load_once(valet: ValetProcess, standin: OllamaStandin) -> None:
    standin.set(load_s=0.5)
    ends: list[int] = []
    threads = [
        threading.Thread(target=lambda: ends.append(valet.chat("long", max_tokens=2).status_code))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ends == [200] * 12
    assert len(standin.state()["runners"]) == 1
    assert standin.loaded()["llama3:latest"]["context_length"] == 8192


def test_anthropics_client_gets_what_ollama_says_of_its_path(valet: ValetProcess) -> None:
    with (
        anthropic.Anthropic(base_url=router_url(valet), api_key="none", max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError) as refused,
    ):
        client.messages.count_tokens(model="llama3", messages=ASK)
    assert refused.value.status_code == 501
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert "/v1/messages" in body["error"]["message"]
