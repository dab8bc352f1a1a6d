"""`doctor` as a whole: every trouble has its look, none holds the others up, nothing is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.commands.doctor_ground import NO_PROVIDERS, ground_of, listener
from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import ValetProcess
from tray_valet.commands import doctor
from tray_valet.commands.doctor_ground import Ground, lay_ground
from tray_valet.core.checkup import Finding, FindingStatus, Topic, is_healthy, most_urgent_first

TOPIC = Topic("it", "It")


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "TRAY_VALET_HOME": str(home)}
    argv = [sys.executable, "-m", "tray_valet", "doctor", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)


def settle(home: Path, settings: dict[str, object]) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text(json.dumps(settings))
    (home / "config.yaml").chmod(0o600)


def healthy() -> dict[str, object]:
    return {"control": {"port": 0}, "router": {"port": 0}, "providers": {}}


def test_a_healthy_home_ends_with_0(tmp_path: Path) -> None:
    settle(tmp_path, healthy())
    done = command(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "No valet was asked" in done.stdout
    assert "✗" not in done.stdout


def test_a_trouble_ends_with_1_and_comes_first_with_its_remedy(tmp_path: Path) -> None:
    with listener() as taken:
        settle(tmp_path, {**healthy(), "control": {"port": taken}})
        done = command(tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[1].startswith("✗ Ports: ")
    assert lines[2].startswith("    → End that program")
    assert "1 to put right" in lines[-1]


def test_with_a_broken_file_the_settings_that_a_valet_uses_are_looked_at(tmp_path: Path) -> None:
    environ = {"TRAY_VALET_HOME": str(tmp_path)}
    (tmp_path / "state").mkdir()
    kept = tmp_path / "state" / "last_good_config.yaml"
    kept.write_text("providers: {mine: {kind: ollama}}")
    (tmp_path / "config.yaml").write_text("thresholds: [")
    ground = lay_ground(environ, None)
    assert list(ground.providers) == ["mine"]
    assert len(ground.settings_problems) == 1
    (tmp_path / "config.yaml").write_text("providers: {other: {kind: ollama}}")
    assert list(lay_ground(environ, None).providers) == ["other"]
    assert "mine" in kept.read_text(), "nothing is changed"


def test_json_is_a_list_of_findings(tmp_path: Path) -> None:
    settle(tmp_path, healthy())
    done = command(tmp_path, "--json")
    found = json.loads(done.stdout)
    assert len(found) == len(doctor.LOOKS) >= 20
    assert all(set(each) == {"id", "title", "status", "says", "remedy"} for each in found)
    assert {each["status"] for each in found} <= {"ok", "info", "warn", "bad", "unknown"}
    assert all(each["remedy"] for each in found if each["status"] in ("warn", "bad"))
    assert all("\n" not in each["says"] + each["remedy"] for each in found)


def test_broken_settings_do_not_keep_it_from_looking_at_the_rest(tmp_path: Path) -> None:
    tmp_path.joinpath("config.yaml").write_text("providers: [")
    done = command(tmp_path, "--json")
    assert done.returncode == 1
    found = {each["id"]: each["status"] for each in json.loads(done.stdout)}
    assert (found["settings"], found["state"]) == ("bad", "ok")


def test_nothing_is_written(tmp_path: Path) -> None:
    settle(tmp_path, healthy())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    command(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_every_look_has_an_id_of_its_own() -> None:
    ids = [topic.id for topic, _ in doctor.LOOKS]
    assert len(set(ids)) == len(ids)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return ground_of(tmp_path, NO_PROVIDERS)


def test_a_look_that_hangs_is_unknown_and_holds_up_nobody(ground: Ground) -> None:
    release = threading.Event()

    def hang(_: Ground) -> Finding:
        release.wait(30)
        return TOPIC.ok("at last")

    other = Topic("other", "Other")
    began_s = time.monotonic()
    found = doctor.examine(ground, ((TOPIC, hang), (other, lambda _: other.ok("fine"))), patience_s=0.2)
    release.set()
    assert [each.status for each in found] == [FindingStatus.UNKNOWN, FindingStatus.OK]
    assert time.monotonic() - began_s < 10


def test_a_look_that_fails_is_unknown_and_says_why(ground: Ground) -> None:
    def fail(_: Ground) -> Finding:
        raise ZeroDivisionError("by nothing")

    found = doctor.examine(ground, ((TOPIC, fail),))
    assert found[0].status is FindingStatus.UNKNOWN
    assert "by nothing" in found[0].says


def test_only_bad_is_unhealthy_and_it_comes_first() -> None:
    ok, warn, bad = TOPIC.ok("a"), TOPIC.warn("b", "x"), TOPIC.bad("c", "y")
    assert (is_healthy([ok, warn]), is_healthy([ok, bad])) == (True, False)
    assert most_urgent_first([ok, warn, bad]) == (bad, warn, ok)


def test_a_running_valet_is_asked_and_nothing_is_loaded(tmp_path: Path) -> None:
    with OllamaStandin("--model", "big:latest=8") as ollama:
        settings = {
            "games": {"enabled": False},
            "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
        }
        with ValetProcess(tmp_path / "home", settings) as valet:
            # A busy machine may take longer than the doctor's usual patience; what it sees is the point.
            patient = (
                "import functools, sys; from tray_valet import cli; from tray_valet.commands import doctor; "
                "doctor.examine = functools.partial(doctor.examine, patience_s=50); sys.exit(cli.main())"
            )
            argv = [sys.executable, "-c", patient, "doctor", "--json"]
            done = subprocess.run(
                argv, env=valet.environment, capture_output=True, text=True, timeout=60, check=False
            )
            found = {each["id"]: each for each in json.loads(done.stdout)}
            assert done.returncode == 0, done.stdout
            assert f"(PID {valet.pid})" in found["valet"]["says"]
            assert [found[name]["status"] for name in ("valet", "ollama", "conditions", "journal")] == [
                "ok"
            ] * 4
            assert found["ollama_clients"]["status"] in ("ok", "warn")  # other tests may look as well
            assert ollama.loaded() == {}
            ollama.kill()
            done = subprocess.run(
                argv, env=valet.environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 1
            assert {e["id"]: e["status"] for e in json.loads(done.stdout)}["ollama"] == "bad"
