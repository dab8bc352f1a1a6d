"""The embedded engine's process: how it starts, what it says when it can't, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import quiet_port
from tray_valet.core.ports import ProcessTable
from tray_valet.engine.locate import embedded_engine, is_embedded_installed
from tray_valet.engine.server_flags import apply_flags
from tray_valet.engine.tiny_model import REPLY

pytestmark = pytest.mark.skipif(not is_embedded_installed(), reason="xllamacpp is not installed")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines with the given flags; ends them afterwards."""
    started: list[subprocess.Popen[str]] = []
    engine = embedded_engine(os.environ)

    def start(*flags: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*engine.argv, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | engine.env | variables,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(port: int, path: str, body: object = None, key: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=90) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


def wait_ready(port: int) -> set[int]:
    """Wait for /health 200; return the other codes that came before (0 = nobody there yet)."""
    deadline_s, before = time.monotonic() + 60, set()
    while (code := ask(port, "/health")[0]) != 200:
        before.add(code)
        assert time.monotonic() < deadline_s
        time.sleep(0.002)
    return before


def fails_with(process: subprocess.Popen[str]) -> str:
    """Check that it ends with exit code 1; return what it wrote to stderr."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    return errors


def test_a_chat_is_answered_with_the_models_sentence(start: Start, tiny_model: Path) -> None:
    port = quiet_port()
    start("-m", str(tiny_model), "--port", str(port), "-c", "2048", "--alias", "tiny")
    wait_ready(port)
    code, answer = ask(port, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi there?"}]})
    assert code == 200
    assert answer["choices"][0]["message"]["content"] == REPLY
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_streams_may_be_as_long_as_one_likes(start: Start, tiny_model: Path) -> None:
    port = quiet_port()
    start("-m", str(tiny_model), "--port", str(port), "-c", "4096")
    wait_ready(port)
    body = {"prompt": "Hi", "n_predict": 1_000, "ignore_eos": True}
    _, answer = ask(port, "/completion", body)
    assert answer["tokens_predicted"] == 1_000
    assert f"{REPLY}{REPLY}" in answer["content"]


def test_health_says_503_while_a_large_model_loads(start: Start, large_model: Path) -> None:
    port = quiet_port()
    start("-m", str(large_model), "--port", str(port), "-c", "512", "--no-mmap")
    assert 503 in wait_ready(port)


def test_the_key_of_the_environment_is_asked_for(start: Start, tiny_model: Path) -> None:
    port = quiet_port()
    start("-m", str(tiny_model), "--port", str(port), "-c", "512", LLAMA_API_KEY="open-sesame")
    wait_ready(port)
    assert ask(port, "/props")[0] == 401
    assert ask(port, "/props", key="open-sesame")[0] == 200


@pytest.mark.parametrize("flags", [("--load-mode", "none"), ("--no-mmap",)])
@pytest.mark.skipif(sys.platform != "linux", reason="memory as Linux tells it")
def test_without_mmap_the_weights_are_memory_of_the_process(
    flags: tuple[str, ...], start: Start, large_model: Path, process_table: ProcessTable
) -> None:
    port = quiet_port()
    process = start("-m", str(large_model), "--port", str(port), "-c", "512", *flags)
    wait_ready(port)
    described = process_table.describe(process.pid)
    assert described is not None
    assert process_table.usage([described.identity]).ram_bytes > 350_000_000


@pytest.mark.parametrize(
    "flags", [("--reranking",), ("--rerank",), ("--embedding", "--pooling", "rank")], ids=lambda f: f[0]
)
def test_a_reranker_is_asked_for_in_either_way(flags: tuple[str, ...]) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    apply_flags(xllamacpp, params, flags)
    assert params.embedding
    assert params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def test_an_engine_with_reranking_ranks(start: Start, tiny_model: Path) -> None:
    port = quiet_port()
    start("-m", str(tiny_model), "--port", str(port), "-c", "512", "--reranking")
    wait_ready(port)
    code, answer = ask(port, "/v1/rerank", {"query": "Hi", "documents": ["one", "two"]})
    assert (code, len(answer["results"])) == (200, 2)


def test_an_unknown_flag_is_named(start: Start) -> None:
    assert "error: invalid argument: --foo\n" in fails_with(start("--foo"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--port",), "--port"),
        (("--port", "many"), "many"),
        (("--load-mode", "magic"), "magic"),
        (("--cache-type-k", "q99"), "q99"),
        (("--device", "cuda0"), "cuda0"),
        (("-c", "512"), "--model"),
    ],
)
def test_a_bad_command_line_is_told(flags: tuple[str, ...], words: str, start: Start) -> None:
    errors = fails_with(start(*flags))
    assert "error" in errors
    assert words in errors
    assert "Traceback" not in errors


def test_a_missing_model_is_told(start: Start) -> None:
    assert "/no/such.gguf" in fails_with(start("-m", "/no/such.gguf", "--port", str(quiet_port())))


def test_a_broken_model_is_told(start: Start, tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_model.read_bytes()[:10_000])
    assert "broken.gguf" in fails_with(start("-m", str(broken), "--port", str(quiet_port())))


def test_a_port_in_use_is_told(start: Start, tiny_model: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert "bind" in fails_with(start("-m", str(tiny_model), "--port", str(port)))


def test_the_version_is_told(start: Start) -> None:
    process = start("--version")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.startswith("version: ")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_sigterm_ends_it_in_mid_stream(start: Start, tiny_model: Path) -> None:
    port = quiet_port()
    process = start("-m", str(tiny_model), "--port", str(port), "-c", "4096")
    wait_ready(port)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        body = json.dumps({"prompt": "Hi", "stream": True, "ignore_eos": True}).encode()
        client.sendall(
            b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert client.recv(200)
        process.send_signal(signal.SIGTERM)
        # Its own exit, or the default action: it serves a moment before it has set its handler.
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


@pytest.mark.skipif(os.name != "posix", reason="processes change their parent")
def test_it_ends_when_its_parent_is_killed(tiny_model: Path, process_table: ProcessTable) -> None:
    """Without any tie of the system: the engine looks for itself."""
    engine = embedded_engine(os.environ)
    port = quiet_port()
    command = [*engine.argv, "-m", str(tiny_model), "--port", str(port), "-c", "512"]
    parent_script = (
        "import subprocess, sys, time;"
        "print(subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent_script, *command],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | engine.env,
    ) as parent:
        assert parent.stdout is not None
        described = process_table.describe(int(parent.stdout.readline()))
        assert described is not None
        wait_ready(port)
        parent.kill()
    deadline_s = time.monotonic() + 45
    while process_table.is_alive(described.identity):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
