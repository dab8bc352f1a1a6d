"""`diagnostics`: secrets are planted everywhere, and the file is searched for them."""

from __future__ import annotations

import getpass
import json
import os
import socket
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import ValetProcess, clean_environment

SECRETS = {
    "in_env": "env-secret-4711",
    "in_config": "config-secret-4711",
    "in_keys_file": "file-secret-4711",
    "in_log": "log-secret-4711",
    "in_url": "url-secret-4711",
    "in_header": "header-secret-4711",
}
LOG = [
    f"Authorization: Bearer {SECRETS['in_header']}",
    f"GET http://me:{SECRETS['in_url']}@127.0.0.1/x?key={SECRETS['in_log']}",
    f'{{"message": "api_key={SECRETS["in_log"]}"}}',
]


def everything(file: Path) -> str:
    with zipfile.ZipFile(file) as bundle:
        assert bundle.testzip() is None
        return "\n".join(f"{name}\n{bundle.read(name).decode()}" for name in bundle.namelist())


def names(file: Path) -> set[str]:
    with zipfile.ZipFile(file) as bundle:
        return set(bundle.namelist())


def command(environ: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tray_valet", "diagnostics", *words]
    around = {**environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(
        argv, env=around, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, str]:
    """A home with a secret in every place; returns its environment."""
    home = tmp_path / "home"
    (home / "state").mkdir(parents=True)
    (home / "logs").mkdir()
    cloud = {"kind": "openai", "url": "https://api.example.com/v1", "api_key": SECRETS["in_config"]}
    command_model = {
        "command": ["sh", "--api-key", SECRETS["in_config"]],
        "env": {"HF_TOKEN": SECRETS["in_config"]},
    }
    settings = {
        "control": {"port": 0},
        "router": {"port": 0, "api_keys": {"laptop": SECRETS["in_config"]}},
        "providers": {"cloud": cloud, "tool": {"kind": "command", "models": {"m": command_model}}},
    }
    (home / "config.yaml").write_text(json.dumps(settings))
    (home / "config.yaml").chmod(0o600)
    (home / "state" / "secrets.json").write_text(json.dumps({"openai": SECRETS["in_keys_file"]}))
    lines = [
        *LOG,
        f"loaded {SECRETS['in_keys_file']}",
        f"{Path.home()}/models/q.gguf on {socket.gethostname()}",
    ]
    (home / "logs" / "tray-valet.log").write_text("\n".join(lines) + "\n")
    (home / "logs" / "requests.jsonl").write_text('{"prompt": "Dear diary"}\n')
    return {
        **clean_environment(),
        "TRAY_VALET_HOME": str(home),
        "SOME_SERVICE_TOKEN": SECRETS["in_env"],
        "TRAY_VALET_CONTROL__API_KEY": SECRETS["in_env"],
        "USER": "mareike",
        "LOGNAME": "mareike",
    }


def test_no_planted_secret_is_in_the_file(planted: dict[str, str], tmp_path: Path) -> None:
    done = command(planted, tmp_path, "bundle.zip")
    assert done.returncode == 0, done.stderr
    told = everything(tmp_path / "bundle.zip")
    assert [secret for secret in SECRETS.values() if secret in told + done.stdout] == []
    assert "Dear diary" not in told
    assert "mareike" not in told
    if socket.gethostname() not in ("localhost",):
        assert socket.gethostname() not in told
    assert "~/models/q.gguf" in told


def test_without_a_valet_it_holds_what_can_be_known(planted: dict[str, str], tmp_path: Path) -> None:
    done = command(planted, tmp_path, "bundle.zip", "--json")
    answer = json.loads(done.stdout)
    assert answer["path"] == str(tmp_path / "bundle.zip")
    expected = {"version.json", "settings.json", "doctor.json", "log.txt"}
    assert names(tmp_path / "bundle.zip") == expected == {each["name"] for each in answer["contents"]}


def test_only_the_user_can_read_it(planted: dict[str, str], tmp_path: Path) -> None:
    command(planted, tmp_path, "bundle.zip")
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "bundle.zip").stat().st_mode) == 0o600


def test_a_file_that_exists_is_never_overwritten(planted: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_text("mine")
    done = command(planted, tmp_path, "mine.zip")
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert "Name another file" in done.stderr
    assert (tmp_path / "mine.zip").read_text() == "mine"
    os.symlink(tmp_path / "elsewhere", tmp_path / "link.zip")
    assert command(planted, tmp_path, "link.zip").returncode == 1
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_name_the_date_is_in_it_and_it_says_what_is_inside(
    planted: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    done = command(planted, folder)
    (file,) = folder.iterdir()
    assert file.name.startswith("tray-valet-diagnostics-20")
    assert file.suffix == ".zip"
    assert str(file) in done.stdout
    for name in names(file):
        assert name in done.stdout


def test_a_folder_that_is_not_there(planted: dict[str, str], tmp_path: Path) -> None:
    done = command(planted, tmp_path, "none/bundle.zip")
    assert (done.returncode, "There is no folder" in done.stderr) == (1, True)


@pytest.fixture
def valet(tmp_path: Path) -> Iterator[ValetProcess]:
    with OllamaStandin("--model", "big:latest=8") as ollama:
        settings = {
            "games": {"enabled": False},
            "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
        }
        with ValetProcess(tmp_path / "home", settings) as process:
            yield process


def test_a_running_valet_tells_more_but_never_its_token(valet: ValetProcess, tmp_path: Path) -> None:
    token = json.loads((valet.home / "state" / "runtime.json").read_text())["token"]
    valet.post("/pause", {"reason": f"{getpass.getuser()}'s film at {Path.home()}/films"})
    done = command(valet.environment, tmp_path, "bundle.zip")
    assert done.returncode == 0, done.stderr
    more = {"status.json", "explain.json", "providers.json", "activity.json", "runtime.json"}
    assert more <= names(tmp_path / "bundle.zip")
    told = everything(tmp_path / "bundle.zip")
    assert token not in told
    assert str(Path.home()) + "/films" not in told
    assert f'"pid": {valet.pid}' in told
