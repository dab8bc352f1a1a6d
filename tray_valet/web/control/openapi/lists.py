"""The forms of the control API's lists: models, providers, games, signals, and what was.

Decides: names and types on the wire; a test holds every answer against them. Must not: be used to answer:
`list_shapes.py`, `memory_reads.py` and `control/ledger.py` make the answers, and may say more.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tray_valet.web.control.openapi.forms import Condition, Form, Hold, LoadedModel, RunningGame


class Model(Form):
    """A model that could be loaded."""

    name: str
    size_mb: int
    context_length: int | None
    provider: str
    loaded: bool
    loading: bool
    needs_gpu: bool


class Models(Form):
    models: list[Model]


class ProviderModel(Form):
    name: str
    model: str
    modified_at: str = msgspec.field(name="modifiedAt")
    size: int
    digest: str
    details: dict[str, str]
    context_length: int | None = msgspec.field(name="contextLength")
    can_chat: bool = msgspec.field(name="canChat")
    can_embed: bool = msgspec.field(name="canEmbed")
    can_prompt: bool = msgspec.field(name="canPrompt")
    can_stream: bool = msgspec.field(name="canStream")
    loaded: bool


class Provider(Form):
    """`state`: ready, unreachable or unknown."""

    name: str
    kind: str
    url: str
    local: bool
    state: str
    version: str | None
    conditions: list[Condition]
    models: list[ProviderModel]
    loaded: list[LoadedModel]
    loading: list[str]


class Providers(Form):
    providers: list[Provider]


class KnownGame(Form):
    key: str
    name: str
    store: str
    appid: str
    path: str
    kind: str
    action: str
    running: bool


class Games(Form):
    known: list[KnownGame]
    running: list[RunningGame]


class Signal(Form):
    """One pressure signal: raw, what our models hold of it, what others use."""

    signal: str
    gpu: str
    raw_pct: float
    ours_pct: float
    others_pct: float
    others_at_load_pct: float | None
    free_mb: int | None
    reserve_mb: int | None
    pause_pct: float
    resume_pct: float
    breached: bool
    breached_for_seconds: float
    counts: bool
    why: str


class Explain(Form):
    """Why it is as it is."""

    state: str
    title: str
    line: str
    last_reason: str
    signals: list[Signal]
    holds: list[Hold]
    games: list[RunningGame]


class ActivityEntry(Form):
    id: int
    at: float
    kind: str
    text: str
    problem: bool


class Activity(Form):
    activity: list[ActivityEntry]


class Logs(Form):
    runner: str | None
    lines: list[str]


class MemoryBars(Form):
    """Who has the memory; a bar is null where nothing can be measured."""

    vram: dict[str, Any] | None
    ram: dict[str, Any] | None
    gpu_names: list[str]


class HistoryPoint(Form):
    at: float
    ram_pct: float
    cpu_pct: float
    vram_pct: float | None
    state: str


class History(Form):
    minutes: int
    interval_seconds: float
    samples: list[HistoryPoint]


class LedgerGame(Form):
    """How often the models stepped aside for a game, and how long that took."""

    key: str
    name: str
    last_at: float
    times: int
    median_seconds: float | None
    worst_seconds: float | None
    freed_mb: int


class Ledger(Form):
    games: list[LedgerGame]
    times: int
    freed_mb: int
