"""GET /memory: the bars on the wire, with a real game process measured."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from tests.web.page_stage import HADES, StageValet, paused_for_hades, running, sample
from tests.web.wire import Site, serving
from tray_valet.core.ports import ProcessTable
from tray_valet.core.snapshot import Snapshot
from tray_valet.web.control.api import ControlApi

BALLAST = "import sys; held = bytearray(64 << 20); print('up', flush=True); sys.stdin.read()"


async def read(picture: Snapshot, table: ProcessTable | None = None) -> dict[str, object]:
    valet = StageValet()
    valet.picture = picture
    api = ControlApi(valet, clock=valet.clock, table=table)
    async with serving(api) as server:
        reply = await Site(server, valet, valet.clock, api).call("GET", "/memory")
    assert reply.status == 200
    return dict(reply.json)


async def test_sizes_are_whole_mb_and_add_up() -> None:
    answer = await read(running())
    assert answer["gpu_names"] == ["NVIDIA GeForce RTX 4090"]
    for bar in (answer["vram"], answer["ram"]):
        assert isinstance(bar, dict)
        assert all(isinstance(part["size_mb"], int) for part in bar["parts"])
        total = sum(part["size_mb"] for part in bar["parts"])
        assert abs(total - bar["total_mb"]) < len(bar["parts"])


async def test_without_a_gpu_there_is_no_vram_and_the_reason_is_told() -> None:
    answer = await read(running(sample=sample(), gpu_missing_because="No NVIDIA driver is loaded."))
    assert answer["vram"] is None
    assert answer["gpu_missing_because"] == "No NVIDIA driver is loaded."


async def test_a_games_ram_is_that_of_its_living_processes(process_table: ProcessTable) -> None:
    with subprocess.Popen(  # noqa: ASYNC220  # it says one line at once and then waits
        [sys.executable, "-c", BALLAST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as game:
        assert game.stdout is not None
        assert game.stdin is not None
        game.stdout.readline()
        seen = msgspec.structs.replace(HADES, pids=(game.pid, 2**22 + 7))  # the second one is gone
        answer = await read(paused_for_hades(games=(seen,), signals=()), process_table)
        game.stdin.close()
    ram = answer["ram"]
    assert isinstance(ram, dict)
    hades = next(part for part in ram["parts"] if part["kind"] == "game")
    assert hades["name"] == "Hades"
    assert 64 <= hades["size_mb"] < 200
