"""Which settings may be changed from outside the file, and what a change comes to."""

from __future__ import annotations

from typing import Any

import pytest

from tray_valet.core.config import Settings
from tray_valet.core.config_changes import Edit, apply_edits, check_api_change, edits_of, read_change
from tray_valet.core.config_layers import build_settings, merge_layers
from tray_valet.core.config_redaction import public_settings
from tray_valet.core.config_tree import Origin, Place, from_plain, to_plain
from tray_valet.core.errors import InvalidValue

FILE = {
    "providers": {
        "comfy": {"kind": "command", "models": {"comfy": {"command": ["a"], "env": {"HF_TOKEN": "hunter2"}}}},
        "local": {
            "kind": "llama-server",
            "models": {"q": {"model_path": "q", "flags": ["--api-key", "hunter2"]}},
        },
        "ollama": {"kind": "ollama"},
    }
}
CURRENT = build_settings(from_plain(FILE, Place(Origin.FILE)))


@pytest.mark.parametrize(
    ("partial", "param"),
    [
        ({"providers": {"new": {"kind": "command", "models": {}}}}, "providers.new"),
        ({"providers": {"comfy": {"models": {"comfy": {"health": "/"}}}}}, "providers.comfy"),
        ({"providers": {"comfy": {"local": False}}}, "providers.comfy"),
        ({"providers": {"comfy": None}}, "providers.comfy"),
        ({"providers": {"local": {"llama_server_path": "/tmp/x"}}}, "providers.local.llama_server_path"),
        ({"llama_server_path": "/tmp/x"}, "providers.local.llama_server_path"),
        ({"system": {"llama_server_path": "/tmp/x"}}, "providers.local.llama_server_path"),
        (
            {"providers": {"local": {"models": {"q": {"flags": ["--log-file", "/x"]}}}}},
            "providers.local.models.q.flags",
        ),
        (
            {"providers": {"local": {"models": {"q": {"params": {"type_k": "f16"}}}}}},
            "providers.local.models.q.flags",
        ),
        (
            {"providers": {"local": {"models": {"q": {"model_path": "/x"}}}}},
            "providers.local.models.q.model_path",
        ),
        ({"models": {"q": {"model_path": "/x"}}}, "providers.local.models.q.model_path"),
        ({"providers": {"x": {"kind": "openai", "api_key": "hunter2"}}}, "providers.x.api_key"),
        ({"control": {"api_key": "hunter2"}}, "control.api_key"),
        ({"api_key": "hunter2"}, "control.api_key"),
        ({"router": {"api_keys": {"me": "hunter2"}}}, "router.api_keys.me"),
        ({"log": {"file": "/home/me/.bashrc"}}, "log.file"),
        ({"log_file": "/home/me/.bashrc"}, "log.file"),
    ],
)
def test_commands_files_and_keys_come_from_the_file_only(partial: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_api_change(partial, CURRENT)
    assert caught.value.param == param
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "partial",
    [
        {"thresholds": {"ram_pause_pct": 80}},
        {"providers": {"ollama": {"url": "http://127.0.0.1:1"}, "new": {"kind": "vllm"}}},
        {"providers": {"ollama": None}},
        {"providers": {"local": {"first_port": 9000, "models": {"q": {"cpu_only": True}}}}},
        {"providers": {"cloud": {"kind": "openai", "api_key": "keyring:openai"}}},
        {"control": {"api_key": None}},
        {"log": {"level": "debug"}},
        {"games": {"rules": [{"exe": "a", "action": "off"}]}},
    ],
)
def test_everything_else_may_be_changed(partial: dict[str, Any]) -> None:
    check_api_change(partial, CURRENT)


@pytest.mark.parametrize(
    ("file", "partial", "edits"),
    [
        ({}, {"log": {"level": "debug"}}, [Edit(("log", "level"), "debug")]),
        ({"log": {"level": "debug"}}, {"log": {"level": "debug"}}, []),
        ({"thresholds": {"ram_pause_pct": 80}}, {"thresholds": {"ram_pause_pct": 80.0}}, []),
        ({"games": {"enabled": 1}}, {"games": {"enabled": True}}, [Edit(("games", "enabled"), True)]),
        ({"max_concurrent_models": 2}, {"models": {"max_concurrent": 2}}, []),
        (
            {"max_concurrent_models": 2},
            {"models": {"max_concurrent_models": 3}},
            [Edit(("models", "max_concurrent"), 3)],
        ),
        (
            {"routes": {"a": {"num_ctx": 600}, "b": {}}},
            {"routes": {"a": None, "c": None}},
            [Edit(("routes", "a"), is_removal=True)],
        ),
        (
            {"routes": {"a": {"num_ctx": 600}}},
            {"routes": {"a": {"num_ctx": None}}},
            [Edit(("routes", "a", "num_ctx"), None)],
        ),
        (
            {"providers": {"x": {"kind": "ollama", "models": ["a"]}}},
            {"providers": {"x": {"kind": "openai"}}},
            [Edit(("providers", "x"), {"kind": "openai"})],
        ),
        (
            {"providers": {"l": {"kind": "llama-server", "models": {"q": {"cpu_only": True}}}}},
            {"providers": {"l": {"models": {"q": None}}}},
            [Edit(("providers", "l", "models", "q"), is_removal=True)],
        ),
        ({}, {"providers": {}}, [Edit(("providers",), {})]),
        ({"providers": {"x": {"kind": "ollama"}}}, {"providers": {}}, []),
        (
            {"router": {"api_keys": {"a": "keyring:a", "b": "keyring:b"}}},
            {"router": {"api_keys": {"a": None}}},
            [Edit(("router", "api_keys", "a"), is_removal=True)],
        ),
        ({"games": {"rules": [1]}}, {"games": {"rules": []}}, [Edit(("games", "rules"), [])]),
    ],
)
def test_a_change_comes_to_the_edits_that_are_needed(
    file: dict[str, Any], partial: dict[str, Any], edits: list[Edit]
) -> None:
    tree, _ = merge_layers(from_plain(file, Place(Origin.FILE)))
    found = edits_of(tree, read_change(partial))
    assert found == edits
    after = to_plain(apply_edits(tree, found))
    assert edits_of(from_plain(after, Place(Origin.FILE)), read_change(partial)) == []


def test_shown_settings_hold_no_secret() -> None:
    environment = from_plain(
        {
            "control": {"api_key": "hunter2"},
            "router": {"api_keys": {"a": "hunter2", "b": "keyring:b"}},
            "providers": {"cloud": {"kind": "openai", "api_key": "hunter2"}},
        },
        Place(Origin.ENVIRONMENT),
    )
    shown = public_settings(build_settings(from_plain(FILE, Place(Origin.FILE)), environment))
    assert "hunter2" not in str(shown)
    assert shown["router"]["api_keys"] == {"a": "********", "b": "keyring:b"}
    assert shown["providers"]["local"]["models"]["q"]["flags"] == ["--api-key", "********"]


def test_shown_settings_are_otherwise_the_settings() -> None:
    shown = public_settings(Settings())
    assert build_settings(from_plain(shown, Place(Origin.FILE))) == Settings()
