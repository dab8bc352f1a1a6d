"""Declared models: what the settings name is queued once where it is missing, by the downloads' own rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.services.test_downloads import Bench, Fetcher
from tray_valet.core import downloads as rules
from tray_valet.core.config import Settings
from tray_valet.core.config_providers import OllamaSettings, OpenAiSettings, ProviderSettings
from tray_valet.core.downloads import Download, DownloadState
from tray_valet.core.events_disk import DownloadCancelled
from tray_valet.core.models import InstalledModel
from tray_valet.providers.ollama_names import canonical_name
from tray_valet.services import declared_models
from tray_valet.services.declared_models import DeclaredModels


class Ollama(Fetcher):
    """Names as Ollama spells them; `lists` counts how often it was asked what it has."""

    def __init__(self) -> None:
        super().__init__("ollama")
        self.models = ("llama3:latest",)
        self.lists = 0
        self.is_listing_broken = False

    def canonical(self, model: str) -> str:
        return canonical_name(model)

    async def installed(self) -> tuple[InstalledModel, ...]:
        self.lists += 1
        if self.is_listing_broken:
            raise TimeoutError
        return await super().installed()


class DeclaredBench(Bench):
    """Downloads, and declared models over them. `provider` stands under the name `ollama`."""

    def __init__(self, folder: Path, *declared: str) -> None:
        self.provider = Ollama()
        super().__init__(folder, self.provider)
        self.settings = Settings(providers={"ollama": OllamaSettings(models=declared)})
        self.declared = DeclaredModels(self.fleet, self.downloads, lambda: self.settings)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[DeclaredBench]:
        async with self.running():
            task = asyncio.create_task(self.declared.run())
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def apply(self, **providers: ProviderSettings) -> None:
        self.settings = Settings(providers=providers)
        self.declared.settings_changed()

    async def went_and_came_back(self) -> None:
        slot = self.fleet.slots["ollama"]
        slot.is_down = True
        self.declared.fleet_changed()
        await asyncio.sleep(0)
        slot.is_down = False
        self.declared.fleet_changed()
        await self.has_looked()

    async def has_looked(self) -> None:
        """Until nothing is due any more."""
        async with asyncio.timeout(30):
            while self.declared._due or self.declared._woken.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)

    def listed(self) -> list[tuple[str, DownloadState]]:
        return sorted((d.model, d.state) for d in self.downloads.all())

    async def ends(self, model: str) -> Download:
        async with asyncio.timeout(30):
            while True:
                for download in self.downloads.all():
                    if download.model == model and download.has_ended:
                        return download
                await asyncio.sleep(0.005)


async def test_a_missing_one_is_downloaded_and_then_there(tmp_path: Path) -> None:
    async with DeclaredBench(tmp_path, "qwen3:8b").serving() as bench:
        await bench.ends("qwen3:8b")
        assert bench.provider.models == ("llama3:latest", "qwen3:8b")
        await bench.went_and_came_back()
    assert bench.provider.pulls == ["qwen3:8b"]


@pytest.mark.parametrize(
    "spelled", ["llama3", "llama3:latest", "library/llama3", "registry.ollama.ai/library/llama3:latest"]
)
async def test_c1_one_that_is_there_under_its_full_name_is_never_queued(tmp_path: Path, spelled: str) -> None:
    async with DeclaredBench(tmp_path, spelled).serving() as bench:
        await bench.has_looked()
        await bench.went_and_came_back()
        assert bench.listed() == []


async def test_c1_two_spellings_of_one_are_one_download(tmp_path: Path) -> None:
    async with DeclaredBench(tmp_path, "new", "new:latest", "library/new").serving() as bench:
        await bench.ends("new:latest")
        await bench.has_looked()
        assert bench.listed() == [("new:latest", DownloadState.DONE)]


async def test_c2_what_is_no_longer_declared_stays(tmp_path: Path) -> None:
    async with DeclaredBench(tmp_path, "llama3", "new").serving() as bench:
        await bench.ends("new:latest")
        bench.apply(ollama=OllamaSettings())
        await asyncio.sleep(0.02)
        bench.apply()
        await asyncio.sleep(0.02)
        assert bench.provider.models == ("llama3:latest", "new:latest")


async def test_c8_a_cancelled_one_waits_for_other_settings_of_its_provider(tmp_path: Path) -> None:
    bench = DeclaredBench(tmp_path, "new")
    bench.provider.gate.clear()
    async with bench.serving():
        await bench.has_looked()
        [begun] = bench.downloads.all()
        bench.declared.note(DownloadCancelled(id=begun.id, provider="ollama", model="new:latest"))
        await bench.store.cancel(begun.id)
        await bench.went_and_came_back()
        bench.apply(ollama=bench.settings.providers["ollama"], cloud=OpenAiSettings())  # type: ignore[index]
        await bench.has_looked()
        assert bench.listed() == [("new:latest", DownloadState.CANCELLED)]
        bench.provider.gate.set()
        bench.apply(ollama=OllamaSettings(models=("new", "other")))
        async with asyncio.timeout(30):
            while bench.provider.models[1:] != ("new:latest", "other:latest"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_c8_a_cancelled_one_is_queued_again_at_the_next_start(tmp_path: Path) -> None:
    first = DeclaredBench(tmp_path, "new")
    first.provider.gate.clear()
    async with first.serving():
        await first.has_looked()
        await first.store.cancel(first.downloads.all()[0].id)
    async with DeclaredBench(tmp_path, "new").serving() as again:
        async with asyncio.timeout(30):
            while ("new:latest", DownloadState.DONE) not in again.listed():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_one_that_is_deleted_by_hand_is_left_alone_until_its_provider_was_away(tmp_path: Path) -> None:
    async with DeclaredBench(tmp_path, "llama3").serving() as bench:
        await bench.has_looked()
        bench.provider.models = ()
        bench.declared.fleet_changed()
        await bench.has_looked()
        assert bench.listed() == []
        await bench.went_and_came_back()
        await bench.ends("llama3:latest")


async def test_a_silent_provider_is_looked_through_once_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared_models, "_AGAIN_S", 0.01)
    bench = DeclaredBench(tmp_path, "new")
    bench.provider.is_listing_broken = True
    async with bench.serving():
        async with asyncio.timeout(30):
            while bench.provider.lists < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert bench.listed() == []  # nothing is known to be missing
        bench.provider.is_listing_broken = False
        await bench.ends("new:latest")


async def test_during_a_game_it_is_queued_and_rests(tmp_path: Path) -> None:
    bench = DeclaredBench(tmp_path, "new")
    bench.is_held = True
    async with bench.serving():
        await bench.has_looked()
        assert bench.listed() == [("new:latest", DownloadState.PAUSED)]
        assert bench.provider.pulls == []
        bench.is_held = False
        bench.downloads.look_soon()
        await bench.ends("new:latest")


async def test_on_a_full_disk_it_is_queued_tried_again_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "RETRY_AFTER_S", (0.02,))
    bench = DeclaredBench(tmp_path, "new")
    bench.free_bytes = 1
    async with bench.serving():
        ended = await bench.ends("new:latest")
        assert (ended.state, ended.attempts) == (DownloadState.FAILED, 2)
        assert "Only 0 MB are free" in ended.error.replace("\u00a0", " ")
        assert bench.provider.pulls == []
        bench.declared.fleet_changed()
        await bench.has_looked()
        assert len(bench.listed()) == 1


async def test_a_full_queue_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_WAITING", 1)
    monkeypatch.setattr(declared_models, "_AGAIN_S", 0.01)
    async with DeclaredBench(tmp_path, "one", "two", "three").serving() as bench:
        for model in ("one", "two", "three"):
            await bench.ends(f"{model}:latest")


async def test_one_bad_name_keeps_no_other_from_being_queued(tmp_path: Path) -> None:
    async with DeclaredBench(tmp_path, "../etc", "new").serving() as bench:
        await bench.ends("new:latest")
        assert bench.provider.pulls == ["new:latest"]
