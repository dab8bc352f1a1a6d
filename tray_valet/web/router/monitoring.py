"""The router's monitoring in JSON: health, VRAM, queues, telemetry.

Decides: the shapes, which are the seeds' (MB = 2²⁰ bytes, GB = 2³⁰). Durations are numbers of seconds.
Must not: measure or count (the valet does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tray_valet.core.commands import ModelState, Valet
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import ModelRef
from tray_valet.core.traffic import Outcome, Spread
from tray_valet.core.watchdog import State
from tray_valet.web.edge.wire_units import GIB, MIB, rounded_s

_WELL = frozenset({"ready", "off", "starting", "loading", "stopping"})


def health(valet: Valet) -> tuple[int, dict[str, Any]]:
    """`GET /health`: degraded while some provider is silent, 503 when all are; a pause is not an illness."""
    snapshot = valet.snapshot()
    checks: dict[str, dict[str, Any]] = {
        f"provider:{view.name}": {"status": "ok" if view.state == "ready" else view.state}
        for view in snapshot.providers
    }
    silent = sum(view.state == "unreachable" for view in snapshot.providers)
    is_down = silent > 0 and silent == len(snapshot.providers)
    checks["valet"] = {"status": "ok", "state": snapshot.state.value, "reason": snapshot.last_reason}
    shape = {"status": "down" if is_down else "degraded" if silent else "ok", "checks": checks}
    return (503 if is_down else 200), shape


async def vram(valet: Valet) -> dict[str, Any]:
    """`GET /vram`: all GPUs together, each by itself, and what the models take of them."""
    sample = await valet.sample()
    snapshot, settings = valet.snapshot(), valet.settings
    states = valet.model_states()
    total = sum(gpu.vram_total_bytes for gpu in sample.gpus)
    used = sum(gpu.vram_used_bytes for gpu in sample.gpus)
    ours = sum(state.vram_bytes for state in states)
    loaded = [state for state in states if state.status in ("ready", "stopping")]
    used_pct = 100.0 * used / total if total else 0.0
    limits = settings.thresholds
    is_full = used_pct >= limits.gpu_vram_pause_pct
    has_place = len(loaded) < settings.models.max_concurrent and snapshot.state is State.RUNNING
    return {
        "gpu_info": {
            **_sizes("total", total),
            **_sizes("used", used),
            **_sizes("free", total - used),
            "usage_percentage": round(used_pct, 1),
            **_sizes("baseline_used", max(0, used - ours)),
        },
        "tracked_models_count": len(states),
        "loaded_models_count": len(loaded),
        "total_allocated_by_models_mb": ours // MIB,
        "models": [_vram_of(state, total) for state in loaded],
        "can_load_more": has_place and not is_full,
        "estimated_free_for_new_model_mb": (total - used) // MIB,
        "status": "critical"
        if is_full
        else "warning"
        if used_pct >= limits.gpu_vram_resume_pct
        else "healthy",
        "reason": None if sample.gpus else snapshot.gpu_missing_because or "No GPU can be measured.",
        "gpus": _gpus(sample),
    }


def queue_stats(valet: Valet) -> dict[str, Any]:
    """`GET /v1/queue/stats`: the waiting lines, by model."""
    names = _names_by_ref(valet)
    queues = valet.queues()
    return {
        "summary": {
            "total_queued": sum(queue.waiting for queue in queues),
            "total_processing": sum(queue.in_flight for queue in queues),
            "total_processed": sum(queue.finished_total for queue in queues),
            "total_rejected": sum(queue.rejected_total for queue in queues),
        },
        "per_model": {
            names.get(queue.ref, str(queue.ref)): {
                "queue_length": queue.waiting,
                "total_requests": queue.admitted_total + queue.rejected_total + queue.waiting,
                "total_processed": queue.finished_total,
                "total_rejected": queue.rejected_total,
                "current_processing": queue.in_flight,
                "processing": queue.in_flight > 0,
                "slots": queue.slots,
            }
            for queue in queues
        },
    }


def telemetry(valet: Valet) -> dict[str, Any]:
    """`GET /v1/telemetry/summary`: the last 1,000 requests. Seconds and shares (0 to 1) as numbers."""
    report = valet.traffic()
    names = {str(ref): name for ref, name in _names_by_ref(valet).items()}
    total, answered = report.recent_requests, report.recent_answered
    return {
        "total_requests": total,
        "successful": answered,
        "failed": total - answered,
        "success_rate": _share(answered, total, of_none=1.0),
        "response_time_stats": _stats(report.recent),
        "per_model": {
            names.get(model.model, model.model): {
                "total_requests": model.recent_requests,
                "total_errors": model.recent_errors,
                "error_rate": _share(model.recent_errors, model.recent_requests),
                "total_tokens": model.recent_tokens,
                "avg_response_time": _s(model.recent.average_s),
                "p95_response_time": _s(model.recent.p95_s),
            }
            for model in report.models
            if model.model and model.recent_requests  # those that no model was found for are in the totals
        },
        "since_start": {
            "total_requests": report.requests_total,
            "by_outcome": {outcome.value: report.outcomes.get(outcome, 0) for outcome in Outcome},
            "rerouted": report.rerouted_total,
        },
    }


def models_health(valet: Valet) -> dict[str, Any]:
    """`GET /v1/health/models`: the models that are in memory, on their way, or in trouble."""
    return {
        state.name: {
            "status": state.status,
            "healthy": state.status in _WELL,
            "provider": state.ref.provider,
            "port": state.port,
            "vram_mb": state.vram_bytes // MIB,
            "error": state.error or None,
        }
        for state in valet.model_states()
        if state.status != "off"
    }


def _names_by_ref(valet: Valet) -> Mapping[ModelRef, str]:
    """How the lists call each model."""
    return {state.ref: state.name for state in valet.model_states()}


def _vram_of(state: ModelState, total_bytes: int) -> dict[str, Any]:
    return {
        "model_alias": state.name,
        "port": state.port,
        "status": state.status,
        "vram_used_mb": state.vram_bytes // MIB,
        "vram_percentage": round(100.0 * state.vram_bytes / total_bytes, 1) if total_bytes else 0.0,
        "load_duration_sec": rounded_s(state.load_s),
        "provider": state.ref.provider,
    }


def _gpus(sample: MachineSample) -> list[dict[str, Any]]:
    return [
        {
            "index": gpu.index,
            "name": gpu.name,
            "total_mb": gpu.vram_total_bytes // MIB,
            "used_mb": gpu.vram_used_bytes // MIB,
            "utilization_percent": gpu.utilization_pct,
            "temperature_celsius": gpu.temperature_c,
            "power_watts": gpu.power_w,
        }
        for gpu in sample.gpus
    ]


def _sizes(name: str, n_bytes: int) -> dict[str, Any]:
    return {f"{name}_mb": n_bytes // MIB, f"{name}_gb": round(n_bytes / GIB, 2)}


def _stats(spread: Spread) -> dict[str, float]:
    return {
        "avg": _s(spread.average_s),
        "min": _s(spread.shortest_s),
        "max": _s(spread.longest_s),
        "p50": _s(spread.p50_s),
        "p95": _s(spread.p95_s),
    }


def _share(part: int, whole: int, *, of_none: float = 0.0) -> float:
    return round(part / whole, 4) if whole else of_none


def _s(seconds: float) -> float:
    return round(seconds, 4)
