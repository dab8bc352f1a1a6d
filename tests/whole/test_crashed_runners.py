"""Runners that are killed as the OOM killer does, in a real valet: they come back, others never notice."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.whole.router_homes import pid_of as runner_of
from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, engine_pids, send, until
from tray_valet.engine.tiny_model import REPLY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    settings = {"providers": {"local": local_provider(home, tiny_model, "one", "two")}}
    with ValetProcess(home, settings) as process:
        yield process
    assert engine_pids(home) == [], "no runner outlives the valet"


def pid_of(valet: ValetProcess, model: str) -> int:
    return runner_of(valet.home, model)


def test_r14_a_killed_runner_is_started_again_with_its_context_and_said(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one", "num_ctx": 1024})
    valet.post("/load", {"model": "two"})
    before, other = pid_of(valet, "one"), pid_of(valet, "two")
    send(before, signal.SIGKILL)
    until(lambda: pid_of(valet, "one") not in (0, before), "a new runner")
    until(lambda: "one" in valet.loaded(), "it is ready")
    assert valet.loaded()["one"]["context_length"] == 1024
    assert pid_of(valet, "two") == other
    [said] = valet.activity("runner_crashed")
    assert "one ended unexpectedly" in said["text"]
    assert "started again in 1" in said["text"].replace("\u00a0", " ")
    assert valet.chat("one").json()["choices"][0]["message"]["content"] == REPLY


def test_requests_right_after_a_crash_wait_for_the_new_runner(valet: ValetProcess) -> None:
    assert valet.chat("one").status_code == 200
    before = pid_of(valet, "one")
    send(before, signal.SIGKILL)
    until(lambda: pid_of(valet, "one") != before, "it is gone")
    until(lambda: bool(valet.activity("runner_crashed")), "it is seen")
    answer = valet.chat("one")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == REPLY


def test_a_runner_that_crashed_and_was_unloaded_stays_away(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    send(pid_of(valet, "one"), signal.SIGKILL)
    until(lambda: bool(valet.activity("runner_crashed")), "it is seen")
    valet.post("/unload", {"model": "one"})
    valet.post("/load", {"model": "two"})
    until(lambda: pid_of(valet, "two") != 0, "the other is there")
    time.sleep(1.5)  # longer than the first wait
    assert pid_of(valet, "one") == 0
