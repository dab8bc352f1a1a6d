"""`tray-valet routes`: each alias, who would answer it now, and what a pause means for it.

Decides: what of the API's answer a person is shown. Must not: reword why something is so.
"""

from __future__ import annotations

from typing import Any

from tray_valet.commands.client import Client
from tray_valet.commands.tables import as_json, plain, table
from tray_valet.core.wording import duration

Answer = dict[str, Any]


def routes(client: Client, *, is_json: bool) -> None:
    """Print what the aliases stand for."""
    answer = client.get("/routes")
    print(as_json(answer) if is_json else routes_text(answer))


def routes_text(answer: Answer) -> str:
    """The answer of /routes: one block an alias."""
    every = list(answer.get("routes") or [])
    default = plain((answer.get("default") or {}).get("when_paused"))
    rest = f"Models without an alias are reached by their own name; during a pause: {default}."
    if not every:
        return f"There are no aliases. Add one to routes in the settings.\n{rest}"
    return "\n\n".join([*(_block(route) for route in every), rest])


def _block(route: Answer) -> str:
    paused = plain(route.get("when_paused"))
    if paused == "wait":
        paused = plain(f"wait up to {duration(float(route.get('wait_seconds') or 0))}")
    facts = [f"during a pause: {paused}"]
    if route.get("num_ctx"):
        facts.append(f"context {route['num_ctx']}")
    if route.get("keep_alive") is not None:
        facts.append(f"kept {plain(route['keep_alive'])}")
    if route.get("priority") not in (None, "normal"):
        facts.append(f"priority {plain(route['priority'])}")
    now = route.get("now") or {}
    rows = [_row(each) for each in route.get("candidates") or []]
    lines = [
        f"{plain(route.get('alias'))}  ({', '.join(facts)})",
        f"Now: {_now(now)}",
        table(("CANDIDATE", "PROVIDER IS", "LOADED", "NOW"), rows),
    ]
    return "\n".join(lines)


def _now(now: Answer) -> str:
    """What would happen to a request, as one goes on after “Now:”."""
    why = plain(now.get("why"))
    if now.get("outcome") == "refuses":
        return f"is refused: {why}"
    return why.removeprefix("It ")


def _row(candidate: Answer) -> tuple[str, ...]:
    name = f"{candidate.get('provider')}/{candidate.get('model')}"
    loaded = "yes" if candidate.get("loaded") else "no" if candidate.get("local") else "elsewhere"
    standing = candidate.get("standing") if candidate.get("exists", True) else "does not exist"
    if candidate.get("why_closed"):
        standing = f"closed: {candidate['why_closed']}"
    return (name, plain(candidate.get("provider_state")), loaded, plain(standing))
