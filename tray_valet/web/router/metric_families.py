"""The metrics: every family that /metrics shows.

Decides: names, kinds, labels and help: the seeds' `router_*`, our `valet_*`. Must not: count anything: the
hot path touches plain numbers, and families are made when somebody scrapes.

A model's label is the name that clients know it by (as in the lists), so it is bounded by what exists.
Format: prometheus.io/docs/instrumenting/exposition_formats; naming: prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from tray_valet.core.traffic import Histogram
from tray_valet.web.router import metric_rows as rows_of
from tray_valet.web.router.metric_rows import Readings, Rows

if TYPE_CHECKING:
    from prometheus_client import Metric


class Kind(StrEnum):
    """What a metric is, in Prometheus' word."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(msgspec.Struct, frozen=True):
    """One metric. `name` as it stands in the text (a counter's with `_total`)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    rows: Rows


def families(readings: Readings) -> Iterator[Metric]:
    """The families, as prometheus-client's collectors give them."""
    from prometheus_client import core

    for family in FAMILIES:
        if family.kind is Kind.HISTOGRAM:
            histogram = core.HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for labels, value in family.rows(readings):
                assert isinstance(value, Histogram)
                histogram.add_metric(labels, _cumulated(value), value.sum_s)
            yield histogram
            continue
        made: Any = core.CounterMetricFamily if family.kind is Kind.COUNTER else core.GaugeMetricFamily
        metric = made(family.name, family.help, labels=family.labels)
        for labels, value in family.rows(readings):
            metric.add_metric(labels, value)
        yield metric


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    buckets = []
    for bound, n in zip((*map(repr, histogram.bounds_s), "+Inf"), histogram.counts, strict=True):
        total += n
        buckets.append((bound, float(total)))
    return buckets


