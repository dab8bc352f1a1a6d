"""What passes through the router, request by request: the record that the log, the figures and metrics share.

Decides: what is kept of a request (never a body) and how it can end.
Must not: count or keep anything (`services/traffic.py` does).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec


class Outcome(StrEnum):
    """How a request ended. Every request ends in exactly one of these."""

    ANSWERED = "answered"  # the engine's answer went out whole, also one with a 4xx of its own
    REFUSED = "refused"  # a clear no of ours before anything was answered: paused, unknown, queue full …
    FAILED = "failed"  # engines were asked and failed, or fell silent
    CUT = "cut"  # the answer had begun and was ended by a pause, a failure or our own end
    CLIENT_LEFT = "client_left"


class Ended(Protocol):
    """A request that has ended. What is noted of it may be worked out later, once."""

    def record(self) -> Exchanged: ...


class Exchanged(msgspec.Struct, frozen=True, kw_only=True):
    """One request from arrival to end. Durations in seconds, None = it did not come to that."""

    at: float  # Unix seconds of its arrival
    asked: str  # the model or alias as the client named it
    path: str
    client: str = ""  # the key's name; "" without keys
    priority: str = "normal"
    provider: str = ""  # who answered (or was asked last); "" = nobody
    model: str = ""
    reason: str = ""  # why that candidate
    attempts: int = 1  # candidates that were asked
    is_stream: bool = False
    status: int = 0  # what the client got; 0 = nothing
    outcome: Outcome = Outcome.ANSWERED
    error_code: str = ""
    queue_s: float = 0.0  # at the gate and in the queue
    load_s: float = 0.0  # waiting for the model
    first_byte_s: float | None = None  # from arrival to the first byte of the answer
    total_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    answer_bytes: int = 0

    def record(self) -> Exchanged:
        """This: it is worked out."""
        return self


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Durations (seconds) of the requests at hand; all 0 where there are none."""

    average_s: float = 0.0
    shortest_s: float = 0.0
    longest_s: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Durations counted by upper bound (seconds), not cumulated; the last count is above all bounds."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float = 0.0


class ModelTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """One model's traffic. `model` is `provider/model`; "" = requests that no model was found for.

    Totals since the start; `recent_…` over the last 1,000 requests of the whole router.
    """

    model: str
    outcomes: dict[Outcome, int] = {}
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    duration: Histogram
    queue_wait: Histogram
    first_byte: Histogram
    loads: int = 0
    load_seconds: Histogram
    ejects: int = 0
    recent_requests: int = 0
    recent_errors: int = 0
    recent_tokens: int = 0
    recent: Spread = Spread()
    tokens_per_second: float = 0.0  # of the last answer that told


class TrafficReport(msgspec.Struct, frozen=True, kw_only=True):
    """What passed through the router."""

    requests_total: int = 0
    outcomes: dict[Outcome, int] = {}
    recent_requests: int = 0
    recent_answered: int = 0
    recent: Spread = Spread()
    rerouted_total: int = 0  # requests that more than one candidate was asked for, or that fell back
    models: tuple[ModelTraffic, ...] = ()


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What happened beside the requests, counted since the start."""

    pauses: dict[str, int] = {}  # by the kind of the hold that began it
    paused_s: float = 0.0  # in which the models were set aside, up to now
    set_aside: Histogram = Histogram(bounds_s=(), counts=(0,))  # how long setting aside took
    freed_bytes: int = 0
    runner_crashes: dict[str, int] = {}  # by `provider/model`
    answers_ended: int = 0
