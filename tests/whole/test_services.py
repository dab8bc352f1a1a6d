"""A provider's server is started, stopped and restarted through a whole valet: real processes and signals.

The `ollama` on PATH is a script around the stand-in; `systemctl` is a script that notes what it is asked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import quiet_port
from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, engine_pids, send, until
from tray_valet.core.ports import ProcessTable

STANDIN = Path(__file__).parents[1] / "standins" / "ollama.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")

_OLLAMA = """#!{python}
import os, signal, sys
if sys.argv[1:] != ["serve"]:
    sys.exit("unknown command")
{before}
host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
sys.path.insert(0, {folder!r})
import runpy
sys.argv = ["ollama.py", "--port", port, "--model", "big:latest=20"]
runpy.run_path({standin!r}, run_name="__main__")
"""


class Machine:
    """A folder of programs that stands first on the valet's PATH, and a port for the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.port = quiet_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.pids: set[int] = set()
        self.add("systemctl", f'#!/bin/sh\necho "$@" >> {folder}/asked\nexit 4\n')

    def add(self, name: str, text: str) -> Path:
        program = self.folder / name
        program.write_text(text)
        program.chmod(0o755)
        return program

    def install(self, before: str = "") -> Path:
        """Put an `ollama` there. `before` runs first in its process."""
        text = _OLLAMA.format(
            python=sys.executable, before=before, folder=str(STANDIN.parent), standin=str(STANDIN)
        )
        return self.add("ollama", text)

    def asked(self) -> list[str]:
        """What systemctl was asked to do (not only to tell)."""
        file = self.folder / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if " cat " not in f" {line} " and "is-enabled" not in line]

    def listener(self, table: ProcessTable) -> int | None:
        found = table.listening_on(self.port)
        if found is not None:
            self.pids.add(found.pid)
        return found.pid if found else None

    def settings(self) -> dict[str, Any]:
        return {"providers": {"ollama": {"kind": "ollama", "url": self.url}}}

    def environ(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}

    def load(self, model: str = "big:latest") -> None:
        body = {"model": model, "stream": False, "keep_alive": -1}
        httpx.post(f"{self.url}/api/generate", json=body, timeout=30, trust_env=False).raise_for_status()

    def runners(self) -> dict[str, int]:
        state = httpx.get(f"{self.url}/_standin", timeout=60, trust_env=False).json()
        return dict(state["runners"])


@pytest.fixture
def machine(tmp_path: Path, process_table: ProcessTable) -> Iterator[Machine]:
    machine = Machine(tmp_path / "programs")
    yield machine
    machine.listener(process_table)
    for pid in machine.pids:
        process = process_table.describe(pid)
        if process is not None and str(machine.folder) in " ".join(process.argv):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def valet(tmp_path: Path, machine: Machine) -> Iterator[ValetProcess]:
    with ValetProcess(tmp_path / "home", machine.settings(), environ=machine.environ()) as valet:
        yield valet


def state_of(valet: ValetProcess) -> str:
    return str(valet.get("/providers")["providers"][0]["state"])


