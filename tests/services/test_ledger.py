"""The ledger on disk."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.house import FakeProvider, House
from tests.web.fake_valet import FakeClock
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import NotFound
from tray_valet.core.holds import GameCause, Hold, HoldKind
from tray_valet.core.ledger import decoded
from tray_valet.core.watchdog import State
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.ledger import LedgerBook

WRITER = """
import asyncio, pathlib, sys
from tests.services.test_ledger import play
from tests.web.fake_valet import FakeClock
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.ledger import LedgerBook

async def main():
    book = LedgerBook(pathlib.Path(sys.argv[1]), FakeClock(), write_atomically, write_after_s=0.0)
    book.read()
    writing = asyncio.create_task(book.run())
    n, is_said = 0, False
    while True:
        n += 1
        play(book, f"Game {n % 200}")
        if n >= 20 and not is_said and pathlib.Path(sys.argv[1]).exists():
            print("up", flush=True)
            is_said = True
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


def play(book: LedgerBook, name: str = "Hades") -> None:
    """One game from its start to the return of the models."""
    cause = GameCause(name=name, place=name, store="steam")
    hold = Hold(id=f"game:/g/{name}", kind=HoldKind.GAME, owner="valet", cause=cause, since=0.0)
    for fact in (
        ev.GameStarted(name=name, key=f"/g/{name}", store="steam"),
        ev.HoldPlaced(hold=hold),
        ev.ModelsSetAside(models=("a",), freed_bytes=2**30, took_s=0.5, cause=name),
        ev.StateChanged(before=State.PAUSING, after=State.PAUSED, reason=""),
        ev.GameEnded(name=name, key=f"/g/{name}", ran_s=60.0),
        ev.HoldEnded(hold=hold),
        ev.ModelsBroughtBack(models=("a",), took_s=4.0),
        ev.StateChanged(before=State.RESUMING, after=State.RUNNING, reason=""),
    ):
        book.note(fact)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.json"


@pytest.fixture
def open_book(path: Path) -> Callable[..., LedgerBook]:
    def open_book(
        write: Callable[[Path, bytes], None] = write_atomically, write_after_s: float = 0.0
    ) -> LedgerBook:
        book = LedgerBook(path, FakeClock(), write, write_after_s=write_after_s)
        book.read()
        return book

    return open_book


def games_in(path: Path) -> set[str]:
    return set(decoded(path.read_bytes()).games)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


async def test_it_is_read_again_at_the_next_start(open_book: Callable[..., LedgerBook], path: Path) -> None:
    book = open_book()
    assert book.ledger.games == {}
    play(book)
    await book.close()
    assert mode_of(path) == 0o600
    again = open_book()
    assert again.ledger == book.ledger
    play(again)
    assert again.ledger.games["steam:Hades"].times == 2


async def test_changes_are_written_together_some_time_later(open_book: Callable[..., LedgerBook]) -> None:
    written: list[bytes] = []
    loop, is_written = asyncio.get_running_loop(), asyncio.Event()

    def write(_: Path, raw: bytes) -> None:
        written.append(raw)
        loop.call_soon_threadsafe(is_written.set)

    book = open_book(write, write_after_s=0.2)
    writing = asyncio.create_task(book.run())
    for n in range(50):
        play(book, f"Game {n}")
    await asyncio.wait_for(is_written.wait(), 30)
    await asyncio.sleep(0.3)
    writing.cancel()
    assert len(written) == 1
    assert len(decoded(written[0]).games) == 50


async def test_without_news_nothing_is_written(open_book: Callable[..., LedgerBook]) -> None:
    written: list[bytes] = []
    book = open_book(lambda _, raw: written.append(raw))
    book.note(ev.SettingsApplied())
    await book.close()
    assert written == []


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1]", b'{"games": {"a": 3}}'])
async def test_a_damaged_file_is_set_aside_and_said(
    open_book: Callable[..., LedgerBook], path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    put(path, content)
    with caplog.at_level(logging.ERROR):
        book = open_book()
    assert "damaged" in caplog.text
    assert content_of(path.with_suffix(".damaged")) == content
    play(book)
    await book.close()
    assert games_in(path) == {"steam:Hades"}


async def test_a_disk_that_takes_no_write_is_said_once_and_loses_nothing_when_it_does_again(
    open_book: Callable[..., LedgerBook], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    is_full = True

    def write(where: Path, raw: bytes) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        write_atomically(where, raw)

    book = open_book(write)
    with caplog.at_level(logging.WARNING):
        for name in ("Hades", "Doom"):
            play(book, name)
            await book.close()
    assert caplog.text.count("No space left") == 1
    is_full = False
    await book.close()
    assert games_in(path) == {"steam:Hades", "steam:Doom"}


async def test_forgetting_is_on_disk_when_it_returns(
    open_book: Callable[..., LedgerBook], path: Path
) -> None:
    book = open_book(write_after_s=60.0)
    for name in ("Hades", "Doom", "Tetris"):
        play(book, name)
    assert await book.forget("hades") == 1
    assert games_in(path) == {"steam:Doom", "steam:Tetris"}
    with pytest.raises(NotFound):
        await book.forget("Hades")
    assert await book.forget() == 2
    assert games_in(path) == set()
    assert await book.forget() == 0


def test_killed_at_any_moment_it_leaves_a_whole_ledger(path: Path) -> None:
    for round_number in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            child.send_signal(signal.SIGKILL)
        assert decoded(path.read_bytes()).games, round_number
        assert not path.with_suffix(".damaged").exists()


async def test_a_real_pause_is_in_it(tmp_path: Path, path: Path) -> None:
    """The facts of the real services, in their real order."""
    provider = FakeProvider()
    house = House(
        tmp_path, provider, EvictionSettings(drain_seconds=0.1, kill_after_seconds=1.2, confirm_seconds=0.5)
    )
    book = LedgerBook(path, house.clock, write_atomically)
    record = house.facts.append
    provider.put("a")
    provider.ignores_unload = True

    def note(fact: ev.Fact) -> None:
        record(fact)
        book.note(fact)

    for service in (house.holds, house.evictor, house.restorer, house.watchdog, house.fights):
        service._record = note  # type: ignore[attr-defined]
    async with house.running():
        note(ev.GameStarted(name="Hades", key="hades"))
        hold = house.game()
        await house.reaches(State.PAUSED)
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
    game = book.ledger.games[":Hades"]
    assert (game.times, game.restores, game.freed_bytes) == (1, 1, provider.size_bytes)
    assert game.last is not None
    assert game.last.slow is not None
    assert game.last.slow.part == "runner", "it did not let go, so its process was ended"
    assert game.last.slow.took_s >= 1.2
