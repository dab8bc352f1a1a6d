"""The waiting line as clients meet it: full, too slow, fair between keys, and left by who hangs up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.whole.router_homes import busy_slots, local, metric, request_lines, router_url, write_secrets
from tests.whole.valet_process import ValetProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
ASK: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def settings_for(home: Path, tiny: Path, **router: Any) -> dict[str, Any]:
    return {
        "games": {"enabled": False},
        "router": router,
        "providers": {"local": local(home, tiny, {"one": ["--context-shift", "--slots"], "two": []})},
        "routes": {
            "either": {
                "candidates": [
                    {"provider": "local", "model": "one"},
                    {"provider": "local", "model": "two"},
                ]
            }
        },
    }


@contextmanager
def occupied(valet: ValetProcess, **headers: str) -> Iterator[None]:
    """The model's only place is taken."""
    asked = {"model": "one", "messages": ASK, "max_tokens": 1_000_000, "ignore_eos": True, "stream": True}
    is_over = threading.Event()

    def read() -> None:
        with valet.router.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as answer:
            for _ in answer.iter_lines():
                if is_over.is_set():
                    return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: busy_slots(valet, "one") == 1, "its place is taken")
        yield
    finally:
        is_over.set()
        reader.join(60)


def test_a_full_line_is_a_rate_limit_for_the_clients_and_the_route_goes_on(
    home: Path, tiny_model: Path
) -> None:
    with ValetProcess(home, settings_for(home, tiny_model, max_queue_size_per_model=2)) as valet:
        valet.post("/load", {"model": "one"})
        with ThreadPoolExecutor(2) as pool, occupied(valet):
            waiting = [pool.submit(valet.chat, "one", max_tokens=2) for _ in range(2)]
            until(lambda: metric(valet, "router_queue_depth", model="one") == 2, "the line is full")
            url = router_url(valet)
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                with pytest.raises(openai.RateLimitError) as full:
                    client.chat.completions.create(model="one", messages=ASK)
                assert full.value.code == "queue_full"
                assert int(full.value.response.headers["retry-after"]) >= 1
            with (
                anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as claude,
                pytest.raises(anthropic.RateLimitError),
            ):
                claude.messages.create(model="one", messages=ASK, max_tokens=4)
            assert valet.chat("either", max_tokens=2).headers["x-valet-model"] == "two"
            assert metric(valet, "router_queue_rejected_total", model="one") >= 2
        assert [one.result(60).status_code for one in waiting] == [200, 200]


def test_a_wait_that_is_too_long_is_504_and_says_so(home: Path, tiny_model: Path) -> None:
    with ValetProcess(home, settings_for(home, tiny_model, queue_timeout_seconds=1)) as valet:
        valet.post("/load", {"model": "one"})
        with occupied(valet):
            late = valet.chat("one", max_tokens=2)
        assert late.status_code == 504, late.text
        assert late.json()["error"]["code"] == "timed_out"
        assert late.elapsed.total_seconds() >= 1


def test_who_hangs_up_in_line_leaves_it_and_reaches_no_engine(home: Path, tiny_model: Path) -> None:
    with ValetProcess(home, settings_for(home, tiny_model)) as valet:
        valet.post("/load", {"model": "one"})
        url = httpx.URL(router_url(valet))
        body = json.dumps({"model": "one", "messages": ASK}).encode()
        with occupied(valet):
            with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.host}\r\n"
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                until(lambda: metric(valet, "router_queue_depth", model="one") == 1, "it waits")
            until(lambda: metric(valet, "router_queue_depth", model="one") == 0, "it has left")
        until(lambda: len(request_lines(home)) == 2, "both are written down")
        left = next(line for line in request_lines(home) if not line["is_stream"])
        assert (left["outcome"], left["attempts"]) == ("client_left", 0)


def test_a_flood_of_one_key_does_not_keep_another_waiting(home: Path, tiny_model: Path) -> None:
    settings = settings_for(home, tiny_model, api_keys={"loud": "keyring:loud", "calm": "keyring:calm"})
    environ = write_secrets(home, {"loud": "sk-loud", "calm": "sk-calm"})
    with ValetProcess(home, settings, environ=environ) as valet:
        valet.post("/load", {"model": "one"})

        def ask(key: str) -> None:
            answer = valet.router.post(
                "/v1/chat/completions",
                json={"model": "one", "messages": ASK, "max_tokens": 4},
                headers={"x-api-key": f"sk-{key}"},
            )
            assert answer.status_code == 200

        def depth() -> int:
            head = {"x-api-key": "sk-calm"}
            stats = valet.router.get("/v1/queue/stats", headers=head).json()
            return int(stats["summary"]["total_queued"])

        with ThreadPoolExecutor(14) as pool, occupied(valet, **{"x-api-key": "sk-loud"}):
            loud = [pool.submit(ask, "loud") for _ in range(10)]
            until(lambda: depth() == 10, "one floods the line")
            calm = [pool.submit(ask, "calm") for _ in range(2)]
            until(lambda: depth() == 12, "the other comes last")
        for one in (*loud, *calm):
            one.result(60)
        until(lambda: len(request_lines(home)) == 13, "all are written down, in the order of their ends")
        order = [str(line["client"]) for line in request_lines(home) if not line["is_stream"]]
        assert Counter(order) == {"loud": 10, "calm": 2}
        assert "calm" in order[:3], order
        assert order.index("calm", order.index("calm") + 1) <= 5, order


def test_an_unknown_priority_is_told_and_a_large_body_of_curl_passes(home: Path, tiny_model: Path) -> None:
    with ValetProcess(home, settings_for(home, tiny_model, max_body_bytes=4_000_000)) as valet:
        asked = {"model": "one", "messages": ASK, "max_tokens": 1}
        wrong = valet.router.post(
            "/v1/chat/completions", json=asked, headers={"X-Request-Priority": "urgent"}
        )
        assert wrong.status_code == 400
        assert "high" in wrong.json()["error"]["message"]

        def curl(size_bytes: int, *arguments: str) -> tuple[int, Any]:
            (home / "body.json").write_text(json.dumps({**asked, "padding": "x" * size_bytes}))
            command = ["curl", "-sS", "--noproxy", "*", "-w", "\n%{http_code}", *arguments]
            command += ["-d", f"@{home}/body.json", f"{router_url(valet)}/v1/chat/completions"]
            done = subprocess.run(command, capture_output=True, timeout=30, text=True, check=True)
            answer, _, status = done.stdout.rpartition("\n")
            return int(status), json.loads(answer)

        assert curl(3_000_000)[0] == 200, "with the Expect header that curl adds"
        assert curl(3_000_000, "-H", "Transfer-Encoding: chunked")[0] == 200
        for how in ((), ("-H", "Transfer-Encoding: chunked")):
            status, answer = curl(5_000_000, *how)
            assert (status, answer["error"]["code"]) == (413, "body_too_large")
