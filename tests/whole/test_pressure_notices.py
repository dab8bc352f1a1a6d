"""A running valet and the system's own word that memory runs short."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sensing.pressure_groups import small_group_or_skip, takes_triggers
from tests.whole.valet_process import ValetProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not takes_triggers(), reason="no PSI trigger is to be had here"
    ),
]

PATIENCE_S = 30.0


@pytest.fixture
def small_group() -> Iterator[Path]:
    yield from small_group_or_skip()


def signals(valet: ValetProcess) -> list[dict[str, Any]]:
    return valet.control.get("/explain").json()["signals"]


def test_memory_pressure_makes_it_look_long_before_its_time_and_does_not_pause_it(
    tmp_path: Path, small_group: Path
) -> None:
    # An hour between looks. RAM itself stays far below its limit: one group alone runs short.
    settings = {
        "providers": {},
        "thresholds": {"check_interval_seconds": 3600, "ram_pause_pct": 99.0, "ram_resume_pct": 98.0},
    }
    with ValetProcess(tmp_path / "home", settings) as valet:
        time.sleep(1.0)  # what is looked at while it starts has been looked at
        before = signals(valet)
        time.sleep(1.0)
        assert signals(valet) == before
        script = (
            f'echo $$ > {small_group}/cgroup.procs; head -c 200000000 /dev/zero > "$1"; '
            'while :; do cat "$1" > /dev/null; done'
        )
        waster = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", str(tmp_path / "large")], start_new_session=True
        )
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while signals(valet) == before:
                assert time.monotonic() < deadline_s, "it has not looked"
                time.sleep(0.1)
        finally:
            os.killpg(waster.pid, 9)
            waster.wait()
        assert valet.control.get("/watchdog").json()["state"] == "running"
