"""Values against each other: what is refused although every single one is fine."""

from __future__ import annotations

from typing import Any

import pytest

from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_tree import Origin, Place, from_plain
from tray_valet.core.errors import SettingsError


def problems_of(plain: dict[str, Any], origin: Origin = Origin.FILE, **kwargs: Any) -> dict[str, str]:
    try:
        build_settings(from_plain(plain, Place(origin)), **kwargs)
    except SettingsError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


@pytest.mark.parametrize("signal", ["ram", "cpu", "gpu_vram"])
def test_the_resume_limit_must_be_below_the_pause_limit(signal: str) -> None:
    pause, resume = f"{signal}_pause_pct", f"{signal}_resume_pct"
    for pause_pct, resume_pct in ((50, 50), (50, 60)):
        found = problems_of({"thresholds": {pause: pause_pct, resume: resume_pct}})
        assert found == {
            f"thresholds.{pause}": f"The pause limit must be above the resume limit, {resume_pct}%."
        }
    assert problems_of({"thresholds": {pause: 50.1, resume: 50}}) == {}


def test_the_written_or_changed_limit_gets_the_blame() -> None:
    found = problems_of({"thresholds": {"ram_resume_pct": 90}})
    assert found == {"thresholds.ram_resume_pct": "The resume limit must be below the pause limit, 85%."}
    both = {"thresholds": {"ram_pause_pct": 80, "ram_resume_pct": 90}}
    assert list(problems_of(both, changed=[("thresholds", "ram_resume_pct")])) == [
        "thresholds.ram_resume_pct"
    ]
    assert list(problems_of(both, changed=[("thresholds", "ram_pause_pct")])) == ["thresholds.ram_pause_pct"]


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://localhost:11434/", True),
        ("http://[::1]:11434", True),
        ("https://10.1.2.3", True),
        ("http://172.31.255.255", True),
        ("http://172.32.0.1", False),
        ("http://192.168.1.30:8000", True),
        ("http://[fd12::1]:8000", True),
        ("http://[fe80::1]:8000", True),
        ("http://tower.local:11434", True),
        ("http://tower.local.evil.com", False),
        ("http://evil.com", False),
        ("http://8.8.8.8", False),
        ("http://[2001:4860:4860::8888]", False),
        ("http://[::ffff:8.8.8.8]", False),
        ("http://169.254.169.254", False),
        ("http://0.0.0.0:11434", False),
        ("http://2130706433", False),
        ("http://0x7f.1", False),
        ("http://127.0.0.1.evil.com", False),
        ("http://127.0.0.1@evil.com", False),
        ("http://user:pass@127.0.0.1", False),
        ("http://evil.com\\@127.0.0.1", False),
        ("ftp://127.0.0.1", False),
        ("file:///etc/passwd", False),
        ("127.0.0.1:11434", False),
        ("http://127.0.0.1:99999", False),
        ("http://127.0.0.1/?a=b", False),
        ("http://127.0.0.1/\nX: y", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("kind", ["ollama", "lm-studio", "vllm"])
@pytest.mark.parametrize("origin", [Origin.FILE, Origin.CHANGE])
def test_local_kinds_are_reached_on_this_network_only(
    kind: str, url: str, is_fine: bool, origin: Origin
) -> None:
    found = problems_of({"providers": {"x": {"kind": kind, "url": url}}}, origin)
    assert list(found) == ([] if is_fine else ["providers.x.url"])


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("https://api.example.com/v1", True),
        ("http://192.168.1.4:8000/v1", True),
        ("http://api.example.com/v1", False),
        ("https://key@api.example.com", False),
    ],
)
def test_keys_do_not_travel_unencrypted(url: str, is_fine: bool) -> None:
    found = problems_of({"providers": {"x": {"kind": "openai", "url": url}}})
    assert list(found) == ([] if is_fine else ["providers.x.url"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "tower.local"])
def test_the_network_is_closed_without_a_key(host: str) -> None:
    assert "no key is set" in problems_of({"control": {"host": host}})["control.host"]
    assert "no key is set" in problems_of({"router": {"host": host}})["router.host"]
    assert problems_of({"control": {"host": host, "api_key": "keyring:control"}}) == {}
    assert problems_of({"router": {"host": host, "api_keys": {"me": "keyring:me"}}}) == {}


