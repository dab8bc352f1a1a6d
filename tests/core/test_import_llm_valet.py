"""llm-valet's config.yaml in our settings."""

from typing import Any

import pytest

from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_tree import Node, Origin, Place, dotted, from_plain
from tray_valet.core.import_llm_valet import read_llm_valet
from tray_valet.core.import_plan import plan_import
from tray_valet.core.import_report import Ground, ImportPlan, ImportSource

_PLACE = Place(Origin.FILE)


def _plan(document: dict[str, Any], current: dict[str, Any] | None = None, **options: Any) -> ImportPlan:
    now = from_plain(current or {}, _PLACE)
    findings = read_llm_valet(from_plain(document, _PLACE), Ground(current=now))
    options.setdefault("known_secrets", {})
    plan = plan_import(ImportSource.LLM_VALET, findings, now, **options)
    build_settings(from_plain(plan.change, _PLACE))  # what is written is right
    return plan


def _taken(plan: ImportPlan) -> dict[str, Any]:
    return {dotted(item.path): item.value for item in plan.taken}


def _left(plan: ImportPlan) -> dict[str, str]:
    return {one.source: f"{one.why} {one.remedy}".strip() for one in plan.left}


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("host", "127.0.0.2", "control.host"),
        ("port", 9000, "control.port"),
        ("provider", "ollama", "providers.ollama.kind"),
        ("ollama_url", "http://192.168.1.5:11434", "providers.ollama.url"),
        ("model_name", "llama3:8b", "models.default"),
        ("key_acknowledged", True, "control.key_acknowledged"),
        ("cors_origins", ["http://localhost:3000"], "control.cors_origins"),
        ("extra_allowed_hosts", ["box.local"], "control.allowed_hosts"),
        ("log_file", "~/.llm-valet/valet.log", "log.file"),
    ],
)
def test_each_field_has_its_place(key: str, value: Any, path: str) -> None:
    assert _taken(_plan({key: value})) == {path: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ram_pause_pct", 90.0),
        ("ram_resume_pct", 50),
        ("cpu_pause_pct", 95),
        ("cpu_sustained_seconds", 5),
        ("gpu_vram_pause_pct", 99.5),
        ("pause_timeout_seconds", 60),
        ("check_interval_seconds", 2),
        ("auto_resume_on_ram_pressure", False),
    ],
)
def test_each_threshold_has_its_place(key: str, value: Any) -> None:
    assert _taken(_plan({"thresholds": {key: value}})) == {f"thresholds.{key}": value}


def test_an_api_key_goes_to_the_keyring_and_opens_the_address() -> None:
    plan = _plan({"host": "0.0.0.0", "api_key": "hunter2"})
    assert _taken(plan) == {"control.host": "0.0.0.0", "control.api_key": "keyring:control"}
    assert plan.secrets == {"control": "hunter2"}
    assert "hunter2" not in repr(plan)


@pytest.mark.parametrize("key", ["", None])
def test_without_a_key_an_open_address_is_not_taken(key: str | None) -> None:
    plan = _plan({"host": "0.0.0.0", "api_key": key, "port": 8765})
    assert _taken(plan) == {"control.port": 8765}
    assert "no key is set" in _left(plan)["host"]
    assert _left(plan)["host"].endswith("Until then it stays 127.0.0.1.")


