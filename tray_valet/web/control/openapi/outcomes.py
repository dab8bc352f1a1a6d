"""The forms of what the control API's commands and tests answer.

Decides: names and types on the wire; a test holds every answer against them. Must not: be used to answer.
"""

from __future__ import annotations

from tray_valet.web.control.openapi.forms import Download, Form, Watchdog


class RouteCandidate(Form):
    provider: str
    model: str
    exists: bool
    provider_state: str
    loaded: bool
    standing: str


class RouteNow(Form):
    """Who would answer now, and why."""

    outcome: str
    why: str
    provider: str | None
    model: str | None


class RouteShown(Form):
    alias: str
    candidates: list[RouteCandidate]
    when_paused: str
    now: RouteNow


class Routes(Form):
    routes: list[RouteShown]


class RouteSent(Form):
    provider: str | None
    model: str | None
    reason: str | None
    took_ms: float


class RouteTested(RouteShown):
    """`sent`: who answered the request, where one was to be sent."""

    sent: RouteSent | None


class ProviderTested(Form):
    ok: bool
    provider: str
    kind: str
    url: str
    took_ms: float
    version: str | None
    models: list[str]
    loaded: list[str]


class Done(Form):
    """A command was carried out; more fields say what came of it."""

    ok: bool
    action: str


class PauseDone(Done):
    """202: begun, and not seen to end within its bounded time."""

    state: str
    watchdog: Watchdog


class LoadDone(Done):
    model: str
    provider: str
    size_mb: int
    vram_mb: int
    context_length: int | None
    ttl_left_seconds: float | None
    state: str


class ModelAt(Form):
    provider: str
    model: str


class UnloadDone(Done):
    unloaded: list[ModelAt]


class HoldPlaced(Form):
    id: str
    state: str


class HoldEnded(Form):
    ok: bool
    id: str
    state: str


class ServiceDone(Done):
    """It has begun; how it went is in the activity."""

    provider: str
    message: str
    done: bool


class OpenDone(Done):
    way: str
    url: str


class PullDone(Done):
    id: str
    download: Download


class DeleteDone(Done):
    model: str
    provider: str


class Downloads(Form):
    """Those that have not ended in their order, then the last ended ones, newest first."""

    downloads: list[Download]


class CancelDone(Done):
    download: Download


class SetupState(Form):
    """`needs_setup`: true until the set-up was acknowledged or applied once (control.key_acknowledged).

    That is so on a new machine, too, where nothing has to be set up to use it from there. `api_key`: the
    key that was made for other machines, until it is acknowledged; null where none was made.
    """

    needs_setup: bool
    api_key: str | None


class ApplyDone(Done):
    """`url`: where the control API is from now on."""

    url: str
    host: str
    port: int


class SettingsMeta(Form):
    """`origins`: dotted path → file or environment; the rest are defaults."""

    path: str
    version: str
    origins: dict[str, str]
    variables: dict[str, str]
    file_only: list[str]
    problem: str | None


class GameChosen(Form):
    ok: bool
    key: str
    name: str
    action: str


class SecretKept(Form):
    """`reference` is what to write in the settings."""

    ok: bool
    name: str
    reference: str


class SecretGone(Form):
    ok: bool
    name: str


class Session(Form):
    token: str


class Forgotten(Form):
    forgotten: int
