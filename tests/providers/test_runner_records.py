"""Leftovers of a killed valet: found by PID, start time and command line, and nothing else is touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.providers.runner_records import RunnerRecord, RunnerRecords
from tray_valet.services.clock import SystemClock

MODEL = "/models/one.gguf"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a runner's command line."""
    sleeper = "import time; print(1, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", sleeper, "--model", MODEL, "--port", "18085"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def record(process: subprocess.Popen[bytes], process_table: ProcessTable) -> RunnerRecord:
    described = process_table.describe(process.pid)
    assert described is not None
    return RunnerRecord(
        provider="local", model="one", identity=described.identity, port=18_085, model_path=MODEL
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "runners.json"


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


async def test_a_leftover_is_ended_and_struck_out(
    path: Path, record: RunnerRecord, process_table: ProcessTable
) -> None:
    RunnerRecords(path).add(record)
    found = await RunnerRecords(path).end_leftovers(process_table, SystemClock())
    assert found == (record,)
    assert not process_table.is_alive(record.identity)
    assert content_of(path) == b"[]"


@pytest.mark.parametrize("change", ["start_time", "port", "model_path"])
async def test_another_process_with_the_same_pid_is_left_alone(
    change: str, path: Path, record: RunnerRecord, process_table: ProcessTable
) -> None:
    other = {
        "start_time": {"identity": ProcessIdentity(record.identity.pid, record.identity.start_time + 1)},
        "port": {"port": 18_086},
        "model_path": {"model_path": "/models/two.gguf"},
    }[change]
    RunnerRecords(path).add(msgspec.structs.replace(record, **other))
    assert await RunnerRecords(path).end_leftovers(process_table, SystemClock()) == ()
    assert process_table.is_alive(record.identity)
    assert content_of(path) == b"[]"


async def test_a_runner_that_has_ended_is_no_leftover(
    path: Path, record: RunnerRecord, process: subprocess.Popen[bytes], process_table: ProcessTable
) -> None:
    records = RunnerRecords(path)
    records.add(record)
    process.kill()
    process.wait()
    assert await RunnerRecords(path).end_leftovers(process_table, SystemClock()) == ()


async def test_a_runner_struck_out_is_left_alone(
    path: Path, record: RunnerRecord, process_table: ProcessTable
) -> None:
    records = RunnerRecords(path)
    records.add(record)
    records.remove(record.identity)
    assert await RunnerRecords(path).end_leftovers(process_table, SystemClock()) == ()
    assert process_table.is_alive(record.identity)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\x00", b'[{"provider": "local"}]'])
async def test_a_broken_list_is_no_obstacle(content: bytes, path: Path, process_table: ProcessTable) -> None:
    write(path, content)
    assert await RunnerRecords(path).end_leftovers(process_table, SystemClock()) == ()


async def test_a_list_that_cannot_be_written_keeps_no_model_from_loading(
    tmp_path: Path, record: RunnerRecord
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    RunnerRecords(tmp_path / "state" / "runners.json").add(record)
