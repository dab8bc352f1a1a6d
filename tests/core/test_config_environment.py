"""Variables as settings."""

from __future__ import annotations

from typing import Any

import pytest

from tray_valet.core.config import Settings
from tray_valet.core.config_environment import environment_layer
from tray_valet.core.config_layers import build_settings, merge_layers
from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.config_tree import Origin, Place, from_plain
from tray_valet.core.errors import SettingsError
from tray_valet.services.settings_text import parse_value

ENGINE = {"providers": {"my-box": {"kind": "llama-server", "models": {"q.2": {"model_path": "q"}}}}}


def build(environ: dict[str, str], file: dict[str, Any] | None = None) -> Settings:
    below, _ = merge_layers(from_plain(file or {}, Place(Origin.FILE)))
    return build_settings(below, environment_layer(environ, below, parse_value))


def problems_of(environ: dict[str, str], file: dict[str, Any] | None = None) -> dict[str, str]:
    try:
        build(environ, file)
    except SettingsError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


def plain_of(settings: Settings, path: str) -> Any:
    value: Any = settings
    for step in path.split("."):
        value = value[step] if isinstance(value, dict) else getattr(value, step)
    return value


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("THRESHOLDS__RAM_PAUSE_PCT", "80", "thresholds.ram_pause_pct", 80.0),
        ("THRESHOLDS__RAM_PAUSE_PCT", "80.5", "thresholds.ram_pause_pct", 80.5),
        ("THRESHOLDS__CHECK_INTERVAL_SECONDS", "2", "thresholds.check_interval_seconds", 2),
        ("THRESHOLDS__CHECK_INTERVAL_SECONDS", "1.5", "thresholds.check_interval_seconds", 1.5),
        ("GAMES__ENABLED", "no", "games.enabled", False),
        ("GAMES__ENABLED", "TRUE", "games.enabled", True),
        ("CONTROL__PORT", "0", "control.port", 0),
        ("CONTROL__API_KEY", "s3cret", "control.api_key", "s3cret"),
        ("CONTROL__API_KEY", "null", "control.api_key", None),
        ("CONTROL__CORS_ORIGINS", '["http://a"]', "control.cors_origins", ("http://a",)),
        ("CONTROL__CORS_ORIGINS", "http://a,http://b", "control.cors_origins", ("http://a", "http://b")),
        ("CONTROL__CORS_ORIGINS", "", "control.cors_origins", ()),
        ("MODELS__DEFAULT", "80", "models.default", "80"),
        ("MODELS__MAX_CONCURRENT_MODELS", "2", "models.max_concurrent", 2),
        ("EVICTION", "{drain_seconds: 1}", "eviction.drain_seconds", 1),
        ("ROUTER__API_KEYS", '{"me": "abc"}', "router.api_keys", {"me": "abc"}),
        ("ROUTER__API_KEYS__ME", "abc", "router.api_keys", {"me": "abc"}),
        ("PROVIDERS__BOX__URL", "http://10.0.0.1:1", "providers.box.url", "http://10.0.0.1:1"),
    ],
)
def test_ours_are_parsed_as_the_settings_type(variable: str, text: str, path: str, value: Any) -> None:
    file = {"providers": {"box": {"kind": "ollama"}}} if "PROVIDERS" in variable else {}
    found = plain_of(build({f"TRAY_VALET_{variable}": text}, file), path)
    assert found == value
    assert type(found) is type(value)


def test_lists_and_mappings_are_json_or_yaml() -> None:
    rules = build({"TRAY_VALET_GAMES__RULES": "[{exe: a, action: off}]"}).games.rules
    assert rules[0].action == "off"
    providers = build({"TRAY_VALET_PROVIDERS": '{"o": {"kind": "ollama"}}'}).providers
    assert providers is not None
    assert list(providers) == ["o"]


def test_names_in_the_file_are_met_without_case_dashes_or_dots() -> None:
    settings = build(
        {
            "TRAY_VALET_PROVIDERS__MY_BOX__FIRST_PORT": "9000",
            "TRAY_VALET_PROVIDERS__MY_BOX__MODELS__Q_2__CPU_ONLY": "yes",
        },
        ENGINE,
    )
    assert settings.providers is not None
    box = settings.providers["my-box"]
    assert isinstance(box, LlamaServerSettings)
    assert box.first_port == 9000
    assert box.models["q.2"].cpu_only is True


