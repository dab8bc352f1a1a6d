"""A valet of a user whom the system knows no home folder of."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.whole.valet_process import PATIENCE_S


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, "it did not come true in time"
        time.sleep(0.05)


_WITHOUT_A_HOME = """
import os, pwd, sys
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
from tray_valet.cli import main
sys.exit(main(["serve", "--allow-root"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows the folders of its users")
def test_a_user_without_a_home_folder_is_served_from_the_folder_that_is_named(tmp_path: Path) -> None:
    home = tmp_path / "valet"
    home.mkdir(mode=0o700)
    (home / "config.yaml").write_text('{"control": {"port": 0}, "router": {"port": 0}, "providers": {}}')
    (home / "config.yaml").chmod(0o600)
    valet = subprocess.Popen(
        [sys.executable, "-c", _WITHOUT_A_HOME],
        env={"TRAY_VALET_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "said").open("wb"),
    )
    try:
        until(lambda: (home / "state" / "runtime.json").exists() or valet.poll() is not None)
        assert valet.poll() is None, (tmp_path / "said").read_text()
        valet.terminate()
        assert valet.wait(PATIENCE_S) == 0
    finally:
        valet.kill()
        valet.wait()
    lines = (home / "logs" / "tray-valet.log").read_text().splitlines()
    assert not [line for line in lines if json.loads(line)["level"] == "error"]
