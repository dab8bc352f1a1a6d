"""The game watch: from process starts and exits to running games, and from those to holds.

Decides: which processes are one game, and when a game has ended (its last process gone for the debounce
time). Must not: know how processes are seen, or what is a game (`core/games.py` does).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

import msgspec

from tray_valet.core import events as ev
from tray_valet.core.commands import KnownGame
from tray_valet.core.config import GamesSettings
from tray_valet.core.game_choice import ChosenGame, chosen_action
from tray_valet.core.games import (
    NO_LIBRARIES,
    Action,
    Classification,
    CompiledRule,
    GameRule,
    LibraryIndex,
    Program,
    ProgramKind,
    Verdict,
    classify,
    compile_rules,
)
from tray_valet.core.holds import GameCause, Hold, HoldKind
from tray_valet.core.ports import Clock, LibraryScanner, ProcessTable, ProcessWatch
from tray_valet.core.processes import Process, ProcessIdentity, System
from tray_valet.core.snapshot import GameView
from tray_valet.services.hold_book import HoldBook

_LOG = logging.getLogger(__name__)
_LOOK_CHUNK = 50  # processes looked at between two turns of the loop
_RESCAN_S = 60.0  # a newly installed game is known a minute later at most


class _RunningGame:
    """One game that runs, or ended less than the debounce time ago."""

    def __init__(self, found: Classification, since: float, started_s: float) -> None:
        self.found = found
        self.keys = set(found.keys)
        self.since = since
        self.started_s = started_s
        self.processes: set[ProcessIdentity] = set()
        self.ending: asyncio.TimerHandle | None = None

    @property
    def key(self) -> str:
        return self.found.root

    @property
    def hold_id(self) -> str:
        return f"game:{self.key}"


class GameWatch:
    """Owns the running games. Everything runs on the loop thread but the library scan."""

    def __init__(
        self,
        watch: ProcessWatch,
        table: ProcessTable,
        scanner: Callable[[], LibraryScanner],
        system: System,
        holds: HoldBook,
        clock: Clock,
        record: Callable[[ev.Fact], None],
        settings: Callable[[], GamesSettings],
    ) -> None:
        self._watch = watch
        self._table = table
        self._scanner = scanner
        self._system = system
        self._holds = holds
        self._clock = clock
        self._record = record
        self._settings = settings
        self._games: list[_RunningGame] = []
        self._by_process: dict[ProcessIdentity, _RunningGame] = {}
        self._index: LibraryIndex = NO_LIBRARIES
        self._rules = compile_rules(())

    # -- what is -------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """How process starts are seen."""
        return self._watch.source

    def views(self) -> tuple[GameView, ...]:
        """The running games."""
        return tuple(
            GameView(
                key=game.key,
                name=game.found.name,
                store=game.found.store,
                appid=game.found.appid,
                rule=game.found.rule,
                action=game.found.action.value,
                pids=tuple(sorted(p.pid for p in game.processes)),
                since=game.since,
                is_overridden=self._holds.is_overridden(game.hold_id),
                ending=not game.processes,
            )
            for game in self._games
        )

    def known(self) -> tuple[KnownGame, ...]:
        """What the stores' libraries have installed."""
        return tuple(
            KnownGame(
                key=f"{p.store}:{p.appid or p.installdir}",
                name=p.name or p.installdir,
                store=p.store,
                appid=p.appid,
                path=p.path.encode(errors="replace").decode(),  # folders need not be UTF-8, JSON must be
                kind=p.kind.value,
                action=self._action(p).value,
            )
            for p in self._index.programs
        )

    def _action(self, program: Program) -> Action:
        """The user's choice for that game, else what is done for its kind."""
        key = f"{program.store}:{program.appid or program.installdir}"
        game = ChosenGame(key=key, name=program.name, appid=program.appid, path=program.path)
        is_game = program.kind in (ProgramKind.GAME, ProgramKind.DEMO)
        chosen = chosen_action(self._settings().rules, game)
        return chosen or (Action.ON if is_game else Action.OFF)

    # -- the loop ------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Read the libraries and look at all that runs, so that a game from before us is known at once."""
        await self.apply_settings()

    async def run(self) -> None:
        """Follow processes until cancelled, and re-read the libraries now and then."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(self._on_started, self._on_exited), name="process watch")
            tasks.create_task(self._rescan_forever(), name="library scan")

    async def apply_settings(self) -> None:
        """Take new rules and libraries over, and look at everything that runs again."""
        self._rules = _compiled(self._settings())
        await self._scan()
        await self._look_at_all(has_new_rules=True)

    async def _rescan_forever(self) -> None:
        while True:
            await asyncio.sleep(_RESCAN_S)
            before = self._index.programs
            await self._scan()
            if self._index.programs != before:
                await self._look_at_all()

    async def _scan(self) -> None:
        scan = await asyncio.to_thread(self._scanner().scan)
        if scan.programs != self._index.programs:
            self._index = LibraryIndex(scan.programs, self._system)

    async def _look_at_all(self, *, has_new_rules: bool = False) -> None:
        for number, pid in enumerate(self._table.all_pids()):
            if number % _LOOK_CHUNK == 0:
                await asyncio.sleep(0)  # others have their turn
            process = self._table.describe(pid)
            if process is not None:
                self._look_at(process, has_new_rules=has_new_rules)

    # -- processes -----------------------------------------------------------------------------------

    def _on_started(self, process: Process) -> None:
        self._look_at(process, has_new_rules=False)

    def _look_at(self, process: Process, *, has_new_rules: bool) -> None:
        found = classify(process, self._system, self._index, self._rules)
        is_game = found.verdict is Verdict.GAME and bool(found.root) and self._settings().enabled
        game = self._by_process.get(process.identity)
        if not is_game:
            if game is not None:  # it has become something else, or the rules have changed
                self._leave(process.identity, game, is_dismissed=has_new_rules)
            return
        if game is not None and game.keys & set(found.keys):
            self._take_over_action(game, found)
            return
        if game is not None:
            self._leave(process.identity, game)
        self._join(process, found)

    def _join(self, process: Process, found: Classification) -> None:
        game = next((g for g in self._games if g.keys & set(found.keys)), None)
        is_new = game is None
        if game is None:
            game = _RunningGame(found, self._clock.wall_s(), self._clock.monotonic_s())
            self._games.append(game)
        game.keys |= set(found.keys)
        game.processes.add(process.identity)
        self._by_process[process.identity] = game
        if game.ending is not None:
            game.ending.cancel()
            game.ending = None
        if is_new:
            self._record(
                ev.GameStarted(
                    name=found.name,
                    key=game.key,
                    store=found.store,
                    rule=found.rule,
                    pid=process.identity.pid,
                    action=found.action.value,
                )
            )
            self._keep_hold(game)
        else:
            self._take_over_action(game, found)
        self._watch.follow(process.identity)

    def _take_over_action(self, game: _RunningGame, found: Classification) -> None:
        """The user's rules may say something else now. A game's id never changes while it runs."""
        if found.action is not game.found.action:
            game.found = msgspec.structs.replace(game.found, action=found.action)
            self._keep_hold(game)

    def _on_exited(self, identity: ProcessIdentity) -> None:
        game = self._by_process.get(identity)
        if game is not None:
            self._leave(identity, game)

    def _leave(self, identity: ProcessIdentity, game: _RunningGame, *, is_dismissed: bool = False) -> None:
        del self._by_process[identity]
        game.processes.discard(identity)
        if is_dismissed and not game.processes:
            self._dismiss(game)
        elif not game.processes and game.ending is None:
            debounce_s = float(self._settings().end_debounce_seconds)
            game.ending = asyncio.get_running_loop().call_later(debounce_s, self._end, game)

    def _end(self, game: _RunningGame) -> None:
        self._games.remove(game)
        self._record(
            ev.GameEnded(name=game.found.name, key=game.key, ran_s=self._clock.monotonic_s() - game.started_s)
        )
        if self._holds.is_active(game.hold_id):
            self._keep_hold(game)  # with the grace time as it is set now
            self._holds.end(game.hold_id)

    def _dismiss(self, game: _RunningGame) -> None:
        """It runs on and is no game any more: nothing has ended that could come back."""
        if game.ending is not None:
            game.ending.cancel()
        self._games.remove(game)
        ran_s = self._clock.monotonic_s() - game.started_s
        self._record(ev.GameEnded(name=game.found.name, key=game.key, ran_s=ran_s, is_dismissed=True))
        self._release(game)

    def _release(self, game: _RunningGame) -> None:
        """End its hold, with no time to wait: the user chose so, and the game may run on."""
        for hold in self._holds.holds.active:
            if hold.id == game.hold_id:
                self._holds.place(msgspec.structs.replace(hold, wait_s=0.0))
                self._holds.end(hold.id)
                return

    def _keep_hold(self, game: _RunningGame) -> None:
        if game.found.is_holding:
            self._holds.place(
                Hold(
                    id=game.hold_id,
                    kind=HoldKind.GAME,
                    owner="valet",
                    cause=GameCause(
                        name=game.found.name,
                        place=game.found.place,
                        store=game.found.store,
                        appid=game.found.appid,
                        rule=game.found.rule,
                    ),
                    since=self._clock.wall_s(),
                    wait_s=float(self._settings().grace_seconds),
                )
            )
        else:
            self._release(game)


def _compiled(settings: GamesSettings) -> tuple[CompiledRule, ...]:
    rules = msgspec.convert(msgspec.to_builtins(settings.rules), tuple[GameRule, ...])
    return compile_rules(rules, home=os.path.expanduser("~"))
