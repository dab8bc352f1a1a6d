"""The picture: folds what the services know into one immutable Snapshot.

Decides: nothing; it only gathers. Must not: wait, ask a provider, or measure.
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet import __version__
from tray_valet.core.config import Settings
from tray_valet.core.downloads import Download
from tray_valet.core.headline import Scene, headline
from tray_valet.core.holds import ends_in_s
from tray_valet.core.models import ConditionType
from tray_valet.core.ports import Clock
from tray_valet.core.snapshot import HoldView, Snapshot
from tray_valet.core.watchdog import State
from tray_valet.core.wording import technical_reason
from tray_valet.services.evictor import Evictor
from tray_valet.services.fleet import Fleet
from tray_valet.services.game_watch import GameWatch
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.leases import Leases
from tray_valet.services.machine import Machine
from tray_valet.services.pressure_watch import PressureWatch
from tray_valet.services.restorer import Restorer
from tray_valet.services.watchdog import Watchdog


class Addresses:
    """Where the valet listens, once it does."""

    control_url = ""
    router_url: str | None = None


class Picture:
    """Builds snapshots on demand; a build takes well under a millisecond."""

    def __init__(
        self,
        *,
        clock: Clock,
        settings: Callable[[], Settings],
        settings_problem: Callable[[], str | None],
        holds: HoldBook,
        fleet: Fleet,
        games: GameWatch,
        watchdog: Watchdog,
        evictor: Evictor,
        restorer: Restorer,
        journal: JournalBook,
        machine: Machine,
        pressure: PressureWatch,
        leases: Leases,
        addresses: Addresses,
        downloads: Callable[[], tuple[Download, ...]] = tuple,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._settings_problem = settings_problem
        self._holds = holds
        self._fleet = fleet
        self._games = games
        self._watchdog = watchdog
        self._evictor = evictor
        self._restorer = restorer
        self._journal = journal
        self._machine = machine
        self._pressure = pressure
        self._leases = leases
        self._addresses = addresses
        self._downloads = downloads

    def take(self) -> Snapshot:
        """The picture now."""
        title, line = headline(self._scene())
        return Snapshot(
            version=__version__,
            taken_at=self._clock.wall_s(),
            state=self._watchdog.state,
            since=self._watchdog.since,
            last_reason=self._watchdog.reason,
            title=title,
            line=line,
            holds=self._hold_views(),
            resumes_in_s=self._resumes_in_s(),
            games=self._games.views(),
            providers=tuple(slot.view() for slot in self._fleet.slots.values()),
            to_bring_back=self._journal.missing,
            last_pause=self._evictor.last_pause,
            sample=self._machine.latest,
            downloads=self._downloads(),
            signals=self._pressure.signals,
            settings_problem=self._settings_problem(),
            process_source=self._games.source,
            gpu_missing_because=self._machine.gpu_missing_because,
            is_built_in_demo=self._is_demo(),
            in_flight=self._leases.total,
            control_url=self._addresses.control_url,
            router_url=self._addresses.router_url,
        )

    def _hold_views(self) -> tuple[HoldView, ...]:
        now_s = self._clock.monotonic_s()
        return tuple(
            HoldView(
                hold=hold,
                is_overridden=self._holds.is_overridden(hold.id),
                text=technical_reason(hold.cause),
                expires_in_s=None if hold.expires_at_s is None else max(0.0, hold.expires_at_s - now_s),
            )
            for hold in self._holds.holds.active
        )

    def _resumes_in_s(self) -> float | None:
        is_waiting = self._watchdog.state in (State.PAUSED, State.PAUSING) and not self._holds.in_effect
        return self._holds.wait_left_s if is_waiting else None

    def _is_demo(self) -> bool:
        return any(ConditionType.BUILT_IN_DEMO in s.conditions for s in self._fleet.slots.values())

    def _scene(self) -> Scene:
        settings = self._settings()
        kept = tuple(g.name for g in self._games.views() if g.is_overridden or g.action == "off")
        return Scene(
            state=self._watchdog.state,
            holds=self._holds.in_effect,
            loaded=tuple(m for _, m in self._fleet.residents()),
            games_kept_running=kept,
            answers_in_flight=self._leases.total,
            drain_s=float(settings.eviction.drain_seconds),
            grace_s=float(settings.games.grace_seconds),
            resumes_in_s=self._resumes_in_s(),
            holds_end_in_s=ends_in_s(self._holds.in_effect, self._clock.monotonic_s()),
            ended_hold=self._holds.holds.last_ended,
            last_pause=self._evictor.last_pause,
            to_bring_back=tuple(e.model for e in self._journal.missing),
            restored_count=self._restorer.restored_count,
            restoring=self._restorer.restoring,
            does_not_fit=self._watchdog.does_not_fit,
            has_providers=bool(self._fleet.slots),
            silent_providers=tuple(s.name for s in self._fleet.slots.values() if s.is_down),
            stopped_providers=tuple(s.name for s in self._fleet.slots.values() if s.is_stopped),
            still_held=self._evictor.still_held,
            is_built_in_demo=self._is_demo(),
        )
