"""The traffic: every request that ended, counted by model.

Decides: what is kept: totals since the start, and figures over the last 1,000 requests. Must not: keep
anything that clients can make grow: models that nobody answered for share one row, and rows are bounded.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping

from tray_valet.core import events as ev
from tray_valet.core.models import ModelRef
from tray_valet.core.traffic import Exchanged, Histogram, ModelTraffic, Outcome, Spread, TrafficReport

_RECENT = 1000
_MAX_MODELS = 200
_NOBODY = ("", "")
_HTTP_ERROR = 400
_TELLING_S = 0.05  # a short answer may come in one piece
# From a quick answer of a small model to the longest that is waited for.
DURATION_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
WAIT_BOUNDS_S = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
FIRST_BYTE_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
LOAD_BOUNDS_S = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)


class Durations:
    """A histogram that counts. `bounds_s`: upper bounds, ascending."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one duration (seconds)."""
        self.counts[bisect_left(self.bounds_s, duration_s)] += 1
        self.sum_s += duration_s

    def seen(self) -> Histogram:
        """The counts so far."""
        return Histogram(bounds_s=self.bounds_s, counts=tuple(self.counts), sum_s=self.sum_s)


class _Row:
    """One model's totals."""

    __slots__ = (
        "completion_tokens",
        "duration",
        "ejects",
        "first_byte",
        "load",
        "load_s",
        "outcomes",
        "prompt_tokens",
        "queue_wait",
        "tokens_per_second",
    )

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = {}
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.tokens_per_second = 0.0
        self.ejects = 0
        self.load_s: float | None = None
        self.duration = Durations(DURATION_BOUNDS_S)
        self.queue_wait = Durations(WAIT_BOUNDS_S)
        self.first_byte = Durations(FIRST_BYTE_BOUNDS_S)
        self.load = Durations(LOAD_BOUNDS_S)


class Traffic:
    """Counts requests, loads and ejects. `is_known` tells whether there is such a model."""

    def __init__(self, is_known: Callable[[ModelRef], bool] = lambda _: True) -> None:
        self._is_known = is_known
        self._rows: dict[tuple[str, str], _Row] = {}
        self._recent: deque[tuple[tuple[str, str], Exchanged]] = deque(maxlen=_RECENT)
        self._rerouted = 0

    def note(self, record: Exchanged) -> None:
        """Count a request that has ended. Takes microseconds."""
        key = (record.provider, record.model)
        row = self._rows.get(key)
        if row is None:
            key, row = self._row(key)
        outcome = record.outcome
        row.outcomes[outcome] = row.outcomes.get(outcome, 0) + 1
        row.duration.add(record.total_s)
        row.queue_wait.add(record.queue_s)
        if record.first_byte_s is not None:
            row.first_byte.add(record.first_byte_s)
        if record.prompt_tokens:
            row.prompt_tokens += record.prompt_tokens
        if record.completion_tokens:
            row.completion_tokens += record.completion_tokens
            if (writing_s := _writing_s(record)) > 0:
                row.tokens_per_second = record.completion_tokens / writing_s
        if record.attempts > 1 or record.reason.startswith("fallback"):
            self._rerouted += 1
        self._recent.append((key, record))

    def note_fact(self, fact: ev.Fact) -> None:
        """Count a load or an eject."""
        if isinstance(fact, ev.ModelReady):
            _, row = self._row((fact.provider, fact.model))
            row.load.add(fact.took_s)
            row.load_s = fact.took_s
        elif isinstance(fact, ev.ModelGone):
            _, row = self._row((fact.provider, fact.model))
            row.ejects += 1

    def last_load_s(self, ref: ModelRef) -> float | None:
        """How long the model's last load took (seconds); None where none was seen."""
        row = self._rows.get((ref.provider, ref.model))
        return row.load_s if row is not None else None

    def report(self, in_flight: Mapping[ModelRef, int]) -> TrafficReport:
        """What passed so far. `in_flight`: requests that run now, by model."""
        by_model: dict[tuple[str, str], list[Exchanged]] = {}
        for key, record in self._recent:
            by_model.setdefault(key, []).append(record)
        running = {(ref.provider, ref.model): n for ref, n in in_flight.items() if n}
        keys = [*self._rows, *(key for key in running if key not in self._rows)]
        outcomes: dict[Outcome, int] = {}
        for row in self._rows.values():
            for outcome, n in row.outcomes.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + n
        recent = [record for _, record in self._recent]
        return TrafficReport(
            requests_total=sum(outcomes.values()),
            outcomes=outcomes,
            recent_requests=len(recent),
            recent_answered=sum(map(is_successful, recent)),
            recent=spread([record.total_s for record in recent]),
            rerouted_total=self._rerouted,
            models=tuple(
                _model_traffic(key, self._rows.get(key) or _Row(), by_model.get(key, []), running.get(key, 0))
                for key in keys
            ),
        )

    def _row(self, key: tuple[str, str]) -> tuple[tuple[str, str], _Row]:
        """The row of a model; one that does not exist, or is one too many, shares the row of nobody."""
        row = self._rows.get(key)
        if row is not None:
            return key, row
        is_nobody = not key[0] or len(self._rows) >= _MAX_MODELS or not self._is_known(ModelRef(*key))
        if is_nobody and key != _NOBODY:
            return self._row(_NOBODY)
        row = self._rows[key] = _Row()
        return key, row


def is_successful(record: Exchanged) -> bool:
    """Whether the client got the answer that it asked for."""
    return record.outcome is Outcome.ANSWERED and record.status < _HTTP_ERROR


def is_error(record: Exchanged) -> bool:
    """Whether it was the router or the engine that let the client down. Who leaves, was not."""
    return not is_successful(record) and record.outcome is not Outcome.CLIENT_LEFT


def spread(durations_s: list[float]) -> Spread:
    """The figures of some durations (seconds); percentiles by nearest rank."""
    if not durations_s:
        return Spread()
    ordered = sorted(durations_s)
    return Spread(
        average_s=sum(ordered) / len(ordered),
        shortest_s=ordered[0],
        longest_s=ordered[-1],
        p50_s=ordered[math.ceil(0.5 * len(ordered)) - 1],
        p95_s=ordered[math.ceil(0.95 * len(ordered)) - 1],
    )


def _writing_s(record: Exchanged) -> float:
    """How long the engine wrote (seconds): from the first byte on where that tells, else reading too."""
    if record.is_stream and record.first_byte_s is not None:
        from_first_byte_s = record.total_s - record.first_byte_s
        if from_first_byte_s >= _TELLING_S:
            return from_first_byte_s
    return record.total_s - record.queue_s - record.load_s


def _model_traffic(key: tuple[str, str], row: _Row, recent: list[Exchanged], in_flight: int) -> ModelTraffic:
    return ModelTraffic(
        model=str(ModelRef(*key)) if key != _NOBODY else "",
        outcomes=dict(row.outcomes),
        in_flight=in_flight,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        duration=row.duration.seen(),
        queue_wait=row.queue_wait.seen(),
        first_byte=row.first_byte.seen(),
        loads=sum(row.load.counts),
        load_seconds=row.load.seen(),
        ejects=row.ejects,
        recent_requests=len(recent),
        recent_errors=sum(map(is_error, recent)),
        recent_tokens=sum((r.prompt_tokens or 0) + (r.completion_tokens or 0) for r in recent),
        recent=spread([r.total_s for r in recent]),
        tokens_per_second=row.tokens_per_second,
    )