@pytest.mark.parametrize(
    ("document", "source", "words"),
    [
        ({"ollama_url": "http://example.com:11434"}, "ollama_url", "not on this machine"),
        ({"ollama_url": "http://bob:pw@127.0.0.1:11434"}, "ollama_url", "a password"),
        ({"port": 99999}, "port", "out of range"),
        ({"port": "8765"}, "port", "leave the quotes out"),
        ({"port": True}, "port", "not a number"),
        ({"provider": "mlx"}, "provider", "not known"),
        ({"model_name": "../etc/passwd"}, "model_name", "not a model name"),
        ({"thresholds": {"ram_pause_pct": 120}}, "thresholds.ram_pause_pct", "out of range"),
        ({"thresholds": {"check_interval_seconds": 0}}, "thresholds.check_interval_seconds", "out of range"),
        ({"thresholds": {"nonsense": 1}}, "thresholds.nonsense", "no such threshold"),
        ({"thresholds": [1]}, "thresholds", "keys and values"),
        ({"prot": 1, "port": 9000}, "prot", "Did you mean “port”?"),
        ({"api_key": ["x"]}, "api_key", "not text"),
    ],
)
def test_what_is_wrong_is_told_and_not_taken(document: dict[str, Any], source: str, words: str) -> None:
    plan = _plan(document)
    assert words in _left(plan)[source]
    assert not any(item.source == source for item in plan.taken)
    assert "pw" not in str(plan.left)


def test_the_star_among_origins_is_left_out_alone_and_the_second_import_finds_nothing_to_do() -> None:
    document = {"cors_origins": ["http://localhost:3000", "*"]}
    plan = _plan(document)
    assert _taken(plan) == {"control.cors_origins": ["http://localhost:3000"]}
    assert "every web page" in _left(plan)["cors_origins[1]"]
    again = _plan(document, plan.change)
    assert (again.change, [one.source for one in again.left]) == ({}, ["cors_origins[1]"])


def test_limits_that_cross_are_not_taken() -> None:
    plan = _plan({"thresholds": {"ram_pause_pct": 50.0, "ram_resume_pct": 60.0}})
    assert plan.left
    assert "thresholds.ram_pause_pct" not in _taken(plan) or "thresholds.ram_resume_pct" not in _taken(plan)


@pytest.mark.parametrize(("pause", "resume"), [(75.0, 65.0), (80.0, 70.0), (10.0, 5.0), (85.0, None)])
def test_a_low_pause_limit_brings_a_lower_resume_limit(pause: float, resume: float | None) -> None:
    taken = _taken(_plan({"thresholds": {"cpu_pause_pct": pause}}))
    assert taken["thresholds.cpu_pause_pct"] == pause
    assert taken.get("thresholds.cpu_resume_pct") == resume


@pytest.mark.parametrize("word", ["yes", "on", True])
def test_the_words_for_true_that_llm_valet_reads(word: Any) -> None:
    assert _taken(_plan({"key_acknowledged": word})) == {"control.key_acknowledged": True}


def test_null_leaves_the_default_alone() -> None:
    plan = _plan({"model_name": None, "port": 8765, "thresholds": None})
    assert _taken(plan) == {"control.port": 8765}
    assert not plan.left


def test_what_is_set_otherwise_stays_unless_it_is_to_be_replaced() -> None:
    current = {"control": {"port": 9999}}
    plan = _plan({"port": 8765}, current)
    assert plan.change == {}
    assert "control.port is set already, to “9999”." in _left(plan)["port"]
    assert "--replace" in _left(plan)["port"]
    assert _plan({"port": 8765}, current, is_replacing=True).change == {"control": {"port": 8765}}


def test_another_key_under_the_same_name_is_not_lost() -> None:
    current = {"control": {"api_key": "keyring:control"}}
    plan = _plan({"api_key": "new"}, current, known_secrets={"control": "old"})
    assert (plan.change, plan.secrets) == ({}, {})
    assert "holds another key" in _left(plan)["api_key"]
    replaced = _plan({"api_key": "new"}, current, known_secrets={"control": "old"}, is_replacing=True)
    assert replaced.secrets == {"control": "new"}


def test_a_key_that_is_referred_to_but_not_kept_is_kept() -> None:
    plan = _plan({"api_key": "new"}, {"control": {"api_key": "keyring:control"}})
    assert (plan.change, plan.secrets) == ({}, {"control": "new"})


def test_the_document_itself_is_not_changed() -> None:
    document = from_plain({"port": 9000}, _PLACE)
    read_llm_valet(document, Ground(current=Node({}, _PLACE)))
    assert document == from_plain({"port": 9000}, _PLACE)
