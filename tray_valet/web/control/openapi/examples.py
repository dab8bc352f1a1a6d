"""Examples of the control API's larger answers.

Decides: what a reader of the description sees. Must not: differ from what the API answers (a test looks).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tray_valet.core.config import Settings
from tray_valet.core.config_redaction import public_settings

_WATCHDOG = {
    "state": "paused",
    "last_reason": "game detected — steamapps/common/Hades",
    "since": 1_760_000_000.0,
    "title": "Paused for Hades",
    "line": "llama3.2:3b comes back after the game.",
    "resumes_in_seconds": None,
    "holds": [
        {
            "id": "game:steam:1145360",
            "kind": "game",
            "owner": "valet",
            "reason": "game detected — steamapps/common/Hades",
            "since": 1_760_000_000.0,
            "overridden": False,
            "expires_in_seconds": None,
            "pid": None,
            "needs_manual_resume": False,
        }
    ],
}
_METRICS = {
    "memory": {"total_mb": 32_000, "used_mb": 12_800, "used_pct": 40.0, "pressure": "normal"},
    "cpu": {"used_pct": 12.3, "core_count": 16},
    "gpu": {
        "available": True,
        "vram_total_mb": 12_288,
        "vram_used_mb": 2_048,
        "vram_used_pct": 16.7,
        "compute_pct": 31.0,
        "gpus": [],
        "missing_because": None,
    },
    "disk": {
        "path": "/home",
        "total_mb": 500_000,
        "used_mb": 300_000,
        "free_mb": 200_000,
        "used_pct": 60.0,
    },
    "timestamp": 1_760_000_000.0,
}
_PROVIDER = {
    "running": True,
    "model_loaded": False,
    "model_name": None,
    "memory_used_mb": None,
    "size_vram_mb": None,
    "loaded_context_length": None,
    "endpoint": "http://127.0.0.1:11434",
    "overcommit": False,
    "name": "ollama",
    "kind": "ollama",
    "builtin_demo": False,
}
_STATUS = {
    "provider": _PROVIDER,
    "metrics": _METRICS,
    "watchdog": _WATCHDOG,
    "version": "1.0.0",
    "security": {"lan_exposed": False, "auth_enabled": False},
    "models": [],
    "to_bring_back": [],
    "games": [],
    "downloads": [],
    "settings_problem": None,
    "in_flight": 0,
    "control_url": "http://127.0.0.1:8765",
    "router_url": "http://127.0.0.1:8766",
    "taken_at": 1_760_000_000.0,
}
_EXPLAIN = {
    "state": "paused",
    "title": "Paused for Hades",
    "line": "llama3.2:3b comes back after the game.",
    "last_reason": "game detected — steamapps/common/Hades",
    "signals": [],
    "holds": _WATCHDOG["holds"],
    "games": [],
}
_PAUSED = {"ok": True, "state": "paused", "watchdog": _WATCHDOG}
_LOADED = {
    "ok": True,
    "action": "load",
    "model": "llama3.2:3b",
    "provider": "ollama",
    "size_mb": 3_400,
    "vram_mb": 3_400,
    "context_length": 8192,
    "ttl_left_seconds": 300.0,
    "state": "running",
}
_ROUTE: dict[str, Any] = {
    "alias": "assistant",
    "candidates": [],
    "when_paused": "next",
    "now": {"outcome": "serves", "why": "alias", "provider": "ollama", "model": "llama3.2:3b"},
    "sent": None,
}
_SETTINGS = {
    **public_settings(Settings()),
    "meta": {
        "path": "/home/me/.config/tray-valet/config.yaml",
        "version": "3f2a",
        "origins": {"games.grace_seconds": "file"},
        "variables": {},
        "file_only": ["log.file"],
        "problem": None,
    },
}
_THRESHOLDS = public_settings(Settings())["thresholds"]
EXAMPLES: Mapping[tuple[str, str], Any] = {
    ("get", "/status"): _STATUS,
    ("get", "/watchdog"): _WATCHDOG,
    ("get", "/metrics"): _METRICS,
    ("get", "/explain"): _EXPLAIN,
    ("post", "/pause"): {**_PAUSED, "action": "pause"},
    ("post", "/pause/force"): {**_PAUSED, "action": "pause/force"},
    ("post", "/resume"): {**_PAUSED, "action": "resume", "state": "running"},
    ("post", "/load"): _LOADED,
    ("post", "/routes/{alias}/test"): _ROUTE,
    ("get", "/config"): _THRESHOLDS,
    ("put", "/config"): _THRESHOLDS,
    ("get", "/settings"): _SETTINGS,
    ("put", "/settings"): _SETTINGS,
    ("get", "/openapi.json"): {"openapi": "3.1.0"},
}
