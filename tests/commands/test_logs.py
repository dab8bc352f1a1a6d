"""`logs`: the end of the valet's log, what a runner wrote, and following both."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest

from tray_valet.commands import logs
from tray_valet.commands.failures import CommandError, NoValet
from tray_valet.desktop.log_files import last_lines


def _entry(message: str, **more: str) -> str:
    return json.dumps(
        {"time": "2026-03-04T05:06:07.890+00:00", "level": "warning", "message": message, **more}
    )


def test_a_line_is_shown_as_a_person_reads_it() -> None:
    assert logs.line_of(_entry("Hades started.")).endswith(" WARNING Hades started.")
    assert logs.line_of(_entry("x", exception="Traceback\n  boom")).endswith("x\nTraceback\n  boom")
    for odd in ("", "plain", "[]", '{"time": 5}', '{"time": "x", "level": 1, "message": ""}'):
        assert logs.line_of(odd) == odd


def test_the_last_lines_are_whole_and_few(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("".join(f"{n} {'ü' * 3000}\n" for n in range(500)) + "unfinished")
    with file.open("rb") as opened:
        lines = last_lines(opened)
        rest = opened.read()
    assert 10 < len(lines) <= 200
    assert [line.partition(" ")[0] for line in lines] == [str(n) for n in range(500 - len(lines), 500)]
    assert all(len(line) > 3000 for line in lines)
    assert rest == b"unfinished"


def test_without_a_log_no_valet_has_run(tmp_path: Path) -> None:
    with pytest.raises(NoValet):
        logs.own(tmp_path / "none.log", is_following=False, is_json=False)


def test_a_log_that_cannot_be_read_is_no_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read") as refused:
        logs.own(tmp_path, is_following=False, is_json=False)
    assert str(tmp_path) in refused.value.message


def test_json_is_the_log_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log"
    file.write_text(_entry("one") + "\n" + _entry("two") + "\n")
    logs.own(file, is_following=False, is_json=True)
    assert [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]


class _Writer:
    """A real rotating log that writes the next line whenever the reader finds nothing new."""

    def __init__(self, file: Path, lines: Iterator[str]) -> None:
        self._lines = lines
        self._handler = RotatingFileHandler(file, maxBytes=100, backupCount=2, encoding="utf-8")

    def __call__(self, _: float) -> None:
        line = next(self._lines, None)
        if line is None:
            raise KeyboardInterrupt
        self._handler.emit(logging.LogRecord("x", 20, "", 0, line, None, None))

    def close(self) -> None:
        self._handler.close()


def test_following_goes_on_through_rotations(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("old\n")
    wanted = [f"line {n} of the log" for n in range(40)]
    writer = _Writer(file, iter(wanted))
    seen: list[str] = []
    opened = file.open("rb")
    last_lines(opened)
    try:
        for line in logs.followed(file, opened, pause=writer):
            seen.append(line)
    except KeyboardInterrupt:
        pass
    finally:
        writer.close()
    assert seen == wanted


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "", ""),
        ("", "ab", "ab"),
        ("ab", "ab", ""),
        ("ab", "abc", "c"),
        ("abc", "bcd", "d"),
        ("aaa", "aaab", "b"),
        ("ab", "xyz", "xyz"),
        ("ab", "", ""),
    ],
)
def test_what_a_tail_has_beyond_the_one_before(before: str, now: str, new: str) -> None:
    assert logs.new_lines(list(before), list(now)) == list(new)


def test_a_runners_log_is_what_the_valet_has_of_it(
    control_api: Any, told: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    control_api.answers["GET /logs"] = told(200, {"runner": "qwen", "lines": ["loading", "ready"]})
    logs.runner(control_api.client, "hf.co/a/b:Q4", is_following=False, is_json=False)
    assert capsys.readouterr().out == "loading\nready\n"
    assert control_api.requests() == ["GET /logs?runner=hf.co%2Fa%2Fb%3AQ4"]


def test_a_runner_that_is_not_ours_has_no_log_here(
    control_api: Any, told: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    control_api.answers["GET /logs"] = told(200, {"runner": "llama3", "lines": []})
    logs.runner(control_api.client, "llama3", is_following=False, is_json=False)
    assert "not one of ours" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="sends Ctrl-C")
def test_following_ends_with_ctrl_c(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "tray-valet.log").write_text(_entry("first") + "\n")
    argv = [sys.executable, "-m", "tray_valet", "logs", "-f"]
    process = subprocess.Popen(
        argv,
        env={**os.environ, "TRAY_VALET_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "first" in process.stdout.readline()
        with (home / "logs" / "tray-valet.log").open("a") as log:
            log.write(_entry("second") + "\n")
        assert "second" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.communicate()
