"""The errors of the product, grouped by what the caller can do about them.

Decides: which error a failure is, its stable `code`, and the sentence and remedy that a person reads.
Must not: know HTTP. The web edge maps a class to a status in one table (`web/edge/errors.py`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ErrorCode(StrEnum):
    """Stable codes; programs compare these, people read the message."""

    INTERNAL = "internal"
    PAUSED = "paused"
    PROVIDER_UNREACHABLE = "provider_unreachable"
    UPSTREAM_FAILED = "upstream_failed"
    TIMED_OUT = "timed_out"
    QUEUE_FULL = "queue_full"
    COOLDOWN = "cooldown"
    VRAM_EXHAUSTED = "vram_exhausted"
    LOAD_FAILED = "load_failed"
    GAME_RUNNING = "game_running"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    INVALID_VALUE = "invalid_value"
    INVALID_JSON = "invalid_json"
    NOT_SUPPORTED = "not_supported"
    CANNOT_KILL = "cannot_kill"
    SETTINGS_INVALID = "settings_invalid"
    SETTINGS_CHANGED = "settings_changed"
    SETTINGS_UNWRITABLE = "settings_unwritable"
    ENGINE_MISSING = "engine_missing"
    ROOT_REFUSED = "root_refused"
    ADDRESS_IN_USE = "address_in_use"
    DISK_FULL = "insufficient_storage"
    KEY_NOT_ACKNOWLEDGED = "key_not_acknowledged"
    LOCAL_ONLY = "local_only"


class ValetError(Exception):
    """Root of every error the product raises on purpose.

    `message` is one plain sentence; `remedy` says what the user can do ("" where nothing is needed);
    `param` names the field or setting at fault, dotted (`thresholds.ram_pause_pct`), or is None.
    """

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, *, remedy: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.param = param

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


# -- retry: the same call may go through later -------------------------------------------------------


class RetryLater(ValetError):
    """The call may succeed later; `retry_after_s` (seconds, >= 1) is the best guess of when."""

    def __init__(
        self, message: str, *, retry_after_s: float = 5.0, remedy: str = "", param: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy, param=param)
        self.retry_after_s = retry_after_s


class Paused(RetryLater):
    """The models are set aside; the message names the cause."""

    code = ErrorCode.PAUSED


class ProviderUnreachable(RetryLater):
    """Nothing answers at the provider's address, or not in time."""

    code = ErrorCode.PROVIDER_UNREACHABLE


class UpstreamFailed(RetryLater):
    """The provider answered, but with a failure of its own, or broke off."""

    code = ErrorCode.UPSTREAM_FAILED


class TimedOut(RetryLater):
    """A bounded wait ran out."""

    code = ErrorCode.TIMED_OUT


class QueueFull(RetryLater):
    """Too many requests wait already."""

    code = ErrorCode.QUEUE_FULL


class Cooldown(RetryLater):
    """The same command was given a moment ago."""

    code = ErrorCode.COOLDOWN


class VramExhausted(RetryLater):
    """The model does not fit; sizes in bytes."""

    code = ErrorCode.VRAM_EXHAUSTED

    def __init__(self, message: str, *, required_bytes: int, available_bytes: int) -> None:
        super().__init__(message, retry_after_s=30.0)
        self.required_bytes = required_bytes
        self.available_bytes = available_bytes


class LoadFailed(RetryLater):
    """The engine could not load the model; `log_tail` holds the engine's last lines.

    `was_ended`: somebody ended the load on purpose, so it says nothing about the model.
    """

    code = ErrorCode.LOAD_FAILED

    def __init__(
        self, message: str, *, log_tail: tuple[str, ...] = (), remedy: str = "", was_ended: bool = False
    ) -> None:
        super().__init__(message, retry_after_s=30.0, remedy=remedy)
        self.log_tail = log_tail
        self.was_ended = was_ended


# -- refuse: the call is wrong, or not allowed as things stand -------------------------------------


class Refused(ValetError):
    """The call will not be done as it stands."""

    code = ErrorCode.REFUSED


class GameRunning(Refused):
    """A load was asked for while a game runs, without `override`."""

    code = ErrorCode.GAME_RUNNING


class UnknownModel(Refused):
    """No provider has a model of that name."""

    code = ErrorCode.MODEL_NOT_FOUND


class NotFound(Refused):
    """Nothing exists under that id or name (a hold, a provider, a file)."""

    code = ErrorCode.NOT_FOUND


class InvalidValue(Refused):
    """A value is outside its range or form; `param` names it."""

    code = ErrorCode.INVALID_VALUE


class InvalidJson(Refused):
    """The body is not the JSON object that was expected."""

    code = ErrorCode.INVALID_JSON


class NotSupported(Refused):
    """This provider or system cannot do that; the message says what it can."""

    code = ErrorCode.NOT_SUPPORTED


class CannotKill(Refused):
    """The process is not ours to end, or the system refuses; the remedy says who can."""

    code = ErrorCode.CANNOT_KILL


class DiskFull(Refused):
    """The volume that would hold a model has too little room; sizes in bytes."""

    code = ErrorCode.DISK_FULL

    def __init__(self, message: str, *, required_bytes: int, free_bytes: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.required_bytes = required_bytes
        self.free_bytes = free_bytes


class KeyNotAcknowledged(Refused):
    """Other machines would reach the valet with a key that the user has not seen yet."""

    code = ErrorCode.KEY_NOT_ACKNOWLEDGED


class LocalOnly(Refused):
    """Only this machine may ask for that, and no page of another origin."""

    code = ErrorCode.LOCAL_ONLY


class RootRefused(Refused):
    """The product does not run as root unless it is told to."""

    code = ErrorCode.ROOT_REFUSED


# -- fix the settings --------------------------------------------------------------------------------


class SettingsProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake in the settings: where, what, and what to write instead."""

    path: str  # dotted: thresholds.ram_pause_pct
    message: str  # “eighty” is not a number. Use 1 to 100, such as 85.0.
    line: int | None = None  # 1-based line of the file; None when it came from elsewhere

    def __str__(self) -> str:
        place = f"Line {self.line}, {self.path}" if self.line is not None else self.path
        return f"{place}: {self.message}"


class SettingsError(ValetError):
    """The settings (or a change of them) are wrong; nothing was stored."""

    code = ErrorCode.SETTINGS_INVALID

    def __init__(self, problems: tuple[SettingsProblem, ...]) -> None:
        first = problems[0] if problems else None
        super().__init__("; ".join(map(str, problems)), param=first.path if first else None)
        self.problems = problems


class AddressInUse(ValetError):
    """A server of ours cannot listen at its host and port; the remedy says who does, or what to set."""

    code = ErrorCode.ADDRESS_IN_USE


class SettingsChangedElsewhere(ValetError):
    """The file was changed since it was read; nothing was stored."""

    code = ErrorCode.SETTINGS_CHANGED


class SettingsUnwritable(ValetError):
    """The system does not let the settings file be written; nothing was stored."""

    code = ErrorCode.SETTINGS_UNWRITABLE


# -- install -----------------------------------------------------------------------------------------


class EngineMissing(ValetError):
    """No llama.cpp engine can be started; the remedy says what to install."""

    code = ErrorCode.ENGINE_MISSING
