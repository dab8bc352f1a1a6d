"""`import PATH`: files in, our settings file out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tray_valet.commands import config
from tray_valet.commands.importing import Answer, Wish, import_settings
from tray_valet.core.errors import InvalidValue, NotFound, SettingsError

_DATA = Path(__file__).parents[1] / "data" / "import"
_LLM_VALET = 'host: "0.0.0.0"\nport: 9001\napi_key: hunter2\nthresholds:\n  ram_pause_pct: 80.0\n'
_SWAP = "models:\n  a:\n    cmd: llama-server -m /a.gguf --port ${PORT}\n"


class Keys:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def read(self, name: str) -> str | None:
        return self.kept.get(name)

    def keep(self, name: str, secret: str) -> None:
        self.kept[name] = secret


class House:
    """A folder with our settings file and another program's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "ours" / "config.yaml"
        self.keys = Keys()
        self.environ: dict[str, str] = {}

    def run(self, path: Path, **options: Any) -> Answer:
        wish = Wish(path=path, settings_file=self.settings, **options)
        return import_settings(wish, self.environ, self.keys)

    def json(self, text: str, name: str = "config.yaml", **options: Any) -> dict[str, Any]:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        found: dict[str, Any] = json.loads(self.run(path, is_json=True, **options).text)
        return found

    def ours(self, text: str) -> None:
        self.settings.parent.mkdir(exist_ok=True)
        self.settings.write_text(text)
        self.settings.chmod(0o600)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("form", ["main", "refactor"])
def test_router_model_customs_own_example_is_imported_and_right(house: House, form: str) -> None:
    path = _DATA / f"router_model_custom_{form}.json"
    answer = house.run(path)
    assert answer.exit_code == 0
    written = yaml.safe_load(house.settings.read_text())
    example = json.loads(path.read_text())
    engine = written["providers"]["local"]
    assert set(engine["models"]) == set(example["models"])
    assert engine["models"]["qwen-7b"]["flags"][:4] == ["-ngl", "99", "--ctx-size", "8192"]
    assert written["models"] == {"max_concurrent": 3, "idle_timeout_seconds": 0, "preload": ["*"]}
    assert written["router"] == {"port": 8000}
    assert "api.host" in answer.text
    assert config.check(house.settings, {}).text == f"{house.settings}: all right."


@pytest.mark.parametrize("form", ["main", "refactor"])
def test_every_key_of_an_example_is_accounted_for(house: House, form: str) -> None:
    example = json.loads((_DATA / f"router_model_custom_{form}.json").read_text())
    found = json.loads(house.run(_DATA / f"router_model_custom_{form}.json", is_json=True).text)
    told = {one["from"] for one in (*found["taken"], *found["not_taken"])}
    keys = {f"{section}.{key}" for section in ("api", "system") for key in example[section]}
    for alias, model in example["models"].items():
        keys |= {f"models.{alias}.{key}" for key in model if key != "params"}
        keys |= {f"models.{alias}.params.{key}" for key in model.get("params", {})}
    assert keys <= told
    assert (found["source"], found["written"]) == ("RouterModelCustom", str(house.settings))


def test_comments_and_what_is_set_survive(house: House) -> None:
    house.ours("# mine\nthresholds:\n  ram_pause_pct: 90.0  # high\ngames: {grace_seconds: 5}\n")
    found = house.json(_LLM_VALET)
    text = house.settings.read_text()
    assert "# mine" in text
    assert "ram_pause_pct: 90.0  # high" in text
    assert [one["from"] for one in found["not_taken"]] == ["thresholds.ram_pause_pct"]
    assert house.json(_LLM_VALET, is_replacing=True)["taken"] == [
        {"from": "thresholds.ram_pause_pct", "to": "thresholds.ram_pause_pct", "value": 80.0}
    ]
    assert "ram_pause_pct: 80.0  # high" in house.settings.read_text()


def test_a_second_import_changes_nothing_and_says_so(house: House) -> None:
    first = house.json(_LLM_VALET)
    before = house.settings.stat().st_mtime_ns
    second = house.json(_LLM_VALET)
    assert (second["taken"], second["written"]) == ([], None)
    assert second["already"] == first["taken"]
    assert house.settings.stat().st_mtime_ns == before
    answer = house.run(house.folder / "config.yaml")
    assert answer.exit_code == 0
    assert "Nothing to change" in answer.text


def test_a_dry_run_writes_nothing_at_all(house: House) -> None:
    found = house.json(_LLM_VALET, is_dry_run=True)
    assert found["taken"]
    assert found["written"] is None
    assert not house.settings.parent.exists()
    assert house.keys.kept == {}


def test_keys_go_to_the_keyring_and_nowhere_else(house: House) -> None:
    found = house.json(_LLM_VALET)
    assert house.keys.kept == {"control": "hunter2"}
    assert "hunter2" not in house.settings.read_text() + json.dumps(found)
    assert "hunter2" not in house.run(house.folder / "config.yaml").text
    if os.name == "posix":
        assert house.settings.stat().st_mode & 0o077 == 0


def test_a_key_that_cannot_be_kept_leaves_the_settings_alone(house: House) -> None:
    class NoKeys(Keys):
        def keep(self, name: str, secret: str) -> None:
            raise OSError(28, "No space left on device")

    house.keys = NoKeys()
    path = house.folder / "config.yaml"
    path.write_text(_LLM_VALET)
    with pytest.raises(Exception, match="cannot be kept"):
        house.run(path)
    assert not house.settings.exists()


