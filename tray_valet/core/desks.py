"""The inbound ports beside `core.commands.Valet`: the disk, the first set-up, keys, and tests.

Decides: what the control API may ask of them, in bytes and seconds. Must not: do it (`services/` does).
All methods run on the loop thread.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from tray_valet.core.downloads import Download
from tray_valet.core.models import ModelRef


class ModelStore(Protocol):
    """What is on the disk of the providers: downloads and deletions."""

    def downloads(self) -> tuple[Download, ...]:
        """Those that have not ended in their order, then the last ended ones, newest first."""
        ...

    async def pull(self, model: str, provider: str | None = None) -> Download:
        """Queue a download; the one that there is already, if it has not ended. `provider` None: the one
        that the name begins with, else the first that can download. Raises NotFound, NotSupported,
        DiskFull, InvalidValue, QueueFull."""
        ...

    async def wait(self, download_id: str) -> Download:
        """Return a download once it has ended, however long that takes. Raises NotFound."""
        ...

    async def cancel(self, download_id: str) -> Download:
        """Take a download back for good. Raises NotFound, Refused for one that has ended."""
        ...

    async def delete(self, model: str, provider: str | None = None) -> ModelRef:
        """Delete a model from the disk; one in memory is unloaded first. Raises UnknownModel, NotSupported,
        Refused while it is being downloaded, ProviderUnreachable."""
        ...


class SetupState(msgspec.Struct, frozen=True, kw_only=True):
    """The first set-up. `api_key`: one that was made for the user and not yet acknowledged."""

    needs_setup: bool
    api_key: str | None = None


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """Where the control API listens now."""

    url: str
    host: str
    port: int


class Setup(Protocol):
    """The first set-up and the address of the control API."""

    def state(self) -> SetupState: ...

    async def acknowledge(self) -> None:
        """The user has seen the key. Raises SettingsError, SettingsUnwritable."""
        ...

    async def apply(self, host: str | None, port: int | None) -> Applied:
        """Listen there, store it, and let go of the old address; None = as it is. If anything fails the
        old address stays and nothing is stored. Raises InvalidValue, SettingsError, AddressInUse,
        KeyNotAcknowledged."""
        ...


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """The settings as they may be shown, and where each value comes from.

    `origins`: dotted path → `file` or `environment`; what is not named has its default. `file_only`: what
    only the file may change, `*` standing for a name. `variables`: dotted path → the variable that sets it.
    """

    settings: dict[str, Any]
    origins: dict[str, str]
    variables: dict[str, str]
    file_only: tuple[str, ...]
    path: str
    version: str
    problem: str | None = None


class SettingsDesk(Protocol):
    """The settings as a whole."""

    def view(self) -> SettingsView: ...

    async def change(self, partial: dict[str, Any], *, base_version: str | None = None) -> None:
        """Store and apply a partial change of any section but commands and secrets. Raises SettingsError,
        InvalidValue, SettingsChangedElsewhere, SettingsUnwritable; then nothing is stored."""
        ...


class SecretStore(Protocol):
    """Keys by name. Nothing here gives one back."""

    async def keep(self, name: str, value: str) -> None:
        """Store a key, over the one that is there; in force at once. Raises SettingsUnwritable."""
        ...

    async def forget(self, name: str) -> None:
        """Take a key away. Raises NotFound, SettingsUnwritable."""
        ...


class ProviderProbe(msgspec.Struct, frozen=True, kw_only=True):
    """What one live look at a provider showed."""

    provider: str
    kind: str
    url: str
    took_s: float
    version: str | None
    models: tuple[str, ...]
    loaded: tuple[str, ...]


class Checks(Protocol):
    """Tests that the user asks for. They change nothing and start nothing."""

    async def provider(self, name: str) -> ProviderProbe:
        """One bounded live look. Raises NotFound, ProviderUnreachable, TimedOut, UpstreamFailed."""
        ...


class Desks(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, for the control API."""

    store: ModelStore
    setup: Setup
    settings: SettingsDesk
    secrets: SecretStore
    checks: Checks
