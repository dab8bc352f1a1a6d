"""The Ollama stand-in is faithful: checked with Ollama's own Python client and with OpenAI's.

What is asserted here was seen at a server built from Ollama's source, or is read there (sched.go, routes.go).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import psutil
import pytest

from tests.standins.ollama import OllamaStandin

FOREVER_FROM_YEAR = 2300


@pytest.fixture(scope="module")
def running() -> Iterator[OllamaStandin]:
    with OllamaStandin() as standin:
        yield standin


@pytest.fixture
def standin(running: OllamaStandin) -> OllamaStandin:
    running.reset()
    return running


@pytest.fixture
def client(standin: OllamaStandin) -> Iterator[ollama.Client]:
    client = ollama.Client(standin.url, trust_env=False)
    yield client
    client._client.close()


@pytest.fixture
def http(standin: OllamaStandin) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=standin.url, trust_env=False, timeout=30) as http:
        yield http


def until(holds: Callable[[], bool]) -> None:
    """Wait until something is so; the test's own time limit ends the wait."""
    while not holds():
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def only(standin: OllamaStandin) -> dict[str, Any]:
    [model] = standin.loaded().values()
    return model


# -- Ollama's own client ---------------------------------------------------------------------------------


def test_its_lists_are_what_the_client_expects(client: ollama.Client) -> None:
    listed = {model.model: model for model in client.list().models}
    assert listed["llama3:latest"].details.quantization_level == "Q4_K_M"
    assert client.ps().models == []
    client.generate("llama3")
    [loaded] = client.ps().models
    assert (loaded.name, loaded.context_length) == ("llama3:latest", 4096)
    assert 200 < loaded.expires_at.timestamp() - time.time() <= 300


def test_show_tells_capabilities_and_the_weights_file(client: ollama.Client) -> None:
    shown = client.show("nomic-embed-text")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo["nomic-bert.context_length"] == 2048
    assert "\nFROM /usr/share/ollama/.ollama/models/blobs/sha256-" in shown.modelfile


