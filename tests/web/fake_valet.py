"""A valet in memory: the same words, errors and order of things as the real one, without providers.

It holds models as values; a pause moves them to what is to be brought back, a resume returns them.
Facts go through the real activity, so that followers fold as they do in the product.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from tray_valet.core import events as ev
from tray_valet.core import holds as hold_rules
from tray_valet.core import ledger as ledger_rules
from tray_valet.core.commands import (
    NOTHING_FAILED,
    CatalogEntry,
    KnownGame,
    ModelState,
    Overrides,
    QueueState,
    RecordedFact,
    Wish,
)
from tray_valet.core.config import Settings
from tray_valet.core.config_changes import read_change
from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_tree import Origin, Place, from_plain, leaves
from tray_valet.core.errors import GameRunning, NotFound, Paused, Refused, UnknownModel, ValetError
from tray_valet.core.history import History
from tray_valet.core.holds import GameCause, Hold, HoldKind, Holds, ProgramCause, UserCause
from tray_valet.core.journal import JournalEntry, entry_of
from tray_valet.core.ledger import Ledger
from tray_valet.core.metrics import DiskSample, GpuSample, HostSample, MachineSample
from tray_valet.core.models import (
    Condition,
    ConditionType,
    InstalledModel,
    LoadedModel,
    ModelRef,
    ProviderKind,
    Upstream,
)
from tray_valet.core.route_views import RouteView
from tray_valet.core.service_plan import ServiceAction, ServiceBegun
from tray_valet.core.snapshot import (
    ActivityEntry,
    GameView,
    HoldView,
    PauseReport,
    ProviderView,
    SignalView,
    Snapshot,
)
from tray_valet.core.traffic import Ended, Exchanged, Tally, TrafficReport
from tray_valet.core.watchdog import State
from tray_valet.services.activity import Activity
from tray_valet.services.history import HistoryBook
from tray_valet.services.tally import TallyBook
from tray_valet.services.traffic import Traffic

GIB = 2**30


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_700_000_000.0 + self.now_s


class FakeLease:
    """A lease that a test can revoke."""

    def __init__(self, ref: ModelRef, upstream: Upstream, on_end: Callable[[], None] = lambda: None) -> None:
        self._on_end = on_end
        self._is_over = False
        self.ref = ref
        self.upstream = upstream
        self.overrides: Overrides | None = None
        self.reason = "“" + str(ref) + "” is loaded"
        self.has_next = False
        self.failed: dict[ModelRef, ValetError] = {}
        self.queue_s = 0.0
        self.load_s = 0.0
        self.revoked_by: ValetError | None = None
        self._on_revoked: Callable[[ValetError], None] | None = None

    def revoke(self, error: ValetError) -> None:
        self.revoked_by = error
        if self._on_revoked is not None:
            self._on_revoked(error)

    def when_revoked(self, call: Callable[[ValetError], None]) -> None:
        self._on_revoked = call
        if self.revoked_by is not None:
            call(self.revoked_by)

    def end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_end()

    async def __aenter__(self) -> FakeLease:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()


class FakeAdmission:
    """Admits at once, unless there is a hold or `admitting` is to be waited for."""

    def __init__(self, valet: FakeValet, wish: Wish, failed: Mapping[ModelRef, ValetError]) -> None:
        self._valet = valet
        self._wish = wish
        self._failed = failed
        self._lease: FakeLease | None = None

    async def __aenter__(self) -> FakeLease:
        if self._lease is None:
            self._valet.note_admission(self._wish)
            await self._valet.wait_for_turn()
            self._lease = self._valet.leased(self._wish, self._failed)
        return self._lease

    async def __aexit__(self, *_: object) -> None:
        if self._lease is not None:
            self._lease.end()


class FakeValet:
    """See the module. `fails` makes the named command raise; `upstream_url` is where leases lead."""

    def __init__(self, *, settings: Settings | None = None, clock: FakeClock | None = None) -> None:
        self.settings = settings or Settings()
        self.clock = clock or FakeClock()
        self.recorder = Activity(self.clock)
        self.requests = Traffic(lambda ref: ref.provider == "ollama" and ref.model in self.models)
        self.counts = TallyBook(self.clock)
        self.silent: list[str] = []
        self.recorder.tell(self.requests.note_fact)
        self.recorder.tell(self.counts.note)
        self.remembered = Ledger()
        self.past = HistoryBook(self.clock, lambda: (_SIGNAL,), lambda: self.state)
        self.exchanged: list[Exchanged] = []
        self.troubles: dict[str, ModelState] = {}  # what model_states() says of a model instead
        self.lines: tuple[QueueState, ...] = ()
        self.route_views: tuple[RouteView, ...] = ()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fails: dict[str, ValetError] = {}
        self.upstream_url = "http://127.0.0.1:9"
        self.candidates: list[tuple[str, str]] = []
        self.upstream_fields: dict[str, Any] = {}
        self.overrides: Overrides | None = None
        self.leases: list[FakeLease] = []
        self.wishes: list[Wish] = []
        self.admitting: asyncio.Event | None = None  # admissions wait for it
        self.is_admission_cancelled = False
        self.in_flight = 0
        self.quit_requested = False
        self.provider_state = "ready"
        self.state_after_pause = State.PAUSED
        self.models = {
            "llama3:latest": InstalledModel(
                name="llama3:latest", size_bytes=4 * GIB, context_length=8192, digest="sha256:ab"
            ),
            "hf.co/user/model:Q4": InstalledModel(name="hf.co/user/model:Q4", size_bytes=GIB),
        }
        self.loaded: dict[str, LoadedModel] = {}
        self.to_bring_back: tuple[JournalEntry, ...] = ()
        self.holds = Holds()
        self.games: tuple[GameView, ...] = ()
        self.state = State.RUNNING
        self.last_reason = ""
        self.last_pause: PauseReport | None = None
        self._next_hold = 1

    # -- what is --------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return Snapshot(
            version="1.2.3",
            taken_at=self.clock.wall_s(),
            state=self.state,
            since=self.clock.wall_s(),
            last_reason=self.last_reason,
            title="Ready",
            line="llama3:latest is loaded.",
            holds=tuple(
                HoldView(
                    hold=hold,
                    is_overridden=hold.id in self.holds.overridden,
                    text=_words(hold),
                    expires_in_s=None
                    if hold.expires_at_s is None
                    else hold.expires_at_s - self.clock.monotonic_s(),
                )
                for hold in self.holds.active
            ),
            games=self.games,
            providers=(
                ProviderView(
                    name="ollama",
                    kind=ProviderKind.OLLAMA,
                    url="http://127.0.0.1:11434",
                    is_local=True,
                    state=self.provider_state,
                    version="0.12.0",
                    conditions=(
                        Condition(type=ConditionType.RELOADED, reason="A client loads past us.", since=1.0),
                    ),
                    loaded=tuple(self.loaded.values()),
                ),
            ),
            to_bring_back=self.to_bring_back,
            last_pause=self.last_pause,
            sample=_sample(self.clock.wall_s()),
            signals=(_SIGNAL,),
            process_source="poll 4 Hz",
            control_url="http://127.0.0.1:8765",
            router_url="http://127.0.0.1:8766",
            in_flight=self.in_flight,
        )

    def activity(self, limit: int = 200) -> tuple[ActivityEntry, ...]:
        return self.recorder.entries(limit)

    def follow(self) -> AsyncIterator[Snapshot | RecordedFact]:
        return self.recorder.follow(self.snapshot)

    async def sample(self) -> MachineSample:
        return _sample(self.clock.wall_s())

    async def installed(self) -> tuple[tuple[str, InstalledModel], ...]:
        return tuple(("ollama", model) for model in self.models.values())

    def known_games(self) -> tuple[KnownGame, ...]:
        return (
            KnownGame(
                key="steam:1145360",
                name="Lantern Keep",
                store="steam",
                appid="1145360",
                path="/games/Lantern Keep",
                kind="game",
                action="on",
            ),
        )

    async def log_lines(self, runner: str | None = None) -> tuple[str, ...]:
        self._called("log_lines", runner=runner)
        if runner is None:
            return ('{"message": "Tray Valet started."}',)
        return (f"{self._canonical(runner)}: ready",)

    def ledger(self) -> Ledger:
        return self.remembered

    async def forget_ledger(self, game: str | None = None) -> int:
        self._called("forget_ledger", game=game)
        keys = tuple(self.remembered.games) if game is None else ledger_rules.named(self.remembered, game)
        if game is not None and not keys:
            raise NotFound(f"The ledger knows no game called “{game}”.", param="game")
        self.remembered = ledger_rules.without(self.remembered, keys)
        return len(keys)

    def history(self, minutes: int) -> History:
        return self.past.over(minutes)

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return tuple(
            CatalogEntry(
                name=name,
                ref=ModelRef("ollama", name),
                status="ready" if name in self.loaded else "off",
                size_bytes=model.size_bytes,
                context_length=model.context_length,
            )
            for name, model in self.models.items()
        )

    def routes(self) -> tuple[RouteView, ...]:
        return self.route_views

    def model_states(self) -> tuple[ModelState, ...]:
        return tuple(
            self.troubles.get(entry.name)
            or ModelState(
                name=entry.name,
                ref=entry.ref,
                status=entry.status,
                size_bytes=entry.size_bytes,
                vram_bytes=self.loaded[entry.ref.model].vram_bytes if entry.ref.model in self.loaded else 0,
                load_s=self.requests.last_load_s(entry.ref),
            )
            for entry in self.catalog()
            if not entry.is_alias
        )

    async def reset_model(self, model: str) -> ModelState:
        self._called("reset_model", model=model)
        name = self._canonical(model)
        self.troubles.pop(name, None)
        return next(state for state in self.model_states() if state.ref.model == name)

    def queues(self) -> tuple[QueueState, ...]:
        return self.lines

    def traffic(self) -> TrafficReport:
        return self.requests.report({line.ref: line.in_flight for line in self.lines})

    def tally(self) -> Tally:
        return self.counts.seen()

    def note_exchange(self, ended: Ended) -> None:
        record = ended.record()
        self.exchanged.append(record)
        self.requests.note(record)

    def note_silent(self, provider: str) -> None:
        self.silent.append(provider)

    # -- commands -------------------------------------------------------------------------------------

    async def pause(
        self,
        *,
        reason: str = "",
        is_forced: bool = False,
        for_s: float | None = None,
        pid: int | None = None,
    ) -> State:
        self._called("pause", reason=reason, is_forced=is_forced, for_s=for_s, pid=pid)
        hold = self._hold(HoldKind.USER, "user", UserCause(reason=reason), for_s)
        self._place(hold, "manual pause")
        self.state = self.state_after_pause
        return self.state

    async def resume(self) -> State:
        self._called("resume")
        self.holds = hold_rules.resume_by_user(self.holds)
        self._back()
        return self.state

    async def load(
        self,
        model: str,
        *,
        num_ctx: int | None = None,
        provider: str | None = None,
        override: bool = False,
    ) -> tuple[ModelRef, LoadedModel]:
        self._called("load", model=model, num_ctx=num_ctx, provider=provider, override=override)
        if provider not in (None, "ollama"):
            raise UnknownModel(f"There is no provider {provider!r}.", param="provider")
        name = self._canonical(model)
        if self.games and not override:
            raise GameRunning(
                f"{self.games[0].name} is running.", remedy="Send override to load all the same."
            )
        loaded = LoadedModel(
            name=name,
            size_bytes=4 * GIB,
            vram_bytes=3 * GIB,
            context_length=num_ctx or 4096,
            ttl_left_s=300.0,
        )
        self.loaded[name] = loaded
        self.recorder.record(ev.ModelLoaded(model=name, took_s=1.5, size_bytes=loaded.size_bytes))
        return ModelRef("ollama", name), loaded

    async def unload(self, model: str | None = None, *, provider: str | None = None) -> tuple[ModelRef, ...]:
        self._called("unload", model=model, provider=provider)
        names = list(self.loaded) if model is None else [self._canonical(model)]
        return tuple(ModelRef("ollama", name) for name in names if self.loaded.pop(name, None))

    async def start_service(self, provider: str | None = None) -> ServiceBegun:
        self._called("start_service", provider=provider)
        return self._begun(ServiceAction.START, provider)

    async def stop_service(self, provider: str | None = None, *, is_forced: bool = False) -> ServiceBegun:
        self._called("stop_service", provider=provider, is_forced=is_forced)
        return self._begun(ServiceAction.STOP, provider)

    async def restart_service(self, provider: str | None = None) -> ServiceBegun:
        self._called("restart_service", provider=provider)
        return self._begun(ServiceAction.RESTART, provider)

    def _begun(self, action: ServiceAction, provider: str | None) -> ServiceBegun:
        if provider not in (None, "ollama"):
            raise NotFound(f"There is no provider called “{provider}”.", param="provider")
        return ServiceBegun(action=action, provider="ollama", message="It is being done.")

    async def place_hold(
        self, *, owner: str, reason: str = "", ttl_s: float | None = None, pid: int | None = None
    ) -> Hold:
        self._called("place_hold", owner=owner, reason=reason, ttl_s=ttl_s, pid=pid)
        hold = self._hold(HoldKind.USER, owner, ProgramCause(owner=owner, reason=reason), ttl_s)
        self._place(hold, f"{owner} asked")
        self.state = State.PAUSED
        return hold

    async def end_hold(self, hold_id: str) -> None:
        self._called("end_hold", hold_id=hold_id)
        hold = hold_rules.find(self.holds, hold_id)
        if hold.kind is HoldKind.GAME:
            raise Refused("The hold of a game ends with the game.", param="id")
        self.holds = hold_rules.end(self.holds, hold_id, self.clock.monotonic_s())
        if not hold_rules.in_effect(self.holds):
            self._back()

    async def update_settings(self, partial: Mapping[str, Any]) -> Settings:
        self._called("update_settings", partial=partial)
        before = from_plain(msgspec.to_builtins(self.settings), Place(Origin.FILE))
        change = read_change(partial)
        changed = [path for path, _ in leaves(change)]
        self.settings = build_settings(before, change, changed=changed)
        return self.settings

    def admit_now(self, wish: Wish) -> FakeLease | None:
        if self.admitting is not None or hold_rules.in_effect(self.holds):
            return None
        try:
            self.note_admission(wish)
            return self.leased(wish, {})
        except ValetError:
            return None

    def admit(self, wish: Wish, *, failed: Mapping[ModelRef, ValetError] = NOTHING_FAILED) -> FakeAdmission:
        return FakeAdmission(self, wish, failed)

    async def wait_for_turn(self) -> None:
        if hold_rules.in_effect(self.holds):
            raise Paused(f"The models are set aside: {self.last_reason}.", retry_after_s=42.0)
        if self.admitting is not None:
            try:
                await self.admitting.wait()
            except asyncio.CancelledError:
                self.is_admission_cancelled = True
                raise

    def note_admission(self, wish: Wish) -> None:
        self._called("admit", model=wish.model, client=wish.client)

    def leased(self, wish: Wish, failed: Mapping[ModelRef, ValetError]) -> FakeLease:
        lease = self._lease(self._canonical(wish.model), failed)
        self.wishes.append(wish)
        self.leases.append(lease)
        self.in_flight += 1
        lease._on_end = self._note_end
        return lease

    def _note_end(self) -> None:
        self.in_flight -= 1

    def request_quit(self) -> None:
        self._called("request_quit")
        self.quit_requested = True

    # -- what tests do to it --------------------------------------------------------------------------

    def start_game(self, name: str = "Lantern Keep") -> None:
        cause = GameCause(name=name, place=f"steamapps/common/{name}")
        hold = Hold(
            id="game:steam:1145360", kind=HoldKind.GAME, owner="valet", cause=cause, since=self.clock.wall_s()
        )
        self.games = (
            GameView(
                key="steam:1145360",
                name=name,
                store="steam",
                appid="1145360",
                rule="steam library",
                action="on",
                pids=(4321,),
                since=self.clock.wall_s(),
            ),
        )
        self.recorder.record(ev.GameStarted(name=name, key="steam:1145360"))
        self._place(hold, f"game detected — steamapps/common/{name}")
        self.state = State.PAUSED

    def called(self, name: str) -> list[dict[str, Any]]:
        return [arguments for command, arguments in self.calls if command == name]

    # -- inside ---------------------------------------------------------------------------------------

    def _called(self, name: str, **arguments: Any) -> None:
        self.calls.append((name, arguments))
        if name in self.fails:
            raise self.fails[name]

    def _lease(self, name: str, failed: Mapping[ModelRef, ValetError]) -> FakeLease:
        """On the first candidate that has not failed; `candidates` are (provider, address)."""
        candidates = [(ModelRef(provider, name), url) for provider, url in self.candidates] or [
            (ModelRef("ollama", name), self.upstream_url)
        ]
        left = [(ref, url) for ref, url in candidates if ref not in failed]
        if not left:
            raise next(reversed(failed.values()))
        ref, url = left[0]
        fields = {"base_url": url, "model": name, "headers": {"X-Engine": "fake"}, **self.upstream_fields}
        lease = FakeLease(ref, Upstream(**fields))
        lease.has_next = len(left) > 1
        lease.overrides = self.overrides
        return lease

    def _canonical(self, model: str) -> str:
        name = model.removeprefix("ollama/")
        for candidate in (name, f"{name}:latest"):
            if candidate in self.models:
                return candidate
        raise UnknownModel(f"There is no model “{model}”.", param="model")

    def _hold(self, kind: HoldKind, owner: str, cause: hold_rules.Cause, ttl_s: float | None) -> Hold:
        hold_id = f"{kind}-{self._next_hold}"
        self._next_hold += 1
        return Hold(
            id=hold_id,
            kind=kind,
            owner=owner,
            cause=cause,
            since=self.clock.wall_s(),
            expires_at_s=None if ttl_s is None else self.clock.monotonic_s() + ttl_s,
        )

    def _place(self, hold: Hold, reason: str) -> None:
        self.holds = hold_rules.place(self.holds, hold)
        self.recorder.record(ev.HoldPlaced(hold=hold))
        self.last_reason = reason
        if self.loaded:
            freed = sum(model.size_bytes for model in self.loaded.values())
            self.to_bring_back = tuple(entry_of("ollama", model) for model in self.loaded.values())
            self.last_pause = PauseReport(
                models=tuple(self.loaded),
                freed_bytes=freed,
                took_s=0.25,
                at=self.clock.wall_s(),
                is_confirmed_by_memory=True,
            )
            self.loaded = {}

    def _back(self) -> None:
        for entry in self.to_bring_back:
            self.loaded[entry.model] = LoadedModel(
                name=entry.model,
                size_bytes=entry.size_bytes,
                vram_bytes=entry.vram_bytes,
                context_length=entry.context_length,
                ttl_left_s=entry.ttl_left_s,
            )
        self.to_bring_back = ()
        self.state = State.RUNNING
        self.last_reason = "manual resume"


def _words(hold: Hold) -> str:
    cause = hold.cause
    if isinstance(cause, GameCause):
        return f"game detected — {cause.place}"
    return "manual pause" if isinstance(cause, UserCause) else f"{hold.owner} asked"


def _sample(at: float) -> MachineSample:
    return MachineSample(
        host=HostSample(ram_total_bytes=16 * GIB, ram_available_bytes=4 * GIB, cpu_pct=12.34, core_count=8),
        gpus=(
            GpuSample(
                index=0,
                uuid="GPU-0",
                name="First",
                vram_total_bytes=8 * GIB,
                vram_used_bytes=2 * GIB,
                utilization_pct=10.0,
            ),
            GpuSample(
                index=1,
                uuid="GPU-1",
                name="Second",
                vram_total_bytes=8 * GIB,
                vram_used_bytes=6 * GIB,
                utilization_pct=90.0,
            ),
        ),
        disk=DiskSample(path="/models", total_bytes=100 * GIB, used_bytes=60 * GIB, free_bytes=40 * GIB),
        taken_at=at,
    )


_SIGNAL = SignalView(
    signal="ram",
    raw_pct=75.0,
    ours_pct=25.0,
    others_pct=50.0,
    others_at_load_pct=49.0,
    free_bytes=4 * GIB,
    reserve_bytes=GIB,
    pause_pct=85.0,
    resume_pct=60.0,
    is_breached=False,
    breached_for_s=0.0,
    counts=False,
    text="RAM 75.0% < 85.0% threshold",
)
