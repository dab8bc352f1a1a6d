"""The files under /proc/PID and what they say.

Decides: how stat, status, cmdline, environ and exe are read and parsed.
Must not: decide which process matters; `linux_processes.py` asks.

Facts: proc_pid_stat(5), proc_pid_status(5), proc_pid_cmdline(5); PF_KTHREAD from the kernel's
include/linux/sched.h.
"""

from __future__ import annotations

import os

import msgspec

# What stores and launchers set for their games. Inherited by whatever a game starts, so never proof alone.
INTERESTING_ENV = frozenset(
    {
        "SteamAppId",
        "SteamGameId",
        "STEAM_COMPAT_APP_ID",
        "HEROIC_APP_NAME",
        "LUTRIS_GAME_UUID",
        "GAMEID",
    }
)
_ENV_NAMES = {name.encode(): name for name in INTERESTING_ENV}
_READ_CHUNK_BYTES = 8192
ARGV_MAX_BYTES = 131072  # longer command lines are cut; no rule looks that far
ENV_MAX_BYTES = 262144
_PF_KTHREAD = 0x00200000
_DELETED = b" (deleted)"
COMM_MAX_BYTES = 15  # the kernel cuts names to 15 bytes


class ProcStat(msgspec.Struct, frozen=True):
    """The fields of /proc/PID/stat that matter; times in clock ticks."""

    comm: str
    state: str
    parent_pid: int
    flags: int
    cpu_ticks: int
    thread_count: int
    start_time: int

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & _PF_KTHREAD)

    @property
    def is_dead(self) -> bool:
        # A leader that ended before its other threads shows Z too, but the process lives on.
        return self.state in "ZXx" and self.thread_count <= 1


def split_cmdline(data: bytes) -> tuple[str, ...]:
    """Split /proc/PID/cmdline on its NULs; the padding that Wine leaves at the end is cut off."""
    data = data.rstrip(b"\0")
    if not data:
        return ()
    return tuple(part.decode("utf-8", "replace") for part in data.split(b"\0"))


def interesting_env(data: bytes) -> dict[str, str]:
    """Pick the variables that the rules read from /proc/PID/environ."""
    found: dict[str, str] = {}
    for part in data.split(b"\0") if data else ():
        key, _, value = part.partition(b"=")
        name = _ENV_NAMES.get(key)
        if name is not None:
            found.setdefault(name, value.decode("utf-8", "replace"))
    return found


def stat_of(folder: int) -> ProcStat | None:
    """Read the stat of an opened /proc/PID; None when the process is gone."""
    return parse_stat(read_file(folder, "stat", 2048))


def parse_stat(data: bytes) -> ProcStat | None:
    """Parse /proc/PID/stat. The name in it may hold spaces and parentheses: it ends at the *last* `)`."""
    opening, closing = data.find(b"("), data.rfind(b")")
    if opening < 0 or closing < 0:
        return None
    fields = data[closing + 2 :].split()  # from field 3 on, as proc_pid_stat(5) numbers them
    if len(fields) < 20:
        return None
    return ProcStat(
        comm=data[opening + 1 : closing].decode("utf-8", "replace"),
        state=fields[0].decode(),
        parent_pid=int(fields[1]),
        flags=int(fields[6]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        thread_count=int(fields[17]),
        start_time=int(fields[19]),
    )


def exe_of(folder: int) -> str:
    """Tell the image of an opened /proc/PID, without the kernel's “ (deleted)”; "" where not told."""
    return exe_at("exe", folder)


def exe_at(path: str, folder: int | None = None) -> str:
    """As `exe_of`, by the path of the link."""
    target = _link_bytes(path, folder)
    if target.endswith(_DELETED) and not os.path.exists(target):
        target = target[: -len(_DELETED)]  # replaced on disk while it runs, as updates do
    return target.decode("utf-8", "replace")


def read_link(folder: int, name: str) -> str:
    """Read a link of an opened /proc/PID; "" when it cannot be read."""
    return _link_bytes(name, folder).decode("utf-8", "replace")


def _link_bytes(path: str, folder: int | None) -> bytes:
    try:
        return os.readlink(path.encode(), dir_fd=folder)
    except OSError:
        return b""


def status_sizes(data: bytes) -> dict[str, int]:
    """Pick the resident sizes (RssAnon, RssShmem, VmRSS …; kB there) from /proc/PID/status, in bytes."""
    sizes: dict[str, int] = {}
    for line in data.split(b"\n"):
        if line.startswith((b"Rss", b"VmRSS")):
            key, _, value = line.partition(b":")
            sizes[key.decode()] = int(value.split()[0]) * 1024
    return sizes


def read_file(folder: int | None, name: str, limit_bytes: int) -> bytes:
    """Read a /proc file whole, up to the limit; b"" when it cannot be read.

    `folder` is an opened /proc/PID; with None, `name` is a whole path.
    """
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return b""
    try:
        data = os.read(file, _READ_CHUNK_BYTES)
        if len(data) < _READ_CHUNK_BYTES:
            return data
        parts = [data]
        size = len(data)
        while data and size < limit_bytes:
            data = os.read(file, _READ_CHUNK_BYTES)
            parts.append(data)
            size += len(data)
        return b"".join(parts)[:limit_bytes]
    except OSError:
        return b""
    finally:
        os.close(file)