def test_the_key_beside_router_model_customs_file(house: House) -> None:
    (house.folder / ".env").write_text("API_KEY=k3y\n")
    found = house.json('{"api": {"host": "0.0.0.0", "port": 8000}}', "config.json")
    assert house.keys.kept == {"router-model-custom": "k3y"}
    assert not found["not_taken"]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (_LLM_VALET, "llm-valet"),
        ("thresholds: {ram_pause_pct: 80}\n", "llm-valet"),
        ("﻿port: 9000\r\nhost: 127.0.0.1\r\n", "llm-valet"),
        ('{"system": {"max_concurrent_models": 2}}', "RouterModelCustom"),
        ('{"models": {"a": {"model_path": "/a.gguf"}}}', "RouterModelCustom"),
        ('{\n\t"api": {"port": 8000}, // the port\n\t/* more */ "system": {},\n}', "RouterModelCustom"),
        (_SWAP, "llama-swap"),
        ("peers: {p: {proxy: http://10.0.0.1, models: [a]}}\n", "llama-swap"),
        ("x: &d {cmd: llama-server -m /a.gguf}\nmodels:\n  a: {<<: *d, ttl: 5}\n", "llama-swap"),
    ],
)
def test_the_program_is_told_by_the_content(house: House, text: str, source: str) -> None:
    found = house.json(text, "anything.txt")
    assert found["source"] == source
    assert found["taken"]
    assert config.check(house.settings, {}).exit_code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not the settings of"),
        ("# nothing\n", "not the settings of"),
        ("name: x\nversion: 1\n", "not the settings of"),
        ("- a\n- b\n", "line 1: it does not hold keys and values"),
        ('{"api": {"port": 8000}\n"system": {}}', "line 2"),
        ("port: 1\n\thost: x\n", "line 2: a tab"),
        ("port: [1\nhost: x\n", "line 2"),
        ("router: {port: 1}\n", "own settings already"),
        ('{"server": {"status": "ready"}, "models": {"m": {"status": "off"}}}', "not the settings of"),
        ("version: '3.8'\nservices: {router: {build: .}}\n", "not the settings of"),
        ("a: &a [*a]\nport: 1\n", "nested too deeply"),
    ],
)
def test_what_is_none_of_these_or_broken_is_refused_with_its_line(
    house: House, text: str, words: str
) -> None:
    with pytest.raises(InvalidValue, match=words) as raised:
        house.json(text)
    assert raised.value.remedy
    assert not house.settings.exists()


def test_a_file_that_is_not_there_or_is_the_settings_file_itself(house: House) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        house.run(house.folder / "gone.yaml")
    with pytest.raises(NotFound, match="is a folder"):
        house.run(house.folder)
    house.ours("host: 127.0.0.1\n")
    with pytest.raises(InvalidValue, match="settings file itself"):
        house.run(house.settings)


def test_nothing_is_added_to_broken_settings(house: House) -> None:
    house.ours("thresholds: {ram_pause_pct: eighty}\n")
    with pytest.raises(SettingsError, match="ram_pause_pct"):
        house.json(_LLM_VALET)
    assert house.settings.read_text() == "thresholds: {ram_pause_pct: eighty}\n"


def test_nothing_taken_at_all_ends_with_1(house: House) -> None:
    path = house.folder / "config.yaml"
    path.write_text("port: 99999\n")
    answer = house.run(path)
    assert answer.exit_code == 1
    assert "Nothing was taken" in answer.text


def test_settings_in_the_older_spelling_are_seen(house: House) -> None:
    house.ours("max_concurrent_models: 2  # mine\n")
    found = house.json('{"system": {"max_concurrent_models": 5, "vram_multiplier": 1.3}}')
    assert [one["from"] for one in found["not_taken"]] == ["system.max_concurrent_models"]
    assert "max_concurrent_models: 2  # mine" in house.settings.read_text()
    house.json('{"system": {"max_concurrent_models": 5}}', is_replacing=True)
    assert "max_concurrent_models: 5  # mine" in house.settings.read_text()


def test_one_character_in_two_halves_and_names_that_move_the_cursor(house: House) -> None:
    text = '{"system": {"llama_server_path": "/\\ud83d\\ude00/llama-server", "\\u001b[31mx": 1}}'
    found = house.json(text)
    assert found["taken"][0]["value"] == "/😀/llama-server"
    assert "\x1b" not in house.run(house.folder / "config.yaml").text


def test_as_a_command(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRAY_VALET")}
    environ |= {
        "TRAY_VALET_HOME": str(tmp_path / "home"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
    path = tmp_path / "llm-valet.yaml"
    path.write_text(_LLM_VALET)

    def valet(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tray_valet", *words]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)

    assert valet("import", str(path), "--dry-run").returncode == 0
    assert not (tmp_path / "home").exists()
    done = valet("import", str(path), "--json")
    assert (done.returncode, json.loads(done.stdout)["source"]) == (0, "llm-valet")
    secrets = tmp_path / "home" / "state" / "secrets.json"
    assert json.loads(secrets.read_text()) == {"control": "hunter2"}
    assert valet("config", "check").returncode == 0
    other = tmp_path / "other.yaml"
    assert valet("import", str(path), "--config", str(other)).returncode == 0
    assert yaml.safe_load(other.read_text())["control"]["port"] == 9001
    assert valet("import").returncode == 2
    gone = valet("import", str(tmp_path / "gone"))
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.startswith("tray-valet: ")
