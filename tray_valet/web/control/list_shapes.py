"""The shapes of the lists: models, providers, games, activity, explain, and a fact on the wire.

Decides: names and units on the wire. Must not: compute what is the case.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tray_valet.core.commands import KnownGame, RecordedFact
from tray_valet.core.models import InstalledModel, LoadedModel
from tray_valet.core.snapshot import ActivityEntry, SignalView, Snapshot
from tray_valet.web.control import status_shape
from tray_valet.web.edge.wire_units import MIB, rounded_pct

Installed = tuple[tuple[str, InstalledModel], ...]


def models(installed: Installed, snapshot: Snapshot) -> dict[str, Any]:
    """`GET /models`: what could be loaded, and whether it is."""
    loaded = _loaded_by_ref(snapshot)
    loading = {(view.name, name) for view in snapshot.providers for name in view.loading}
    return {
        "models": [
            {
                "name": model.name,
                "size_mb": model.size_bytes // MIB,
                "context_length": model.context_length,
                "provider": provider,
                "loaded": (provider, model.name) in loaded,
                "loading": (provider, model.name) in loading,
                "loaded_context_length": _context_of(loaded.get((provider, model.name))),
                "needs_gpu": model.needs_gpu,
                "modified_at": model.modified_at or None,
                "digest": model.digest or None,
                "details": model.details,
            }
            for provider, model in installed
        ]
    }


def providers(installed: Installed, snapshot: Snapshot) -> dict[str, Any]:
    """`GET /providers`: each provider with its conditions and models."""
    loaded = _loaded_by_ref(snapshot)
    return {
        "providers": [
            {
                "name": view.name,
                "kind": view.kind.value,
                "url": view.url,
                "local": view.is_local,
                "state": view.state,
                "version": view.version,
                "conditions": [status_shape.condition(each) for each in view.conditions],
                "models": [
                    _provider_model(model, (view.name, model.name) in loaded)
                    for name, model in installed
                    if name == view.name
                ],
                "loaded": [status_shape.loaded_model(view, model) for model in view.loaded],
                "loading": list(view.loading),
                "seen_at": view.seen_at,
            }
            for view in snapshot.providers
        ]
    }


def games(known: tuple[KnownGame, ...], snapshot: Snapshot) -> dict[str, Any]:
    """`GET /games`: the installed ones and those that run."""
    running = {game.key for game in snapshot.games}
    return {
        "known": [
            {
                "key": game.key,
                "name": game.name,
                "store": game.store,
                "appid": game.appid,
                "path": game.path,
                "kind": game.kind,
                "action": game.action,
                "running": game.key in running,
            }
            for game in known
        ],
        "running": [status_shape.running_game(game) for game in snapshot.games],
    }


def explain(snapshot: Snapshot) -> dict[str, Any]:
    """`GET /explain`: why it is as it is: every signal, hold and game, and what happens next."""
    return {
        "state": snapshot.state.value,
        "since": snapshot.since,
        "title": snapshot.title,
        "line": snapshot.line,
        "last_reason": snapshot.last_reason,
        "resumes_in_seconds": snapshot.resumes_in_s,
        "next": snapshot.line,
        "signals": [signal(view) for view in snapshot.signals],
        "holds": [status_shape.hold(view) for view in snapshot.holds],
        "games": [status_shape.running_game(game) for game in snapshot.games],
        "to_bring_back": [status_shape.journal_entry(entry) for entry in snapshot.to_bring_back],
        "conditions": status_shape.conditions(snapshot),
        "process_source": snapshot.process_source,
        "gpu_missing_because": snapshot.gpu_missing_because,
        "settings_problem": snapshot.settings_problem,
    }


def signal(view: SignalView) -> dict[str, Any]:
    """One pressure signal: raw, ours, others', the limits, and why it counts or not."""
    return {
        "signal": view.signal,
        "gpu": view.gpu,
        "raw_pct": round(view.raw_pct, 1),
        "ours_pct": round(view.ours_pct, 1),
        "others_pct": round(view.others_pct, 1),
        "others_at_load_pct": rounded_pct(view.others_at_load_pct),
        "free_mb": None if view.free_bytes is None else view.free_bytes // MIB,
        "reserve_mb": None if view.reserve_bytes is None else view.reserve_bytes // MIB,
        "pause_pct": view.pause_pct,
        "resume_pct": view.resume_pct,
        "breached": view.is_breached,
        "breached_for_seconds": round(view.breached_for_s, 1),
        "counts": view.counts,
        "why": view.text,
    }


def activity(entries: tuple[ActivityEntry, ...]) -> dict[str, Any]:
    """`GET /activity`: what happened, newest first."""
    return {"activity": [activity_entry(entry) for entry in entries]}


def activity_entry(entry: ActivityEntry) -> dict[str, Any]:
    """One line of it."""
    return {
        "id": entry.id,
        "at": entry.at,
        "kind": entry.kind,
        "text": entry.text,
        "problem": entry.is_problem,
    }


def fact(recorded: RecordedFact) -> dict[str, Any]:
    """A fact as an event: its line of the activity and what it carries (bytes, seconds)."""
    return {**activity_entry(recorded.entry), "fact": msgspec.to_builtins(recorded.fact)}


def _loaded_by_ref(snapshot: Snapshot) -> dict[tuple[str, str], LoadedModel]:
    return {(view.name, model.name): model for view in snapshot.providers for model in view.loaded}


def _context_of(model: LoadedModel | None) -> int | None:
    return model.context_length if model else None


def _provider_model(model: InstalledModel, is_loaded: bool) -> dict[str, Any]:
    # contenox's names, so that its clients can read the list.
    return {
        "name": model.name,
        "model": model.name,
        "modifiedAt": model.modified_at,
        "size": model.size_bytes,
        "digest": model.digest,
        "details": model.details,
        "contextLength": model.context_length,
        "canChat": model.can_chat,
        "canEmbed": model.can_embed,
        "canPrompt": model.can_prompt,
        "canStream": model.can_stream,
        "loaded": is_loaded,
    }
