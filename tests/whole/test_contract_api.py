"""The control API sentence by sentence, asked of one real valet as any program would ask it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")

_READS = ("/status", "/watchdog", "/metrics", "/models", "/config", "/providers")
_MORE_READS = ("/", "/holds", "/games", "/explain", "/activity", "/activity?limit=1")
_JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path_factory.mktemp("contract") / "home"
    local = local_provider(home, tiny_model, "one", "two")
    local["models"]["hf.co/user/model:Q4_K_M"] = local["models"]["two"]
    # Other tests play games on this machine.
    settings = {"games": {"enabled": False}, "providers": {"local": {**local, "first_port": 28300}}}
    with ValetProcess(home, settings) as process:
        yield process


@pytest.fixture(autouse=True)
def _clean(valet: ValetProcess) -> Iterator[None]:
    """No hold of one test is another's; /resume cools down, so holds end by their ids."""
    yield
    for hold in valet.get("/holds")["holds"]:
        valet.control.delete(f"/holds/{hold['id']}")
    valet.wait_state("running")


def _error(answer: Any) -> dict[str, Any]:
    shape = answer.json()
    assert set(shape) == {"error"}
    assert {"message", "type", "param", "code"} <= set(shape["error"])
    error: dict[str, Any] = shape["error"]
    return error


def test_the_seeds_fields_have_their_types(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one", "num_ctx": 1024})
    status, watchdog, metrics, models = (
        valet.get(path) for path in ("/status", "/watchdog", "/metrics", "/models")
    )
    provider = status["provider"]
    assert (provider["running"], provider["model_loaded"], provider["model_name"]) == (True, True, "one")
    assert provider["loaded_context_length"] == 1024
    assert type(provider["memory_used_mb"]) is type(provider["size_vram_mb"]) is int
    assert provider["endpoint"].startswith("http://127.0.0.1:")
    assert provider["overcommit"] is False
    assert status["security"].items() >= {"lan_exposed": False, "auth_enabled": False}.items()
    assert status["watchdog"].items() >= {"state": "running"}.items()
    assert isinstance(status["version"], str)
    assert isinstance(watchdog["last_reason"], str)
    for sample in (metrics, status["metrics"]):
        assert type(sample["memory"]["total_mb"]) is type(sample["memory"]["used_mb"]) is int
        assert sample["memory"]["pressure"] in ("normal", "warn", "critical")
        assert type(sample["cpu"]["used_pct"]) is float
        assert sample["cpu"]["core_count"] == os.cpu_count()
        assert type(sample["gpu"]["available"]) is bool
        assert set(sample["gpu"]) >= {"vram_total_mb", "vram_used_mb", "vram_used_pct", "compute_pct"}
        assert set(sample["disk"]) >= {"path", "total_mb", "used_mb", "free_mb", "used_pct"}
        assert type(sample["timestamp"]) is float
    assert {m["name"] for m in models["models"]} == {"one", "two", "hf.co/user/model:Q4_K_M"}
    assert all(type(m["size_mb"]) is int and m["provider"] == "local" for m in models["models"])


def test_no_get_changes_anything(valet: ValetProcess) -> None:
    file = (valet.home / "config.yaml").read_bytes()
    before = [valet.get(path) for path in ("/holds", "/config", "/activity")]
    for path in (*_READS, *_MORE_READS):
        for query in ("", "?model=one&override=true&ram_pause_pct=1"):
            assert valet.control.get(path if "?" in path else path + query).status_code == 200, path
        assert valet.control.head(path).content == b""
    for path in ("/pause", "/resume", "/load?model=two", "/unload", "/pause/force", "/quit", "/holds/hold-1"):
        answer = valet.control.get(path)
        assert answer.status_code == 405, path
        assert answer.headers["allow"]
        assert _error(answer)["code"] == "method_not_allowed"
    assert [valet.get(path) for path in ("/holds", "/config", "/activity")] == before
    assert (valet.home / "config.yaml").read_bytes() == file


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "model"),
        ({"model": ""}, 400, "model"),
        ({"model": 5}, 400, "model"),
        ({"model": "../etc/passwd"}, 400, "model"),
        ({"model": "a" * 301}, 400, "model"),
        ({"model": "a b"}, 400, "model"),
        ({"model": "one\n"}, 400, "model"),
        ({"model": "one", "num_ctx": 511}, 400, "num_ctx"),
        ({"model": "one", "num_ctx": -1}, 400, "num_ctx"),
        ({"model": "one", "num_ctx": "1024"}, 400, "num_ctx"),
        ({"model": "one", "num_ctx": 1024.5}, 400, "num_ctx"),
        ({"model": "one", "num_ctx": True}, 400, "num_ctx"),
        ({"model": "one", "num_ctx": 10**30}, 400, "num_ctx"),
        ({"model": "one", "override": "yes"}, 400, "override"),
        ({"model": "one", "context": 1024}, 400, "context"),
        ({"model": "ghost"}, 404, "model"),
        ({"model": "other/one"}, 404, "model"),
        ({"model": "one:latest"}, 404, "model"),
    ],
)
def test_a_load_that_cannot_be_is_refused(
    valet: ValetProcess, body: dict[str, Any], status: int, param: str
) -> None:
    answer = valet.control.post("/load", json=body)
    assert (answer.status_code, _error(answer)["param"]) == (status, param), answer.text


