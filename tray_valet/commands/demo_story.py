"""The demo's story: what each step does, and what must be seen for it to count.

Must not: print, or clean up (`demo.py` does both).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tray_valet.commands.client import LOAD_TIMEOUT_S, Client
from tray_valet.commands.demo_home import GAME_NAME, LARGE, TINY, DemoHome, GameProgram
from tray_valet.commands.demo_valet import DemoValet, Game, Holding, NotSeen, wait_until
from tray_valet.commands.interruption import EndingSignals
from tray_valet.commands.tables import plain
from tray_valet.core.ports import ChildTie
from tray_valet.core.wording import duration, size

LARGE_CONTEXT, TINY_CONTEXT = 2048, 512  # tokens; neither is what the settings say
QUESTION = "What do you do when a game starts?"
_GAME_SEEN_TIMEOUT_S = 15.0  # the slowest way of looking finds it within 10 s
_PAUSE_TIMEOUT_S = 30.0
_RESTORE_TIMEOUT_S = 60.0
_MEMORY_SHARE = 0.5  # of what the models take must be seen; the rest may be another program's doing
_FREE_RAM_TIMEOUT_S = 1.0
_TTL_TOLERANCE_S = 60.0  # /status tells it as of the last look, and a busy machine is slow to look


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a step has shown: a sentence, and its figures (bytes and seconds)."""

    text: str
    detail: dict[str, Any] = {}


Step = tuple[str, Callable[[], Proof]]


