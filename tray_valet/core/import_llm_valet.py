"""llm-valet's `config.yaml` in our settings.

Decides: where each of its keys goes. Must not: judge values; our own rules do (`import_plan.py`).
Source: llm-valet's module reference, `Settings` and `ResourceThresholds`.
"""

from __future__ import annotations

from typing import Any

from tray_valet.core.config import ThresholdSettings
from tray_valet.core.config_shapes import nearest
from tray_valet.core.config_tree import Node, SettingsPath, shown, to_plain
from tray_valet.core.import_report import Findings, Ground
from tray_valet.core.models import ProviderKind

_PLACES: dict[str, SettingsPath] = {
    "host": ("control", "host"),
    "port": ("control", "port"),
    "key_acknowledged": ("control", "key_acknowledged"),
    "cors_origins": ("control", "cors_origins"),
    "extra_allowed_hosts": ("control", "allowed_hosts"),
    "model_name": ("models", "default"),
    "log_file": ("log", "file"),
}
_OLLAMA = ("providers", "ollama")
KEYS = frozenset({*_PLACES, "api_key", "provider", "ollama_url", "thresholds"})
_THRESHOLDS = (
    "ram_pause_pct",
    "ram_resume_pct",
    "cpu_pause_pct",
    "cpu_sustained_seconds",
    "gpu_vram_pause_pct",
    "pause_timeout_seconds",
    "check_interval_seconds",
    "auto_resume_on_ram_pressure",
)
# PyYAML, which llm-valet reads with, takes these for true and false (YAML 1.1).
_WORDS = {"yes": True, "on": True, "no": False, "off": False}
_SWITCHES = frozenset({"key_acknowledged", "auto_resume_on_ram_pressure"})
_RESUME_GAP_PCT = 10.0
_SECRET_NAME = "control"


def read_llm_valet(document: Node, ground: Ground) -> Findings:
    """Find what an llm-valet file says; `document` is the file as it was parsed."""
    found = Findings()
    for key, node in document.entries.items():
        if key in _PLACES:
            _take(found, key, _PLACES[key], node)
        elif key == "api_key":
            _take_key(found, node)
        elif key == "ollama_url":
            found.take(key, (*_OLLAMA, "url"), _without_slash(node.value), kind=ProviderKind.OLLAMA)
        elif key == "provider":
            _take_provider(found, node)
        elif key == "thresholds":
            _take_thresholds(found, node, ground)
        else:
            found.leave(key, f"llm-valet has no such setting.{_close(key, KEYS)}")
    return found


def _take(found: Findings, key: str, path: SettingsPath, node: Node, *, source: str = "") -> None:
    value = to_plain(node)
    if value is None:
        return  # llm-valet's way to leave a default alone
    if key in _SWITCHES and isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    found.take(source or key, path, value)


def _take_key(found: Findings, node: Node) -> None:
    if node.value in ("", None):
        return  # llm-valet's way to say that there is none
    if not isinstance(node.value, str | int) or isinstance(node.value, bool):
        found.leave("api_key", "The key is not text.", "Put it in quotes and import again.")
        return
    found.take_secret("api_key", ("control", "api_key"), _SECRET_NAME, str(node.value))


def _take_provider(found: Findings, node: Node) -> None:
    if node.value == ProviderKind.OLLAMA:
        found.take("provider", (*_OLLAMA, "kind"), node.value)
    elif node.value not in ("", None):
        found.leave(
            "provider",
            f"{shown(node.value)} is not known; llm-valet has ollama alone.",
            "Name the provider under providers, with its kind.",
        )


def _take_thresholds(found: Findings, node: Node, ground: Ground) -> None:
    if node.value is None:
        return
    if not isinstance(node.value, dict):
        found.leave("thresholds", f"{shown(to_plain(node))} stands where keys and values belong.")
        return
    for key, item in node.entries.items():
        if key in _THRESHOLDS:
            _take(found, key, ("thresholds", key), item, source=f"thresholds.{key}")
        else:
            found.leave(
                f"thresholds.{key}", f"llm-valet has no such threshold.{_close(key, frozenset(_THRESHOLDS))}"
            )
    for signal in ("cpu", "gpu_vram"):
        pause = node.entries.get(f"{signal}_pause_pct")
        if pause is not None:
            _lower_resume_limit(found, signal, pause.value, ground)


def _lower_resume_limit(found: Findings, signal: str, pause_pct: Any, ground: Ground) -> None:
    """llm-valet resumes below the pause limit itself; ours are two limits, and the pause's is the higher."""
    if not isinstance(pause_pct, int | float) or isinstance(pause_pct, bool) or not 0 < pause_pct <= 100:
        return
    path = ("thresholds", f"{signal}_resume_pct")
    written = ground.current.at(path)
    if written is not None or getattr(ThresholdSettings(), path[1]) < pause_pct:
        return
    resume_pct = round(max(pause_pct - _RESUME_GAP_PCT, pause_pct / 2), 1)
    found.take(f"thresholds.{signal}_pause_pct", path, resume_pct)
    found.notes.append(
        f"llm-valet has one limit for {signal.replace('_', ' ')}; here the models come back below "
        f"{resume_pct:g}%, so that they do not go to and fro."
    )


def _without_slash(url: Any) -> Any:
    return url.rstrip("/") if isinstance(url, str) else url


def _close(key: str, known: frozenset[str]) -> str:
    close = nearest(key, sorted(known))
    return f" Did you mean “{close}”?" if close else ""