_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_MODEL = ("model",)
_GPU = ("gpu",)
FAMILIES: tuple[Family, ...] = (
    Family(
        "router_requests_total",
        _COUNTER,
        "Requests that ended, by how they ended.",
        ("model", "status"),
        rows_of.requests,
    ),
    Family(
        "router_request_duration_seconds",
        _HISTOGRAM,
        "From a request's arrival to its end.",
        _MODEL,
        rows_of.of_models(lambda m: m.duration),
    ),
    Family(
        "router_active_requests",
        _GAUGE,
        "Requests in flight.",
        _MODEL,
        rows_of.of_queues(lambda q: q.in_flight),
    ),
    Family(
        "router_queue_depth",
        _GAUGE,
        "Requests that wait at the gate or for their turn.",
        _MODEL,
        rows_of.of_queues(lambda q: q.waiting),
    ),
    Family(
        "router_queue_wait_seconds",
        _HISTOGRAM,
        "How long requests waited at the gate and for their turn.",
        _MODEL,
        rows_of.of_models(lambda m: m.queue_wait),
    ),
    Family(
        "router_queue_rejected_total",
        _COUNTER,
        "Requests refused because the line was full or the wait too long.",
        _MODEL,
        rows_of.of_queues(lambda q: q.rejected_total),
    ),
    Family(
        "router_gpu_vram_used_bytes",
        _GAUGE,
        "VRAM in use, whoever uses it.",
        _GPU,
        rows_of.of_gpus(lambda g: g.vram_used_bytes),
    ),
    Family(
        "router_gpu_vram_free_bytes",
        _GAUGE,
        "VRAM that nobody uses.",
        _GPU,
        rows_of.of_gpus(lambda g: g.vram_total_bytes - g.vram_used_bytes),
    ),
    Family(
        "router_gpu_vram_total_bytes",
        _GAUGE,
        "VRAM of the GPU.",
        _GPU,
        rows_of.of_gpus(lambda g: g.vram_total_bytes),
    ),
    Family(
        "router_gpu_utilization_percent",
        _GAUGE,
        "How busy the GPU is.",
        _GPU,
        rows_of.of_gpus(lambda g: g.utilization_pct),
    ),
    Family(
        "router_gpu_temperature_celsius",
        _GAUGE,
        "The GPU's temperature.",
        _GPU,
        rows_of.of_gpus(lambda g: g.temperature_c),
    ),
    Family(
        "router_gpu_power_watts", _GAUGE, "What the GPU draws.", _GPU, rows_of.of_gpus(lambda g: g.power_w)
    ),
    Family("router_model_vram_bytes", _GAUGE, "VRAM that the model takes.", _MODEL, rows_of.model_vram),
    Family(
        "router_model_status",
        _GAUGE,
        "1 for the status that the model has.",
        ("model", "status"),
        rows_of.model_status,
    ),
    Family(
        "router_model_load_duration_seconds",
        _HISTOGRAM,
        "How long loads took.",
        _MODEL,
        rows_of.of_real_models(lambda m: m.load_seconds),
    ),
    Family(
        "router_model_loads_total",
        _COUNTER,
        "Loads, to bring a model back included.",
        _MODEL,
        rows_of.of_real_models(lambda m: m.loads),
    ),
    Family(
        "router_model_ejects_total",
        _COUNTER,
        "Unloads outside a pause: asked for, idle, or to make room.",
        _MODEL,
        rows_of.of_real_models(lambda m: m.ejects),
    ),
    Family("router_models_loaded_total", _GAUGE, "Models in memory now.", (), rows_of.loaded),
    Family(
        "router_tokens_generated_total",
        _COUNTER,
        "Tokens that the engines wrote.",
        _MODEL,
        rows_of.of_real_models(lambda m: m.completion_tokens),
    ),
    Family(
        "router_tokens_prompt_total",
        _COUNTER,
        "Tokens that the engines read.",
        _MODEL,
        rows_of.of_real_models(lambda m: m.prompt_tokens),
    ),
    Family(
        "router_tokens_per_second",
        _GAUGE,
        "How fast the last answer was written.",
        _MODEL,
        rows_of.of_real_models(lambda m: m.tokens_per_second),
    ),
    Family(
        "valet_time_to_first_byte_seconds",
        _HISTOGRAM,
        "From a request's arrival to its answer's first byte.",
        _MODEL,
        rows_of.of_models(lambda m: m.first_byte),
    ),
    Family(
        "valet_requests_rerouted_total",
        _COUNTER,
        "Requests that went on to another candidate.",
        (),
        rows_of.one(lambda now: now.traffic.rerouted_total),
    ),
    Family(
        "valet_answers_ended_total",
        _COUNTER,
        "Answers that were cut short to make room.",
        (),
        rows_of.one(lambda now: now.tally.answers_ended),
    ),
    Family("valet_state", _GAUGE, "1 for the state that the valet is in.", ("state",), rows_of.state),
    Family("valet_holds", _GAUGE, "Reasons to stay paused that are in effect.", (), rows_of.holds),
    Family(
        "valet_pauses_total",
        _COUNTER,
        "Pauses, by the kind of hold that began them.",
        ("cause",),
        rows_of.pauses,
    ),
    Family(
        "valet_paused_seconds_total",
        _COUNTER,
        "Time in which the models were set aside.",
        (),
        rows_of.one(lambda now: now.tally.paused_s),
    ),
    Family(
        "valet_pause_seconds",
        _HISTOGRAM,
        "How long setting the models aside took.",
        (),
        rows_of.one(lambda now: now.tally.set_aside),
    ),
    Family(
        "valet_freed_bytes_total",
        _COUNTER,
        "Memory freed by setting models aside.",
        (),
        rows_of.one(lambda now: now.tally.freed_bytes),
    ),
    Family(
        "valet_runner_crashes_total", _COUNTER, "Runners that ended by themselves.", _MODEL, rows_of.crashes
    ),
    Family("valet_provider_up", _GAUGE, "1 while the provider answers.", ("provider",), rows_of.providers),
    Family(
        "valet_process_resident_bytes", _GAUGE, "Memory of the valet's own process.", (), rows_of.resident
    ),
    Family("valet_build_info", _GAUGE, "1; the version is in the label.", ("version",), rows_of.build),
)
