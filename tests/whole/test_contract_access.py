"""Who may call a real valet: other machines, other users of this one, and what is told of the keys."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.whole.valet_process import clean_environment, until

_KEY = "a-key-that-nobody-may-see"


class Served(NamedTuple):
    home: Path
    places: dict[str, Any]
    said: Path  # what went to stderr

    @property
    def port(self) -> int:
        return int(self.places["control"]["port"])

    def get(self, path: str, at: str = "127.0.0.1", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(f"http://{at}:{self.port}{path}", headers=named, timeout=60, trust_env=False)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tray_valet", *words]
        environment = {**clean_environment(), "TRAY_VALET_HOME": str(self.home)}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)

    def everything_written(self) -> str:
        files = [path for path in self.home.rglob("*") if path.is_file() and path.name != "runtime.json"]
        return "".join(path.read_text(errors="replace") for path in files)


@contextmanager
def served(home: Path, settings: str, **environment: str) -> Iterator[Served]:
    """`tray-valet serve` with that settings file."""
    home.mkdir()
    (home / "config.yaml").write_text(settings)
    (home / "config.yaml").chmod(0o600)
    said, runtime = home / "stderr", home / "state" / "runtime.json"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tray_valet", "serve", "--allow-root"],
            env={**clean_environment(), "TRAY_VALET_HOME": str(home), **environment},
            stderr=stderr,
        )
    try:
        until(lambda: runtime.exists() or process.poll() is not None, "it serves", said.read_text)
        assert process.poll() is None, said.read_text()
        yield Served(home, json.loads(runtime.read_text()), said)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _ports(**sections: str) -> str:
    control = "{" + ", ".join(["port: 0", *sections.values()]) + "}"
    return f"control: {control}\nrouter: {{port: 0}}\nproviders: {{}}\ngames: {{enabled: false}}\n"


def _own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address than loopback")
        return str(probe.getsockname()[0])


def test_from_elsewhere_the_key_is_needed_and_shown_nowhere(tmp_path: Path) -> None:
    address = _own_address()
    environment = {"LLM_VALET_HOST": "0.0.0.0", "LLM_VALET_API_KEY": _KEY}
    with served(tmp_path / "home", _ports(), **environment) as valet:
        assert valet.get("/watchdog", address).status_code == 401
        assert valet.get("/watchdog", address, x_api_key="wrong").status_code == 401
        assert valet.get("/watchdog", address, x_api_key=_KEY).status_code == 200
        assert valet.get("/watchdog", address, x_api_key=_KEY, host="evil.example").status_code == 400
        assert (
            valet.get("/watchdog", address, x_api_key=_KEY, origin="http://evil.example").status_code == 403
        )
        assert valet.get("/watchdog", address, x_forwarded_for="127.0.0.1").status_code == 401
        status = valet.get("/status")
        assert status.status_code == 200, "this machine needs none"
        assert status.json()["security"].items() >= {"lan_exposed": True, "auth_enabled": True}.items()
        changed = httpx.put(
            f"http://127.0.0.1:{valet.port}/config", json={"ram_pause_pct": 90}, trust_env=False, timeout=60
        )
        assert changed.status_code == 200
        answers = "".join(
            valet.get(path).text
            for path in ("/", "/status", "/config", "/providers", "/explain", "/activity")
        )
        assert _KEY not in answers
        settings = (valet.home / "config.yaml").read_text()
        assert "ram_pause_pct: 90" in settings
        assert "0.0.0.0" not in settings, "the environment is never written to the file"
        assert _KEY not in valet.everything_written()


def test_without_a_key_nothing_listens_to_the_network_and_the_terminal_says_why(tmp_path: Path) -> None:
    environment = {"TRAY_VALET_CONTROL__HOST": "0.0.0.0"}
    with served(tmp_path / "home", _ports(), **environment) as valet:
        assert valet.places["control"]["host"] == "127.0.0.1"
        problem = valet.get("/status").json()["settings_problem"]
        assert "control.host" in problem
        assert "no key is set" in problem
        assert "TRAY_VALET_CONTROL__HOST" in valet.said.read_text()
        assert valet.get("/status").json()["security"]["lan_exposed"] is False


def test_a_key_that_the_keyring_does_not_have_lets_nobody_in(tmp_path: Path) -> None:
    address = _own_address()
    settings = _ports(host="host: 0.0.0.0", key="api_key: keyring:control")
    environment = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    with served(tmp_path / "home", settings, **environment) as valet:
        for headers in ({}, {"x_api_key": ""}, {"x_api_key": "keyring:control"}):
            answer = valet.get("/watchdog", address, **headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "no_api_key_configured")
        assert valet.get("/watchdog").status_code == 200


def test_with_tokens_commands_work_and_other_users_programs_do_not(tmp_path: Path) -> None:
    with served(tmp_path / "home", _ports(access="local_access: token")) as valet:
        token = valet.places["token"]
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {token}"}):
            answer = valet.get("/watchdog", **headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert valet.get("/watchdog", authorization=f"Bearer {token}").status_code == 200
        assert (valet.home / "state" / "runtime.json").stat().st_mode & 0o777 == 0o600
        status = valet.command("status", "--json")
        assert status.returncode == 0, status.stderr
        assert json.loads(status.stdout)["security"]["auth_enabled"] is True
        held = valet.command("run", "--", sys.executable, "-c", "raise SystemExit(9)")
        assert (held.returncode, held.stderr) == (9, "")
        assert token not in status.stdout
        assert token not in valet.everything_written()


def test_a_file_that_is_wrong_is_told_on_the_terminal_with_path_and_line(tmp_path: Path) -> None:
    environment = {"TRAY_VALET_CONTROL__PORT": "0", "TRAY_VALET_ROUTER__PORT": "0"}
    settings = "# mine\nthresholds:\n  ram_pause_pct: eighty\nproviders: {}\n"
    with served(tmp_path / "home", settings, **environment) as valet:
        assert "Line 3, thresholds.ram_pause_pct" in valet.said.read_text()
        assert valet.get("/config").json()["ram_pause_pct"] == 85.0
        assert (valet.home / "config.yaml").read_text() == settings
        checked = valet.command("config", "check", "--json")
        assert checked.returncode == 1
        assert json.loads(checked.stdout)["problems"][0]["line"] == 3


def test_a_reader_of_events_gets_the_snapshot_first_and_then_every_fact(tmp_path: Path) -> None:
    with served(tmp_path / "home", _ports()) as valet:
        url = f"http://127.0.0.1:{valet.port}"
        with httpx.stream("GET", f"{url}/events", timeout=60, trust_env=False) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = (line for line in stream.iter_lines() if line.startswith(("event:", "data:")))
            assert next(lines) == "event: snapshot"
            assert json.loads(next(lines).removeprefix("data: "))["watchdog"]["state"] == "running"
            httpx.post(f"{url}/pause", timeout=60, trust_env=False)
            kinds: list[str] = []
            end_s = time.monotonic() + 45
            while "state_changed" not in kinds[1:] and time.monotonic() < end_s:
                kinds.append(next(lines).removeprefix("event: "))
                fact = json.loads(next(lines).removeprefix("data: "))
                assert fact["kind"] == kinds[-1]
            assert kinds[0] == "hold_placed"
