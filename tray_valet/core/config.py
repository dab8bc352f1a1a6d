"""The settings: every section of `config.yaml`, typed, with its defaults.

Decides: the keys, types, ranges and defaults; attribute names are the file's keys.
Must not: read a file or the environment (`services/settings.py` does), or judge values against each
other (`config_checks.py` does). The sections of providers, pools and routes: `config_providers.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from tray_valet.core.config_providers import (
    PoolSettings,
    Port,
    PositiveInt,
    ProviderSettings,
    RouteSettings,
    Seconds,
    Section,
    WhenPaused,
)
from tray_valet.core.game_verdict import Action, Verdict

Percent = Annotated[float, Meta(gt=0, le=100)]
BodyBytes = Annotated[int, Meta(ge=1, le=4 * 2**30)]
AtLeastASecond = Annotated[int, Meta(ge=1, le=86_400)] | Annotated[float, Meta(ge=1, le=86_400)]


class LocalAccess(StrEnum):
    """Who on this machine may command: everybody, or who can read the runtime file."""

    OPEN = "open"
    TOKEN = "token"


class Store(StrEnum):
    """The kinds of game library that can be added by hand."""

    STEAM = "steam"


class EvictionMode(StrEnum):
    """Set everything aside, or just enough."""

    ALL = "all"
    ENOUGH = "enough"


class OnBattery(StrEnum):
    """What happens to the models when the mains power goes."""

    KEEP = "keep"
    EVICT = "evict"
    NO_PRELOAD = "no_preload"


class OnSuspend(StrEnum):
    """What happens to the models before the machine sleeps."""

    UNLOAD = "unload"
    KEEP = "keep"


class GroupMode(StrEnum):
    """Which models of a group may be in memory with each other, and with others."""

    TOGETHER = "together"
    SWAP = "swap"
    EXCLUSIVE = "exclusive"
    PINNED = "pinned"


class Appearance(StrEnum):
    """The window's theme."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ControlSettings(Section, frozen=True, kw_only=True):
    """The control API. `api_key` is a reference (`keyring:control`); None = none configured."""

    host: str = "127.0.0.1"
    port: Port = 8765  # 0 = any free port
    local_access: LocalAccess = LocalAccess.OPEN
    api_key: str | None = None
    key_acknowledged: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: BodyBytes = 65_536


class RouterSettings(Section, frozen=True, kw_only=True):
    """The router API. `when_paused` is for models without a route of their own."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8766  # 0 = any free port
    api_keys: dict[str, str] = msgspec.field(default_factory=dict)  # name → reference
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    request_timeout_seconds: AtLeastASecond = 120
    max_body_bytes: BodyBytes = 67_108_864
    max_queue_size_per_model: Annotated[int, Meta(ge=0, le=1_000_000)] = 500
    queue_timeout_seconds: Seconds = 300
    priority_ageing_seconds: Seconds = 30
    when_paused: WhenPaused = WhenPaused.REFUSE


class ThresholdSettings(Section, frozen=True, kw_only=True):
    """When memory or CPU pressure pauses, and when it is over; percentages of the whole."""

    ram_pause_pct: Percent = 85.0
    ram_resume_pct: Percent = 60.0
    cpu_pause_pct: Percent = 90.0
    cpu_resume_pct: Percent = 80.0
    cpu_sustained_seconds: Seconds = 30
    gpu_vram_pause_pct: Percent = 85.0
    gpu_vram_resume_pct: Percent = 75.0
    pause_timeout_seconds: Seconds = 120
    check_interval_seconds: AtLeastASecond = 10
    auto_resume_on_ram_pressure: bool = True


class GameLibrarySettings(Section, frozen=True, kw_only=True):
    """A folder of installed games beside the discovered ones."""

    store: Store
    path: str


class GameRuleSettings(Section, frozen=True, kw_only=True):
    """A user's word on processes: what must match, and a verdict or an action or both."""

    exe: str | None = None
    name: str | None = None
    appid: int | str | None = None
    root: str | None = None
    argv_regex: str | None = None
    verdict: Verdict | None = None
    action: Action | None = None


class GamesSettings(Section, frozen=True, kw_only=True):
    """Games: how long after one the models wait, and what counts as one."""

    enabled: bool = True
    grace_seconds: Seconds = 30
    end_debounce_seconds: Seconds = 12
    libraries: tuple[GameLibrarySettings, ...] = ()
    rules: tuple[GameRuleSettings, ...] = ()  # the first that matches wins


class EvictionSettings(Section, frozen=True, kw_only=True):
    """How the models step aside; `kill_after_seconds` counts from the end of the drain."""

    mode: EvictionMode = EvictionMode.ALL
    drain_seconds: Seconds = 3
    kill_after_seconds: Seconds = 5
    confirm_seconds: Seconds = 10


class PowerSettings(Section, frozen=True, kw_only=True):
    """Battery, sleep, and whether an idle machine gets its models back."""

    on_battery: OnBattery = OnBattery.KEEP
    on_suspend: OnSuspend = OnSuspend.UNLOAD
    resume_when_idle: bool = False


class GroupSettings(Section, frozen=True, kw_only=True):
    """A co-residency set."""

    mode: GroupMode
    models: tuple[str, ...] = ()


class ModelsSettings(Section, frozen=True, kw_only=True):
    """How many models stay loaded, how long, and which ones; `idle_timeout_seconds` 0 = for ever."""

    max_concurrent: PositiveInt = 3
    idle_timeout_seconds: (
        Annotated[int, Meta(ge=0, le=31_536_000)] | Annotated[float, Meta(ge=0, le=31_536_000)]
    ) = 300
    preload: tuple[str, ...] = ()  # "*" = all
    default: str | None = None
    groups: dict[str, GroupSettings] = msgspec.field(default_factory=dict)
    # Scales what a forecast cannot know exactly: compute buffers, or a file's size where it cannot be read.
    vram_multiplier: Annotated[float, Meta(ge=0.1, le=10)] = 1.1


class DesktopSettings(Section, frozen=True, kw_only=True):
    """Notifications, theme, start at sign-in."""

    notifications: bool = True
    notification_sound: bool = False
    appearance: Appearance = Appearance.SYSTEM
    autostart: bool = False


class LogSettings(Section, frozen=True, kw_only=True):
    """The log; `file` None = in the log directory."""

    level: LogLevel = LogLevel.INFO
    file: str | None = None


class Settings(Section, frozen=True, kw_only=True):
    """All of it. `providers` None = no such section: an Ollama that answers, else the demo model."""

    control: ControlSettings = ControlSettings()
    router: RouterSettings = RouterSettings()
    thresholds: ThresholdSettings = ThresholdSettings()
    games: GamesSettings = GamesSettings()
    eviction: EvictionSettings = EvictionSettings()
    power: PowerSettings = PowerSettings()
    models: ModelsSettings = ModelsSettings()
    providers: dict[str, ProviderSettings] | None = None
    pools: dict[str, PoolSettings] = msgspec.field(default_factory=dict)
    routes: dict[str, RouteSettings] = msgspec.field(default_factory=dict)
    desktop: DesktopSettings = DesktopSettings()
    log: LogSettings = LogSettings()