@pytest.mark.parametrize("host", ["", "a b", "http://x", "127.0.0.1:80", "127.1"])
def test_hosts_are_addresses_or_names(host: str) -> None:
    assert "is not an address" in problems_of({"control": {"host": host}})["control.host"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_loopback_needs_no_key(host: str) -> None:
    assert problems_of({"control": {"host": host}, "router": {"host": host}}) == {}


def test_both_ports_differ_unless_any_free_one_will_do() -> None:
    assert list(problems_of({"control": {"port": 8766}})) == ["control.port"]
    assert list(problems_of({"router": {"port": 8765}})) == ["router.port"]
    assert problems_of({"control": {"port": 0}, "router": {"port": 0}}) == {}
    assert problems_of({"control": {"port": 8766}, "router": {"enabled": False}}) == {}


@pytest.mark.parametrize(
    ("origin", "is_fine"),
    [
        ("http://localhost:3000", True),
        ("https://chat.example.com", True),
        ("*", False),
        ("null", False),
        ("http://localhost:3000/", False),
        ("localhost:3000", False),
        ("https://*.example.com", False),
    ],
)
def test_origins_are_named_one_by_one(origin: str, is_fine: bool) -> None:
    for section in ("control", "router"):
        found = problems_of({section: {"cors_origins": [origin]}})
        assert list(found) == ([] if is_fine else [f"{section}.cors_origins[0]"])


def test_allowed_hosts_are_names() -> None:
    found = problems_of({"control": {"allowed_hosts": ["tower.local", "10.0.0.1", "*", "a:80"]}})
    assert list(found) == ["control.allowed_hosts[2]", "control.allowed_hosts[3]"]


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"control": {"api_key": "hunter2"}}, "control.api_key"),
        ({"router": {"api_keys": {"me": "hunter2"}}}, "router.api_keys.me"),
        ({"providers": {"c": {"kind": "openai", "api_key": "hunter2"}}}, "providers.c.api_key"),
    ],
)
def test_v17_keys_are_references(section: dict[str, Any], path: str) -> None:
    for origin in (Origin.FILE, Origin.CHANGE):
        message = problems_of(section, origin)[path]
        assert "keyring:NAME" in message
        assert "hunter2" not in message
    assert problems_of(section, Origin.ENVIRONMENT) == {}


@pytest.mark.parametrize("value", ["", "keyring:", "keyring:a/b", "keyring:a b"])
def test_references_name_a_secret(value: str) -> None:
    assert "control.api_key" in problems_of({"control": {"api_key": value}})


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"verdict": "game"}, "games.rules[0]"),
        ({"exe": "a"}, "games.rules[0]"),
        ({"exe": " ", "action": "on"}, "games.rules[0].exe"),
        ({"argv_regex": "(", "action": "on"}, "games.rules[0].argv_regex"),
        ({"argv_regex": "a" * 2000, "action": "on"}, "games.rules[0].argv_regex"),
        ({"exe": "a", "action": "yes"}, "games.rules[0].action"),
        ({"exe": "a", "verdict": "gaem"}, "games.rules[0].verdict"),
        ({"appid": True, "action": "on"}, "games.rules[0].appid"),
    ],
)
def test_wrong_rules_are_refused(rule: dict[str, Any], path: str) -> None:
    assert list(problems_of({"games": {"rules": [rule]}})) == [path]


def test_rules_as_people_write_them() -> None:
    rules = [
        {"exe": "hades.exe", "action": "on"},
        {"appid": 1145360, "action": "off"},
        {"appid": "Fortnite", "action": "ask"},
        {"root": "~/Games", "verdict": "game"},
        {"argv_regex": r"--fullscreen\b", "verdict": "gpu_app", "action": "ask"},
    ]
    assert problems_of({"games": {"rules": rules}}) == {}


def test_names_that_refer_must_exist() -> None:
    plain = {
        "providers": {"ollama": {"kind": "ollama"}, "broken": {"kind": "nonsense"}},
        "pools": {"both": {"providers": ["ollama", "olama"]}, "ollama": {"providers": ["ollama"]}},
        "routes": {
            "a": {"candidates": [{"provider": "olama", "model": "m"}, {"provider": "both", "model": "m"}]},
            "b": {"candidates": [{"provider": "broken", "model": "m"}]},
        },
    }
    found = problems_of(plain)
    assert "Did you mean “ollama”?" in found["routes.a.candidates[0].provider"]
    assert found.keys() == {
        "providers.broken.kind",
        "pools.both.providers[1]",
        "pools.ollama",
        "routes.a.candidates[0].provider",
    }


def test_routes_may_name_what_is_found_when_no_provider_is_written() -> None:
    routes = {"a": {"candidates": [{"provider": "ollama", "model": "m"}]}}
    assert problems_of({"routes": routes}) == {}
    assert list(problems_of({"routes": routes, "providers": {}})) == ["routes.a.candidates[0].provider"]


@pytest.mark.parametrize("name", ["a b", "", "a/b", "ü", "x" * 65])
def test_provider_names_are_plain(name: str) -> None:
    assert list(problems_of({"providers": {name: {"kind": "ollama"}}})) == [f"providers.{name}"]


@pytest.mark.parametrize(
    ("value", "is_fine"),
    [(300, True), (-1, True), ("5m", True), ("1h30m", True), ("-1s", True), ("soon", False), ("5", False)],
)
def test_keep_alive_is_seconds_or_a_duration(value: Any, is_fine: bool) -> None:
    route = {"candidates": [{"provider": "x", "model": "m"}], "keep_alive": value}
    assert list(problems_of({"routes": {"a": route}})) == ([] if is_fine else ["routes.a.keep_alive"])


def test_small_contexts_and_wrong_models_are_refused() -> None:
    plain = {
        "routes": {"a": {"candidates": [{"provider": "x", "model": "../m"}], "num_ctx": 511}},
        "models": {
            "preload": ["*", "a b"],
            "default": "",
            "groups": {"g": {"mode": "swap", "models": ["m"]}},
        },
    }
    assert problems_of(plain).keys() == {
        "routes.a.candidates[0].model",
        "routes.a.num_ctx",
        "models.preload[1]",
        "models.default",
    }


def test_a_model_is_in_one_group() -> None:
    groups = {"a": {"mode": "together", "models": ["m"]}, "b": {"mode": "swap", "models": ["n", "m"]}}
    assert list(problems_of({"models": {"groups": groups}})) == ["models.groups.b.models[1]"]
