"""Where the metrics' figures come from: rows of labels and values, read from one moment's readings.

Decides: which label a figure gets; what is not known has no row. Must not: count anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from tray_valet.core.commands import ModelState, QueueState
from tray_valet.core.metrics import GpuSample, MachineSample
from tray_valet.core.snapshot import Snapshot
from tray_valet.core.traffic import Histogram, ModelTraffic, Outcome, Tally, TrafficReport
from tray_valet.core.watchdog import State

STATUSES = ("off", "starting", "loading", "ready", "stopping", "crashed", "failed")
# The seeds call an answer that went out “success”.
OUTCOME_LABELS = {outcome: outcome.value for outcome in Outcome} | {Outcome.ANSWERED: "success"}


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a scrape is made of, taken at one moment."""

    traffic: TrafficReport
    tally: Tally
    states: tuple[ModelState, ...]
    names: dict[str, str]  # of the models in `states`, by `provider/model`
    queues: tuple[QueueState, ...]
    snapshot: Snapshot
    sample: MachineSample | None
    resident_bytes: int | None

    def name_of(self, model: str) -> str:
        """How clients call the model `provider/model`; "" stays that: requests for no model."""
        return self.names.get(model, model)


Row = tuple[tuple[str, ...], float | Histogram]
Rows = Callable[[Readings], Iterator[Row]]


def of_models(value: Callable[[ModelTraffic], float | Histogram]) -> Rows:
    """One row for each model with traffic; requests for no model are under ""."""

    def rows(now: Readings) -> Iterator[Row]:
        for model in now.traffic.models:
            yield (now.name_of(model.model),), value(model)

    return rows


def of_real_models(value: Callable[[ModelTraffic], float | Histogram]) -> Rows:
    """The same without the requests for no model."""

    def rows(now: Readings) -> Iterator[Row]:
        for model in now.traffic.models:
            if model.model:
                yield (now.name_of(model.model),), value(model)

    return rows


def of_queues(value: Callable[[QueueState], float]) -> Rows:
    """One row for each waiting line."""

    def rows(now: Readings) -> Iterator[Row]:
        for queue in now.queues:
            yield (now.name_of(str(queue.ref)),), value(queue)

    return rows


def of_gpus(value: Callable[[GpuSample], float | None]) -> Rows:
    """One row for each GPU that tells the figure."""

    def rows(now: Readings) -> Iterator[Row]:
        for gpu in now.sample.gpus if now.sample is not None else ():
            known = value(gpu)
            if known is not None:
                yield (str(gpu.index),), known

    return rows


def requests(now: Readings) -> Iterator[Row]:
    """One row for each model and way to end."""
    for model in now.traffic.models:
        for outcome, n in model.outcomes.items():
            yield (now.name_of(model.model), OUTCOME_LABELS[outcome]), n


def model_vram(now: Readings) -> Iterator[Row]:
    """One row for each model."""
    for state in now.states:
        yield (state.name,), state.vram_bytes


def model_status(now: Readings) -> Iterator[Row]:
    """One row for each model and status."""
    for state in now.states:
        for status in STATUSES:
            yield (state.name, status), float(state.status == status)


def loaded(now: Readings) -> Iterator[Row]:
    """How many models are in memory."""
    yield (), sum(state.status in ("ready", "stopping") for state in now.states)


def state(now: Readings) -> Iterator[Row]:
    """One row for each state of the valet."""
    for state in State:
        yield (state.value,), float(now.snapshot.state is state)


def holds(now: Readings) -> Iterator[Row]:
    """How many holds are in effect."""
    yield (), sum(not hold.is_overridden for hold in now.snapshot.holds)


def pauses(now: Readings) -> Iterator[Row]:
    """One row for each kind of hold that began a pause."""
    for cause, n in now.tally.pauses.items():
        yield (cause,), n


def crashes(now: Readings) -> Iterator[Row]:
    """One row for each model whose runner crashed."""
    for model, n in now.tally.runner_crashes.items():
        yield (now.name_of(model),), n


def providers(now: Readings) -> Iterator[Row]:
    """One row for each provider."""
    for view in now.snapshot.providers:
        yield (view.name,), float(view.state != "unreachable")


def resident(now: Readings) -> Iterator[Row]:
    """The memory of this process, where it can be told."""
    if now.resident_bytes is not None:
        yield (), now.resident_bytes


def build(now: Readings) -> Iterator[Row]:
    """The version."""
    yield (now.snapshot.version,), 1.0


def one(value: Callable[[Readings], float | Histogram]) -> Rows:
    """One figure without labels."""

    def rows(now: Readings) -> Iterator[Row]:
        yield (), value(now)

    return rows
