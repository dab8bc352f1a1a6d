"""Where the log goes, and where it is read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tray_valet.desktop.log_files import log_path, start_log


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(path: Path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


def test_the_log_goes_where_the_settings_say(tmp_path: Path) -> None:
    wished, usual = tmp_path / "deep" / "wished.log", tmp_path / "usual.log"
    assert start_log(usual, "info", file=str(wished)) == wished
    logging.getLogger("x").info("hello")
    assert lines(wished) == ["hello"]
    assert not usual.exists()
    assert log_path(usual, str(wished)) == wished


@pytest.mark.parametrize("place", ["folder", "file/x.log"])
def test_a_place_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    wished, usual = tmp_path / place, tmp_path / "usual.log"
    assert start_log(usual, "info", file=str(wished)) == usual
    (said,) = lines(usual)
    assert "log.file" in said
    assert str(wished) in said
    assert log_path(usual, str(wished)) == usual


def test_without_a_place_at_all_it_fails(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        start_log(tmp_path, "info")
