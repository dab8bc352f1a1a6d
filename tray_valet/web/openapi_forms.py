"""The forms of the control API's answers, as the description tells them.

Decides: names and types on the wire; a test holds every answer against them. Must not: be used to answer:
the shapes (`status_shape.py`, `list_shapes.py` …) make the answers, and may say more than is listed here.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Form(msgspec.Struct, kw_only=True):
    """An object of an answer."""


class ErrorInner(Form):
    """`message` is one sentence with its remedy; programs compare `code`."""

    message: str
    type: str
    param: str | None
    code: str


class Error(Form):
    """What every failure answers."""

    error: ErrorInner


class Root(Form):
    name: str
    version: str
    status: str


class Hold(Form):
    """A reason to stay paused."""

    id: str
    kind: str
    owner: str
    reason: str
    since: float
    overridden: bool
    expires_in_seconds: float | None
    pid: int | None
    needs_manual_resume: bool


class Holds(Form):
    holds: list[Hold]


class Watchdog(Form):
    """`state`: running, pausing, paused, resuming or provider_down."""

    state: str
    last_reason: str
    since: float
    title: str
    line: str
    resumes_in_seconds: float | None
    holds: list[Hold]


class StatusProvider(Form):
    """The provider of the default or of a loaded model."""

    running: bool
    model_loaded: bool
    model_name: str | None
    memory_used_mb: int | None
    size_vram_mb: int | None
    loaded_context_length: int | None
    endpoint: str | None
    overcommit: bool
    name: str | None
    kind: str | None
    builtin_demo: bool


class Memory(Form):
    total_mb: int | None
    used_mb: int | None
    used_pct: float | None
    pressure: str


class Cpu(Form):
    used_pct: float | None
    core_count: int | None


class Gpu(Form):
    index: int
    uuid: str
    name: str
    vram_total_mb: int
    vram_used_mb: int
    vram_used_pct: float
    compute_pct: float | None


class Gpus(Form):
    """All GPUs added up, and each by itself."""

    available: bool
    vram_total_mb: int | None
    vram_used_mb: int | None
    vram_used_pct: float | None
    compute_pct: float | None
    gpus: list[Gpu]
    missing_because: str | None


class Disk(Form):
    """The volume that holds the models."""

    path: str | None
    total_mb: int | None
    used_mb: int | None
    free_mb: int | None
    used_pct: float | None


class Metrics(Form):
    memory: Memory
    cpu: Cpu
    gpu: Gpus
    disk: Disk
    timestamp: float | None


class Security(Form):
    lan_exposed: bool
    auth_enabled: bool


class LoadedModel(Form):
    """A model in memory."""

    provider: str
    name: str
    size_mb: int
    vram_mb: int
    context_length: int | None
    ttl_left_seconds: float | None
    needs_gpu: bool
    pid: int | None


class ToBringBack(Form):
    """A model that is to come back, as it was."""

    provider: str
    name: str
    size_mb: int
    vram_mb: int
    context_length: int | None
    ttl_left_seconds: float | None


class RunningGame(Form):
    key: str
    name: str
    store: str
    appid: str
    rule: str
    action: str
    pids: list[int]
    since: float
    overridden: bool
    ending: bool


class Condition(Form):
    """Something that is the case with a provider."""

    type: str
    status: bool
    reason: str
    since: float


class Download(Form):
    """`state`: queued, running, paused (a game runs), done, failed or cancelled."""

    id: str
    model: str
    provider: str
    state: str
    status: str | None
    completed_bytes: int
    total_bytes: int | None
    percent: float | None
    attempts: int
    error: str | None
    added_at: float
    next_try_at: float | None
    ended_at: float | None


class Status(Form):
    """Everything at one moment."""

    provider: StatusProvider
    metrics: Metrics
    watchdog: Watchdog
    version: str
    security: Security
    models: list[LoadedModel]
    to_bring_back: list[ToBringBack]
    games: list[RunningGame]
    downloads: list[Download]
    settings_problem: str | None
    in_flight: int
    control_url: str
    router_url: str | None
    taken_at: float


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
