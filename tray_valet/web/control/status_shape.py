"""The shapes of /status, /watchdog and /metrics: the picture in the field names that clients know.

Decides: names and units on the wire (MB = 2²⁰ bytes, whole). Must not: compute what is the case.
The seeds' fields come first in each shape and keep their meaning; ours follow.
"""

from __future__ import annotations

from typing import Any

from tray_valet.core.addresses import is_loopback_host
from tray_valet.core.config import LocalAccess, Settings, ThresholdSettings
from tray_valet.core.downloads import Download
from tray_valet.core.journal import JournalEntry
from tray_valet.core.metrics import DiskSample, GpuSample, MachineSample
from tray_valet.core.models import Condition, LoadedModel
from tray_valet.core.snapshot import GameView, HoldView, PauseReport, ProviderView, Snapshot
from tray_valet.core.thresholds import is_overcommitted
from tray_valet.web.edge.wire_units import MIB, rounded_s


def status(snapshot: Snapshot, sample: MachineSample | None, settings: Settings) -> dict[str, Any]:
    """`GET /status`: everything at one moment."""
    sample = sample or snapshot.sample
    return {
        "provider": provider(snapshot, sample, settings),
        "metrics": metrics(sample, settings.thresholds, snapshot.gpu_missing_because),
        "watchdog": watchdog(snapshot),
        "version": snapshot.version,
        "security": security(settings),
        "models": [loaded_model(view, model) for view in snapshot.providers for model in view.loaded],
        "loading": [
            {"provider": view.name, "name": name} for view in snapshot.providers for name in view.loading
        ],
        "to_bring_back": [journal_entry(entry) for entry in snapshot.to_bring_back],
        "last_pause": pause_report(snapshot.last_pause),
        "games": [running_game(game) for game in snapshot.games],
        "downloads": [download(each) for each in snapshot.downloads],
        "conditions": conditions(snapshot),
        "settings_problem": snapshot.settings_problem,
        "process_source": snapshot.process_source,
        "builtin_demo": snapshot.is_built_in_demo,
        "in_flight": snapshot.in_flight,
        "control_url": snapshot.control_url,
        "router_url": snapshot.router_url,
        "taken_at": snapshot.taken_at,
    }


def condition(each: Condition) -> dict[str, Any]:
    """Something that is the case with a provider."""
    return {"type": each.type.value, "status": each.status, "reason": each.reason, "since": each.since}


def conditions(snapshot: Snapshot) -> list[dict[str, Any]]:
    """What is the matter with providers, all in one list."""
    return [
        {"provider": view.name, **condition(each)} for view in snapshot.providers for each in view.conditions
    ]


def watchdog(snapshot: Snapshot) -> dict[str, Any]:
    """`GET /watchdog`: the state, why, and what comes next."""
    return {
        "state": snapshot.state.value,
        "last_reason": snapshot.last_reason,
        "since": snapshot.since,
        "title": snapshot.title,
        "line": snapshot.line,
        "resumes_in_seconds": rounded_s(snapshot.resumes_in_s),
        "holds": [hold(view) for view in snapshot.holds],
    }


def provider(snapshot: Snapshot, sample: MachineSample | None, settings: Settings) -> dict[str, Any]:
    """The provider of the default or of a loaded model; without any, the first local one."""
    view, model = _shown_provider(snapshot, settings.models.default)
    if view is None:
        return {
            "running": False,
            "model_loaded": False,
            **dict.fromkeys(
                ("model_name", "memory_used_mb", "size_vram_mb", "loaded_context_length", "endpoint")
            ),
            "overcommit": False,
            "name": None,
            "kind": None,
            "builtin_demo": snapshot.is_built_in_demo,
        }
    ram_total_bytes = sample.host.ram_total_bytes if sample else 0
    return {
        "running": view.state == "ready",
        "model_loaded": model is not None,
        "model_name": model.name if model else None,
        "memory_used_mb": model.size_bytes // MIB if model else None,
        "size_vram_mb": model.vram_bytes // MIB if model else None,
        "loaded_context_length": model.context_length if model else None,
        "endpoint": view.url,
        "overcommit": any(
            is_overcommitted(each.size_bytes, ram_total_bytes, settings.thresholds) for each in view.loaded
        ),
        "name": view.name,
        "kind": view.kind.value,
        "builtin_demo": snapshot.is_built_in_demo,
    }


def metrics(
    sample: MachineSample | None, thresholds: ThresholdSettings, gpu_missing_because: str | None = None
) -> dict[str, Any]:
    """`GET /metrics`: the machine. Without a sample every figure is null."""
    host = sample.host if sample else None
    return {
        "memory": {
            "total_mb": host.ram_total_bytes // MIB if host else None,
            "used_mb": host.ram_used_bytes // MIB if host else None,
            "used_pct": round(host.ram_pct, 1) if host else None,
            "pressure": _pressure(host.ram_pct, thresholds) if host else "normal",
        },
        "cpu": {
            "used_pct": round(host.cpu_pct, 1) if host else None,
            "core_count": host.core_count if host else None,
        },
        "gpu": _gpus(sample.gpus if sample else (), gpu_missing_because),
        "disk": _disk(sample.disk if sample else None),
        "timestamp": sample.taken_at if sample else None,
    }


def security(settings: Settings) -> dict[str, Any]:
    """Whether other machines can reach us, and whether callers need a key."""
    hosts = [settings.control.host, *([settings.router.host] if settings.router.enabled else [])]
    is_keyed = bool(settings.control.api_key) or settings.control.local_access is LocalAccess.TOKEN
    return {
        "lan_exposed": not all(is_loopback_host(host) for host in hosts),
        "auth_enabled": is_keyed,
        "local_access": settings.control.local_access.value,
        "router_auth_enabled": bool(settings.router.api_keys),
    }


