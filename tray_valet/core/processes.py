"""What is known of an operating-system process, and what it uses.

Decides: the form in which every system's processes reach the rules.
Must not: read /proc or ask the system (`sensing/` does).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class System(StrEnum):
    """The operating systems whose path and process rules differ."""

    LINUX = "linux"
    WINDOWS = "windows"
    MACOS = "macos"


class ProcessIdentity(msgspec.Struct, frozen=True, order=True):
    """One process for ever: PIDs are reused, PID + start time is not.

    `start_time` is in the system's own unit (Linux: clock ticks since boot; others: microseconds since
    the epoch) and only compared for equality.
    """

    pid: int
    start_time: int


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process as it was when it was looked at; it may `exec` into something else later."""

    identity: ProcessIdentity
    exe: str = ""  # absolute path; "" where the system does not tell
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}  # only the variables that the rules read
    parent_pid: int = 0
    parent_name: str = ""
    cwd: str = ""


class ProcessUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Memory and CPU of a set of processes. `ram_bytes` counts anonymous and shared memory, not mapped
    files, where the system tells them apart; `cpu_s` is CPU seconds since the processes started."""

    ram_bytes: int = 0
    resident_bytes: int = 0  # mapped files included
    cpu_s: float = 0.0
