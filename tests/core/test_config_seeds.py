"""The seeds' spellings mean the same as ours."""

from __future__ import annotations

from typing import Any

import pytest

from tray_valet.core.config import Settings
from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.config_tree import Origin, Place, from_plain
from tray_valet.core.errors import SettingsError


def build(plain: dict[str, Any]) -> Settings:
    return build_settings(from_plain(plain, Place(Origin.FILE)))


def problems_of(plain: dict[str, Any]) -> dict[str, str]:
    try:
        build(plain)
    except SettingsError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


def local(settings: Settings) -> LlamaServerSettings:
    assert settings.providers is not None
    provider = settings.providers["local"]
    assert isinstance(provider, LlamaServerSettings)
    return provider


@pytest.mark.parametrize(
    ("seed", "ours"),
    [
        ({"host": "127.0.0.2"}, {"control": {"host": "127.0.0.2"}}),
        ({"port": 9000}, {"control": {"port": 9000}}),
        ({"api_key": ""}, {}),
        ({"api_key": "keyring:k"}, {"control": {"api_key": "keyring:k"}}),
        ({"key_acknowledged": True}, {"control": {"key_acknowledged": True}}),
        ({"cors_origins": ["http://a"]}, {"control": {"cors_origins": ["http://a"]}}),
        ({"extra_allowed_hosts": ["a.local"]}, {"control": {"allowed_hosts": ["a.local"]}}),
        ({"log_file": "~/x.log"}, {"log": {"file": "~/x.log"}}),
        ({"model_name": "llama3"}, {"models": {"default": "llama3"}}),
        (
            {"ollama_url": "http://10.0.0.2:11434"},
            {"providers": {"ollama": {"kind": "ollama", "url": "http://10.0.0.2:11434"}}},
        ),
        ({"provider": "ollama"}, {"providers": {"ollama": {"kind": "ollama"}}}),
        ({"max_concurrent_models": 2}, {"models": {"max_concurrent": 2}}),
        ({"system": {"max_concurrent_models": 2}}, {"models": {"max_concurrent": 2}}),
        ({"models": {"max_concurrent_models": 2}}, {"models": {"max_concurrent": 2}}),
        ({"system": {"idle_timeout_sec": 60}}, {"models": {"idle_timeout_seconds": 60}}),
        ({"system": {"enable_idle_timeout": True}}, {}),
        ({"system": {"enable_idle_timeout": False}}, {"models": {"idle_timeout_seconds": 0}}),
        (
            {"system": {"enable_idle_timeout": False, "idle_timeout_sec": 300}},
            {"models": {"idle_timeout_seconds": 0}},
        ),
        ({"models": {"enable_idle_timeout": False}}, {"models": {"idle_timeout_seconds": 0}}),
        ({"system": {"preload_models": ["*"]}}, {"models": {"preload": ["*"]}}),
        ({"system": {"request_timeout_sec": 60}}, {"router": {"request_timeout_seconds": 60}}),
        ({"system": {"max_queue_size_per_model": 9}}, {"router": {"max_queue_size_per_model": 9}}),
        ({"system": {"vram_multiplier": 1.3}}, {"models": {"vram_multiplier": 1.3}}),
        ({"api": {"host": "127.0.0.1", "port": 8000}}, {"router": {"port": 8000}}),
        (
            {"system": {"llama_server_path": "/x", "base_models_path": "/m", "gpu_devices": [0]}},
            {
                "providers": {
                    "local": {
                        "kind": "llama-server",
                        "llama_server_path": "/x",
                        "base_models_path": "/m",
                        "gpu_devices": [0],
                    }
                }
            },
        ),
        (
            {"system": {"parallel_requests": 4}},
            {"providers": {"local": {"kind": "llama-server", "default_parallel": 4}}},
        ),
        (
            {"providers": {"big": {"kind": "llama-server", "parallel_requests": 4}}},
            {"providers": {"big": {"kind": "llama-server", "default_parallel": 4}}},
        ),
        (
            {"providers": {"box": {"kind": "ollama", "ollama_url": "http://10.0.0.2:1"}}},
            {"providers": {"box": {"kind": "ollama", "url": "http://10.0.0.2:1"}}},
        ),
        (
            {"models": {"q": {"model_path": "q.gguf", "flags": ["-ngl", 99]}}},
            {
                "providers": {
                    "local": {
                        "kind": "llama-server",
                        "models": {"q": {"model_path": "q.gguf", "flags": ["-ngl", "99"]}},
                    }
                }
            },
        ),
        (
            {"models": {"max_concurrent": 3, "max_concurrent_models": 3}},
            {"models": {"max_concurrent": 3}},
        ),
    ],
)
def test_a_seeds_spelling_means_ours(seed: dict[str, Any], ours: dict[str, Any]) -> None:
    assert build(seed) == build(ours)