def hold(view: HoldView) -> dict[str, Any]:
    """One active hold, as /holds lists it."""
    held = view.hold
    return {
        "id": held.id,
        "kind": held.kind.value,
        "owner": held.owner,
        "reason": view.text,
        "since": held.since,
        "overridden": view.is_overridden,
        "expires_in_seconds": rounded_s(view.expires_in_s),
        "pid": held.process.pid if held.process else None,
        "needs_manual_resume": held.needs_manual_resume,
    }


def loaded_model(view: ProviderView, model: LoadedModel) -> dict[str, Any]:
    """A model in memory."""
    return {
        "provider": view.name,
        "name": model.name,
        "size_mb": model.size_bytes // MIB,
        "vram_mb": model.vram_bytes // MIB,
        "context_length": model.context_length,
        "ttl_left_seconds": rounded_s(model.ttl_left_s),
        "needs_gpu": model.needs_gpu,
        "pid": model.pid,
    }


def journal_entry(entry: JournalEntry) -> dict[str, Any]:
    """A model that is to come back, as it was."""
    return {
        "provider": entry.provider,
        "name": entry.model,
        "size_mb": entry.size_bytes // MIB,
        "vram_mb": entry.vram_bytes // MIB,
        "context_length": entry.context_length,
        "ttl_left_seconds": rounded_s(entry.ttl_left_s),
    }


def pause_report(report: PauseReport | None) -> dict[str, Any] | None:
    """How the last pause went; null before the first."""
    if report is None:
        return None
    return {
        "models": list(report.models),
        "freed_mb": report.freed_bytes // MIB,
        "took_seconds": round(report.took_s, 3),
        "at": report.at,
        "confirmed_by_memory": report.is_confirmed_by_memory,
    }


def running_game(game: GameView) -> dict[str, Any]:
    """A game that runs now."""
    return {
        "key": game.key,
        "name": game.name,
        "store": game.store,
        "appid": game.appid,
        "rule": game.rule,
        "action": game.action,
        "pids": list(game.pids),
        "since": game.since,
        "overridden": game.is_overridden,
        "ending": game.ending,
    }


def download(each: Download) -> dict[str, Any]:
    """A download; `percent` is null while its size is not known."""
    total = each.total_bytes
    return {
        "id": each.id,
        "model": each.model,
        "provider": each.provider,
        "state": each.state.value,
        "status": each.status or None,
        "completed_bytes": each.completed_bytes,
        "total_bytes": total,
        "percent": round(min(100.0, 100.0 * each.completed_bytes / total), 1) if total else None,
        "attempts": each.attempts,
        "error": each.error or None,
        "added_at": each.added_at,
        "next_try_at": each.next_try_at,
        "ended_at": each.ended_at,
    }


def _shown_provider(
    snapshot: Snapshot, default: str | None
) -> tuple[ProviderView | None, LoadedModel | None]:
    loaded = [(view, model) for view in snapshot.providers for model in view.loaded]
    if default:
        for view, model in loaded:
            names = (model.name, model.name.removesuffix(":latest"))
            if default in (*names, *(f"{view.name}/{name}" for name in names)):
                return view, model
        named = next((view for view in snapshot.providers if default.startswith(f"{view.name}/")), None)
        if named is not None:
            return named, next(iter(named.loaded), None)
    if loaded:
        return loaded[0]
    local = next((view for view in snapshot.providers if view.is_local), None)
    return local or next(iter(snapshot.providers), None), None


def _pressure(ram_pct: float, thresholds: ThresholdSettings) -> str:
    if ram_pct >= thresholds.ram_pause_pct:
        return "critical"
    return "warn" if ram_pct >= thresholds.ram_resume_pct else "normal"


def _gpus(gpus: tuple[GpuSample, ...], missing_because: str | None) -> dict[str, Any]:
    """All GPUs added up in the seed's fields (the busiest one's load), and each by itself."""
    total_bytes = sum(gpu.vram_total_bytes for gpu in gpus)
    used_bytes = sum(gpu.vram_used_bytes for gpu in gpus)
    loads = [gpu.utilization_pct for gpu in gpus if gpu.utilization_pct is not None]
    return {
        "available": bool(gpus),
        "vram_total_mb": total_bytes // MIB if gpus else None,
        "vram_used_mb": used_bytes // MIB if gpus else None,
        "vram_used_pct": round(100.0 * used_bytes / total_bytes, 1) if total_bytes else None,
        "compute_pct": round(max(loads), 1) if loads else None,
        "gpus": [_gpu(gpu) for gpu in gpus],
        "missing_because": None if gpus else missing_because,
    }


def _gpu(gpu: GpuSample) -> dict[str, Any]:
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "vram_total_mb": gpu.vram_total_bytes // MIB,
        "vram_used_mb": gpu.vram_used_bytes // MIB,
        "vram_used_pct": round(gpu.vram_pct, 1),
        "compute_pct": gpu.utilization_pct,
        "temperature_c": gpu.temperature_c,
        "power_w": gpu.power_w,
    }


def _disk(disk: DiskSample | None) -> dict[str, Any]:
    return {
        "path": disk.path if disk else None,
        "total_mb": disk.total_bytes // MIB if disk else None,
        "used_mb": disk.used_bytes // MIB if disk else None,
        "free_mb": disk.free_bytes // MIB if disk else None,
        "used_pct": round(disk.used_pct, 1) if disk else None,
    }
