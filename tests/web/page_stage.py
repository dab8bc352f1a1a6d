"""A stage for the page: the real server and guard on a loop of their own, around a picture that a test sets.

For what a real valet cannot be brought to at will: GPUs, several large models, every state's header.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tests.web.fake_valet import GIB, FakeValet
from tests.web.wire import SECRETS, TOKEN
from tray_valet.core import events as ev
from tray_valet.core.config import Settings
from tray_valet.core.holds import GameCause, Hold, HoldKind, UserCause
from tray_valet.core.journal import JournalEntry
from tray_valet.core.metrics import GpuSample, HostSample, MachineSample
from tray_valet.core.models import LoadedModel, ProviderKind
from tray_valet.core.snapshot import GameView, HoldView, ProviderView, SignalView, Snapshot
from tray_valet.core.watchdog import State
from tray_valet.web.control.api import ControlApi
from tray_valet.web.control.window_codes import WindowCodes
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys
from tray_valet.web.edge.policies import control_policy
from tray_valet.web.edge.server import WebServer

HADES_PID = 4321
AT = 1_700_000_000.0
MODELS = (
    LoadedModel(
        name="qwen2.5:14b",
        size_bytes=int(10.6 * GIB),
        vram_bytes=int(10.6 * GIB),
        context_length=16384,
        ttl_left_s=288.0,
    ),
    LoadedModel(
        name="llama3.1:8b",
        size_bytes=int(6.1 * GIB),
        vram_bytes=int(6.1 * GIB),
        context_length=8192,
        ttl_left_s=12.0,
    ),
    LoadedModel(
        name="hf.co/nomic-ai/a-name-that-is-much-longer-than-any-column-of-the-table:Q4_K_M",
        size_bytes=int(0.6 * GIB),
        vram_bytes=int(0.6 * GIB),
        context_length=2048,
        ttl_left_s=None,
    ),
)
HADES = GameView(
    key="steam:1145360",
    name="Hades",
    store="steam",
    appid="1145360",
    rule="steam library",
    action="on",
    pids=(HADES_PID,),
    since=AT,
)


def gpu(used_gib: float, **process_gib: float) -> GpuSample:
    """A card of 24 GB; `process_gib` is {"p4321": GB}."""
    return GpuSample(
        index=0,
        uuid="GPU-0",
        name="NVIDIA GeForce RTX 4090",
        vram_total_bytes=24 * GIB,
        vram_used_bytes=int(used_gib * GIB),
        process_bytes={int(pid[1:]): int(size * GIB) for pid, size in process_gib.items()},
    )


def sample(*gpus: GpuSample, ram_used_gib: float = 29.7) -> MachineSample:
    """A machine with 64 GB of RAM."""
    host = HostSample(
        ram_total_bytes=64 * GIB,
        ram_available_bytes=int((64 - ram_used_gib) * GIB),
        cpu_pct=12.4,
        core_count=16,
    )
    return MachineSample(host=host, gpus=gpus, taken_at=AT)


def signal(name: str, raw: float, ours: float, pause: float, resume: float) -> SignalView:
    """One signal that is no reason to pause."""
    return SignalView(
        signal=name,
        raw_pct=raw,
        ours_pct=ours,
        others_pct=raw - ours,
        others_at_load_pct=None,
        free_bytes=None,
        reserve_bytes=None,
        pause_pct=pause,
        resume_pct=resume,
        is_breached=raw >= pause,
        breached_for_s=0.0,
        counts=False,
        text="Others use no more than before.",
    )


SIGNALS = (
    signal("ram", 46.4, 2.0, 85.0, 60.0),
    signal("vram", 79.6, 72.1, 85.0, 75.0),
    signal("cpu", 12.4, 4.0, 90.0, 80.0),
)


def running(**changes: Any) -> Snapshot:
    """Three models on one card, no game."""
    snapshot = Snapshot(
        version="1.2.3",
        taken_at=AT,
        state=State.RUNNING,
        since=AT,
        last_reason="",
        title="Running",
        line="3 models loaded, 17.3 GB. No game is running.",
        providers=(ollama(*MODELS),),
        sample=sample(gpu(19.1)),
        signals=SIGNALS,
    )
    return msgspec.structs.replace(snapshot, **changes)


def ollama(*loaded: LoadedModel, **changes: Any) -> ProviderView:
    """The one provider."""
    view = ProviderView(
        name="ollama",
        kind=ProviderKind.OLLAMA,
        url="http://127.0.0.1:11434",
        is_local=True,
        state="ready",
        loaded=loaded,
    )
    return msgspec.structs.replace(view, **changes)


def set_aside() -> tuple[JournalEntry, ...]:
    """The three models, in the journal."""
    return tuple(
        JournalEntry(
            provider="ollama",
            model=model.name,
            size_bytes=model.size_bytes,
            vram_bytes=model.vram_bytes,
            context_length=model.context_length,
            ttl_left_s=model.ttl_left_s,
        )
        for model in MODELS
    )


def paused_for_hades(**changes: Any) -> Snapshot:
    """The game runs, the models are in the journal."""
    cause = GameCause(name="Hades", place="steamapps/common/Hades")
    held = Hold(id="game:steam:1145360", kind=HoldKind.GAME, owner="valet", cause=cause, since=AT)
    snapshot = running(
        state=State.PAUSED,
        title="Paused for Hades",
        line="Your models are out of its way: 17.3 GB freed in 0.6 s. They come back 30 s later.",
        last_reason="game detected — steamapps/common/Hades",
        holds=(HoldView(hold=held, is_overridden=False, text="game detected — steamapps/common/Hades"),),
        games=(HADES,),
        providers=(ollama(),),
        to_bring_back=set_aside(),
        sample=sample(gpu(8.8, p4321=7.0), ram_used_gib=33.2),
    )
    return msgspec.structs.replace(snapshot, **changes)


def paused_by_user(**changes: Any) -> Snapshot:
    """The user's own pause."""
    held = Hold(id="user-1", kind=HoldKind.USER, owner="user", cause=UserCause(), since=AT)
    return paused_for_hades(
        title="Paused by you",
        line="3 models wait until you resume.",
        holds=(HoldView(hold=held, is_overridden=False, text="manual pause"),),
        games=(),
        **changes,
    )


