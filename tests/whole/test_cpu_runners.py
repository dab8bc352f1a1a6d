"""Runners on the CPU in a real valet: they go on serving during a game, and stay out of its way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.whole.router_homes import pid_of
from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, until
from tray_valet.engine.tiny_model import REPLY

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
    pytest.mark.timeout(400),  # runners of idle priority have the CPU only when nobody else wants it
]


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    settings = {"providers": {"local": local_provider(home, tiny_model, "one", "two", cpu_only=True)}}
    with ValetProcess(home, settings) as process:
        yield process


def is_idle_priority(pid: int) -> bool:
    found = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):  # a thread may end meanwhile
            found.add(os.sched_getscheduler(int(tid)))
    return found == {os.SCHED_IDLE}


def test_they_serve_on_at_idle_priority_and_are_quick_again_after_the_game(valet: ValetProcess) -> None:
    def answers(model: str) -> bool:
        answer = valet.chat(model, max_tokens=4)  # few: at idle priority each may take seconds
        assert answer.status_code == 200, answer.text
        content = answer.json()["choices"][0]["message"]["content"]
        return bool(content) and REPLY.startswith(content)

    assert answers("one")
    here_before = pid_of(valet.home, "one")
    assert not is_idle_priority(here_before)
    game = valet.play()
    valet.wait_state("paused")
    assert is_idle_priority(here_before), "the one that was there gives way"
    assert answers("one")
    assert pid_of(valet.home, "one") == here_before
    assert answers("two")
    started_in_it = pid_of(valet.home, "two")
    assert is_idle_priority(started_in_it)
    arguments = Path(f"/proc/{started_in_it}/cmdline").read_bytes().split(b"\0")
    assert int(arguments[arguments.index(b"--threads") + 1]) == max(1, (os.cpu_count() or 1) // 4)
    valet.stop(game)
    valet.wait_state("running")
    for model in ("one", "two"):
        assert answers(model)
        until(lambda model=model: not is_idle_priority(pid_of(valet.home, model)), "full speed")  # type: ignore[misc]
    assert pid_of(valet.home, "two") != started_in_it
