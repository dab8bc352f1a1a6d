"""The request log: a line for each request, bounded on the disk and in memory, and never in the way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tray_valet.core.traffic import Exchanged, Outcome
from tray_valet.services.request_log import RequestLog


def record(**changes: Any) -> Exchanged:
    fields: dict[str, Any] = {"at": 1_700_000_000.25, "asked": "a", "path": "/v1/chat/completions"}
    return Exchanged(**(fields | changes))


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


async def test_a_line_says_what_happened_and_nothing_else(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "logs" / "requests.jsonl")
    log.note(
        record(
            client="phone",
            provider="p",
            model="m",
            reason="alias",
            status=200,
            queue_s=0.1234567,
            first_byte_s=0.5,
            completion_tokens=9,
            outcome=Outcome.CUT,
        )
    )
    await log.close()
    (line,) = lines(tmp_path / "logs" / "requests.jsonl")
    assert line["time"] == "2023-11-14T22:13:20.250+00:00"
    assert (line["client"], line["provider"], line["outcome"]) == ("phone", "p", "cut")
    assert (line["queue_s"], line["first_byte_s"], line["completion_tokens"]) == (0.123457, 0.5, 9)
    assert "prompt_tokens" not in line  # not known
    assert "error_code" not in line


async def test_lines_are_written_every_moment_and_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    log = RequestLog(file, every_s=0.01)
    running = asyncio.create_task(log.run())
    log.note(record(asked="first"))
    async with asyncio.timeout(30):
        while not file.exists() or not file.read_bytes():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    log.note(record(asked="last"))
    await log.close()
    assert [line["asked"] for line in lines(file)] == ["first", "last"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
async def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.jsonl")
    before = os.umask(0)
    try:
        log.note(record())
        await log.close()
    finally:
        os.umask(before)
    assert (tmp_path / "requests.jsonl").stat().st_mode & 0o777 == 0o600


async def test_three_files_at_most_and_no_line_is_lost_between_them(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    log = RequestLog(file, max_bytes=2000)
    for number in range(60):
        log.note(record(asked=f"{number:03}"))
        if number % 7 == 0:
            await log.close()
    await log.close()
    files = sorted(os.listdir(tmp_path))
    assert files == ["requests.jsonl", "requests.jsonl.1", "requests.jsonl.2"]
    assert all(os.stat(tmp_path / name).st_size <= 2000 for name in files)
    names = [tmp_path / name for name in reversed(files)]
    kept = [line["asked"] for name in names for line in lines(name)]
    assert kept == [f"{number:03}" for number in range(60 - len(kept), 60)]


async def test_a_disk_that_refuses_is_told_once_and_never_to_the_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "logs"
    blocked.write_text("a file where the folder should be")
    log = RequestLog(blocked / "requests.jsonl")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            log.note(record())
            await log.close()
        assert sum("not written down" in message for message in caplog.messages) == 1
        blocked.unlink()
        log.note(record(asked="later"))
        await log.close()
    assert [line["asked"] for line in lines(blocked / "requests.jsonl")] == ["later"]
    assert "written down again" in caplog.messages[-1]


async def test_what_waits_for_the_disk_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog(tmp_path / "requests.jsonl")
    for _ in range(12_000):
        log.note(record())
    with caplog.at_level(logging.WARNING):
        await log.close()
    assert len(lines(tmp_path / "requests.jsonl")) == 10_000
    assert "2000 requests were not written down" in caplog.text


async def test_a_name_of_any_length_and_letters_stays_one_line(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.jsonl")
    log.note(record(asked="x\n\u2028" * 5000))
    await log.close()
    text = (tmp_path / "requests.jsonl").read_bytes()
    assert text.count(b"\n") == 1
    assert len(text) < 4000
