"""The defects of routers before this one, by their numbers, looked for in a whole valet over the real engine.

Those that are a part's own business are tested with it (the numbers are in the tests' names there, too).
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.router_homes import busy_slots, local, metric, pid_of, router_url
from tests.whole.valet_process import ValetProcess, engine_pids, until
from tray_valet.engine.tiny_model import REPLY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
ASK: Any = [{"role": "user", "content": "Who are you?"}]
OWN_PATHS = (
    "/health",
    "/metrics",
    "/vram",
    "/v1/models",
    "/v1/models/status",
    "/v1/models/failed",
    "/v1/models/one",
    "/v1/models/one/status",
    "/v1/queue/stats",
    "/v1/telemetry/summary",
    "/v1/health/models",
    "/api/tags",
    "/api/ps",
    "/api/version",
    "/openapi.json",
)


@pytest.fixture(scope="module")
def standin() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "slow:latest=20") as running:
        yield running


@pytest.fixture(scope="module")
def valet(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, standin: OllamaStandin
) -> Iterator[ValetProcess]:
    home = tmp_path_factory.mktemp("defects") / "home"
    four = ["--parallel", "4", "--slots", "--context-shift"]
    provider = local(home, tiny_model, {"one": four, "two": ["--slots", "--context-shift"], "three": []})
    (home / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    provider["models"]["broken"] = {"model_path": str(home / "broken.gguf")}
    settings = {
        "games": {"enabled": False},
        "models": {"max_concurrent": 6},
        "providers": {"local": provider, "ollama": {"kind": "ollama", "url": standin.url}},
    }
    with ValetProcess(home, settings) as process:
        yield process
    assert engine_pids(home) == [], "no runner outlives the valet"


@pytest.fixture(autouse=True)
def nothing_in_flight(valet: ValetProcess, standin: OllamaStandin) -> None:
    standin.reset()
    until(lambda: valet.get("/status")["in_flight"] == 0, "nothing is in flight")


def ask_at_once(valet: ValetProcess, model: str, times: int, **fields: Any) -> list[httpx.Response]:
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(lambda _: valet.chat(model, **fields), range(times)))


def test_r1_a_model_that_cannot_load_holds_up_nobody(valet: ValetProcess) -> None:
    with ThreadPoolExecutor(12) as pool:
        broken = [pool.submit(valet.chat, "broken") for _ in range(8)]
        good = [pool.submit(valet.chat, "one", max_tokens=2) for _ in range(4)]
        assert [one.result(60).status_code for one in good] == [200] * 4
        for one in broken:
            assert one.result(60).status_code == 503
            assert one.result().json()["error"]["code"] == "load_failed"
    assert valet.chat("two", max_tokens=2).status_code == 200


def test_r2_r3_after_a_kill_no_orphan_answers_for_another_model(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    first = {"games": {"enabled": False}, "providers": {"local": local(home, tiny_model, {"old": []})}}
    with ValetProcess(home, first) as valet:
        assert valet.chat("old").status_code == 200
        orphan = pid_of(home, "old")
        valet.kill()
        # The same port goes to another model now.
        provider = local(home, tiny_model, {"new": []})
        provider["first_port"] = first["providers"]["local"]["first_port"]  # type: ignore[index]
        valet.write_settings({**first, "providers": {"local": provider}})
        valet.start()
        answer = valet.chat("new")
        assert answer.json()["choices"][0]["message"]["content"] == REPLY
        assert orphan not in engine_pids(home)
        assert engine_pids(home) == [pid_of(home, "new")]
        assert valet.chat("old").status_code == 404


def test_r4_an_eject_during_a_load_leaves_no_process(valet: ValetProcess) -> None:
    valet.post("/unload", {"model": "three"})
    ends: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: ends.append(valet.chat("three", max_tokens=2)))
    asking.start()
    until(lambda: pid_of(valet.home, "three") != 0, "its process is there")
    ejected = valet.router.post("/v1/models/eject", json={"model": "three"})
    assert ejected.status_code == 200, ejected.text
    asking.join(30)
    [answer] = ends
    assert answer.status_code in (200, 503), answer.text
    until(lambda: pid_of(valet.home, "three") == 0, "no process is left")
    assert "three" not in valet.loaded()


def test_r5_clients_that_ask_a_cold_model_at_once_start_one_process(valet: ValetProcess) -> None:
    valet.post("/unload", {"model": "one"})
    loads = metric(valet, "router_model_loads_total", model="one")
    answers = ask_at_once(valet, "one", 20, max_tokens=2)
    assert {answer.status_code for answer in answers} == {200}
    assert metric(valet, "router_model_loads_total", model="one") == loads + 1
    assert sum(f"{valet.home}/one.gguf" in command(pid) for pid in engine_pids(valet.home)) == 1


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # it has ended
        return ""


def test_r6_as_many_are_at_the_engine_as_it_has_places(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    endless = {"model": "one", "messages": ASK, "max_tokens": 1_000_000, "ignore_eos": True, "stream": True}
    with ThreadPoolExecutor(6) as pool:
        is_over = threading.Event()

        def read() -> None:
            with valet.router.stream("POST", "/v1/chat/completions", json=endless) as answer:
                for _ in answer.iter_lines():
                    if is_over.is_set():
                        return

        asking = [pool.submit(read) for _ in range(6)]
        try:
            until(lambda: busy_slots(valet, "one") == 4, "four are being answered")
            until(lambda: metric(valet, "router_queue_depth", model="one") == 2, "two wait in line")
            assert metric(valet, "router_active_requests", model="one") == 4
            stats = valet.router.get("/v1/queue/stats").json()["per_model"]["one"]
            assert (stats["queue_length"], stats["current_processing"]) == (2, 4)
        finally:
            is_over.set()
        for one in asking:
            one.result(60)


def test_r9_a_flood_of_high_does_not_starve_low(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {
        "games": {"enabled": False},
        "router": {"priority_ageing_seconds": 1},
        "providers": {"local": local(home, tiny_model, {"one": []})},
    }
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        is_over = threading.Event()

        def flood() -> int:
            count = 0
            while not is_over.is_set():
                answer = valet.router.post(
                    "/v1/chat/completions",
                    json={"model": "one", "messages": ASK, "max_tokens": 40, "ignore_eos": True},
                    headers={"X-Request-Priority": "high"},
                )
                count += answer.status_code == 200
            return count

        with ThreadPoolExecutor(9) as pool:
            flooding = [pool.submit(flood) for _ in range(8)]
            until(lambda: metric(valet, "router_queue_depth", model="one") >= 5, "the line is long")
            begun_s = time.monotonic()
            low = valet.router.post(
                "/v1/chat/completions",
                json={"model": "one", "messages": ASK, "max_tokens": 2},
                headers={"X-Request-Priority": "low"},
            )
            waited_s = time.monotonic() - begun_s
            is_over.set()
            assert low.status_code == 200
            # Without ageing it would wait for ever; the rest is what answers take on a busy machine.
            assert waited_s < 2 * 1 + 15, "twice the ageing"
            assert sum(one.result(60) for one in flooding) >= 8


@pytest.mark.slow
def test_r10_the_idle_time_out_ends_no_answer(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {
        "games": {"enabled": False},
        "models": {"idle_timeout_seconds": 1},
        "providers": {"local": local(home, tiny_model, {"one": ["--context-shift"]})},
    }
    with ValetProcess(home, settings) as valet:
        asked = {"model": "one", "messages": ASK, "max_tokens": 1_000_000, "ignore_eos": True, "stream": True}
        with valet.router.stream("POST", "/v1/chat/completions", json=asked) as answer:
            lines = answer.iter_lines()
            end_s = time.monotonic() + 3.5
            while time.monotonic() < end_s:
                assert '"error"' not in next(lines)
            assert set(valet.loaded()) == {"one"}
        until(lambda: valet.loaded() == {}, "it leaves when it has been idle")
        assert engine_pids(home) == []


def test_r11_a_ready_model_does_not_wait_for_anothers_load_or_eject(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    valet.post("/load", {"model": "one"})
    standin.set(load_s=9)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(valet.chat, "slow", max_tokens=2)
        until(lambda: standin.calls("/api/generate") != [], "the other one loads")
        slowest_s = 0.0
        while not loading.done():
            answer = valet.chat("one", max_tokens=1)
            assert answer.status_code == 200
            slowest_s = max(slowest_s, answer.elapsed.total_seconds())
        assert loading.result().status_code == 200
    assert slowest_s < 6, "a part of the 9 s that the other takes to load; a busy machine takes its time"


def test_r13_whatever_is_wrong_with_a_request_is_an_error_of_openais_form_and_never_500(
    valet: ValetProcess,
) -> None:
    wrong: list[bytes] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"model": null}',
        b'{"model": 5}',
        b'{"model": []}',
        b'{"model": "one"',
        b'{"model": "../etc/passwd"}',
        b'{"model": "one", "messages": [}',
        b"\xff\xfe",
        b'{"model": "' + b"x" * 400 + b'"}',
        b"[" * 100_000,
        b'{"model": "one", "a": ' + b"[" * 100_000 + b"}",
        b'{"model": "\\ud800"}',
        json.dumps({"model": "nobody", "messages": ASK}).encode(),
        json.dumps({"model": "one", "messages": "Hi"}).encode(),
        json.dumps({"model": "one"}).encode(),
    ]
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"):
        for body in wrong:
            answer = valet.router.post(path, content=body, headers={"content-type": "application/json"})
            shown = f"{path} {body[:60]!r}: {answer.status_code} {answer.text[:200]}"
            assert 400 <= answer.status_code < 500 or answer.status_code == 501, shown
            error = answer.json()["error"]
            assert {"message", "type", "param", "code"} <= set(error) or "message" in error, shown
            assert error["message"], shown
    assert valet.chat("one", max_tokens=2).status_code == 200
    for path in ("/v1/nothing", "/v2/models", "/v1/models/one/two/three/status"):
        assert valet.router.get(path).status_code == 404
        assert valet.router.get(path).json()["error"]["message"]
    wrong_way = valet.router.get("/v1/chat/completions")
    assert (wrong_way.status_code, wrong_way.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", OWN_PATHS)
def test_r12_every_own_path_answers_with_models_ready_failed_and_off(valet: ValetProcess, path: str) -> None:
    assert valet.chat("broken").status_code == 503
    answer = valet.router.get(path)
    assert answer.status_code == 200, answer.text
    if path != "/metrics":
        assert isinstance(answer.json(), dict)


def test_r15_names_of_no_model_grow_nothing(valet: ValetProcess) -> None:
    assert valet.chat("nobody-at-all").status_code == 404
    before = len(valet.router.get("/metrics").text.splitlines())
    for number in range(200):
        assert valet.chat(f"nobody-{number}").status_code == 404
    text = valet.router.get("/metrics").text
    assert len(text.splitlines()) == before, "one row of each family for all that are no model"
    for path in ("/v1/queue/stats", "/v1/telemetry/summary", "/metrics", "/v1/models/status"):
        assert "nobody-" not in valet.router.get(path).text


@pytest.mark.parametrize("path", ["/v1/models/status/stream", "/metrics/stream"])
def test_r16_a_valet_with_open_streams_ends_within_5_s(tmp_path: Path, tiny_model: Path, path: str) -> None:
    home = tmp_path / "home"
    settings = {
        "games": {"enabled": False},
        "providers": {"local": local(home, tiny_model, {"one": ["--context-shift"]})},
    }
    endless = {"model": "one", "messages": ASK, "max_tokens": 1_000_000, "ignore_eos": True, "stream": True}
    with ValetProcess(home, settings) as valet:
        url = router_url(valet)
        with (
            httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
            client.stream("GET", path) as watching,
            client.stream("POST", "/v1/chat/completions", json=endless) as answer,
        ):
            next(watching.iter_lines())
            lines = answer.iter_lines()
            next(lines)
            begun_s = time.monotonic()
            assert valet.end(signal.SIGTERM) == 0  # the streams themselves would go on for ever
            assert time.monotonic() - begun_s < 5 + 5, "what a busy machine takes on top"
            *_, last = (line for line in lines if line)
            error = json.loads(last.removeprefix("data: "))["error"]
            assert error["code"] == "paused"
            assert "shutting down" in error["message"]
    assert engine_pids(home) == []


def test_r17_a_preload_holds_up_neither_the_port_nor_other_models(
    tmp_path: Path, tiny_model: Path, standin: OllamaStandin
) -> None:
    standin.set(load_s=60)  # longer than the rest takes on the slowest machine
    home = tmp_path / "home"
    settings = {
        "games": {"enabled": False},
        "models": {"preload": ["slow", "broken"]},
        "providers": {
            "ollama": {"kind": "ollama", "url": standin.url},
            "local": local(home, tiny_model, {"one": []}),
        },
    }
    (home / "broken.gguf").write_bytes(b"GGUF")
    settings["providers"]["local"]["models"]["broken"] = {"model_path": str(home / "broken.gguf")}  # type: ignore[index]
    with ValetProcess(home, settings) as valet:
        until(lambda: standin.calls("/api/generate") != [], "the preload has begun")
        assert valet.chat("one", max_tokens=2).status_code == 200
        assert valet.router.get("/health").status_code == 200
        assert standin.loaded() == {}, "and the preload goes on meanwhile"
        assert valet.get("/status")["metrics"]["gpu"]["available"] in (True, False)


def test_r20_no_answer_is_kept_for_the_next_one(valet: ValetProcess) -> None:
    asked = {"model": "two", "messages": ASK, "max_tokens": 8, "temperature": 0, "seed": 1}
    ids = {valet.router.post("/v1/chat/completions", json=asked).json()["id"] for _ in range(3)}
    assert len(ids) == 3, "the engine was asked each time"
    for _ in range(2):
        refused = valet.router.post("/v1/chat/completions", json={**asked, "messages": 5})
        assert 400 <= refused.status_code < 500
    answered = valet.router.post("/v1/chat/completions", json=asked)
    assert answered.status_code == 200
    assert "age" not in answered.headers
