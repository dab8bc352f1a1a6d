"""The desks of the control API around a fake valet: the real queue rules and settings, no network.

Downloads stay where a test puts them: nothing fetches anything by itself.
"""

from __future__ import annotations

from pathlib import Path

from tests.web.fake_valet import FakeValet
from tray_valet.core import downloads as rules
from tray_valet.core.desks import Applied, Desks, ProviderProbe, SetupState
from tray_valet.core.downloads import Download, DownloadState
from tray_valet.core.errors import (
    NotFound,
    Refused,
    UnknownModel,
    ValetError,
)
from tray_valet.core.models import ModelRef
from tray_valet.services.settings import SettingsStore
from tray_valet.services.settings_desk import SettingsShown


class FakeStore:
    """`fails` is raised by the next calls; `when_waited` is how a download ends that is waited for."""

    def __init__(self, valet: FakeValet) -> None:
        self.valet = valet
        self.queue = rules.Queue()
        self.fails: ValetError | None = None
        self.when_waited = DownloadState.DONE
        self._next = 1

    def downloads(self) -> tuple[Download, ...]:
        return self.queue.downloads

    async def pull(self, model: str, provider: str | None = None) -> Download:
        self._check(provider)
        ref = ModelRef("ollama", model)
        if (active := self.queue.active(ref)) is not None:
            return active
        download = Download(id=f"d{self._next}", provider="ollama", model=model, added_at=1.0)
        self._next += 1
        self.queue = rules.added(self.queue, download)
        return download

    async def wait(self, download_id: str) -> Download:
        if self.when_waited is DownloadState.DONE:
            self.queue = rules.finished(self.queue, download_id, 2.0)
        elif self.when_waited is DownloadState.FAILED:
            self.queue = rules.failed(self.queue, download_id, "The registry is away.", 2.0, is_final=True)
        else:
            self.queue = rules.cancelled(self.queue, download_id, 2.0)
        return self.queue.find(download_id)

    async def cancel(self, download_id: str) -> Download:
        if self.queue.find(download_id).has_ended:
            raise Refused("It has ended.", param="id")
        self.queue = rules.cancelled(self.queue, download_id, 2.0)
        return self.queue.find(download_id)

    async def delete(self, model: str, provider: str | None = None) -> ModelRef:
        self._check(provider)
        if model not in self.valet.models:
            raise UnknownModel(f"No model is called “{model}”.", param="model")
        del self.valet.models[model]
        return ModelRef("ollama", model)

    def _check(self, provider: str | None) -> None:
        if self.fails is not None:
            raise self.fails
        if provider not in (None, "ollama"):
            raise NotFound(f"There is no provider called “{provider}”.", param="provider")


class FakeSetup:
    """An address that moves by being told so."""

    def __init__(self) -> None:
        self.key: str | None = "made-for-you"
        self.is_seen = False
        self.fails: ValetError | None = None
        self.host, self.port = "127.0.0.1", 8765

    def state(self) -> SetupState:
        return SetupState(needs_setup=not self.is_seen, api_key=None if self.is_seen else self.key)

    async def acknowledge(self) -> None:
        self.is_seen = True

    async def apply(self, host: str | None, port: int | None) -> Applied:
        if self.fails is not None:
            raise self.fails
        self.host, self.port = host or self.host, port or self.port
        return Applied(url=f"http://127.0.0.1:{self.port}", host=self.host, port=self.port)


class FakeSecrets:
    """Keys in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def keep(self, name: str, value: str) -> None:
        self.kept[name] = value

    async def forget(self, name: str) -> None:
        if name not in self.kept:
            raise NotFound(f"There is no secret “{name}”.", param="name")
        del self.kept[name]


class FakeChecks:
    """One provider that answers, or fails as the test says."""

    def __init__(self) -> None:
        self.fails: ValetError | None = None

    async def provider(self, name: str) -> ProviderProbe:
        if self.fails is not None:
            raise self.fails
        if name != "ollama":
            raise NotFound(f"There is no provider called “{name}”.", param="provider")
        return ProviderProbe(
            provider=name,
            kind="ollama",
            url="http://127.0.0.1:11434",
            took_s=0.004,
            version="0.12.0",
            models=("llama3:latest",),
            loaded=(),
        )


class FakeDesks:
    """All of them; `for_api` is what the control API takes."""

    def __init__(self, valet: FakeValet, config_file: Path) -> None:
        self.store = FakeStore(valet)
        self.setup = FakeSetup()
        self.secrets = FakeSecrets()
        self.checks = FakeChecks()
        self.settings_store = SettingsStore(config_file, {})
        self.settings_store.load()
        self.settings = SettingsShown(self.settings_store)

    @property
    def for_api(self) -> Desks:
        return Desks(
            store=self.store,
            setup=self.setup,
            settings=self.settings,
            secrets=self.secrets,
            checks=self.checks,
        )