def command(valet: ValetProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tray_valet", *words],
        env=valet.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def wait_for(valet: ValetProcess, kind: str, times: int = 1) -> dict[str, Any]:
    until(
        lambda: len(valet.activity(kind)) >= times,
        kind,
        lambda: json.dumps(valet.get("/activity"), indent=1),
        patience_s=40,
    )
    return valet.activity(kind)[0]


def test_a_server_is_started_detached_stopped_and_started_again(
    machine: Machine, valet: ValetProcess, process_table: ProcessTable
) -> None:
    machine.install()
    answer = valet.post("/start")
    assert {"ok": True, "action": "start", "provider": "ollama"}.items() <= answer.items()
    wait_for(valet, "service_started")
    assert state_of(valet) == "ready"
    first = machine.listener(process_table)
    assert first is not None
    assert os.getsid(first) == first  # it is in no session of ours, and goes on without us
    assert (valet.home / "logs" / "ollama-serve.log").read_text().startswith("listening on")

    machine.load()
    runners = list(machine.runners().values())
    assert runners
    valet.post("/stop")
    stopped = wait_for(valet, "service_stopped")
    assert "did not end" not in stopped["text"]
    assert machine.listener(process_table) is None
    assert all(process_table.describe(pid) is None for pid in runners)
    provider = valet.get("/providers")["providers"][0]
    assert provider["state"] == "unreachable"
    assert [c["reason"] for c in provider["conditions"]] == [
        "Stopped by you. Start it with: tray-valet service start ollama"
    ]
    until(lambda: valet.get("/watchdog")["last_reason"] == "provider ollama stopped by you", "the reason")
    assert [e for e in valet.activity("provider_lost") if e["id"] > stopped["id"]] == []

    while "a moment ago" in (done := command(valet, "service", "start")).stderr:
        continue
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ollama started in ")
    assert machine.listener(process_table) not in (None, first)
    assert state_of(valet) == "ready"
    assert valet.activity("provider_back") == []
    assert valet.get("/status")["models"] == []  # what the user stopped does not come back by itself


def test_a_started_server_outlives_the_valet(
    machine: Machine, valet: ValetProcess, process_table: ProcessTable
) -> None:
    machine.install()
    valet.post("/start")
    wait_for(valet, "service_started")
    pid = machine.listener(process_table)
    valet.terminate()
    assert machine.listener(process_table) == pid
    valet.start()  # it knows it again, by what it is
    valet.post("/stop")
    wait_for(valet, "service_stopped")
    assert machine.listener(process_table) is None


@pytest.mark.slow
def test_v16_a_server_that_ignores_the_request_is_killed_after_ten_seconds(
    machine: Machine, valet: ValetProcess, process_table: ProcessTable
) -> None:
    machine.install(
        before="import asyncio; asyncio.AbstractEventLoop.add_signal_handler = lambda *_: None\n"
        "import asyncio.unix_events as u; u._UnixSelectorEventLoop.add_signal_handler = lambda *_: None\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    )
    valet.post("/start")
    wait_for(valet, "service_started")
    machine.load()
    runners = list(machine.runners().values())
    began_s = time.monotonic()
    valet.post("/stop")
    stopped = wait_for(valet, "service_stopped")
    took_s = time.monotonic() - began_s
    assert 9 < took_s < 20
    assert "its process was ended" in stopped["text"]
    assert machine.listener(process_table) is None
    assert all(process_table.describe(pid) is None for pid in runners)


@pytest.mark.slow
def test_a_frozen_server_is_restarted(
    machine: Machine, valet: ValetProcess, process_table: ProcessTable
) -> None:
    machine.install()
    valet.post("/start")
    wait_for(valet, "service_started")
    frozen = machine.listener(process_table)
    assert frozen is not None
    send(frozen, signal.SIGSTOP)
    valet.post("/restart")
    restarted = wait_for(valet, "service_started", times=2)
    assert restarted["text"].startswith("ollama restarted in ")
    assert machine.listener(process_table) not in (None, frozen)


def test_a_forced_stop_kills_the_runners_first(
    machine: Machine, valet: ValetProcess, process_table: ProcessTable
) -> None:
    machine.install()
    valet.post("/start")
    wait_for(valet, "service_started")
    machine.load()
    (runner,) = machine.runners().values()
    described = process_table.describe(runner)
    assert described is not None
    # Somebody else's, with the very same words.
    other = subprocess.Popen(
        list(described.argv), executable=described.exe, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        answer = valet.post("/stop/force")
        assert answer["action"] == "stop/force"
        wait_for(valet, "service_stopped")
        assert process_table.describe(runner) is None
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


def test_the_commands_cool_down_for_three_seconds_and_both_stops_share_one(
    machine: Machine, valet: ValetProcess
) -> None:
    assert valet.post("/stop")["done"] is True  # nothing runs: that is how it should be
    answer = valet.control.post("/stop/force")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 3


def test_without_an_ollama_the_start_is_refused_with_the_remedy(
    machine: Machine, valet: ValetProcess
) -> None:
    error = valet.post("/start", status=501)["error"]
    assert error["code"] == "not_supported"
    assert "ollama.com/download" in error["message"]
    done = command(valet, "service", "start", "ollama")
    assert done.returncode == 1
    assert "ollama.com/download" in done.stderr
    assert valet.post("/start?provider=nobody", status=404)["error"]["param"] == "provider"


def test_a_program_that_ends_at_once_is_told_with_its_last_words(
    machine: Machine, valet: ValetProcess
) -> None:
    machine.install(before="sys.exit('error: no space left')")
    done = command(valet, "service", "start")
    assert done.returncode == 1
    assert "ollama ended with 1: error: no space left" in done.stderr
    assert state_of(valet) != "ready"


def test_a_unit_of_the_user_is_commanded_through_systemctl(
    machine: Machine, valet: ValetProcess, process_table: ProcessTable
) -> None:
    program = machine.install()
    machine.add(
        "systemctl",
        "#!/bin/sh\n"
        f'echo "$@" >> {machine.folder}/asked\n'
        '[ "$1" = --user ] || exit 4\n'
        f"start() {{ OLLAMA_HOST=127.0.0.1:{machine.port} {program} serve >/dev/null 2>&1 & }}\n"
        'case "$2" in start|restart) start;; esac\n',
    )
    valet.post("/start")
    wait_for(valet, "service_started")
    first = machine.listener(process_table)
    valet.post("/restart")
    wait_for(valet, "service_started", times=2)
    assert machine.listener(process_table) not in (None, first)
    valet.post("/stop")
    wait_for(valet, "service_stopped")
    assert machine.listener(process_table) is None
    assert machine.asked() == [f"--user {word} ollama.service" for word in ("start", "restart", "stop")]


def test_a_system_unit_is_left_to_the_administrator(machine: Machine, valet: ValetProcess) -> None:
    machine.install()
    machine.add(
        "systemctl",
        f'#!/bin/sh\necho "$@" >> {machine.folder}/asked\n[ "$1" = --user ] && exit 1\necho enabled\n',
    )
    error = valet.post("/start", status=501)["error"]
    assert "sudo systemctl start ollama" in error["message"]
    assert machine.asked() == []


def test_what_answers_but_is_not_ollama_is_not_touched(
    machine: Machine, valet: ValetProcess, process_table: ProcessTable
) -> None:
    proxy = subprocess.Popen(
        [sys.executable, str(STANDIN), "--port", str(machine.port)], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: machine.listener(process_table) == proxy.pid, "the proxy listens")
        error = valet.post("/stop", status=501)["error"]
        assert "is not Ollama's own server" in error["message"]
        assert str(proxy.pid) in error["message"]
        assert proxy.poll() is None
    finally:
        proxy.kill()
        proxy.wait()


def test_runners_of_ours_are_unloaded_by_a_stop_and_loaded_anew_by_a_restart(
    tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "home"
    local = local_provider(home, tiny_model, "one", "two")
    with ValetProcess(home, {"providers": {"local": local}}) as valet:
        assert "nothing to start" in valet.post("/start")["message"]
        valet.post("/load", {"model": "one", "num_ctx": 1024})
        before = engine_pids(home)
        valet.post("/restart")
        wait_for(valet, "service_started")
        after = engine_pids(home)
        assert len(after) == 1
        assert not set(after) & set(before)
        assert valet.loaded()["one"]["context_length"] == 1024
        done = command(valet, "service", "stop", "local")
        assert (done.returncode, done.stderr) == (0, "")
        assert engine_pids(home) == []
        assert state_of(valet) == "ready"
        valet.post("/load", {"model": "two"})  # they start when they are asked for