def test_models_load_under_every_name_that_they_have(valet: ValetProcess) -> None:
    for name, real in (("one", "one"), ("local/one", "one"), ("hf.co/user/model:Q4_K_M",) * 2):
        answer = valet.post("/load", {"model": name, "num_ctx": 512})
        assert (answer["provider"], answer["model"], answer["context_length"]) == ("local", real, 512)
    assert valet.control.post("/load?provider=local", json={"model": "one"}).status_code == 200
    assert valet.post("/unload", {"model": "local/one"})["unloaded"] == [
        {"provider": "local", "model": "one"}
    ]
    assert valet.post("/unload", {"model": "one"})["unloaded"] == []
    valet.post("/unload")
    assert valet.loaded() == {}


def test_a_provider_that_is_not_there_is_404_everywhere(valet: ValetProcess) -> None:
    for path, body in (("/load", {"model": "one"}), ("/unload", {"model": "one"}), ("/unload", {})):
        answer = valet.control.post(f"{path}?provider=ghost", json=body)
        assert answer.status_code == 404
        error = _error(answer)
        assert (error["param"], error["code"]) == ("provider", "not_found")
        assert "local" in error["message"], "the remedy names those that there are"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"owner": " "},
        {"owner": 5},
        {"owner": "a\nb"},
        {"owner": "x", "ttl_seconds": 0},
        {"owner": "x", "ttl_seconds": -1},
        {"owner": "x", "ttl_seconds": "60"},
        {"owner": "x", "pid": 0},
        {"owner": "x", "pid": "1"},
        {"owner": "x", "pid": 2**40},
        {"owner": "x", "pid": 2**22 + 7},
        {"owner": "x", "ttl": 60},
    ],
)
def test_a_hold_that_cannot_be_is_refused_and_not_placed(valet: ValetProcess, body: dict[str, Any]) -> None:
    answer = valet.control.post("/holds", json=body)
    assert answer.status_code == 400
    assert _error(answer)["type"] == "invalid_request_error"
    assert valet.get("/holds")["holds"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"ram_pause_pct": 0},
        {"ram_pause_pct": 100.1},
        {"ram_pause_pct": "80"},
        {"ram_pause_pct": True},
        {"ram_pause_pct": None},
        {"ram_pause_pct": [80]},
        {"ram_pause_pct": 10**400},
        {"ram_resume_pct": 85},
        {"cpu_pause_pct": 80},
        {"gpu_vram_resume_pct": 85},
        {"cpu_sustained_seconds": "abc"},
        {"check_interval_seconds": 0},
        {"check_interval_seconds": 0.9},
        {"auto_resume_on_ram_pressure": "yes"},
        {"auto_resume_on_ram_pressure": 1},
        {"ram_pause": 80},
        {"thresholds": {"ram_pause_pct": 80}},
        {"ram_pause_pct": 80, "cpu_pause_pct": 101},
    ],
)
def test_a_threshold_that_is_wrong_is_named_and_nothing_is_stored(
    valet: ValetProcess, body: dict[str, Any]
) -> None:
    file, before = (valet.home / "config.yaml").read_bytes(), valet.get("/config")
    answer = valet.control.put("/config", json=body)
    assert answer.status_code == 400
    error = _error(answer)
    assert error["param"].startswith("thresholds.")
    assert error["param"] in error["message"]
    assert (valet.home / "config.yaml").read_bytes() == file
    assert valet.get("/config") == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"ram_pause_pct": NaN}', 400),
        (b'{"ram_pause_pct": -Infinity}', 400),
        (b'{"ram_pause_pct": 1e999}', 400),
        (b'{"ram_pause_pct": 80, "ram_pause_pct": 81}', 400),
        (b"{bad", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b"{}" + b" " * 65_536, 413),
    ],
)
def test_bodies_that_are_no_json_object_are_refused(valet: ValetProcess, body: bytes, status: int) -> None:
    answer = valet.control.put("/config", content=body, headers=_JSON)
    assert answer.status_code == status
    _error(answer)


