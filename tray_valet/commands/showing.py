"""What is so, in plain words: `status`, `ps`, `models`, `games`, `activity`, `explain`, `providers`.

Decides: which of the API's facts a person is shown, and how. Must not: change anything, or reword the
valet's own sentences. With `--json` each prints what the API answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tray_valet.commands.client import Client
from tray_valet.commands.tables import NOTHING, as_json, gb, pct, plain, table
from tray_valet.core.wording import count, duration

_DEMO = "built_in_demo"
Answer = dict[str, Any]
_MOST_ACTIVITY = 1000  # the API takes no larger limit


def status(client: Client, *, is_json: bool) -> None:
    """What is so, why, what comes next; then models, games and the machine."""
    _show(client.get("/status"), status_text, is_json=is_json)


def ps(client: Client, *, is_json: bool) -> None:
    """The models in memory, and those that wait to come back."""
    answer = client.get("/status")
    part = {name: answer.get(name) or [] for name in ("models", "to_bring_back")}
    _show(part, ps_text, is_json=is_json)


def models(client: Client, *, is_json: bool) -> None:
    """The models that can be loaded."""
    _show(client.get("/models"), models_text, is_json=is_json)


def games(client: Client, *, is_json: bool) -> None:
    """The games that run, and those that are known."""
    _show(client.get("/games"), games_text, is_json=is_json)


def activity(client: Client, *, limit: int | None, is_json: bool) -> None:
    """What has happened, newest first."""
    answer = client.get("/activity", limit=None if limit is None else min(limit, _MOST_ACTIVITY))
    _show(answer, activity_text, is_json=is_json)


def explain(client: Client, *, is_json: bool) -> None:
    """Why things are as they are: holds, signals and limits."""
    _show(client.get("/explain"), explain_text, is_json=is_json)


def providers(client: Client, *, is_json: bool) -> None:
    """The programs that run models, and how they are."""
    _show(client.get("/providers"), providers_text, is_json=is_json)


def _show(answer: Any, words: Callable[[Answer], str], *, is_json: bool) -> None:
    print(as_json(answer) if is_json else words(answer))


def status_text(answer: Answer) -> str:
    """The answer of /status in words."""
    watchdog = answer.get("watchdog") or {}
    blocks = [f"{plain(watchdog.get('title') or watchdog.get('state'))}\n{plain(watchdog.get('line'))}"]
    blocks += _remarks(answer)
    if answer.get("models") or answer.get("to_bring_back"):
        blocks.append(ps_text(answer))
    if running := _list(answer, "games"):
        blocks.append(_running_games(running))
    blocks.append(_machine(answer))
    return "\n\n".join(blocks)


def _remarks(answer: Answer) -> list[str]:
    remarks = []
    line = plain((answer.get("watchdog") or {}).get("line"))
    if answer.get("builtin_demo") and "demo model" not in line:
        remarks.append("No program that runs models was found: this is the built-in demo model.")
    if answer.get("settings_problem"):
        problem = plain(answer["settings_problem"])
        remarks.append(f"The settings file has a mistake; the last good settings stay in use. {problem}")
    troubles = [c for c in _list(answer, "conditions") if c.get("type") != _DEMO and c.get("status", True)]
    return remarks + [_condition(each) for each in troubles]


def ps_text(answer: Answer) -> str:
    """Loaded models, then those set aside, as tables."""
    loaded = [
        (m.get("name"), m.get("provider"), gb(m.get("size_mb")), gb(m.get("vram_mb")), _context(m), _ttl(m))
        for m in _list(answer, "models")
    ]
    aside = [
        (m.get("name") or m.get("model"), m.get("provider"), gb(m.get("size_mb")), _context(m))
        for m in _list(answer, "to_bring_back")
    ]
    header = ("MODEL", "PROVIDER", "SIZE", "VRAM", "CONTEXT", "UNLOADED IN")
    right = ("SIZE", "VRAM", "CONTEXT", "UNLOADED IN")
    blocks = [table(header, loaded, right=right)] if loaded else []
    if aside:
        blocks.append(
            "Set aside, to be brought back:\n" + table(("MODEL", *header[1:3], "CONTEXT"), aside, right=right)
        )
    return "\n\n".join(blocks) or "No model is loaded."


def models_text(answer: Answer) -> str:
    """The answer of /models as a table."""
    rows = [
        (m.get("name"), m.get("provider"), gb(m.get("size_mb")), _context(m), _where(m))
        for m in _list(answer, "models")
    ]
    if not rows:
        return "No model was found. See: tray-valet providers"
    return table(("MODEL", "PROVIDER", "SIZE", "CONTEXT", "NOW"), rows, right=("SIZE", "CONTEXT"))


def games_text(answer: Answer) -> str:
    """The answer of /games: what runs, then what is known."""
    running, known = _list(answer, "running"), _list(answer, "known")
    blocks = [_running_games(running) if running else "No game is running."]
    if known:
        rows = [
            (g.get("name"), g.get("store"), g.get("appid"), g.get("action"), g.get("path")) for g in known
        ]
        blocks.append(table(("KNOWN GAME", "STORE", "ID", "STEP ASIDE", "FOLDER"), rows))
    else:
        blocks.append("No games found in a library. One that starts is noticed all the same.")
    return "\n\n".join(blocks)


def activity_text(answer: Answer) -> str:
    """The answer of /activity, one line a fact."""
    lines = []
    for entry in _list(answer, "activity"):
        mark = "!" if entry.get("problem") else " "
        lines.append(f"{_clock(entry.get('at'))} {mark} {plain(entry.get('text'))}")
    return "\n".join(lines) or "Nothing has happened yet."


def explain_text(answer: Answer) -> str:
    """The answer of /explain: the state, its reasons, every signal with its limits."""
    blocks = [f"{plain(answer.get('title') or answer.get('state'))}\n{plain(answer.get('line'))}"]
    holds = _list(answer, "holds")
    if holds:
        rows = [_hold_row(hold) for hold in holds]
        blocks.append(table(("REASON", "KIND", "BY", "SINCE", "IN EFFECT"), rows))
    else:
        blocks.append("There is no reason to step aside.")
    signals = _list(answer, "signals")
    if signals:
        header = ("SIGNAL", "NOW", "OURS", "OTHERS", "PAUSES AT", "BACK BELOW", "WHY")
        rows = [_signal_row(signal) for signal in signals]
        blocks.append(table(header, rows, right=header[1:6]))
    blocks += [_condition(each) for each in _list(answer, "conditions") if each.get("status", True)]
    if answer.get("gpu_missing_because"):
        blocks.append(f"No GPU is watched: {plain(answer['gpu_missing_because'])}.")
    if answer.get("process_source"):
        blocks.append(f"Program starts are seen by: {plain(answer['process_source'])}.")
    return "\n\n".join(blocks)


def providers_text(answer: Answer) -> str:
    """The answer of /providers: one row each, and what is the matter with it."""
    every = _list(answer, "providers")
    if not every:
        return "No provider found. Start Ollama or llama-server, or add one to the settings."
    rows = []
    for one in every:
        loaded = count(len(_list(one, "loaded")), "model")
        rows.append((one.get("name"), one.get("kind"), one.get("state"), loaded, one.get("url")))
    notes = [
        _condition({**condition, "provider": one.get("name")})
        for one in every
        for condition in _list(one, "conditions")
        if condition.get("status", True)
    ]
    return "\n\n".join([table(("PROVIDER", "KIND", "STATE", "LOADED", "ADDRESS"), rows), *notes])


def _condition(condition: Answer) -> str:
    return f"{plain(condition.get('provider'))}: {plain(condition.get('reason'))}"


def _running_games(running: list[Answer]) -> str:
    rows = []
    for game in running:
        if game.get("ending"):
            how = "has ended"
        elif game.get("overridden") or game.get("action") == "off":
            how = "models kept running"
        else:
            how = "models step aside"
        rows.append((game.get("name"), game.get("store"), _clock(game.get("since")), how, game.get("rule")))
    return table(("RUNNING GAME", "STORE", "SINCE", "NOW", "RECOGNISED BY"), rows)


def _machine(answer: Answer) -> str:
    metrics = answer.get("metrics") or {}
    memory, cpu, gpu = (metrics.get(name) or {} for name in ("memory", "cpu", "gpu"))
    lines = []
    if memory:
        lines.append(f"RAM   {pct(memory.get('used_pct'))} of {gb(memory.get('total_mb'))}")
    if cpu:
        lines.append(f"CPU   {pct(cpu.get('used_pct'))} of {count(cpu.get('core_count') or 0, 'core')}")
    if gpu.get("available"):
        lines.append(f"VRAM  {pct(gpu.get('vram_used_pct'))} of {gb(gpu.get('vram_total_mb'))}")
    if answer.get("router_url"):
        lines.append(f"Programs use the models at {plain(answer['router_url'])}")
    return "\n".join(lines)


def _hold_row(hold: Answer) -> tuple[Any, ...]:
    expires_s = hold.get("expires_in_seconds")
    if hold.get("overridden"):
        effect = "no, you chose to keep running"
    else:
        effect = "yes" if expires_s is None else f"yes, {duration(expires_s)} more"
    return (hold.get("reason"), hold.get("kind"), hold.get("owner"), _clock(hold.get("since")), effect)


def _signal_row(signal: Answer) -> tuple[Any, ...]:
    name = str(signal.get("signal") or "").upper()
    gpu = signal.get("gpu")
    figures = (
        pct(signal.get(key)) for key in ("raw_pct", "ours_pct", "others_pct", "pause_pct", "resume_pct")
    )
    return (f"{name} {gpu}" if gpu else name, *figures, signal.get("why"))


def _list(answer: Answer, name: str) -> list[Answer]:
    return list(answer.get(name) or [])


def _where(model: Answer) -> str:
    if model.get("loading"):
        return "loading"
    return "loaded" if model.get("loaded") else NOTHING


def _context(model: Answer) -> str:
    return str(model.get("context_length") or NOTHING)


def _ttl(model: Answer) -> str:
    left_s = model.get("ttl_left_seconds")
    return NOTHING if left_s is None else duration(left_s)


def _clock(at: float | None) -> str:
    """The time of day; with the date when it was not today."""
    if not at:
        return NOTHING
    then, now = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)
