import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tray_valet.commands.client import Client, ControlPlace, RuntimeFile, find_valet, read_runtime_file
from tray_valet.commands.failures import (
    ApiError,
    CommandError,
    ExitCode,
    NoValet,
    exit_code_of,
    json_of,
    line_of,
)
from tray_valet.core.errors import SettingsError, SettingsProblem


def _write(path: Path, **changes: Any) -> Path:
    whole = {
        "pid": 77,
        "start_time": 5,
        "control": {"host": "127.0.0.1", "port": 1, "url": "http://127.0.0.1:1"},
        "router": {"host": "127.0.0.1", "port": 2, "url": "http://127.0.0.1:2"},
        "token": "t",
    }
    path.write_text(json.dumps({**whole, **changes}))
    return path


def test_the_runtime_file_names_the_valet(tmp_path: Path) -> None:
    found = find_valet(
        _write(tmp_path / "runtime.json"), lambda identity: (identity.pid, identity.start_time) == (77, 5)
    )
    assert (found.control.url, found.token) == ("http://127.0.0.1:1", "t")


def test_without_a_runtime_file_no_valet_runs(tmp_path: Path) -> None:
    with pytest.raises(NoValet) as caught:
        find_valet(tmp_path / "none.json", lambda _: True)
    assert exit_code_of(caught.value) is ExitCode.NO_VALET
    assert "tray-valet serve" in line_of(caught.value)


def test_a_killed_valets_file_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(NoValet):
        find_valet(_write(tmp_path / "runtime.json"), lambda _: False)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1}', "\xff\x00"])
def test_a_broken_runtime_file_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runtime.json"
    path.write_text(text, encoding="latin-1")
    assert read_runtime_file(path) is None


def test_requests_carry_the_token_and_the_query(control_api: Any, told: Any) -> None:
    control_api.answers["POST /load"] = told(200, {"ok": True})
    answer = control_api.client().post("/load", {"model": "a/b"}, provider="my box", other=None)
    assert answer == {"ok": True}
    asked = control_api.asked[0]
    assert asked.path == "/load?provider=my+box"
    assert asked.body == {"model": "a/b"}
    assert asked.headers["Authorization"] == "Bearer s3cret"
    assert asked.headers["Content-Type"] == "application/json"


def test_a_write_without_a_body_sends_none(control_api: Any, told: Any) -> None:
    control_api.answers["POST /resume"] = told(200, {})
    control_api.client().post("/resume")
    assert control_api.asked[0].body is None
    assert "Content-Type" not in control_api.asked[0].headers


def test_proxies_of_the_environment_are_not_used(
    control_api: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    control_api.answers["GET /status"] = told(200, {"a": 1})
    assert control_api.client().get("/status") == {"a": 1}


def test_an_error_of_the_api_keeps_its_words_and_its_object(control_api: Any, told: Any) -> None:
    error = {
        "message": "A game runs. Use --override.",
        "type": "conflict_error",
        "param": None,
        "code": "game_running",
    }
    control_api.answers["POST /load"] = told(409, {"error": error})
    with pytest.raises(ApiError) as caught:
        control_api.client().post("/load", {"model": "m"})
    assert line_of(caught.value) == "tray-valet: A game runs. Use --override."
    assert json_of(caught.value) == {"error": error}
    assert exit_code_of(caught.value) is ExitCode.FAILED


def _cooldown(seconds: Any) -> dict[str, Any]:
    return {"error": {"message": "Given a moment ago.", "code": "cooldown", "retry_after_seconds": seconds}}


def test_a_cooldown_is_waited_out_once(control_api: Any, told: Any) -> None:
    control_api.answers["POST /pause"] = told(429, _cooldown(2))
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        control_api.answers["POST /pause"] = told(200, {"ok": True})

    client = Client(control_api.runtime_file(), sleep=sleep)
    assert client.post("/pause", {"reason": "x"}) == {"ok": True}
    assert waited == [2.0]
    assert [asked.body for asked in control_api.asked] == [{"reason": "x"}] * 2


@pytest.mark.parametrize("seconds", [3600, -1, "2", None])
def test_no_other_time_is_waited_out(control_api: Any, told: Any, seconds: Any) -> None:
    control_api.answers["POST /pause"] = told(429, _cooldown(seconds))
    waited: list[float] = []
    with pytest.raises(ApiError):
        Client(control_api.runtime_file(), sleep=waited.append).post("/pause")
    assert waited == []


def test_a_cooldown_that_does_not_end_is_told(control_api: Any, told: Any) -> None:
    control_api.answers["POST /pause"] = told(429, _cooldown(1))
    waited: list[float] = []
    with pytest.raises(ApiError, match="a moment ago"):
        Client(control_api.runtime_file(), sleep=waited.append).post("/pause")
    assert waited == [1.0]


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'"text"', b"[" * 100_000, b"\xff"])
def test_an_error_that_is_not_ours_is_told_by_its_status(control_api: Any, told: Any, body: bytes) -> None:
    control_api.answers["GET /status"] = told(500, body)
    with pytest.raises(ApiError, match="500"):
        control_api.client().get("/status")


def test_an_answer_that_is_not_json_is_a_failure(control_api: Any, told: Any) -> None:
    control_api.answers["GET /status"] = told(200, b"hello")
    with pytest.raises(CommandError, match="not JSON"):
        control_api.client().get("/status")


def _client_of(port: int) -> Client:
    place = ControlPlace(url=f"http://127.0.0.1:{port}")
    return Client(RuntimeFile(pid=os.getpid(), start_time=1, control=place))


def test_a_valet_that_does_not_answer_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: refused
        with pytest.raises(CommandError, match="does not answer") as caught:
            _client_of(taken.getsockname()[1]).get("/status")
    assert exit_code_of(caught.value) is ExitCode.FAILED


def test_a_valet_that_hangs_is_waited_for_no_longer_than_allowed() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(CommandError, match="did not answer within"):
            _client_of(silent.getsockname()[1]).post("/pause", timeout_s=0.2)


@pytest.mark.parametrize(
    "sent", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a": ', b"SSH-2.0-OpenSSH\r\n"]
)
def test_an_answer_that_breaks_off_or_is_no_http_is_told(sent: bytes) -> None:
    def answer_once(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(sent)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=answer_once, args=(listener,))
        thread.start()
        with pytest.raises(CommandError):
            _client_of(listener.getsockname()[1]).get("/status")
        thread.join(5)


def test_problems_of_the_settings_are_listed_in_json() -> None:
    problem = SettingsProblem(path="thresholds.ram_pause_pct", message="Use 1 to 100.", line=14)
    shown = json_of(SettingsError((problem,)))
    assert shown["error"]["code"] == "settings_invalid"
    assert shown["error"]["problems"] == [
        {"path": "thresholds.ram_pause_pct", "line": 14, "message": "Use 1 to 100."}
    ]