def _raw(valet: ValetProcess, method: str, path: str, headers: dict[str, str], body: Any = None) -> int:
    url = valet.control.base_url
    connection = http.client.HTTPConnection(url.host, url.port, timeout=60)
    try:
        is_chunked = not isinstance(body, bytes) and body is not None
        connection.request(method, path, body=body, headers=headers, encode_chunked=is_chunked)
        answer = connection.getresponse()
        json.loads(answer.read())
        return answer.status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("headers", "size_bytes", "status"),
    [
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 70_000, 400),
        ({"Origin": "http://evil.example"}, 70_000, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 70_000, 403),
        ({"Sec-Fetch-Site": "same-site"}, 10, 403),
        ({"Origin": "null"}, 10, 403),
        ({"Origin": "http://localhost:3000"}, 10, 403),
        ({"Content-Type": "text/plain"}, 70_000, 413),
        ({"Content-Type": "text/plain"}, 10, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 10, 415),
        ({}, 10, 415),
        ({"Content-Type": "application/json"}, 10, 400),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_outermost_check_answers(
    valet: ValetProcess, headers: dict[str, str], size_bytes: int, status: int, is_chunked: bool
) -> None:
    whole = b"x" * size_bytes
    chunks = iter([whole[at : at + 8192] for at in range(0, size_bytes, 8192)])
    sent = {**headers, "Transfer-Encoding": "chunked"} if is_chunked else headers
    assert _raw(valet, "POST", "/pause", sent, chunks if is_chunked else whole) == status
    assert valet.state == "running"


def test_a_pause_given_again_takes_over_the_newer_end(valet: ValetProcess) -> None:
    """The first has no end; were it kept, the models would never come back."""
    valet.post("/pause/force", {"reason": "a film"})
    assert "until you resume." in valet.get("/watchdog")["line"]
    valet.post("/pause/force", {"reason": "a film", "for_seconds": 0.5})
    held = valet.get("/holds")["holds"]
    assert [h["reason"] for h in held] == ["manual pause — a film"]
    valet.wait_state("running")
    valet.post("/pause/force")
    worker = subprocess.Popen(["sleep", "600"])
    try:
        valet.post("/pause/force", {"pid": worker.pid, "for_seconds": 10_800})
        line = valet.get("/watchdog")["line"]
        assert line.replace("\u00a0", " ").endswith(f"or process {worker.pid} ends, 3 h at most.")
        refused = valet.chat("one")
        assert "when the user resumes, in 3" in _error(refused)["message"]
        assert int(refused.headers["retry-after"]) == 300
    finally:
        worker.kill()
        worker.wait()
    valet.wait_state("running")


def test_pause_and_resume_cool_down_and_say_when_they_can_be_given_again(valet: ValetProcess) -> None:
    until(lambda: valet.control.post("/resume").status_code == 200, "no earlier resume holds it up")
    for path in ("/pause", "/resume"):
        answers = [valet.control.post(path) for _ in range(2)]
        assert answers[-1].status_code == 429
        assert answers[-1].headers["retry-after"] in ("1", "2")
        assert _error(answers[-1])["code"] == "cooldown"
    assert [valet.control.post("/pause/force").status_code for _ in range(2)] == [200, 200]
    valet.control.delete("/holds/user")


def test_what_is_not_there_is_404_in_json(valet: ValetProcess) -> None:
    for method, path in (
        ("GET", "/nothing"),
        ("POST", "/status/"),
        ("GET", "/%2e%2e/etc/passwd"),
        ("DELETE", "/holds/ghost"),
        ("DELETE", "/holds/a%2Fb%20c"),
    ):
        answer = valet.control.request(method, path)
        assert answer.status_code == 404, path
        assert _error(answer)["type"] == "not_found_error"
