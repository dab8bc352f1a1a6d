"""What macOS tells of a process through libproc, sysctl and its bundle.

Decides: a process's arguments, parent and start time. Must not: read more of its memory than that.

Facts: xnu bsd/sys/proc_info.h (`struct proc_bsdinfo`, PROC_PIDTBSDINFO = 3; 136 bytes) and libproc.h
(`proc_pidinfo` answers the size it filled in); sysctl KERN_PROCARGS2 (CTL_KERN 1, 49): argc as an int, the
exe's path, NULs, argc arguments, the environment (which is not looked at). Both answer for our own
user's processes. The start time is read here because psutil's follows changes of the system's clock.
Importable everywhere; it works on macOS.
"""

from __future__ import annotations

import ctypes
import sys
from xml.parsers.expat import ExpatError

from tray_valet.sensing.portable_processes import PortableProcesses

_CTL_KERN = 1
_KERN_PROCARGS2 = 49
_PIDTBSDINFO = 3
_MICROSECONDS = 1_000_000
_MOST_BUNDLES = 500  # remembered
_MAX_ARGV_BYTES = 1 << 20  # macOS' ARG_MAX


class Bundles:
    """The categories of application bundles, each read once.

    Source: LSApplicationCategoryType in Contents/Info.plist (developer.apple.com, Bundle Resources);
    games say `public.app-category.games` or `public.app-category.…-games`.
    """

    def __init__(self) -> None:
        self._categories: dict[str, str] = {}

    def marks(self, exe: str) -> dict[str, str]:
        """Tell the category of the innermost bundle that holds the program; {} without one."""
        bundle, found, _ = exe.rpartition("/Contents/MacOS/")
        if not found or not bundle.endswith(".app"):
            return {}
        if bundle not in self._categories:
            if len(self._categories) >= _MOST_BUNDLES:
                self._categories.clear()
            self._categories[bundle] = _category(bundle)
        category = self._categories[bundle]
        return {"bundle_category": category} if category else {}


def _category(bundle: str) -> str:
    import plistlib

    try:
        with open(f"{bundle}/Contents/Info.plist", "rb") as file:
            content = plistlib.load(file)
    except (OSError, ValueError, plistlib.InvalidFileException, ExpatError):
        return ""  # not there or broken: it says nothing
    value = content.get("LSApplicationCategoryType", "") if isinstance(content, dict) else ""
    return value if isinstance(value, str) else ""


class BsdInfo(ctypes.Structure):
    """`struct proc_bsdinfo`."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("flags", "status", "xstatus", "pid", "ppid")),
        *((name, ctypes.c_uint32) for name in ("uid", "gid", "ruid", "rgid", "svuid", "svgid", "rfu_1")),
        ("comm", ctypes.c_char * 16),
        ("name", ctypes.c_char * 32),
        *((name, ctypes.c_uint32) for name in ("nfiles", "pgid", "pjobc", "e_tdev", "e_tpgid")),
        ("nice", ctypes.c_int32),
        ("start_tvsec", ctypes.c_uint64),
        ("start_tvusec", ctypes.c_uint64),
    )


class MacReader:
    """`SystemReader` of macOS."""

    def __init__(self) -> None:
        """Load the system's libraries. Raises OSError elsewhere than on macOS."""
        self._bundles = Bundles()
        self._libproc = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
        self._libproc.proc_pidinfo.argtypes = (
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_uint64,
            ctypes.c_void_p,
            ctypes.c_int,
        )
        self._libproc.proc_pidinfo.restype = ctypes.c_int
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.sysctl.argtypes = (
            ctypes.POINTER(ctypes.c_int),
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.c_void_p,
            ctypes.c_size_t,
        )
        self._libc.sysctl.restype = ctypes.c_int

    def argv(self, pid: int) -> tuple[str, ...]:
        """Tell the arguments; () for other users' processes."""
        mib = (ctypes.c_int * 3)(_CTL_KERN, _KERN_PROCARGS2, pid)
        raw = ctypes.create_string_buffer(_MAX_ARGV_BYTES)
        size = ctypes.c_size_t(_MAX_ARGV_BYTES)
        if self._libc.sysctl(mib, 3, raw, ctypes.byref(size), None, 0) != 0:
            return ()
        return argv_of(ctypes.string_at(raw, size.value))

    def parent_pid(self, pid: int) -> int | None:
        """Tell the parent's PID; None for other users' processes."""
        info = self._info(pid)
        return int(info.ppid) if info is not None else None

    def start_time(self, pid: int) -> int | None:
        """Tell the start in microseconds since the epoch; None for other users' processes."""
        info = self._info(pid)
        return int(info.start_tvsec) * _MICROSECONDS + int(info.start_tvusec) if info is not None else None

    def marks(self, exe: str) -> dict[str, str]:
        """Tell the category that the program's bundle gives itself, as `bundle_category`."""
        return self._bundles.marks(exe)

    def _info(self, pid: int) -> BsdInfo | None:
        info = BsdInfo()
        size = ctypes.sizeof(info)
        filled = self._libproc.proc_pidinfo(pid, _PIDTBSDINFO, 0, ctypes.byref(info), size)
        return info if filled == size else None


def argv_of(raw: bytes) -> tuple[str, ...]:
    """Read the answer of KERN_PROCARGS2; exactly argc arguments, never the environment behind them."""
    if len(raw) < 4:
        return ()
    count = int.from_bytes(raw[:4], sys.byteorder)
    _, found, rest = raw[4:].partition(b"\0")
    if not found or count <= 0:
        return ()
    parts = rest.lstrip(b"\0").split(b"\0")[:count]
    return tuple(part.decode("utf-8", "replace") for part in parts)


def macos_processes() -> PortableProcesses:
    """Build macOS' process table. Raises OSError elsewhere."""
    return PortableProcesses(MacReader())
