"""The forms of the control API's answers, as the description tells them: errors, and /status with its parts.

Decides: names and types on the wire; a test holds every answer against them. Must not: be used to answer:
`status_shape.py` makes the answers, and may say more than is listed here. Others: `lists.py` (lists),
`outcomes.py` (what commands answer).
"""

from __future__ import annotations

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
