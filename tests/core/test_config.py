"""The schema: defaults word for word, and how single values are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tray_valet.core.config import Settings
from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_providers import (
    CommandSettings,
    LlamaServerSettings,
    OllamaSettings,
    OpenAiSettings,
    is_local,
)
from tray_valet.core.config_tree import Node, Origin, Place, from_plain
from tray_valet.core.errors import SettingsError

DEFAULTS: dict[str, Any] = {
    "control": {
        "host": "127.0.0.1",
        "port": 8765,
        "local_access": "open",
        "api_key": None,
        "key_acknowledged": False,
        "allowed_hosts": [],
        "cors_origins": [],
        "max_body_bytes": 65536,
    },
    "router": {
        "enabled": True,
        "host": "127.0.0.1",
        "port": 8766,
        "api_keys": {},
        "allowed_hosts": [],
        "cors_origins": [],
        "request_timeout_seconds": 120,
        "max_body_bytes": 67108864,
        "max_queue_size_per_model": 500,
        "queue_timeout_seconds": 300,
        "priority_ageing_seconds": 30,
        "when_paused": "refuse",
    },
    "thresholds": {
        "ram_pause_pct": 85.0,
        "ram_resume_pct": 60.0,
        "cpu_pause_pct": 90.0,
        "cpu_resume_pct": 80.0,
        "cpu_sustained_seconds": 30,
        "gpu_vram_pause_pct": 85.0,
        "gpu_vram_resume_pct": 75.0,
        "pause_timeout_seconds": 120,
        "check_interval_seconds": 10,
        "auto_resume_on_ram_pressure": True,
    },
    "games": {
        "enabled": True,
        "grace_seconds": 30,
        "end_debounce_seconds": 12,
        "libraries": [],
        "rules": [],
    },
    "eviction": {"mode": "all", "drain_seconds": 3, "kill_after_seconds": 5, "confirm_seconds": 10},
    "power": {"on_battery": "keep", "on_suspend": "unload", "resume_when_idle": False},
    "models": {
        "max_concurrent": 3,
        "idle_timeout_seconds": 300,
        "preload": [],
        "default": None,
        "groups": {},
        "vram_multiplier": 1.1,
    },
    "providers": None,
    "pools": {},
    "routes": {},
    "desktop": {
        "notifications": True,
        "notification_sound": False,
        "appearance": "system",
        "autostart": False,
    },
    "log": {"level": "info", "file": None},
}


def layer(plain: dict[str, Any], origin: Origin = Origin.FILE) -> Node:
    return from_plain(plain, Place(origin))


def problems_of(plain: dict[str, Any], origin: Origin = Origin.FILE) -> dict[str, str]:
    """Path → message of every mistake; {} if there is none."""
    try:
        build_settings(layer(plain, origin))
    except SettingsError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


def test_defaults_are_the_published_ones() -> None:
    assert json.loads(msgspec.json.encode(Settings())) == DEFAULTS
    assert build_settings() == Settings()


def test_defaults_written_out_change_nothing() -> None:
    assert build_settings(layer(DEFAULTS)) == Settings()


def test_provider_defaults() -> None:
    settings = build_settings(
        layer(
            {
                "providers": {
                    "ollama": {"kind": "ollama"},
                    "local": {
                        "kind": "llama-server",
                        "models": {
                            "qwen-7b": {
                                "model_path": "qwen-7b.gguf",
                                "flags": ["-ngl", "99", "--ctx-size", "8192"],
                            }
                        },
                    },
                    "comfy": {"kind": "command", "models": {"comfy": {"command": ["python", "{port}"]}}},
                    "cloud": {"kind": "openai", "api_key": "keyring:openai", "local": False},
                },
                "routes": {"assistant": {"candidates": [{"provider": "local", "model": "qwen-7b"}]}},
            }
        )
    )
    assert settings.providers is not None
    ollama, local = settings.providers["ollama"], settings.providers["local"]
    assert isinstance(ollama, OllamaSettings)
    assert (ollama.url, ollama.models) == ("http://127.0.0.1:11434", ())
    assert isinstance(local, LlamaServerSettings)
    assert (local.llama_server_path, local.base_models_path, local.gpu_devices) == (None, None, None)
    assert (local.first_port, local.default_parallel) == (8085, 1)
    assert local.models["qwen-7b"].flags == ("-ngl", "99", "--ctx-size", "8192")
    assert local.models["qwen-7b"].cpu_only is False
    comfy, cloud = settings.providers["comfy"], settings.providers["cloud"]
    assert isinstance(comfy, CommandSettings)
    comfy_model = comfy.models["comfy"]
    assert (comfy_model.env, comfy_model.health, comfy_model.stop) == ({}, "/", None)
    assert isinstance(cloud, OpenAiSettings)
    assert cloud.monthly_budget_usd is None
    route = settings.routes["assistant"]
    assert (route.when_paused, route.wait_seconds, route.priority) == ("next", 60, "normal")
    assert (route.num_ctx, route.keep_alive) == (None, None)
    assert (route.candidates[0].set, route.candidates[0].strip) == ({}, ())


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({"kind": "ollama"}, True),
        ({"kind": "ollama", "url": "http://192.168.1.30:11434"}, False),
        ({"kind": "ollama", "url": "http://192.168.1.30:11434", "local": True}, True),
        ({"kind": "ollama", "url": "http://[::1]:11434"}, True),
        ({"kind": "vllm", "url": "http://box.local:8000"}, False),
        ({"kind": "openai"}, False),
        ({"kind": "openai", "url": "http://127.0.0.1:9/v1"}, True),
        ({"kind": "openai", "url": "http://127.0.0.1:9/v1", "local": False}, False),
        ({"kind": "llama-server"}, True),
        ({"kind": "command"}, True),
    ],
)
def test_local_defaults_to_a_loopback_address(provider: dict[str, Any], expected: bool) -> None:
    settings = build_settings(layer({"providers": {"x": provider}}))
    assert settings.providers is not None
    assert is_local(settings.providers["x"]) is expected


def test_no_providers_section_is_not_an_empty_one() -> None:
    assert build_settings(layer({})).providers is None
    assert build_settings(layer({"providers": None})).providers is None
    assert build_settings(layer({"providers": {}})).providers == {}


@pytest.mark.parametrize(
    "value",
    ["abc", "80", True, None, [80], {"a": 1}, float("nan"), float("inf"), 0, -1, 100.5, 101, 10**400],
)
def test_v12_wrong_percentages_are_refused(value: Any) -> None:
    assert "thresholds.ram_pause_pct" in problems_of({"thresholds": {"ram_pause_pct": value}})


@pytest.mark.parametrize("value", ["abc", "30", True, None, [], float("nan"), -1, 86_401])
def test_v12_wrong_seconds_are_refused(value: Any) -> None:
    assert "thresholds.cpu_sustained_seconds" in problems_of({"thresholds": {"cpu_sustained_seconds": value}})


@pytest.mark.parametrize("value", [0, 0.99, -5, "10", False])
def test_intervals_below_a_second_are_refused(value: Any) -> None:
    assert "thresholds.check_interval_seconds" in problems_of(
        {"thresholds": {"check_interval_seconds": value}}
    )


def test_whole_numbers_count_as_percentages_and_fractions_as_seconds() -> None:
    settings = build_settings(
        layer({"thresholds": {"ram_pause_pct": 100, "check_interval_seconds": 1.5, "ram_resume_pct": 0.5}})
    )
    assert settings.thresholds.ram_pause_pct == 100.0
    assert isinstance(settings.thresholds.ram_pause_pct, float)
    assert settings.thresholds.check_interval_seconds == 1.5


def test_seconds_stay_whole_numbers_as_they_were_written() -> None:
    settings = build_settings(layer({"eviction": {"drain_seconds": 4}}))
    assert repr(settings.eviction.drain_seconds) == "4"


@pytest.mark.parametrize(
    ("plain", "path", "words"),
    [
        (
            {"thresholds": {"ram_pause_pct": "eighty"}},
            "thresholds.ram_pause_pct",
            "“eighty” is not a number. Use 1 to 100, such as 85.0.",
        ),
        (
            {"thresholds": {"ram_puase_pct": 80}},
            "thresholds.ram_puase_pct",
            "Unknown key “ram_puase_pct”. Did you mean “ram_pause_pct”?",
        ),
        ({"treshold": {}}, "treshold", "Did you mean “thresholds”?"),
        ({"ram_pause_pct": 80}, "ram_pause_pct", "Did you mean “thresholds.ram_pause_pct”?"),
        ({"zzz": 1}, "zzz", "Known here: control, router, thresholds"),
        ({"control": {"port": 65536}}, "control.port", "Use 0 to 65535, such as 8765."),
        ({"control": {"port": 80.5}}, "control.port", "is not a whole number"),
        ({"control": {"port": True}}, "control.port", "is not a number"),
        ({"control": {"host": 127}}, "control.host", "is not text. Put it in quotes."),
        ({"games": {"enabled": 1}}, "games.enabled", "is neither true nor false"),
        ({"games": {"libraries": "x"}}, "games.libraries", "is not a list"),
        ({"games": []}, "games", "stands where keys and values belong"),
        ({"eviction": {"mode": "al"}}, "eviction.mode", "is none of all, enough. Did you mean “all”?"),
        ({"providers": {"x": {}}}, "providers.x", "“kind” is missing"),
        ({"providers": {"x": {"kind": "olama"}}}, "providers.x.kind", "Did you mean “ollama”?"),
        ({"providers": {"x": {"kind": ["ollama"]}}}, "providers.x.kind", "is not a kind of provider"),
        (
            {"providers": {"x": {"kind": "ollama", "flags": []}}},
            "providers.x.flags",
            "Unknown key “flags”. Known here: models, local, url",
        ),
        (
            {"providers": {"x": {"kind": "llama-server", "models": {"a": {}}}}},
            "providers.x.models.a",
            "“model_path” is missing.",
        ),
        ({"models": {"groups": {"g": {"models": []}}}}, "models.groups.g", "“mode” is missing."),
        ({"models": {"max_concurrent": 0}}, "models.max_concurrent", "is out of range"),
        ({"routes": {"a": {"candidates": [3]}}}, "routes.a.candidates[0]", "keys and values belong"),
        ({"router": {"max_body_bytes": 0}}, "router.max_body_bytes", "is out of range"),
    ],
)
def test_mistakes_name_the_path_and_the_fix(plain: dict[str, Any], path: str, words: str) -> None:
    assert words in problems_of(plain)[path]


def test_every_mistake_is_told_at_once() -> None:
    found = problems_of(
        {
            "thresholds": {"ram_pause_pct": "x", "cpu_resume_pct": 95, "check_interval_seconds": 0},
            "games": {"rules": [{"action": "maybe"}, {"exe": "a"}]},
            "routes": {"a": {"candidates": []}},
            "nonsense": 1,
        }
    )
    assert found.keys() == {
        "thresholds.ram_pause_pct",
        "thresholds.cpu_resume_pct",
        "thresholds.check_interval_seconds",
        "games.rules[0].action",
        "games.rules[1]",
        "routes.a.candidates",
        "nonsense",
    }


def test_secrets_are_not_in_messages_or_reprs() -> None:
    found = problems_of({"control": {"api_key": ["hunter2"]}, "router": {"api_keys": {"a": 123456}}})
    assert found.keys() == {"control.api_key", "router.api_keys.a"}
    assert not any("hunter2" in message or "123456" in message for message in found.values())
    settings = build_settings(
        layer(
            {"control": {"api_key": "hunter2"}, "router": {"api_keys": {"a": "hunter2"}}}, Origin.ENVIRONMENT
        )
    )
    assert settings.control.api_key == "hunter2"
    assert "hunter2" not in repr(settings)


def test_long_and_multiline_values_are_cut_in_messages() -> None:
    message = problems_of({"log": {"level": "x\n" * 500}})["log.level"]
    assert len(message) < 150
    assert "\n" not in message
