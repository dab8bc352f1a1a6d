"""The child seen from the valet, with small real processes that speak its protocol."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tray_valet.desktop.window_child import WindowChild, start_child
from tray_valet.desktop.window_opener import WindowFailed, WindowPage

PAGE = WindowPage(url="http://127.0.0.1:1/ui/", code="abc")
TALK = """
import json, sys, time
def say(**told): print(json.dumps(told), flush=True)
order = json.loads(sys.stdin.readline())
"""
OBEYS = (
    "say(event='painted')\nfor line in sys.stdin:\n    if line == 'quit\\n': break\n    say(event='focused')"
)


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[list[WindowChild]]:
    started: list[WindowChild] = []
    yield started
    for child in started:
        await child.close()
        assert not child.is_open


async def child_of(children: list[WindowChild], tmp_path: Path, does: str) -> WindowChild:
    child = await start_child([sys.executable, "-c", TALK + does], environ=os.environ, cwd=tmp_path)
    children.append(child)
    return child


async def test_it_is_told_the_page_on_stdin_and_is_open_when_it_is_painted(
    children: list[WindowChild], tmp_path: Path
) -> None:
    does = "open('order', 'w').write(json.dumps(order))\n" + OBEYS
    child = await child_of(children, tmp_path, does)
    await child.show(PAGE)
    assert child.is_open
    order = json.loads((tmp_path / "order").read_text())
    assert (order["url"], order["code"], order["title"]) == (PAGE.url, "abc", "Tray Valet")
    assert "abc" not in " ".join(psutil.Process(child.pid).cmdline())
    assert await child.focus()
    assert await child.focus()


async def test_chatter_of_libraries_is_passed_over(children: list[WindowChild], tmp_path: Path) -> None:
    chatter = "print('x' * 200_000); print('{'); print('[]'); print('null'); print(); print('é')\n"
    child = await child_of(children, tmp_path, chatter + OBEYS)
    await child.show(PAGE)
    assert await child.focus()


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("say(event='no_web_view', reason='no toolkit'); sys.exit(3)", "no toolkit"),
        ("sys.exit(7)", "its process ended with 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "its process ended with -6"),
        ("import os; os.close(1); time.sleep(60)", "its process says nothing any more"),
        ("say(event='no_web_view', reason='x' * 5000); time.sleep(60)", "xxx"),
    ],
)
async def test_a_child_that_cannot_show_says_why_and_is_ended(
    children: list[WindowChild], tmp_path: Path, does: str, why: str
) -> None:
    child = await child_of(children, tmp_path, does)
    with pytest.raises(WindowFailed, match=why) as failed:
        await child.show(PAGE)
    assert len(str(failed.value)) <= 300
    assert not child.is_open


async def test_a_child_that_draws_nothing_in_time_is_ended(
    children: list[WindowChild], tmp_path: Path
) -> None:
    child = await child_of(children, tmp_path, "time.sleep(60)")
    with pytest.raises(WindowFailed, match="nothing was drawn"):
        await child.show(PAGE, paint_s=0.3)
    assert not child.is_open


async def test_a_child_that_is_gone_or_stuck_does_not_come_to_the_front(
    children: list[WindowChild], tmp_path: Path
) -> None:
    child = await child_of(children, tmp_path, "say(event='painted'); sys.stdin.readline()")
    await child.show(PAGE)
    assert not await child.focus()
    assert not await child.focus(), "by now the process is gone"


async def test_an_opening_that_is_called_off_leaves_no_process(
    children: list[WindowChild], tmp_path: Path
) -> None:
    child = await child_of(children, tmp_path, "time.sleep(60)")
    opening = asyncio.create_task(child.show(PAGE))
    await asyncio.sleep(0.2)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not child.is_open


async def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(WindowFailed, match="cannot be started"):
        await start_child([str(tmp_path / "none")], environ={}, cwd=tmp_path)
