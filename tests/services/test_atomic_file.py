"""Whole files, whatever happens."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tray_valet.services.atomic_file import write_atomically

WRITER = """
import sys
from tray_valet.services.atomic_file import write_atomically
i = 0
while True:
    i += 1
    write_atomically(sys.argv[1], (str(i % 10) * 200_000).encode())
    if i == 1:
        print("writing", flush=True)
"""


def test_content_mode_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.yaml"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.yaml"]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    write_atomically(path, b"")
    assert path.read_bytes() == b""


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_an_open_mode_is_closed_by_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    path.chmod(0o644)
    write_atomically(path, b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "real.yaml"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "config.yaml"
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_nothing_is_left_behind_where_it_fails(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x").write_bytes(b"")
    with pytest.raises(OSError):  # noqa: PT011 (which one differs by system)
        write_atomically(folder, b"a file cannot replace a folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_what_killed_writers_left_is_cleared_once_it_is_old(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".a.1-00.tmp", ".a.2-00.tmp", ".b.1-00.tmp"))
    for path in (old, young, other):
        path.write_bytes(b"")
    hour_ago_s = time.time() - 3600
    for path in (old, other):
        os.utime(path, (hour_ago_s, hour_ago_s))
    write_atomically(tmp_path / "a", b"x")
    assert not old.exists()
    assert young.exists()
    assert other.exists()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_v17_a_killed_writer_never_leaves_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"0" * 200_000)
    dice = random.Random(17)
    for _ in range(15):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
            time.sleep(dice.uniform(0, 0.03))  # the moment of the kill is the point
            writer.send_signal(signal.SIGKILL)
        content = path.read_bytes()
        assert len(content) == 200_000
        assert len(set(content)) == 1