class Story:
    """The steps, in their order; each may use what the ones before it have seen."""

    def __init__(self, home: DemoHome, valet: DemoValet, tie: ChildTie, signals: EndingSignals) -> None:
        self._home = home
        self._valet = valet
        self._tie = tie
        self._signals = signals
        self._program: GameProgram | None = None
        self.game: Game | None = None
        self._ended_s = 0.0  # monotonic, of the game
        self._answers: dict[str, str] = {}
        self._before: Holding | None = None
        self._weights_bytes = 0
        self._models: list[dict[str, Any]] = []

    def steps(self) -> Iterator[Step]:
        """Every step with its name, in order."""
        yield "models_written", self._write_models
        yield "valet_started", self._start_valet
        yield "models_loaded", self._load_models
        yield "question_answered", self._ask
        yield "memory_held", self._measure
        yield "game_seen", self._start_game
        yield "models_set_aside", self._see_pause
        yield "memory_back", self._see_memory_back
        yield "request_refused", self._see_refusal
        yield "game_ended", self._end_game
        yield "models_restored", self._see_restore
        yield "same_answer", self._ask_again
        yield "nothing_left", self._quit

    @property
    def _client(self) -> Client:
        if self._valet.client is None:
            raise NotSeen("The valet is not running.")
        return self._valet.client

    def _status(self) -> dict[str, Any]:
        return dict(self._client.get("/status"))

    def _state(self) -> str:
        return str(self._status()["watchdog"]["state"])

    def _since_game_start_s(self) -> float:
        return time.monotonic() - self.game.started_s if self.game else 0.0

    # -- before the game -------------------------------------------------------------------------------

    def _write_models(self) -> Proof:
        sizes = self._home.write_models()
        self._weights_bytes = sum(sizes.values())
        self._home.write_settings()
        self._program = self._home.write_game()
        named = " and ".join(f"{name} ({size(n_bytes)})" for name, n_bytes in sizes.items())
        return Proof(text=f"Two real models made: {named}", detail={"size_bytes": sizes})

    def _start_valet(self) -> Proof:
        started_s = time.monotonic()
        client = self._valet.start()
        took_s = time.monotonic() - started_s
        url = client.valet.control.url
        return Proof(
            text=f"Valet started at {url}, models at {self._valet.router_url}",
            detail={"api_seconds": took_s, "pid": client.valet.pid, "router_url": self._valet.router_url},
        )

    def _load_models(self) -> Proof:
        took_s = {}
        for name, context in ((LARGE, LARGE_CONTEXT), (TINY, TINY_CONTEXT)):
            started_s = time.monotonic()
            self._client.post("/load", {"model": name, "num_ctx": context}, timeout_s=LOAD_TIMEOUT_S)
            took_s[name] = time.monotonic() - started_s
        seen = self._loaded()
        wanted = {LARGE: LARGE_CONTEXT, TINY: TINY_CONTEXT}
        if seen != wanted:
            raise NotSeen(f"Loaded should be {wanted}, but is {seen}.")
        named = " and ".join(f"{name} with a context of {context}" for name, context in seen.items())
        return Proof(text=f"Loaded in the built-in engine: {named}", detail={"load_seconds": took_s})

    def _loaded(self) -> dict[str, int]:
        models = self._status().get("models") or []
        contexts = {str(m["name"]): int(m.get("context_length") or 0) for m in models}
        return {name: contexts[name] for name in (LARGE, TINY) if name in contexts}

    def _ask(self) -> Proof:
        for name in (LARGE, TINY):
            answer = self._valet.ask(name, QUESTION)
            if answer.status != 200 or not answer.text:
                raise NotSeen(f"{name} gave no answer: {answer.status} {answer.text}.")
            self._answers[name] = answer.text
        return Proof(text=f"“{QUESTION}” “{self._answers[LARGE]}”", detail={"answers": dict(self._answers)})

    def _measure(self) -> Proof:
        before = self._valet.holding()
        if before.runners_bytes < self._weights_bytes * _MEMORY_SHARE:
            held = size(before.runners_bytes)
            raise NotSeen(
                f"The models hold {held} only, though their weights are {size(self._weights_bytes)}."
            )
        self._before = before
        self._models = sorted(self._status()["models"], key=lambda model: str(model["name"]))
        return Proof(
            text=f"They hold {size(before.runners_bytes)} in {len(before.pids)} processes",
            detail={"held_bytes": before.runners_bytes, "available_bytes": before.available_bytes},
        )

    # -- during the game -------------------------------------------------------------------------------

    def _start_game(self) -> Proof:
        if self._program is None:
            raise NotSeen("There is no game to start.")
        with self._signals.held():  # so that it is known to whoever ends it
            self.game = Game(self._program.argv, self._program.env, self._tie)
        seen = wait_until(self._running_game, f"{GAME_NAME} among the running games", _GAME_SEEN_TIMEOUT_S)
        took_s = self._since_game_start_s()
        return Proof(
            text=f"{GAME_NAME} started; seen after {duration_ms(took_s)} (by {plain(seen.get('rule'))})",
            detail={"seen_after_seconds": took_s, "game": seen},
        )

    def _running_game(self) -> dict[str, Any] | None:
        running = self._client.get("/games").get("running") or []
        return next((dict(game) for game in running if game.get("name") == GAME_NAME), None)

    def _see_pause(self) -> Proof:
        wait_until(lambda: self._state() == "paused" or None, "the state “paused”", _PAUSE_TIMEOUT_S)
        took_s = self._since_game_start_s()
        status = self._status()
        if left := [model["name"] for model in status.get("models") or []]:
            raise NotSeen(f"The valet says paused, but still lists {', '.join(left)}.")
        title, reason = (plain(status["watchdog"].get(name)) for name in ("title", "last_reason"))
        return Proof(
            text=f"Models set aside {duration_ms(took_s)} after the game started: {title}",
            detail={"paused_after_seconds": took_s, "reason": reason, "last_pause": status.get("last_pause")},
        )

    def _see_memory_back(self) -> Proof:
        before = self._before
        if before is None:
            raise NotSeen("Nothing was measured before.")

        def gone() -> Holding | None:
            now = self._valet.holding()
            return None if set(now.pids) & set(before.pids) else now

        after = wait_until(gone, "the end of every process that held a model", _PAUSE_TIMEOUT_S)
        took_s = self._since_game_start_s()
        freed_bytes = before.runners_bytes - after.runners_bytes
        more_free_bytes = self._more_free_bytes(before, freed_bytes)
        return Proof(
            text=(
                f"Memory back: {size(before.runners_bytes)} before, {size(after.runners_bytes)} now; "
                f"free RAM {'+' if more_free_bytes >= 0 else '−'}{size(abs(more_free_bytes))}"
            ),
            detail={
                "back_after_seconds": took_s,
                "freed_bytes": freed_bytes,
                "available_change_bytes": more_free_bytes,
            },
        )

    def _more_free_bytes(self, before: Holding, freed_bytes: int) -> int:
        """The change of free RAM, once the system has counted most of it. A figure to show and no proof:
        other programs take and give memory meanwhile."""
        end_s = time.monotonic() + _FREE_RAM_TIMEOUT_S
        while True:
            change_bytes = self._valet.holding().available_bytes - before.available_bytes
            if change_bytes >= freed_bytes * _MEMORY_SHARE or time.monotonic() >= end_s:
                return change_bytes
            time.sleep(0.02)

    def _see_refusal(self) -> Proof:
        answer = self._valet.ask(LARGE, QUESTION)
        if answer.status != 503 or answer.code != "paused":
            raise NotSeen(f"A request should be refused now; it was answered {answer.status} {answer.text}.")
        if GAME_NAME not in answer.text:
            raise NotSeen(f"The refusal does not name the game: {answer.text}")
        if answer.retry_after_s is None:
            raise NotSeen("The refusal does not say when to try again (Retry-After).")
        if self._status().get("models"):
            raise NotSeen("A model is loaded although the game runs.")
        return Proof(
            text=f"A request meanwhile: 503 “{plain(answer.text)}”",
            detail={
                "status": 503,
                "code": answer.code,
                "message": answer.text,
                "retry_after": answer.retry_after_s,
            },
        )

    # -- after the game --------------------------------------------------------------------------------

    def _end_game(self) -> Proof:
        if self.game is None:
            raise NotSeen("There is no game to end.")
        ran_s, self._ended_s = self._since_game_start_s(), time.monotonic()
        self.game.end()
        wait_until(
            lambda: self._running_game() is None or None, f"the end of {GAME_NAME}", _GAME_SEEN_TIMEOUT_S
        )
        seen_s = time.monotonic() - self._ended_s
        return Proof(
            text=f"{GAME_NAME} ended after {duration(ran_s)}",
            detail={"ran_seconds": ran_s, "seen_after_seconds": seen_s},
        )

    def _see_restore(self) -> Proof:
        wait_until(self._is_restored, "the same models loaded again", _RESTORE_TIMEOUT_S)
        took_s = time.monotonic() - self._ended_s
        now = sorted(self._status()["models"], key=lambda model: str(model["name"]))
        for name in ("provider", "name", "context_length"):
            before, after = [m.get(name) for m in self._models], [m.get(name) for m in now]
            if before != after:
                raise NotSeen(f"{name} was {before} and is {after}.")
        for old, new in zip(self._models, now, strict=True):
            _check_ttl(old.get("ttl_left_seconds"), new.get("ttl_left_seconds"))
        named = " and ".join(f"{m['name']} (context {m['context_length']})" for m in now)
        return Proof(
            text=f"Back as they were, {duration(took_s)} after the game: {named}",
            detail={"before": self._models, "after": now, "back_after_seconds": took_s},
        )

    def _is_restored(self) -> bool | None:
        status = self._status()
        is_whole = len(status.get("models") or []) == len(self._models)
        return (status["watchdog"]["state"] == "running" and is_whole) or None

    def _ask_again(self) -> Proof:
        for name, before in self._answers.items():
            answer = self._valet.ask(name, QUESTION)
            if answer.status != 200 or answer.text != before:
                raise NotSeen(f"{name} answered “{before}” before and now {answer.status} “{answer.text}”.")
        return Proof(
            text=f"The same question: “{self._answers[LARGE]}”", detail={"answers": dict(self._answers)}
        )

    def _quit(self) -> Proof:
        started_s = time.monotonic()
        self._valet.end()
        took_s = time.monotonic() - started_s
        if self._valet.exit_code != 0:
            raise NotSeen(f"The valet should end with 0; it ended with {self._valet.exit_code}.")
        wait_until(lambda: not self._valet.left_runners() or None, "the end of every process", 5.0)
        self._home.remove()
        return Proof(text="Valet ended; no process and no file is left", detail={"quit_seconds": took_s})


def _check_ttl(before_s: float | None, after_s: float | None) -> None:
    """What was to be unloaded in a while is to be so still. Raises NotSeen."""
    if before_s is None and after_s is None:
        return
    if before_s is None or after_s is None or abs(before_s - after_s) > _TTL_TOLERANCE_S:
        raise NotSeen(f"The time left until unloading was {before_s} s and is {after_s} s.")


def duration_ms(seconds: float) -> str:
    """`35 ms` below a second, where tenths would say nothing; else as everywhere."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)
