"""The headline: the state in two short sentences, what it is, then why and what happens next.

Decides: the wording for people (shared with the tray, the window and `status`). Must not: decide what
is the case; everything it needs is in the scene.
"""

from __future__ import annotations

import msgspec

from tray_valet.core.eviction import must_go
from tray_valet.core.holds import (
    GameCause,
    Hold,
    HoldKind,
    PowerCause,
    PressureCause,
    UserCause,
    is_users_own,
)
from tray_valet.core.models import LoadedModel
from tray_valet.core.snapshot import PauseReport
from tray_valet.core.watchdog import State
from tray_valet.core.wording import count, duration, listed, pressure_line, size, title_of_pause, who

_NONE_LOADED = "No model was loaded. None will be"


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What the headline is made of. Durations in seconds."""

    state: State
    holds: tuple[Hold, ...] = ()  # in effect
    loaded: tuple[LoadedModel, ...] = ()
    games_kept_running: tuple[str, ...] = ()  # running games that the user overrode, or set to off
    answers_in_flight: int = 0
    drain_s: float = 0.0
    grace_s: float = 0.0
    resumes_in_s: float | None = None
    holds_end_in_s: float | None = None  # when the holds' own times are up; None: one has none
    ended_hold: Hold | None = None
    last_pause: PauseReport | None = None
    to_bring_back: tuple[str, ...] = ()
    restored_count: int = 0
    restoring: str = ""
    does_not_fit: str = ""  # why the models cannot come back yet
    has_providers: bool = True
    silent_providers: tuple[str, ...] = ()
    stopped_providers: tuple[str, ...] = ()  # those of the silent ones that the user has stopped
    still_held: str = ""  # what keeps an eviction from being complete
    is_built_in_demo: bool = False


def headline(scene: Scene) -> tuple[str, str]:
    """(title, line) for a scene."""
    if scene.state is State.PAUSING:
        return _pausing(scene)
    if scene.state is State.PAUSED:
        return _paused(scene)
    if scene.state is State.RESUMING:
        return _resuming(scene)
    if scene.state is State.PROVIDER_DOWN:
        return _down(scene)
    return _running(scene)


def _down(scene: Scene) -> tuple[str, str]:
    back = (
        f" {count(len(scene.to_bring_back), 'model')} will come back with it." if scene.to_bring_back else ""
    )
    if stopped := tuple(name for name in scene.silent_providers if name in scene.stopped_providers):
        verb = "is" if len(stopped) == 1 else "are"
        return f"{listed(stopped)} {verb} stopped", (
            f"By you. Start it with: tray-valet service start {stopped[0]}{'.' if back else ''}{back}"
        )
    verb = "does" if len(scene.silent_providers) == 1 else "do"
    return f"{listed(scene.silent_providers)} {verb} not answer", f"Trying again every few seconds.{back}"


def _running(scene: Scene) -> tuple[str, str]:
    if not scene.has_providers:
        return "No provider found", ("Start Ollama, LM Studio or llama-server, or add one by its address.")
    demo = " This is the built-in demo model: no LLM software was found." if scene.is_built_in_demo else ""
    if not scene.loaded:
        return "No model loaded", (
            f"Nothing to set aside. A model is loaded when a program asks for it.{demo}"
        )
    models = f"{count(len(scene.loaded), 'model')} loaded, {size(sum(m.size_bytes for m in scene.loaded))}."
    if scene.games_kept_running:
        verb = "is" if len(scene.games_kept_running) == 1 else "are"
        why = f"{listed(scene.games_kept_running)} {verb} running too, because you chose Keep running."
    else:
        why = "No game is running."
    return "Running", f"{models} {why}{demo}"


def _pausing(scene: Scene) -> tuple[str, str]:
    beneficiaries = tuple(dict.fromkeys(w for w in map(who, scene.holds) if w))
    title = f"Making room for {listed(beneficiaries)}" if beneficiaries else "Setting the models aside"
    if scene.still_held:
        return title, scene.still_held
    if scene.answers_in_flight:
        verb = "is" if scene.answers_in_flight == 1 else "are"
        return title, (
            f"{count(scene.answers_in_flight, 'answer')} {verb} finishing, {duration(scene.drain_s)} at most."
        )
    going = [model for model in scene.loaded if must_go(model, scene.holds)]
    return (
        title,
        f"{count(len(going), 'model')} on the way out." if going else "Looking at what is in memory.",
    )


def _paused(scene: Scene) -> tuple[str, str]:
    if not scene.holds:
        return _waiting(scene)
    title = title_of_pause(scene.holds)
    if any(isinstance(h.cause, GameCause) for h in scene.holds):
        return title, _out_of_its_way(scene)
    n = len(scene.to_bring_back)
    if any(map(is_users_own, scene.holds)):
        waits = f"{count(n, 'model')} {'waits' if n == 1 else 'wait'}" if n else _NONE_LOADED
        return title, f"{waits} {_until_resumed(scene)}."
    for hold in scene.holds:
        if isinstance(hold.cause, PressureCause):
            back = "when you resume" if hold.needs_manual_resume else f"below {hold.cause.resume_pct:.0f}%"
            comes = f"They come back {back}." if n else "No model was loaded."
            return title, f"{pressure_line(hold.cause)} {comes}"
    if any(isinstance(h.cause, PowerCause) for h in scene.holds):
        return title, "They come back when you plug in." if n else f"{_NONE_LOADED} until you plug in."
    if not n:
        return title, f"{_NONE_LOADED} until it is done."
    return title, f"{count(n, 'model')} will come back when it is done."


def _out_of_its_way(scene: Scene) -> str:
    if not scene.to_bring_back:
        return f"{_NONE_LOADED} while it runs."
    report = scene.last_pause
    away = (
        f"Your models are out of its way: {size(report.freed_bytes)} freed in {duration(report.took_s)}. "
        if report and report.models
        else ""
    )
    if any(is_users_own(h) or h.needs_manual_resume for h in scene.holds):
        return f"{away}They wait {_until_resumed(scene)}."
    beneficiaries = sum(1 for h in scene.holds if who(h))
    ends = {1: "the game ends", 2: "both have ended"}.get(beneficiaries, "all have ended")
    return f"{away}They come back {duration(scene.grace_s)} after {ends}."


def _until_resumed(scene: Scene) -> str:
    """A pause may be bound to a time or a process as well: `until you resume, 2 h at most`."""
    process = next((h.process for h in scene.holds if isinstance(h.cause, UserCause) and h.process), None)
    ends = f" or process {process.pid} ends" if process else ""
    at_most = f", {duration(scene.holds_end_in_s)} at most" if scene.holds_end_in_s is not None else ""
    return f"until you resume{ends}{at_most}"


def _waiting(scene: Scene) -> tuple[str, str]:
    n = len(scene.to_bring_back)
    if scene.does_not_fit:
        return "Paused: no room yet", scene.does_not_fit
    left = duration(scene.resumes_in_s or 0.0)
    ended = scene.ended_hold
    name = who(ended) if ended else ""
    begin = f"{name} ended. " if name and ended and ended.kind is HoldKind.GAME else ""
    if not n:
        return f"{begin}Free again in {left}", "No model was loaded; none comes back."
    first = scene.to_bring_back[0]
    rest = f"{first} and {n - 1} more" if n > 1 else first
    return f"{begin}Your models come back in {left}", f"{rest}, as {'they were' if n > 1 else 'it was'}."


def _resuming(scene: Scene) -> tuple[str, str]:
    total = len(scene.to_bring_back)
    if not scene.restoring:
        return "Bringing your models back", f"{count(total, 'model')}."
    return "Bringing your models back", (
        f"{scene.restoring}, {min(scene.restored_count + 1, total)} of {total}."
    )
