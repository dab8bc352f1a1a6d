"""A whole valet as its users have it: a real `tray-valet serve` process with a home of its own."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

PATIENCE_S = 45.0  # only a failure takes so long
HADES = "steamapps/common/Hades/Hades"


_PORTS = itertools.count(0, 20)


def free_first_port() -> int:
    """The first of 20 ports for a provider's runners, that no other test of this run is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 20_000 + worker * 4_000 + next(_PORTS) % 4_000


class ValetProcess:
    """`with ValetProcess(home, {...settings}) as valet:`; the home stays over `kill` and `start`."""

    def __init__(
        self,
        home: Path,
        settings: dict[str, Any],
        *,
        command: Sequence[str] = ("serve",),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self._command = tuple(command)
        self._environ = dict(environ or {})
        home.mkdir(parents=True, exist_ok=True)
        self.write_settings(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._games: list[subprocess.Popen[bytes]] = []
        self.control = httpx.Client()
        self.router = httpx.Client()

    def write_settings(self, settings: dict[str, Any]) -> None:
        """JSON is YAML."""
        quick = {
            "control": {"port": 0},
            "router": {"port": 0},
            "games": {"grace_seconds": 0.3, "end_debounce_seconds": 0.3},
            "thresholds": {
                "check_interval_seconds": 1,
                "pause_timeout_seconds": 1,
                # Other tests keep the CPU busy, perhaps for minutes; that is no reason to pause here.
                "cpu_sustained_seconds": 3600,
            },
        }
        merged = {
            key: {**quick.get(key, {}), **settings.get(key, {})} if key in quick else settings[key]
            for key in {**quick, **settings}
        }
        # Other tests play too, at the same time: their games are none here.
        not_ours = {"argv_regex": f"^(?!.*{re.escape(str(self.home))})", "verdict": "not"}
        merged["games"]["rules"] = [*merged["games"].get("rules", []), not_ours]
        (self.home / "config.yaml").write_text(json.dumps(merged, indent=1))
        (self.home / "config.yaml").chmod(0o600)

    def __enter__(self) -> ValetProcess:
        if self._process is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for game in self._games:
            game.kill()
            game.wait()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
        self.control.close()
        self.router.close()
        if kind is not None:
            print((self.home / "logs" / "tray-valet.log").read_text()[-8000:])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What it runs with, and what commands to it need."""
        home = {"TRAY_VALET_HOME": str(self.home), "TRAY_VALET_ALLOW_ROOT": "1"}
        return {**clean_environment(), **home, **self._environ}

    def start(self) -> None:
        """Start it and return when its API answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tray_valet", *self._command],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=(self.home / "stderr").open("wb"),
        )
        process, said = self._process, self.home / "stderr"
        until(
            lambda: self.places.get("pid") == process.pid or process.poll() is not None,
            "the API answers",
            said.read_text,
        )
        assert process.poll() is None, said.read_text()
        places = self.places
        self.control.close()
        self.router.close()
        self.control = httpx.Client(base_url=places["control"]["url"], timeout=60, trust_env=False)
        self.router = httpx.Client(base_url=places["router"]["url"], timeout=300, trust_env=False)

    @property
    def places(self) -> dict[str, Any]:
        """The runtime file; a killed valet leaves its own behind."""
        try:
            places: dict[str, Any] = json.loads((self.home / "state" / "runtime.json").read_text())
        except FileNotFoundError:
            return {}
        return places

    def kill(self) -> None:
        """SIGKILL, as the OOM killer does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        return self.end(signal.SIGTERM)

    def end(self, number: signal.Signals, *, within_s: float = 30) -> int:
        """Send a signal; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(within_s)

    def wait(self, within_s: float = 30) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        return self._process.wait(within_s)

    # -- asking ----------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        answer = self.control.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any] | None = None, status: int | None = 200) -> Any:
        answer = self.control.post(path, json=body) if body is not None else self.control.post(path)
        assert status is None or answer.status_code == status, f"{answer.status_code} {answer.text}"
        return answer.json()

    @property
    def state(self) -> str:
        return str(self.get("/watchdog")["state"])

    def loaded(self) -> dict[str, dict[str, Any]]:
        """What is in memory, by name."""
        return {m["name"]: m for m in self.get("/status")["models"]}

    def chat(self, model: str, **fields: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], **fields}
        return self.router.post("/v1/chat/completions", json=body)

    def wait_state(self, *states: str) -> str:
        until(
            lambda: self.state in states,
            f"the state is {' or '.join(states)}",
            lambda: json.dumps(self.get("/status"), indent=1),
        )
        return self.state

    def activity(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.get("/activity")["activity"] if e["kind"] == kind]

    # -- games -----------------------------------------------------------------------------------------

    def play(self, place: str = HADES, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a real process from a store's folder (a copy of `sleep`)."""
        program = self.home / "library" / place
        program.parent.mkdir(parents=True, exist_ok=True)
        if not program.exists():
            shutil.copy("/bin/sleep", program)
        game = subprocess.Popen([str(program), *(arguments or ("600",))])
        self._games.append(game)
        return game

    def stop(self, game: subprocess.Popen[bytes]) -> None:
        game.kill()
        game.wait()


def clean_environment() -> dict[str, str]:
    """Ours without what would change the settings."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TRAY_VALET_", "LLM_VALET_"))
        and key not in ("API_KEY", "CONFIG_PATH", "LLAMA_SERVER_PATH", "BASE_MODELS_PATH")
    }


def until(
    is_so: Callable[[], bool], what: str, explain: Callable[[], str] = str, patience_s: float = PATIENCE_S
) -> None:
    """Wait for something to become true, looking often."""
    end_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < end_s, f"not seen in {patience_s:.0f} s: {what}\n{explain()}"
        time.sleep(0.02)


def engine_pids(home: Path) -> list[int]:
    """Engine processes that serve a model of this home, whoever their parent is."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            is_zombie = b") Z " in (entry / "stat").read_bytes()
        except OSError:
            continue
        if str(home).encode() in command and b"--port" in command and not is_zombie:
            found.append(int(entry.name))
    return found


def send(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)
