"""The bridge: the newest picture wins, choices never wait and never pile up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import cast

import pytest

from tests.tray import pictures as pic
from tests.tray.running_tray import NotingValet
from tray_valet.core import menu
from tray_valet.core.commands import Valet
from tray_valet.core.errors import ValetError
from tray_valet.tray.bridge import Balloons, CommandSender, PictureSlot
from tray_valet.tray.no_tray import NoTray


def test_the_newest_picture_wins() -> None:
    slot = PictureSlot()
    for number in range(2000):
        slot.put(pic.picture(title=f"Picture {number}"))
    taken = slot.take(timeout_s=0)
    assert taken is not None
    assert taken.snapshot.title == "Picture 1999"
    assert slot.take(timeout_s=0) is None


def test_a_waiting_painter_is_woken_by_a_picture_and_by_the_end() -> None:
    slot = PictureSlot()
    got: list[str | None] = []

    def wait_twice() -> None:
        for _ in range(2):
            picture = slot.take()
            got.append(picture.snapshot.title if picture else None)
            taken.set()

    taken = threading.Event()
    painter = threading.Thread(target=wait_twice)
    painter.start()
    slot.put(pic.picture(title="One"))
    assert taken.wait(10)
    slot.close()
    painter.join(10)
    assert got == ["One", None]


def test_a_closed_slot_takes_and_gives_nothing() -> None:
    slot = PictureSlot()
    slot.put(pic.picture())
    slot.close()
    slot.close()
    slot.put(pic.picture())
    assert slot.take() is None
    slot.wait_closed(60)


class SlowValet(NotingValet):
    """Its pause takes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def pause(self, *, for_s: float | None = None) -> None:
        await super().pause(for_s=for_s)
        await self.let_go.wait()


def sender(
    valet: NotingValet, report: Callable[[str], None] = lambda _: None, problem: Exception | None = None
) -> CommandSender:
    async def open_window() -> None:
        if problem is not None:
            raise problem

    return CommandSender(
        asyncio.get_running_loop(), cast(Valet, valet), open_window=open_window, report=report
    )


async def test_an_impatient_second_click_asks_for_nothing_new() -> None:
    valet = SlowValet()
    sending = sender(valet)
    for _ in range(50):
        sending.choose(menu.Pause())
    assert await valet.next_asked() == ("pause", None)
    await asyncio.sleep(0.05)
    assert valet.asked.empty()
    valet.let_go.set()
    for _ in range(50):  # it ends within a few turns of the loop
        await asyncio.sleep(0)
    sending.choose(menu.Pause())
    assert await valet.next_asked() == ("pause", None)


async def test_choices_that_hang_do_not_pile_up() -> None:
    valet = SlowValet()
    sending = sender(valet)
    for number in range(1, 200):
        sending.choose(menu.Pause(float(number)))
    async with asyncio.timeout(30):
        while valet.asked.qsize() < 16:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert valet.asked.qsize() == 16
    valet.let_go.set()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ValetError("No window.", remedy="Use the browser."), "No window. Use the browser."),
        (RuntimeError("bug"), "What was chosen in the tray failed; the log says why."),
    ],
)
async def test_a_failure_is_reported_and_the_next_choice_works(problem: Exception, said: str) -> None:
    valet, reports = NotingValet(), asyncio.Queue[str]()
    sending = sender(valet, reports.put_nowait, problem)
    sending.choose(menu.OpenWindow())
    assert await asyncio.wait_for(reports.get(), 30) == said
    sending.choose(menu.Quit())
    assert await valet.next_asked() == ("quit",)


def test_a_choice_after_the_loop_has_ended_is_ignored() -> None:
    async def make() -> CommandSender:
        return sender(NotingValet())

    asyncio.run(make()).choose(menu.Quit())


def test_balloons_say_when_no_tray_can_show_them() -> None:
    balloons, shown = Balloons(), list[tuple[str, str]]()
    with pytest.raises(NoTray):
        balloons.show("a", "b")
    balloons.attach(lambda title, text: shown.append((title, text)))
    balloons.show("a", "b")
    assert shown == [("a", "b")]
    balloons.attach(None)
    with pytest.raises(NoTray):
        balloons.show("a", "b")
