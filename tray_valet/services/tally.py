"""The tally: counts what happens beside the requests: pauses, freed memory, crashes.

Decides: what counts as one pause, and which hold it is counted for. Must not: act, or keep what is unbounded.
"""

from __future__ import annotations

from tray_valet.core import events as ev
from tray_valet.core.holds import HoldKind
from tray_valet.core.ports import Clock
from tray_valet.core.traffic import Tally
from tray_valet.core.watchdog import State
from tray_valet.services.traffic import Durations

_SET_ASIDE_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
_MAX_MODELS = 200


class TallyBook:
    """Takes every fact, in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holds: dict[str, HoldKind] = {}  # oldest first
        self._overridden: set[str] = set()  # those of them that the models run in spite of
        self._pauses: dict[str, int] = {}
        self._paused_since_s: float | None = None
        self._paused_s = 0.0
        self._set_aside = Durations(_SET_ASIDE_BOUNDS_S)
        self._freed_bytes = 0
        self._crashes: dict[str, int] = {}
        self._answers_ended = 0

    def note(self, fact: ev.Fact) -> None:
        """Count a fact."""
        match fact:
            case ev.HoldPlaced(hold=hold):
                self._holds[hold.id] = hold.kind
            case ev.HoldEnded(hold=hold):
                self._holds.pop(hold.id, None)
                self._overridden.discard(hold.id)
            case ev.StateChanged(after=after):
                self._note_state(after)
            case ev.ModelsSetAside(freed_bytes=freed_bytes, took_s=took_s):
                self._freed_bytes += max(0, freed_bytes)
                self._set_aside.add(took_s)
            case ev.RunnerCrashed(provider=provider, model=model):
                self._note_crash(f"{provider}/{model}")
            case ev.RunnerGivenUp(provider=provider, model=model):
                self._note_crash(f"{provider}/{model}")
            case ev.AnswersEnded(count=count):
                self._answers_ended += count

    def seen(self) -> Tally:
        """The counts so far."""
        since_s = self._paused_since_s
        lasting_s = 0.0 if since_s is None else self._clock.monotonic_s() - since_s
        return Tally(
            pauses=dict(self._pauses),
            paused_s=self._paused_s + lasting_s,
            set_aside=self._set_aside.seen(),
            freed_bytes=self._freed_bytes,
            runner_crashes=dict(self._crashes),
            answers_ended=self._answers_ended,
        )

    def _note_state(self, after: State) -> None:
        """A pause is one from its first “paused” until the models come back, evictions in it included."""
        if after is State.PAUSED and self._paused_since_s is None:
            self._paused_since_s = self._clock.monotonic_s()
            kind = self._reason().value
            self._pauses[kind] = self._pauses.get(kind, 0) + 1
        elif after in (State.RUNNING, State.RESUMING, State.PROVIDER_DOWN):
            self._overridden = set(self._holds)
            if self._paused_since_s is not None:
                self._paused_s += self._clock.monotonic_s() - self._paused_since_s
                self._paused_since_s = None

    def _reason(self) -> HoldKind:
        """The kind of the oldest hold in effect."""
        in_effect = (kind for hold_id, kind in self._holds.items() if hold_id not in self._overridden)
        return (*in_effect, *self._holds.values(), HoldKind.USER)[0]

    def _note_crash(self, name: str) -> None:
        if name in self._crashes or len(self._crashes) < _MAX_MODELS:
            self._crashes[name] = self._crashes.get(name, 0) + 1
