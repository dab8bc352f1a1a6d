"""Downloads at work: real queue, real file, a provider that fetches as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.services.house import FakeProvider
from tray_valet.core import downloads as rules
from tray_valet.core import events as ev
from tray_valet.core.downloads import DownloadState, PullProgress
from tray_valet.core.errors import DiskFull, NotSupported, Refused, UnknownModel, UpstreamFailed, ValetError
from tray_valet.core.events_disk import DownloadFailed, DownloadFinished, DownloadProgressed, ModelDeleted
from tray_valet.core.metrics import DiskSample
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.clock import SystemClock
from tray_valet.services.disk_guard import DiskGuard
from tray_valet.services.download_book import DownloadBook
from tray_valet.services.downloads import Downloads
from tray_valet.services.fleet import Fleet
from tray_valet.services.model_store import StoreDesk

MIB = 2**20


class Fetcher(FakeProvider):
    """A provider that downloads in steps; `gate` holds it back, `errors` are raised first."""

    can_pull = True

    def __init__(self, name: str = "fake") -> None:
        super().__init__(name)
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[ValetError] = []
        self.pulls: list[str] = []
        self.left: list[str] = []
        self.running = self.most_running = 0

    async def begins(self) -> None:
        """Wait until it is at a download."""
        async with asyncio.timeout(30):
            while not self.running:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        self.pulls.append(model)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            yield PullProgress(status="pulling manifest")
            if self.errors:
                raise self.errors.pop(0)
            for step in range(1, 4):
                yield PullProgress(status="pulling", completed_bytes=step * MIB, total_bytes=3 * MIB)
                await self.gate.wait()
            self.models = (*self.models, model)
        except BaseException:
            self.left.append(model)
            raise
        finally:
            self.running -= 1

    async def models_folder(self) -> str | None:
        return "/models"


class Bench:
    """Downloads with what they stand on."""

    def __init__(self, folder: Path, *providers: Fetcher) -> None:
        self.facts: list[ev.Fact] = []
        self.clock = SystemClock()
        self.providers = providers
        self.is_held = False
        self.free_bytes = 100 * 2**30
        self.asked: list[str] = []
        self.file = folder / "downloads.json"
        self.fleet = Fleet(self.clock, self.facts.append, lambda: None)
        self.downloads = Downloads(
            self.fleet,
            self.clock,
            self.facts.append,
            DownloadBook(self.file, write_atomically),
            DiskGuard(self._disk, lambda: "/own"),
            lambda: self.is_held,
        )
        self.store = StoreDesk(self.fleet, self.downloads, self.facts.append, self._unload)
        self.unloaded: list[tuple[str, str]] = []

    async def _unload(self, model: str, provider: str) -> None:
        self.unloaded.append((model, provider))

    def _disk(self, path: str) -> DiskSample:
        self.asked.append(path)
        return DiskSample(path="/", total_bytes=2**40, used_bytes=0, free_bytes=self.free_bytes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bench]:
        await self.fleet.replace(self.providers)
        await self.fleet.installed()
        self.downloads.read()
        task = asyncio.create_task(self.downloads.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def state(self, download_id: str) -> DownloadState:
        return next(d.state for d in self.downloads.all() if d.id == download_id)

    async def reaches(self, download_id: str, *states: DownloadState) -> None:
        async with asyncio.timeout(30):
            while self.state(download_id) not in states:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)

    def seen(self, kind: type[ev.Fact]) -> list[ev.Fact]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


async def test_a_model_is_downloaded_and_then_can_be_loaded(tmp_path: Path) -> None:
    async with Bench(tmp_path, Fetcher()).running() as bench:
        begun = await bench.store.pull("new")
        assert begun.state is DownloadState.QUEUED
        done = await asyncio.wait_for(bench.store.wait(begun.id), 30)
        assert (done.state, done.completed_bytes, done.provider) == (DownloadState.DONE, 3 * MIB, "fake")
        assert bench.fleet.find("new") is not None
        [finished] = bench.seen(DownloadFinished)
        assert isinstance(finished, DownloadFinished)
        assert finished.size_bytes == 3 * MIB


async def test_the_same_model_is_downloaded_once_and_one_at_a_time(tmp_path: Path) -> None:
    provider = Fetcher()
    async with Bench(tmp_path, provider).running() as bench:
        provider.gate.clear()
        first = await bench.store.pull("x")
        same = await bench.store.pull("fake/x")
        other = await bench.store.pull("y", "fake")
        assert same.id == first.id
        await bench.reaches(first.id, DownloadState.RUNNING)
        provider.gate.set()
        await bench.reaches(other.id, DownloadState.DONE)
    assert provider.pulls == ["x", "y"]
    assert provider.most_running == 1


async def test_a_download_says_that_it_waits_for_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    provider = Fetcher()
    async with Bench(tmp_path, provider).running() as bench:
        provider.is_away = True
        while not bench.fleet.slots["fake"].is_down:
            await bench.fleet.refresh()
        begun = await bench.store.pull("fake/x")
        async with asyncio.timeout(30):
            while not any(d.status == "waiting until fake answers" for d in bench.downloads.all()):  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        provider.is_away = False
        await bench.fleet.refresh()
        bench.downloads.look_soon()
        await bench.reaches(begun.id, DownloadState.DONE)


async def test_providers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    slow, quick = Fetcher("slow"), Fetcher("quick")
    slow.gate.clear()
    async with Bench(tmp_path, slow, quick).running() as bench:
        waiting = await bench.store.pull("x", "slow")
        done = await bench.store.pull("x", "quick")
        await bench.reaches(done.id, DownloadState.DONE)
        assert bench.state(waiting.id) is DownloadState.RUNNING


async def test_c7_a_failure_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RETRY_AFTER_S", (0.05, 0.05))
    provider = Fetcher()
    provider.errors = [UpstreamFailed("Broken off."), UpstreamFailed("Broken off.")]
    async with Bench(tmp_path, provider).running() as bench:
        begun = await bench.store.pull("x")
        await bench.reaches(begun.id, DownloadState.DONE)
        assert bench.seen(DownloadFailed) == []
    assert provider.pulls == ["x", "x", "x"]


async def test_c7_a_failure_that_stays_is_given_up_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "RETRY_AFTER_S", (0.02,))
    provider = Fetcher()
    provider.errors = [UpstreamFailed("The registry is away.") for _ in range(9)]
    async with Bench(tmp_path, provider).running() as bench:
        ended = await bench.store.wait((await bench.store.pull("x")).id)
        assert (ended.state, ended.error) == (DownloadState.FAILED, "The registry is away.")
        [failed] = bench.seen(DownloadFailed)
        assert isinstance(failed, DownloadFailed)
        assert failed.message == "The registry is away."
    assert len(provider.pulls) == 2


async def test_a_model_that_there_is_nowhere_is_not_tried_twice(tmp_path: Path) -> None:
    provider = Fetcher()
    provider.errors = [UnknownModel("No registry has it.")]
    async with Bench(tmp_path, provider).running() as bench:
        ended = await bench.store.wait((await bench.store.pull("x")).id)
        assert ended.state is DownloadState.FAILED
    assert provider.pulls == ["x"]


async def test_c8_a_cancelled_download_ends_at_once_and_never_comes_back(tmp_path: Path) -> None:
    provider = Fetcher()
    provider.gate.clear()
    async with Bench(tmp_path, provider).running() as bench:
        begun = await bench.store.pull("x")
        await bench.reaches(begun.id, DownloadState.RUNNING)
        await provider.begins()
        await bench.store.cancel(begun.id)
        assert bench.state(begun.id) is DownloadState.CANCELLED
        assert provider.left == ["x"]
        provider.gate.set()
        with pytest.raises(Refused):
            await bench.store.cancel(begun.id)
    async with Bench(tmp_path, provider).running() as again:
        assert again.state(begun.id) is DownloadState.CANCELLED
    assert provider.pulls == ["x"]


async def test_a_download_that_was_killed_half_way_goes_on_at_the_next_start(tmp_path: Path) -> None:
    provider = Fetcher()
    provider.gate.clear()
    async with Bench(tmp_path, provider).running() as bench:
        begun = await bench.store.pull("x")
        waiting = await bench.store.pull("y")
        await bench.reaches(begun.id, DownloadState.RUNNING)
        left = bench.file.read_bytes()  # as a kill leaves it
    bench.file.write_bytes(left)
    provider.gate.set()
    async with Bench(tmp_path, provider).running() as again:
        await again.reaches(begun.id, DownloadState.DONE)
        await again.reaches(waiting.id, DownloadState.DONE)


async def test_a_damaged_list_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "downloads.json").write_bytes(b"{half")
    async with Bench(tmp_path, Fetcher()).running() as bench:
        assert bench.downloads.all() == ()
        await bench.reaches((await bench.store.pull("x")).id, DownloadState.DONE)
    assert (tmp_path / "downloads.damaged").read_bytes() == b"{half"


async def test_downloads_pause_during_a_game_and_go_on_after_it(tmp_path: Path) -> None:
    provider = Fetcher()
    provider.gate.clear()
    async with Bench(tmp_path, provider).running() as bench:
        begun = await bench.store.pull("x")
        await bench.reaches(begun.id, DownloadState.RUNNING)
        await provider.begins()
        bench.is_held = True
        bench.downloads.look_soon()
        await bench.reaches(begun.id, DownloadState.PAUSED)
        assert provider.left == ["x"]
        during = await bench.store.pull("y")
        assert during.state is DownloadState.PAUSED
        provider.gate.set()
        bench.is_held = False
        bench.downloads.look_soon()
        await bench.reaches(begun.id, DownloadState.DONE)
        await bench.reaches(during.id, DownloadState.DONE)


async def test_v24_a_full_disk_is_said_with_the_volume_before_anything_is_fetched(tmp_path: Path) -> None:
    provider = Fetcher()
    async with Bench(tmp_path, provider).running() as bench:
        bench.free_bytes = 5120 * MIB - 1
        with pytest.raises(DiskFull, match=r"/models.*volume of /") as full:
            await bench.store.pull("x")
        assert full.value.required_bytes == 5120 * MIB
        bench.free_bytes += 1
        await bench.reaches((await bench.store.pull("x")).id, DownloadState.DONE)
        assert set(bench.asked) == {"/models"}


async def test_progress_is_told_four_times_a_second_at_most(tmp_path: Path) -> None:
    class Chatty(Fetcher):
        async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
            for step in range(2000):
                yield PullProgress(status="pulling", completed_bytes=step, total_bytes=2000)

    async with Bench(tmp_path, Chatty()).running() as bench:
        began_s = bench.clock.monotonic_s()
        await bench.store.wait((await bench.store.pull("x")).id)
        took_s = bench.clock.monotonic_s() - began_s
    assert len(bench.seen(DownloadProgressed)) <= 4 * took_s + 5


async def test_providers_without_downloads_say_what_can_be_done(tmp_path: Path) -> None:
    plain = FakeProvider("plain")
    async with Bench(tmp_path, plain).running() as bench:  # type: ignore[arg-type]
        with pytest.raises(NotSupported):
            await bench.store.pull("x")
        with pytest.raises(NotSupported):
            await bench.store.pull("x", "plain")
        with pytest.raises(NotSupported):
            await bench.store.delete("a")
        assert bench.unloaded == []


class Deleter(Fetcher):
    """Deletes too."""

    async def delete(self, model: str) -> None:
        self.models = tuple(name for name in self.models if name != model)


async def test_a_deleted_model_is_unloaded_first_and_gone_from_the_list(tmp_path: Path) -> None:
    async with Bench(tmp_path, Deleter()).running() as bench:
        ref = await bench.store.delete("fake/a")
        assert (ref.provider, ref.model, bench.unloaded) == ("fake", "a", [("a", "fake")])
        assert bench.fleet.find("a") is None
        assert bench.seen(ModelDeleted)
        with pytest.raises(UnknownModel):
            await bench.store.delete("a")


async def test_what_is_being_downloaded_is_not_deleted(tmp_path: Path) -> None:
    provider = Deleter()
    provider.gate.clear()
    async with Bench(tmp_path, provider).running() as bench:
        await bench.store.pull("a")
        for name in ("a", "fake/a"):
            with pytest.raises(Refused, match="being downloaded"):
                await bench.store.delete(name)
        assert "a" in provider.models
