"""The self-test's story: one real pause and restore, and what must be seen of it.

Decides: which model is taken, what each step must show, and that all is left as it was found.
Must not: print, or start a valet (`selftest.py` does both).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tray_valet.commands.client import LOAD_TIMEOUT_S, PAUSE_TIMEOUT_S, Client
from tray_valet.commands.selftest_proof import Compared, compared, is_resident, same_name
from tray_valet.commands.tables import gb, plain
from tray_valet.core.errors import NotSupported, Refused, UnknownModel, ValetError
from tray_valet.core.wording import duration

OWNER = "selftest"
HOLD_TTL_S = 300.0  # the hold ends by itself should nobody be left to end it
RESTORE_TIMEOUT_S = 600.0
_SILENT_S = 10.0  # a provider that does not answer for so long is down
_LOOK_S = 0.1
_RUNNING, _PAUSED = "running", "paused"


class StepFailed(ValetError):
    """A step was not seen to happen; `remedy` says what the valet will do next."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a step has shown: a sentence, and its figures."""

    text: str
    detail: dict[str, Any] = {}


Step = tuple[str, Callable[[], Shown]]


class SelfTest:
    """The steps in their order, then `tidy`, which is safe to call at any time."""

    def __init__(
        self,
        client: Client,
        wanted: str | None,
        *,
        default: str | None = None,
        restore_timeout_s: float = RESTORE_TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`wanted`: the model, None = the loaded, the `default` or the first one."""
        self._client = client
        self._wanted = wanted
        self._default = default
        self._restore_timeout_s = restore_timeout_s
        self._sleep = sleep
        self._hold_id: str | None = None
        self._at_first: list[dict[str, Any]] = []  # what was loaded before anything was done
        self._before: list[dict[str, Any]] = []  # what was loaded when the pause began
        self._was_loaded = True
        self._newest_entry = 0
        self.model: dict[str, Any] = {}
        self.compared: tuple[Compared, ...] = ()

    def steps(self) -> Iterator[Step]:
        """Every step with its name."""
        yield "ready", self._check_ready
        yield "chosen", self._choose
        yield "loaded", self._load
        yield "captured", self._pause
        yield "gone", self._see_gone
        yield "restored", self._see_restored
        yield "compared", self._compare

    # -- before ----------------------------------------------------------------------------------------

    def _check_ready(self) -> Shown:
        status = self._status()
        watchdog = status.get("watchdog") or {}
        games = [game for game in status.get("games") or [] if not game.get("ending")]
        if games:
            raise Refused(
                f"{plain(games[0].get('name'))} is running, and a self-test would disturb it.",
                remedy="Try again after the game.",
            )
        if watchdog.get("state") not in (_RUNNING, "provider_down"):
            raise Refused(
                f"The models are set aside already: {plain(watchdog.get('title'))}.",
                remedy="Try again when they are back, or bring them back with: tray-valet resume",
            )
        self._at_first = _loaded(status)
        return Shown(text="The valet runs, and nothing is in the way")

    def _choose(self) -> Shown:
        listed = list(self._client.get("/models").get("models") or [])
        local = {p["name"] for p in self._client.get("/providers")["providers"] if p.get("local")}
        found = self._find(listed, local)
        self.model = {"provider": found["provider"], "name": found["name"]}
        self._was_loaded = self._loaded_now(self._at_first) is not None
        how = "which is loaded" if self._was_loaded else "which is not loaded yet"
        return Shown(text=f"{self._named()}, {how}", detail={**self.model, "was_loaded": self._was_loaded})

    def _find(self, listed: list[dict[str, Any]], local: set[str]) -> dict[str, Any]:
        loaded = [model for model in self._at_first if model.get("provider") in local]
        if self._wanted is not None:
            matches = [m for m in (*loaded, *listed) if same_name(m, self._wanted)]
            if not matches:
                raise UnknownModel(
                    f"There is no model “{plain(self._wanted)}”.", remedy="See: tray-valet models"
                )
            here = [m for m in matches if m.get("provider") in local]
            if not here:
                raise NotSupported(
                    f"{plain(self._wanted)} takes no memory of this machine: {matches[0].get('provider')} "
                    "serves it elsewhere.",
                    remedy="Name a model of this machine. See: tray-valet models",
                )
            return here[0]
        wished = [m for m in listed if self._default and same_name(m, self._default)]
        ours = [m for m in (*loaded, *wished, *listed) if m.get("provider") in local]
        gpu_first = sorted(ours, key=lambda m: not m.get("needs_gpu", True)) if not loaded else ours
        if not gpu_first:
            raise UnknownModel(
                "There is no model of this machine to test with.",
                remedy="Get one: tray-valet pull MODEL. Or try: tray-valet selftest --offline",
            )
        return gpu_first[0]

    def _load(self) -> Shown:
        self._newest_entry = max((e["id"] for e in self._entries()), default=0)
        began_s = time.monotonic()
        if not self._was_loaded:
            body = {"model": self.model["name"]}
            self._client.post("/load", body, timeout_s=LOAD_TIMEOUT_S, provider=self.model["provider"])
        self._before = _loaded(self._status())
        now = self._loaded_now(self._before)
        if now is None:
            raise StepFailed(f"{self._named()} was loaded and is not in memory any more.")
        size = gb(now.get("size_mb"))
        context = now.get("context_length")
        took = "" if self._was_loaded else f" in {duration(time.monotonic() - began_s)}"
        text = f"In memory{took}: {size}" + (f", context {context}" if context else "")
        return Shown(text=text, detail={"model": now})

    # -- the pause -------------------------------------------------------------------------------------

    def _pause(self) -> Shown:
        body = {"owner": OWNER, "reason": "self-test", "ttl_seconds": HOLD_TTL_S, "pid": os.getpid()}
        began_s = time.monotonic()
        answer = self._client.post("/holds", body, timeout_s=PAUSE_TIMEOUT_S)
        self._hold_id = str(answer["id"])
        status = self._status()
        state = status["watchdog"].get("state")
        if state != _PAUSED:
            raise StepFailed(
                f"The models are not out of the way (state: {state}).",
                remedy=plain(status["watchdog"].get("line")),
            )
        noted = self._loaded_now(list(status.get("to_bring_back") or []))
        if noted is None:
            raise StepFailed(f"{self._named()} was set aside, but not noted down to come back.")
        if noted.get("context_length") != self._loaded_now(self._before, {}).get("context_length"):
            raise StepFailed(f"Its context was not noted down right: {noted.get('context_length')}.")
        took_s = time.monotonic() - began_s
        return Shown(
            text=f"Set aside in {duration(took_s)}, and noted down as it was", detail={"noted": noted}
        )

    def _see_gone(self) -> Shown:
        status = self._status()
        if self._loaded_now(_loaded(status)) is not None:
            raise StepFailed(f"The valet says paused and still lists {self._named()}.")
        before = self._loaded_now(self._before, {})
        every = self._client.get("/providers")["providers"]
        provider: dict[str, Any] = next((p for p in every if p["name"] == self.model["provider"]), {})
        if (witness := is_resident(self.model["name"], before.get("pid"), provider)).is_there:
            raise StepFailed(f"The valet says paused, but {witness.source} still has {self._named()}.")
        last = status.get("last_pause") or {}
        if last.get("confirmed_by_memory") is False:
            raise StepFailed(
                f"{self._named()} is gone, but its memory is not free yet.", remedy="See: tray-valet explain"
            )
        freed = gb(last.get("freed_mb"))
        if last.get("confirmed_by_memory"):
            memory = f"{freed} of memory free again, as measured"
        else:
            memory = "its memory cannot be measured from here"
        return Shown(
            text=f"Gone by {witness.source}; {memory}", detail={"last_pause": last, "witness": witness.source}
        )

    # -- and back --------------------------------------------------------------------------------------

    def _see_restored(self) -> Shown:
        began_s = time.monotonic()
        self._end_hold()
        silent_since_s: float | None = None
        while True:
            status = self._status()
            if self._is_back(status):
                took_s = time.monotonic() - began_s
                return Shown(text=f"Back in {duration(took_s)}", detail={"back_after_seconds": took_s})
            now_s = time.monotonic()
            is_silent = self._provider_state() == "unreachable" or bool(self._trouble(status, "unreachable"))
            silent_since_s = (silent_since_s or now_s) if is_silent else None
            self._check_restore(status, is_down=is_silent and now_s - (silent_since_s or now_s) > _SILENT_S)
            if now_s - began_s > self._restore_timeout_s:
                raise StepFailed(
                    f"{self._named()} is not back after {duration(now_s - began_s)}.",
                    remedy=f"What the valet does: {plain(status['watchdog'].get('line'))}",
                )
            self._sleep(_LOOK_S)

    def _check_restore(self, status: dict[str, Any], *, is_down: bool) -> None:
        """Raise StepFailed where it will not come back by itself, or not soon."""
        owed = self._loaded_now(list(status.get("to_bring_back") or [])) is not None
        if games := [game for game in status.get("games") or [] if not game.get("ending")]:
            raise StepFailed(
                f"{plain(games[0].get('name'))} was started in the middle of the test.",
                remedy=f"The valet keeps the models aside and brings {self._named()} back after the game.",
            )
        if is_down:
            raise StepFailed(
                f"{self.model['provider']} no longer answers.",
                remedy=f"The valet brings {self._named()} back when it does."
                if owed
                else "Start it, then: " + self._load_command(),
            )
        state = status["watchdog"].get("state")
        if state == _RUNNING and not owed:
            why = self._trouble(status, "load_failed") or self._last_failure()
            why = why or f"{self._named()} did not come back, and nobody says why."
            raise StepFailed(
                why, remedy=f"The valet has given up after three tries; load it with: {self._load_command()}"
            )

    def _is_back(self, status: dict[str, Any]) -> bool:
        is_running = status["watchdog"].get("state") == _RUNNING
        return is_running and self._loaded_now(_loaded(status)) is not None and not self._is_owed(status)

    def _is_owed(self, status: dict[str, Any]) -> bool:
        return self._loaded_now(list(status.get("to_bring_back") or [])) is not None

    def _compare(self) -> Shown:
        now = _loaded(self._status())
        self.compared = compared(self._before, now)
        wrong = [each for each in self.compared if not each.is_same]
        if wrong:
            named = "; ".join(f"{w.model}: {w.field} was {w.before} and is {w.after}" for w in wrong)
            raise StepFailed(
                f"Not as it was: {named}.", remedy="The valet leaves it so; load it anew if it matters."
            )
        fields = ", ".join(dict.fromkeys(each.field for each in self.compared))
        return Shown(
            text=f"As it was: {fields}", detail={"fields": list(map(msgspec.to_builtins, self.compared))}
        )

    # -- tidying up --------------------------------------------------------------------------------------

    def tidy(self) -> list[str]:
        """Leave everything as it was; returns what could not be, as sentences."""
        left = []
        for what, work in (("hold", self._end_hold), ("model", self._unload_ours), ("rest", self._reload)):
            try:
                work()
            except ValetError as error:
                left.append(f"The {what} could not be put back as it was: {error.message}")
        return left

    def _end_hold(self) -> None:
        """End every hold of ours: one may have been placed whose answer never came."""
        hold_id, self._hold_id = self._hold_id, None
        if hold_id is not None:
            self._client.delete(f"/holds/{hold_id}", timeout_s=PAUSE_TIMEOUT_S)
        for hold in self._client.get("/holds").get("holds") or []:
            if hold.get("owner") == OWNER and hold.get("pid") == os.getpid():
                self._client.delete(f"/holds/{hold['id']}", timeout_s=PAUSE_TIMEOUT_S)

    def _unload_ours(self) -> None:
        if self.model and not self._was_loaded:
            body = {"model": self.model["name"]}
            self._client.post("/unload", body, timeout_s=PAUSE_TIMEOUT_S, provider=self.model["provider"])

    def _reload(self) -> None:
        """Bring back what had to go for our model, and what the valet has given up."""
        if not self._before:
            return
        status = self._status()
        there = {_key(model) for model in _loaded(status)}
        owed = {_key(entry) for entry in status.get("to_bring_back") or []}
        if status["watchdog"].get("state") != _RUNNING:
            return  # the valet is at it
        for model in self._at_first:
            if _key(model) in there | owed:
                continue
            body = {"model": model["name"], "num_ctx": model.get("context_length")}
            body = {name: value for name, value in body.items() if value}
            self._client.post("/load", body, timeout_s=LOAD_TIMEOUT_S, provider=model["provider"])

    # -- looking -----------------------------------------------------------------------------------------

    def _named(self) -> str:
        return plain(f"{self.model.get('provider')}/{self.model.get('name')}")

    def _load_command(self) -> str:
        return f"tray-valet load {self.model['name']} --provider {self.model['provider']}"

    def _status(self) -> dict[str, Any]:
        return dict(self._client.get("/status"))

    def _loaded_now(self, models: list[dict[str, Any]], default: Any = None) -> Any:
        """Our model among these."""
        return next((model for model in models if _key(model) == _key(self.model)), default)

    def _entries(self) -> list[dict[str, Any]]:
        return list(self._client.get("/activity", limit=100).get("activity") or [])

    def _last_failure(self) -> str:
        texts = (
            plain(entry["text"])
            for entry in self._entries()
            if entry["id"] > self._newest_entry and entry.get("problem")
        )
        return next(texts, "")

    def _provider_state(self) -> str:
        every = self._client.get("/providers").get("providers") or []
        return next((str(p.get("state")) for p in every if p.get("name") == self.model["provider"]), "")

    def _trouble(self, status: dict[str, Any], kind: str) -> str:
        sought = (self.model["provider"], kind)
        reasons = (
            plain(each.get("reason"))
            for each in status.get("conditions") or []
            if each.get("status") and (each.get("provider"), each.get("type")) == sought
        )
        return next(reasons, "")


def _loaded(status: dict[str, Any]) -> list[dict[str, Any]]:
    return list(status.get("models") or [])


def _key(model: dict[str, Any]) -> tuple[Any, Any]:
    return (model.get("provider"), model.get("name"))
