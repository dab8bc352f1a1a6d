"""Control groups that run short of memory while the machine has plenty: real pressure without danger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Where control groups are made, and the file that limits their memory: version 1, version 2.
_GROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
_LIMIT_BYTES = 32 << 20


def takes_triggers() -> bool:
    """Whether the running kernel grants us a PSI trigger."""
    try:
        with Path("/proc/pressure/memory").open("r+b", buffering=0) as file:
            file.write(b"some 100000 2000000\0")
    except OSError:
        return False
    return True


def small_group_or_skip() -> Iterator[Path]:
    """A control group that may use 32 MB; what runs in it and reads more waits for memory."""
    group = _make()
    if group is None:
        pytest.skip("no control group with a limit on memory can be made here")
    try:
        yield group
    finally:
        group.rmdir()


def _make() -> Path | None:
    for root, limit in _GROUPS:
        group = root / f"tray-valet-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            # Not created where it is missing: then this version's groups do not limit memory here.
            with (group / limit).open("r+") as file:
                file.write(str(_LIMIT_BYTES))
        except OSError:
            group.rmdir()
        else:
            return group
    return None
