"""`config path|check|schema|show` without a valet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tray_valet.commands import config
from tray_valet.core.errors import SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("max_concurrent_models: 2\nthresholds:\n  ram_pause_pct: 80\n")
    path.chmod(0o600)
    return path


def test_path(file: Path) -> None:
    assert config.path(file).text == str(file)
    assert json.loads(config.path(file, is_json=True).text) == {"path": str(file), "exists": True}


def test_check_of_a_good_file(file: Path) -> None:
    answer = config.check(file, {})
    assert (answer.text, answer.exit_code) == (f"{file}: all right.", 0)
    assert json.loads(config.check(file, {}, is_json=True).text)["ok"] is True


def test_check_of_no_file(tmp_path: Path) -> None:
    answer = config.check(tmp_path / "none.yaml", {})
    assert answer.exit_code == 0
    assert "the defaults are in force" in answer.text


def test_check_tells_every_mistake_with_its_line(file: Path) -> None:
    file.write_text("thresholds:\n  ram_pause_pct: eighty\n  nonsense: 1\n")
    answer = config.check(file, {"LLM_VALET_PORT": "x"})
    assert answer.exit_code == 1
    assert answer.text.splitlines()[:2] == [
        f"{file}: 3 mistakes.",
        "Line 2, thresholds.ram_pause_pct: “eighty” is not a number. Use 1 to 100, such as 85.0.",
    ]
    found = json.loads(config.check(file, {}, is_json=True).text)
    assert found["ok"] is False
    assert [(p["path"], p["line"]) for p in found["problems"]] == [
        ("thresholds.ram_pause_pct", 2),
        ("thresholds.nonsense", 3),
    ]


def test_show_speaks_our_spellings_and_keeps_secrets(file: Path) -> None:
    environ = {"API_KEY": "hunter2", "TRAY_VALET_CONTROL__PORT": "0"}
    answer = config.show(file, environ)
    assert "hunter2" not in answer.text
    shown = yaml.safe_load(answer.text)
    assert shown["models"]["max_concurrent"] == 2
    assert shown["control"]["port"] == 0
    assert json.loads(config.show(file, environ, is_json=True).text) == shown


def test_what_show_prints_is_a_settings_file(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(config.show(file, {}).text)
    assert config.check(again, {}).exit_code == 0
    assert config.show(again, {}).text == config.show(file, {}).text


def test_show_of_a_broken_file_says_what_is_wrong(file: Path) -> None:
    file.write_text("thresholds: {ram_pause_pct: 101}\n")
    with pytest.raises(SettingsError):
        config.show(file, {})


def test_the_schema_knows_every_section() -> None:
    schema = json.loads(config.schema().text)
    assert schema["$schema"].startswith("https://json-schema.org/")
    sections = schema["$defs"]["Settings"]["properties"]
    assert list(sections) == [
        "control",
        "router",
        "thresholds",
        "games",
        "eviction",
        "power",
        "models",
        "providers",
        "pools",
        "routes",
        "desktop",
        "log",
    ]
    limit = schema["$defs"]["ThresholdSettings"]["properties"]["ram_pause_pct"]
    assert (limit["exclusiveMinimum"], limit["maximum"], limit["default"]) == (0, 100, 85.0)