@pytest.mark.parametrize(
    ("environ", "path", "value"),
    [
        ({"LLM_VALET_HOST": "127.0.0.2"}, "control.host", "127.0.0.2"),
        ({"LLM_VALET_PORT": "9000"}, "control.port", 9000),
        ({"LLM_VALET_API_KEY": "abc"}, "control.api_key", "abc"),
        ({"API_KEY": "abc"}, "router.api_keys", {"environment": "abc"}),
        ({"LLM_VALET_PROVIDER": "ollama"}, "providers.ollama.url", "http://127.0.0.1:11434"),
        ({"API_KEY": "", "LLM_VALET_PORT": ""}, "router.api_keys", {}),
    ],
)
def test_the_seeds_variables(environ: dict[str, str], path: str, value: Any) -> None:
    assert plain_of(build(environ), path) == value


def test_engine_paths_hold_for_every_llama_server_and_do_not_make_one() -> None:
    environ = {"LLAMA_SERVER_PATH": "/bin/ls", "BASE_MODELS_PATH": "/models"}
    settings = build(environ, ENGINE)
    assert plain_of(settings, "providers.my-box.llama_server_path") == "/bin/ls"
    assert plain_of(settings, "providers.my-box.base_models_path") == "/models"
    assert build(environ).providers is None


def test_the_environment_is_over_the_file() -> None:
    file = {"thresholds": {"ram_pause_pct": 70, "cpu_pause_pct": 95}}
    settings = build({"TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT": "75"}, file)
    assert settings.thresholds.ram_pause_pct == 75.0
    assert settings.thresholds.cpu_pause_pct == 95.0


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT", "eighty", "“eighty” is not a number"),
        ("TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT", "nan", "not a number"),
        ("TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT", "800", "out of range"),
        ("TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT", "", "is not a number"),
        ("TRAY_VALET_CONTROL__PORT", "80.5", "not a whole number"),
        ("TRAY_VALET_GAMES__ENABLED", "maybe", "neither true nor false"),
        ("TRAY_VALET_LOG__LEVEL", "loud", "none of debug"),
        ("TRAY_VALET_GAMES__RULES", "{a: 1}", "not a list"),
        ("TRAY_VALET_GAMES__RULES", "[", "not YAML"),
        ("TRAY_VALET_ROUTER__API_KEYS", "abc", "keys and values"),
        ("TRAY_VALET_THRESHOLD__RAM_PAUSE_PCT", "80", "Did you mean TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT?"),
        ("TRAY_VALET_THRESHOLDS__RAM_PUASE_PCT", "80", "Did you mean TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT?"),
        ("TRAY_VALET_X__Y", "80", "They read like TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT."),
        ("TRAY_VALET_THRESHOLDS__", "80", "No setting has that name."),
        ("LLM_VALET_PORT", "abc", "“abc” is not a number"),
        ("LLM_VALET_PROVIDER", "vlm", "Use one of ollama."),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str, words: str) -> None:
    found = problems_of({variable: text})
    assert list(found) == [variable]
    assert words in found[variable]


def test_mistakes_inside_a_variable_or_against_the_file_name_it_too() -> None:
    found = problems_of({"TRAY_VALET_GAMES__RULES": "[{exe: a, action: maybe}]"})
    assert "the environment variable TRAY_VALET_GAMES__RULES" in found["games.rules[0].action"]
    found = problems_of(
        {"TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT": "50"}, {"thresholds": {"ram_resume_pct": 55}}
    )
    assert "TRAY_VALET_THRESHOLDS__RAM_PAUSE_PCT" in found["thresholds.ram_pause_pct"]


def test_a_secret_in_a_wrong_variable_is_not_shown() -> None:
    for environ in (
        {"TRAY_VALET_ROUTER__API_KEYS": '["hunter2"]'},
        {"TRAY_VALET_ROUTER__API_KEYS": '{"hunter2": '},
    ):
        assert "hunter2" not in str(problems_of(environ))


@pytest.mark.parametrize("variable", ["TRAY_VALET_HOME", "TRAY_VALET_ALLOW_ROOT", "TRAY_VALET_ELSE", "HOME"])
def test_other_variables_are_not_settings(variable: str) -> None:
    assert build({variable: "x"}) == Settings()
