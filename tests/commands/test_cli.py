"""The outermost edge: exit codes, one line for a failure, and a quick start."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tray_valet
from tray_valet import cli
from tray_valet.commands import calls

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAY_VALET")}
    return {**kept, "TRAY_VALET_HOME": str(tmp_path / "home")}


def _valet(environ: dict[str, str], *words: str) -> Done:
    argv = [sys.executable, "-m", "tray_valet", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "command",
    [["status"], ["ps"], ["models"], ["games"], ["activity"], ["explain"], ["providers"], ["pause"],
     ["resume"], ["load", "m"], ["unload"], ["open"], ["logs"], ["logs", "m"], ["quit"]],
)  # fmt: skip
def test_without_a_valet_every_command_to_it_ends_with_3(environ: dict[str, str], command: list[str]) -> None:
    done = _valet(environ, *command)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "tray-valet: No valet is running. Start one with: tray-valet serve\n"


def test_a_failure_with_json_is_an_object_on_stdout(environ: dict[str, str]) -> None:
    done = _valet(environ, "status", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "no_valet"
    assert done.returncode == 3


@pytest.mark.parametrize(
    "command", [["nonsense"], ["pause", "--for", "x"], ["load"], ["--nonsense"], ["run"]]
)
def test_wrong_usage_ends_with_2_and_one_line(environ: dict[str, str], command: list[str]) -> None:
    done = _valet(environ, *command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_wrong_usage_with_json_is_an_object_too(environ: dict[str, str]) -> None:
    done = _valet(environ, "load", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "wrong_usage")


def test_the_json_of_a_program_that_run_starts_is_not_ours(environ: dict[str, str]) -> None:
    done = _valet(environ, "run", "--", "no-such-program-anywhere", "--json")
    assert (done.returncode, done.stdout) == (127, "")
    assert "There is no program no-such-program-anywhere." in done.stderr


def test_version(environ: dict[str, str]) -> None:
    assert _valet(environ, "--version").stdout == f"tray-valet {tray_valet.__version__}\n"
    assert json.loads(_valet(environ, "--version", "--json").stdout) == {"version": tray_valet.__version__}


def test_root_is_refused_unless_it_is_meant(environ: dict[str, str]) -> None:
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("not root")
    for command in (["serve"], []):
        done = _valet(environ, *command)
        assert done.returncode == 1
        assert "--allow-root" in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
def test_ctrl_c_ends_with_130_and_without_a_traceback(environ: dict[str, str], tmp_path: Path) -> None:
    waited_for = tmp_path / "cases.json"
    os.mkfifo(waited_for)
    argv = [sys.executable, "-m", "tray_valet", "games", "--classify", str(waited_for)]
    process = subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        with waited_for.open("w"):  # opens when the command has opened it too, and now reads
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
    assert (process.returncode, said) == (130, "")


def test_an_unforeseen_error_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise RuntimeError("boom")

    monkeypatch.setitem(calls.COMMANDS, "status", fail)
    assert cli.main(["status"]) == 1
    said = capsys.readouterr().err
    assert "RuntimeError: boom" in said
    assert said.count("\n") == 1
    assert cli.main(["status", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_none_of_the_heavy_libraries(environ: dict[str, str], option: str) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "tray_valet", option]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {
        "msgspec",
        "asyncio",
        "httpx",
        "psutil",
        "yaml",
        "starlette",
        "uvicorn",
        "http.client",
    }


def test_a_command_to_the_valet_imports_neither_asyncio_nor_its_services(environ: dict[str, str]) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "tray_valet", "status"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"asyncio", "httpx", "psutil", "yaml", "starlette", "uvicorn"}


def test_games_classify_prints_verdicts_without_a_valet(environ: dict[str, str], tmp_path: Path) -> None:
    exe = "/home/u/.local/share/Steam/steamapps/common/Hades/Hades.x86_64"
    case = {"id": "A1", "os": "linux", "exe": exe, "argv": [exe], "env": {}, "parent": "reaper"}
    file = tmp_path / "cases.json"
    file.write_text(
        json.dumps([case, {**case, "id": "A2", "exe": "/usr/bin/vim", "argv": ["vim"], "parent": "sh"}])
    )
    verdicts = json.loads(_valet(environ, "games", "--classify", str(file)).stdout)
    assert [set(verdict) for verdict in verdicts] == [{"id", "verdict", "name", "store", "rule"}] * 2
    assert [(verdict["id"], verdict["verdict"]) for verdict in verdicts] == [("A1", "game"), ("A2", "not")]


def test_games_classify_knows_the_users_own_rules(environ: dict[str, str], tmp_path: Path) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text("games: {rules: [{exe: vim, verdict: game}]}\n")
    settings.chmod(0o600)
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([{"id": "A", "os": "linux", "exe": "/usr/bin/vim", "argv": ["vim"]}]))
    done = _valet(environ, "games", "--classify", str(file), "--config", str(settings))
    assert json.loads(done.stdout)[0]["verdict"] == "game"


def test_games_classify_of_no_file_fails(environ: dict[str, str], tmp_path: Path) -> None:
    assert _valet(environ, "games", "--classify", str(tmp_path / "none.json")).returncode == 1


def test_config_commands_need_no_valet(environ: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("thresholds: {ram_pause_pct: eighty}\n")
    broken.chmod(0o600)
    assert _valet(environ, "config", "path").stdout.strip().endswith("config.yaml")
    assert _valet(environ, "config", "path", "--config", str(broken)).stdout.strip() == str(broken)
    assert _valet(environ, "config", "check").returncode == 0
    check = _valet(environ, "config", "check", "--config", str(broken))
    assert (check.returncode, "thresholds.ram_pause_pct" in check.stdout) == (1, True)
    show = _valet(environ, "config", "show", "--json", "--config", str(broken))
    assert (show.returncode, json.loads(show.stdout)["error"]["code"]) == (1, "settings_invalid")
    assert json.loads(_valet(environ, "config", "schema").stdout)["title"]
    assert json.loads(_valet(environ, "config", "show", "--json").stdout)["control"]["port"] == 8765