class StageValet(FakeValet):
    """Shows `picture`; its commands do what the fake's do, and change nothing of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = running()

    def snapshot(self) -> Snapshot:
        return self.picture

    async def sample(self) -> MachineSample:
        assert self.picture.sample is not None
        return self.picture.sample

    async def unload(self, model: str | None = None, *, provider: str | None = None) -> tuple[Any, ...]:
        self._called("unload", model=model, provider=provider)
        return ()


class Stage:
    """The server in its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.valet = StageValet()
        self.codes = WindowCodes(self.valet.clock)
        self._server: WebServer | None = None
        self._thread = threading.Thread(target=self.loop.run_forever, name="stage", daemon=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    def do(self, work: Any) -> Any:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def show(self, picture: Snapshot, *facts: ev.Fact) -> None:
        """Change what is the case; followers hear of it."""

        async def change() -> None:
            self.valet.picture = picture
            for fact in facts or (ev.SettingsApplied(),):
                self.valet.recorder.record(fact)

        self.do(change())

    def set(self, partial: dict[str, Any]) -> None:
        """Change the settings."""
        self.do(self.valet.update_settings(partial))

    def code(self) -> str:
        async def new_code() -> str:
            return self.codes.new_code()

        return str(self.do(new_code()))

    def start(self, port: int = 0) -> None:
        if not self._thread.is_alive():
            self._thread.start()
        self.do(self._start(port))

    def stop(self) -> None:
        """The server goes, as when the valet is killed."""
        assert self._server is not None
        self.do(self._server.stop(grace_s=0.2))

    def end(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    async def _start(self, port: int) -> None:
        api = ControlApi(self.valet, clock=self.valet.clock, codes=self.codes)
        keys = ControlKeys(
            self._settings,
            token=lambda: TOKEN,
            resolve_secret=SECRETS.get,
            is_window_token=self.codes.accepts,
        )
        guard = Guard(api, policy=lambda: control_policy(self._settings()), keys=keys)
        self._server = WebServer(
            guard, name="control", host="127.0.0.1", port=port, on_stopping=api.end_streams
        )
        await self._server.start()

    def _settings(self) -> Settings:
        return self.valet.settings


@contextmanager
def staged() -> Iterator[Stage]:
    """A stage that runs."""
    stage = Stage()
    stage.start()
    try:
        yield stage
    finally:
        stage.end()
