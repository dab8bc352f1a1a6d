"""The commands against a real valet with a real engine, each as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tray_valet.engine.tiny_model import write_tiny_model

pytest.importorskip("xllamacpp")

Done = subprocess.CompletedProcess[str]


class Valet:
    """A `serve` in a folder of its own, and commands in the same one."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        write_tiny_model(folder / "tiny.gguf")
        flags = ["--ctx-size", "1024", "--parallel", "1"]
        models = {name: {"model_path": str(folder / "tiny.gguf"), "flags": flags} for name in ("one", "two")}
        settings = {
            "control": {"port": 0},
            "router": {"port": 0},
            "games": {"enabled": False},  # other tests play games on this machine
            "thresholds": {"ram_pause_pct": 100.0, "cpu_pause_pct": 100.0, "cpu_sustained_seconds": 3600},
            "providers": {"local": {"kind": "llama-server", "models": models, "first_port": 28100}},
        }
        config = self.home / "config.yaml"
        config.write_text(json.dumps(settings))
        config.chmod(0o600)
        self.environ = {**os.environ, "TRAY_VALET_HOME": str(self.home)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [sys.executable, "-m", "tray_valet", "serve", "--allow-root"]
        self.process = subprocess.Popen(argv, env=self.environ, stderr=subprocess.PIPE)
        end_s = time.monotonic() + 60
        while self("status").returncode != 0:
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            assert time.monotonic() < end_s
            time.sleep(0.05)

    def __call__(self, *words: str) -> Done:
        argv = [sys.executable, "-m", "tray_valet", *words]
        return subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=60, check=False)

    def json(self, *words: str) -> Any:
        done = self(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def loaded(self) -> list[str]:
        return sorted(model["name"] for model in self.json("ps")["models"])

    def state(self) -> str:
        return str(self.json("status")["watchdog"]["state"])

    def until(self, wanted: str) -> None:
        end_s = time.monotonic() + 60
        while (state := self.state()) != wanted:
            assert time.monotonic() < end_s, state
            time.sleep(0.05)

    def until_cool(self, *words: str) -> Done:
        """The command, again until its cooldown is over."""
        while (done := self(*words)).returncode == 1 and "moment" in done.stderr + done.stdout:
            time.sleep(0.5)
        return done

    def end(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        if self.process.stderr:
            self.process.stderr.close()


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valet]:
    valet = Valet(tmp_path_factory.mktemp("valet"))
    try:
        valet.start()
        yield valet
    finally:
        valet.end()


@pytest.fixture(autouse=True)
def fresh(valet: Valet, request: pytest.FixtureRequest) -> Iterator[None]:
    """Running, and nothing loaded."""
    yield
    if valet.process is not None and valet.process.poll() is None:
        if valet.state() != "running":
            valet.until_cool("resume")
            valet.until("running")
        valet("unload")


def test_load_ps_and_unload(valet: Valet) -> None:
    done = valet("load", "one", "--num-ctx", "2048")
    assert (done.returncode, "one is loaded with a context of 2048." in done.stdout) == (0, True), done
    assert valet.json("ps")["models"][0]["context_length"] == 2048
    assert "2048" in valet("ps").stdout
    done = valet("unload", "one")
    assert (done.returncode, done.stdout.startswith("one unloaded.")) == (0, True), done
    assert valet.loaded() == []


def test_pause_and_resume_bring_back_what_was_there(valet: Valet) -> None:
    valet("load", "one", "--num-ctx", "2048")
    valet("load", "two")
    before = {m["name"]: m["context_length"] for m in valet.json("ps")["models"]}
    done = valet.until_cool("pause", "--reason", "a film")
    assert done.returncode == 0, done
    assert done.stdout.startswith("Paused by you")
    assert valet.loaded() == []
    assert "Set aside, to be brought back" in valet("ps").stdout
    assert valet.until_cool("resume").returncode == 0
    valet.until("running")
    assert {m["name"]: m["context_length"] for m in valet.json("ps")["models"]} == before


def test_a_pause_for_a_time_ends_by_itself(valet: Valet) -> None:
    assert valet.until_cool("pause", "--for", "3s").returncode == 0
    valet.until("running")


def test_a_pause_while_a_process_lives_ends_with_it(valet: Valet) -> None:
    film = subprocess.Popen(["sleep", "300"])
    try:
        assert valet.until_cool("pause", "--while", str(film.pid)).returncode == 0
        assert valet.state() == "paused"
    finally:
        film.kill()
        film.wait(10)
    valet.until("running")


def test_a_forced_pause_pauses(valet: Valet) -> None:
    valet("load", "one")
    assert valet.until_cool("pause", "--force").returncode == 0
    assert valet.loaded() == []


def test_run_holds_from_before_the_program_starts_until_it_has_ended(valet: Valet) -> None:
    valet("load", "one")
    look = f"{sys.executable} -m tray_valet status --json"
    done = valet("run", "--reason", "race", "--", "sh", "-c", f"{look}; exit 5")
    assert done.returncode == 5
    during = json.loads(done.stdout)
    assert (during["watchdog"]["state"], during["models"]) == ("paused", [])
    assert "sh" in during["watchdog"]["title"]
    valet.until("running")
    assert valet.loaded() == ["one"]


def test_a_killed_run_does_not_leave_its_hold_behind(valet: Valet, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    argv = [
        sys.executable,
        "-m",
        "tray_valet",
        "run",
        "--",
        "sh",
        "-c",
        f"echo $$ > {marker}; exec sleep 300",
    ]
    running = subprocess.Popen(argv, env=valet.environ)
    end_s = time.monotonic() + 60
    while not (marker.exists() and marker.read_text().strip()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    assert valet.state() == "paused"
    running.kill()
    running.wait(10)
    os.kill(int(marker.read_text()), signal.SIGKILL)
    valet.until("running")


@pytest.mark.parametrize("command", ["status", "ps", "models", "games", "activity", "explain", "providers"])
def test_what_is_shown_is_shown_in_words_and_in_json(valet: Valet, command: str) -> None:
    done = valet(command)
    assert (done.returncode, bool(done.stdout.strip()), done.stderr) == (0, True, "")
    assert isinstance(valet.json(command), dict)


def test_models_and_providers_name_what_is_there(valet: Valet) -> None:
    assert {model["name"] for model in valet.json("models")["models"]} == {"one", "two"}
    assert [provider["name"] for provider in valet.json("providers")["providers"]] == ["local"]
    assert "local" in valet("providers").stdout


def test_logs_are_the_valets_own_or_a_runners(valet: Valet) -> None:
    assert "Tray Valet started." in valet("logs").stdout
    valet("load", "one")
    done = valet("logs", "local/one")
    assert (done.returncode, "written nothing" in done.stdout, len(done.stdout) > 100) == (0, False, True)
    assert valet.json("logs", "one")["lines"] == done.stdout.splitlines()
    assert valet("logs", "three").returncode == 1


def test_an_unknown_model_is_a_failure_in_words_and_in_json(valet: Valet) -> None:
    done = valet("load", "ona", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "model_not_found"
    assert done.stderr.count("\n") == 1


def test_a_context_that_is_too_small_is_wrong_usage(valet: Valet) -> None:
    assert valet("load", "one", "--num-ctx", "100").returncode == 2


def test_a_second_valet_is_refused(valet: Valet) -> None:
    done = valet("serve", "--allow-root")
    assert done.returncode == 1
    assert "already running" in done.stderr


def test_a_reader_that_leaves_is_no_error(valet: Valet) -> None:
    shell = f"{sys.executable} -m tray_valet config schema | head -n 1"
    done = subprocess.run(
        ["sh", "-c", shell], env=valet.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_quit_ends_the_valet_and_then_none_runs(valet: Valet) -> None:
    valet("load", "one")
    done = valet("quit")
    assert (done.returncode, done.stdout) == (0, "Tray Valet has ended.\n")
    assert valet.process is not None
    assert valet.process.wait(60) == 0
    for command in ("status", "pause", "quit"):
        done = valet(command)
        assert (done.returncode, "tray-valet serve" in done.stderr) == (3, True)
    valet.start()  # for whichever test comes next