def test_a_whole_llm_valet_file() -> None:
    settings = build(
        {
            "host": "127.0.0.1",
            "port": 8765,
            "provider": "ollama",
            "ollama_url": "http://127.0.0.1:11434",
            "model_name": "qwen2.5:14b",
            "api_key": "",
            "key_acknowledged": False,
            "cors_origins": [],
            "extra_allowed_hosts": [],
            "log_file": "~/.llm-valet/valet.log",
            "thresholds": {
                "ram_pause_pct": 85.0,
                "ram_resume_pct": 60.0,
                "cpu_pause_pct": 90.0,
                "cpu_sustained_seconds": 30,
                "gpu_vram_pause_pct": 85.0,
                "pause_timeout_seconds": 120,
                "check_interval_seconds": 10,
                "auto_resume_on_ram_pressure": True,
            },
        }
    )
    assert settings.models.default == "qwen2.5:14b"
    assert settings.providers is not None
    assert list(settings.providers) == ["ollama"]


@pytest.mark.parametrize(
    ("params", "flags", "is_cpu_only"),
    [
        (
            {"n_gpu_layers": 99, "n_ctx": 8192, "embedding": True, "type_k": "q8_0", "type_v": "f16"},
            (
                *("-ngl", "99", "--ctx-size", "8192", "--embedding"),
                *("--cache-type-k", "q8_0", "--cache-type-v", "f16"),
            ),
            False,
        ),
        ({"n_ctx": 4096, "embedding": False}, ("--ctx-size", "4096"), False),
        ({"n_gpu_layers": 0}, ("-ngl", "0"), False),
        ({"n_gpu_layers": -1}, ("-ngl", "0"), True),  # the seed: “-1 for CPU-only inference”
        ({}, (), False),
    ],
)
def test_params_become_flags(params: dict[str, Any], flags: tuple[str, ...], is_cpu_only: bool) -> None:
    model = {"model_path": "q.gguf", "params": params}
    for plain in (
        {"models": {"q": model}},
        {"providers": {"local": {"kind": "llama-server", "models": {"q": model}}}},
    ):
        settings = local(build(plain))
        assert settings.models["q"].flags == flags
        assert settings.models["q"].cpu_only is is_cpu_only


def test_threads_and_flash_attention_become_flags_of_models_without_them() -> None:
    settings = local(
        build(
            {
                "system": {"cpu_threads": 8, "flash_attention": "on"},
                "models": {
                    "a": {"model_path": "a"},
                    "b": {"model_path": "b", "flags": ["-fa", "on", "-t", "8"]},
                },
            }
        )
    )
    assert settings.models["a"].flags == ("--threads", "8", "--flash-attn", "on")
    assert settings.models["b"].flags == ("-fa", "on", "-t", "8")


def test_flags_and_params_that_agree_are_joined_and_others_contradict() -> None:
    model = {
        "model_path": "q",
        "flags": ["-c", "4096", "--jinja"],
        "params": {"n_ctx": 4096, "n_gpu_layers": 9},
    }
    assert local(build({"models": {"q": model}})).models["q"].flags == ("-c", "4096", "--jinja", "-ngl", "9")
    model["params"] = {"n_ctx": 8192}
    assert "--ctx-size" in problems_of({"models": {"q": model}})["models.q.flags"]


@pytest.mark.parametrize(
    ("plain", "path"),
    [
        ({"models": {"max_concurrent": 2, "max_concurrent_models": 3}}, "models.max_concurrent"),
        ({"port": 1, "control": {"port": 2}}, "control.port"),
        ({"enable_idle_timeout": "no"}, "enable_idle_timeout"),
        (
            {"enable_idle_timeout": False, "models": {"idle_timeout_seconds": 5}},
            "models.idle_timeout_seconds",
        ),
        ({"system": {"nonsense": 1}}, "system.nonsense"),
        ({"system": 3}, "system"),
        (
            {"models": {"q": {"model_path": "q", "params": {"n_ctx": "big"}}}},
            "models.q.params.n_ctx",
        ),
        ({"models": {"q": {"model_path": "q", "params": {"n_batch": 1}}}}, "models.q.params.n_batch"),
        ({"models": {"q": {"model_path": "q", "params": 3}}}, "models.q.params"),
        ({"system": {"idle_timeout_sec": "abc"}}, "models.idle_timeout_seconds"),
        ({"llama_server_path": "/x", "providers": {"local": {"kind": "ollama"}}}, "providers.local.kind"),
        ({"ollama_url": "http://evil.com"}, "providers.ollama.url"),
        ({"provider": "vllm"}, "provider"),
    ],
)
def test_wrong_older_values_are_told(plain: dict[str, Any], path: str) -> None:
    assert path in problems_of(plain)


def test_messages_say_how_the_value_was_written() -> None:
    message = problems_of({"system": {"idle_timeout_sec": "abc"}})["models.idle_timeout_seconds"]
    assert message.endswith("It is written as system.idle_timeout_sec.")
