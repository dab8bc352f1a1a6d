"""One valet for each user: the second is refused, and the lock is free again afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tray_valet.desktop.single_instance import AlreadyRunning, InstanceLock


def test_the_second_is_refused_until_the_first_has_let_go(tmp_path: Path) -> None:
    first, second = InstanceLock(tmp_path / "lock"), InstanceLock(tmp_path / "lock")
    first.acquire()
    with pytest.raises(AlreadyRunning):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_that_cannot_be_made_is_not_taken_for_another_valet(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="lock"):
        InstanceLock(tmp_path / "no-folder" / "lock").acquire()
