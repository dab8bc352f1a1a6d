"""A lock between processes that dies with its holder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tray_valet.core.errors import TimedOut
from tray_valet.desktop.file_lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from tray_valet.desktop.file_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_holder_at_a_time_and_none_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(TimedOut), locked(path, timeout_s=0.05):
            pass
        holder.kill()
    with locked(path, timeout_s=30):
        pass
    with locked(path, timeout_s=0.05):
        pass