def test_chat_and_generate_stream_word_by_word(client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    whole = client.chat("llama3", messages).message.content
    assert whole
    parts = list(client.chat("llama3", messages, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole
    assert parts[-1].done
    assert parts[-1].eval_count == len(parts) - 1
    assert "".join(part.response for part in client.generate("llama3", "Hi", stream=True)) == whole


def test_num_predict_ends_an_answer_early(client: ollama.Client) -> None:
    answer = client.generate("llama3", "Hi", options={"num_predict": 2})
    assert (answer.eval_count, answer.done_reason) == (2, "length")


def test_embeddings_are_the_same_for_the_same_text(client: ollama.Client) -> None:
    first, second, third = client.embed("nomic-embed-text", ["a", "b", "a"]).embeddings
    assert first == third != second


def test_a_pull_tells_its_progress_and_the_model_is_there(client: ollama.Client) -> None:
    lines = list(client.pull("new/model", stream=True))
    assert lines[0].status == "pulling manifest"
    assert {line.total for line in lines if line.digest} == {8 * 2**20}
    assert [line.status for line in lines[-3:]] == [
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert "new/model:latest" in {model.model for model in client.list().models}


def test_a_pull_that_fails_late_is_an_error_line_under_200(http: httpx.Client, client: ollama.Client) -> None:
    answer = http.post("/api/pull", json={"model": "no-such"})
    assert answer.status_code == 200
    assert "error" in json.loads(answer.text.splitlines()[-1])
    with pytest.raises(ollama.ResponseError, match="does not exist"):
        list(client.pull("no-such", stream=True))


def test_a_pull_that_is_left_resumes_where_it_was(standin: OllamaStandin, client: ollama.Client) -> None:
    standin.set(pull_s=2.0)
    for line in client.pull("big/model", stream=True):
        if (line.completed or 0) >= 2 * 2**20:
            break
    until(lambda: standin.state()["aborted"] == 1)
    standin.set(pull_s=0.1)
    first = next(line for line in client.pull("big/model", stream=True) if line.digest)
    assert (first.completed or 0) >= 2 * 2**20


def test_a_deleted_model_is_gone(client: ollama.Client) -> None:
    client.delete("qwen3:8b")
    with pytest.raises(ollama.ResponseError, match="not found") as error:
        client.delete("qwen3:8b")
    assert error.value.status_code == 404


# -- loading, keeping, unloading -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep_alive", "left_s"),
    [(60, 60), ("10m", 600), ("1h30m", 5400), (90.5, 90.5), (None, 300)],
)
def test_keep_alive_is_a_number_or_a_go_duration(
    standin: OllamaStandin, client: ollama.Client, keep_alive: Any, left_s: float
) -> None:
    client.generate("llama3", keep_alive=keep_alive)
    [model] = client.ps().models
    assert left_s - 5 < model.expires_at.timestamp() - time.time() <= left_s


@pytest.mark.parametrize("keep_alive", [-1, "-1m", -0.5])
def test_a_negative_keep_alive_is_for_ever(
    standin: OllamaStandin, client: ollama.Client, keep_alive: Any
) -> None:
    client.generate("llama3", keep_alive=keep_alive)
    assert int(only(standin)["expires_at"][:4]) > FOREVER_FROM_YEAR


@pytest.mark.parametrize(
    ("keep_alive", "words"),
    [
        ("300", "missing unit in duration"),
        ("soon", "invalid duration"),
        ("5d", "unknown unit"),
        (True, "Unsupported type: 'bool'"),
    ],
)
def test_a_keep_alive_that_go_cannot_read_is_400(http: httpx.Client, keep_alive: Any, words: str) -> None:
    answer = http.post("/api/generate", json={"model": "llama3", "keep_alive": keep_alive})
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_times_carry_nanoseconds_and_an_offset(standin: OllamaStandin, client: ollama.Client) -> None:
    client.generate("llama3")
    told = only(standin)["expires_at"]
    assert told.endswith("-07:00")
    assert 1 <= len(told.partition(".")[2].removesuffix("-07:00")) <= 9
    standin.set(offset_minutes=0)
    assert only(standin)["expires_at"].endswith("Z")


def test_a_model_expires_and_its_process_ends(standin: OllamaStandin, client: ollama.Client) -> None:
    client.generate("llama3", keep_alive="300ms")
    pid = standin.state()["runners"]["llama3:latest"]
    until(lambda: not standin.loaded())
    until(lambda: is_gone(pid))


def test_an_unload_answers_at_once_and_waits_for_no_one(
    standin: OllamaStandin, client: ollama.Client
) -> None:
    standin.set(tokens_per_s=20, answer_tokens=30)
    answers: list[Any] = []
    generation = threading.Thread(target=lambda: answers.append(client.generate("llama3", "Hi")))
    generation.start()
    until(lambda: standin.state()["generating"] == 1)
    assert client.generate("llama3", keep_alive=0).done_reason == "unload"
    assert standin.state()["generating"] == 1
    assert list(standin.loaded()) == ["llama3:latest"]
    generation.join()
    assert answers[0].eval_count == 30
    until(lambda: not standin.loaded())


def test_an_empty_chat_loads_and_unloads_too(standin: OllamaStandin, client: ollama.Client) -> None:
    assert client.chat("llama3").done_reason == "load"
    assert client.chat("llama3", keep_alive=0).done_reason == "unload"
    until(lambda: not standin.loaded())


def test_another_context_starts_the_runner_anew(standin: OllamaStandin, client: ollama.Client) -> None:
    client.generate("llama3", options={"num_ctx": 2048})
    first = standin.state()["runners"]
    client.generate("llama3", options={"num_ctx": 2048})
    assert standin.state()["runners"] == first
    client.generate("llama3", options={"num_ctx": 8192})
    assert standin.state()["runners"] != first
    assert only(standin)["context_length"] == 8192


def test_the_least_kept_idle_model_makes_room(standin: OllamaStandin, client: ollama.Client) -> None:
    standin.set(max_loaded=2)
    client.generate("llama3", keep_alive="1h")
    client.generate("qwen3:8b", keep_alive="5m")
    client.generate("qwen3:70b")
    assert set(standin.loaded()) == {"llama3:latest", "qwen3:70b"}


def test_a_loading_model_is_not_listed_but_has_a_process(
    standin: OllamaStandin, client: ollama.Client, http: httpx.Client
) -> None:
    standin.set(load_s=60.0)
    with pytest.raises(httpx.ReadTimeout):
        http.post("/api/generate", json={"model": "llama3"}, timeout=1.5)
    assert standin.loaded() == {}
    until(lambda: standin.state()["aborted"] == 1)


def test_a_client_that_leaves_ends_its_generation(standin: OllamaStandin, client: ollama.Client) -> None:
    standin.set(answer_tokens=1_000_000)
    for _ in client.generate("llama3", "Hi", stream=True):
        break
    until(lambda: standin.state()["generating"] == 0)
    assert standin.state()["aborted"] == 1
    assert list(standin.loaded()) == ["llama3:latest"]


def test_one_generation_at_a_time_by_default(standin: OllamaStandin, client: ollama.Client) -> None:
    standin.set(tokens_per_s=50, answer_tokens=20)
    threads = [threading.Thread(target=client.generate, args=("llama3", "Hi")) for _ in range(2)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, standin.state()["generating"])
    assert most == 1


def test_a_runner_that_died_stays_listed_until_it_is_used(
    standin: OllamaStandin, client: ollama.Client
) -> None:
    client.generate("llama3")
    pid = standin.state()["runners"]["llama3:latest"]
    os.kill(pid, 9)
    until(lambda: is_gone(pid))
    assert list(standin.loaded()) == ["llama3:latest"]
    assert client.generate("llama3", "Hi").response
    assert standin.state()["runners"]["llama3:latest"] != pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_runner_holds_real_memory_below_the_server(standin: OllamaStandin, client: ollama.Client) -> None:
    standin.set(add_models=[{"name": "big:latest", "memory_bytes": 100 * 2**20}])
    client.generate("big")
    pid = standin.state()["runners"]["big:latest"]
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert int(fields["PPid"]) == standin.pid
    assert int(fields["RssAnon"].split()[0]) > 100 * 1024
    assert fields["Name"].strip() == "llama-server"
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert argv[0].endswith(b"/llama-server")
    assert b"blobs/sha256-" in argv[argv.index(b"--model") + 1]


def test_an_embedding_model_does_not_generate(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="does not support generate"):
        client.generate("nomic-embed-text", "Hi")
    with pytest.raises(ollama.ResponseError, match="does not support chat"):
        client.chat("nomic-embed-text", [{"role": "user", "content": "Hi"}])


# -- OpenAI's client -------------------------------------------------------------------------------------


def test_openais_client_chats_whole_and_streamed(standin: OllamaStandin) -> None:
    with openai.OpenAI(base_url=f"{standin.url}/v1", api_key="none") as client:
        assert "llama3:latest" in {model.id for model in client.models.list()}
        messages: Any = [{"role": "user", "content": "Hi"}]
        whole = client.chat.completions.create(model="llama3", messages=messages)
        chunks = list(
            client.chat.completions.create(
                model="llama3", messages=messages, stream=True, stream_options={"include_usage": True}
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage
        with pytest.raises(openai.NotFoundError, match="not found"):
            client.chat.completions.create(model="nobody", messages=messages)


# -- failures to order -----------------------------------------------------------------------------------


def test_failures_are_as_ordered(standin: OllamaStandin, client: ollama.Client, http: httpx.Client) -> None:
    standin.set(load_error="llama-server process has terminated: exit status 1")
    with pytest.raises(ollama.ResponseError, match="exit status 1"):
        client.generate("llama3")
    standin.set(load_error="", free_bytes=1)
    with pytest.raises(ollama.ResponseError, match="more system memory"):
        client.generate("llama3")
    standin.set(free_bytes=None, fail={"/api/ps": 500}, hang=["/api/tags"])
    assert http.get("/api/ps").status_code == 500
    with pytest.raises(httpx.ReadTimeout):
        http.get("/api/tags", timeout=0.2)
    standin.reset()
    assert http.get("/api/ps").json() == {"models": []}


def test_bad_requests_are_answered(http: httpx.Client) -> None:
    assert http.post("/api/generate", content=b"{bad").status_code == 400
    assert http.post("/api/generate").json() == {"error": "missing request body"}
    assert http.post("/api/generate", json={"model": "nobody"}).json() == {
        "error": "model 'nobody' not found"
    }
    assert http.get("/nope").status_code == 404
    assert http.get("/").text == "Ollama is running"
    assert http.post("/_standin", json={"no_such_setting": 1}).status_code == 400


def test_it_comes_back_at_the_same_address_with_nothing_loaded() -> None:
    with OllamaStandin("--model", "one:latest=1") as standin:
        url = standin.url
        standin.load("one")
        standin.kill()
        with pytest.raises(OSError, match="refused"):
            standin.state()
        standin.start()
        assert standin.url == url
        assert standin.loaded() == {}


def test_its_runners_end_with_it() -> None:
    with OllamaStandin() as standin:
        standin.load("llama3")
        pid = standin.state()["runners"]["llama3:latest"]
        standin.kill()
    until(lambda: is_gone(pid))


def test_it_runs_as_a_program_and_ends_when_it_is_told() -> None:
    program = Path(__file__).with_name("ollama.py")
    with subprocess.Popen(
        [sys.executable, str(program), "--port", "0", "--model", "m:1=2"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-1])
        tags = httpx.get(f"http://127.0.0.1:{port}/api/tags", trust_env=False, timeout=60).json()
        assert [model["name"] for model in tags["models"]] == ["m:1"]
        process.terminate()
        assert process.wait(30) == 0
