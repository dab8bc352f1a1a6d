"""What Windows tells of a process through the harmless kind of handle.

Decides: a process's command line and parent, asked with PROCESS_QUERY_LIMITED_INFORMATION only.
Must not: read another process's memory, ask for VM_READ, or enable SeDebugPrivilege: anti-cheat software
watches for that. A process that refuses the handle is left alone.

Facts: learn.microsoft.com, NtQueryInformationProcess (winternl.h): class 0 is PROCESS_BASIC_INFORMATION,
class 60 (ProcessCommandLineInformation, Windows 8.1 and later) a UNICODE_STRING followed by its text;
CommandLineToArgvW (shellapi.h) splits it as C programs see it. psutil's own `cmdline` tries
PROCESS_VM_READ first, hence not that. Importable everywhere; it works on Windows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tray_valet.sensing.portable_processes import PortableProcesses

_QUERY_LIMITED_INFORMATION = 0x1000
_BASIC_INFORMATION = 0
_COMMAND_LINE_INFORMATION = 60
_INFO_LENGTH_MISMATCH = 0xC0000004
_BUFFER_TOO_SMALL = 0xC0000023
_MAX_BYTES = 65536 + 64  # a UNICODE_STRING counts its bytes in 16 bits


class _UnicodeString(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_ushort),  # bytes, without a final NUL
        ("maximum_length", ctypes.c_ushort),
        ("buffer", ctypes.c_void_p),
    )


class _BasicInformation(ctypes.Structure):
    _fields_ = (
        ("exit_status", ctypes.c_void_p),
        ("peb_base_address", ctypes.c_void_p),  # never followed
        ("affinity_mask", ctypes.c_void_p),
        ("base_priority", ctypes.c_void_p),
        ("unique_process_id", ctypes.c_void_p),
        ("inherited_from_unique_process_id", ctypes.c_void_p),
    )


class WindowsReader:
    """`SystemReader` of Windows."""

    def __init__(self) -> None:
        """Load the system's libraries. Raises OSError elsewhere than on Windows."""
        load = getattr(ctypes, "WinDLL", None)
        if load is None:
            raise OSError("these are Windows' libraries")
        self._kernel32: Any = load("kernel32", use_last_error=True)
        self._ntdll: Any = load("ntdll")
        self._shell32: Any = load("shell32", use_last_error=True)
        _declare(self._kernel32, self._ntdll, self._shell32)

    def argv(self, pid: int) -> tuple[str, ...]:
        """Tell the arguments; () where the process does not let itself be asked."""
        with self._handle(pid) as handle:
            raw = self._query(handle, _COMMAND_LINE_INFORMATION, 1024) if handle else None
        if raw is None:
            return ()
        line = command_line_of(raw)
        return self._split(line) if line else ()

    def parent_pid(self, pid: int) -> int | None:
        """Tell the parent's PID (which may have ended and be another's by now); None if refused."""
        with self._handle(pid) as handle:
            size = ctypes.sizeof(_BasicInformation)
            raw = self._query(handle, _BASIC_INFORMATION, size) if handle else None
        if raw is None:
            return None
        return _BasicInformation.from_buffer(raw).inherited_from_unique_process_id or 0

    def start_time(self, pid: int) -> int | None:
        """Left to psutil, which asks with the same harmless handle."""
        return None

    def marks(self, exe: str) -> dict[str, str]:
        """Nothing is known."""
        return {}

    @contextmanager
    def _handle(self, pid: int) -> Iterator[int | None]:
        handle = self._kernel32.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
        try:
            yield handle or None
        finally:
            if handle:
                self._kernel32.CloseHandle(handle)

    def _query(self, handle: int, what: int, size_bytes: int) -> ctypes.Array[ctypes.c_char] | None:
        needed = ctypes.c_ulong(0)
        while size_bytes <= _MAX_BYTES:
            raw = ctypes.create_string_buffer(size_bytes)
            status = self._ntdll.NtQueryInformationProcess(
                handle, what, raw, size_bytes, ctypes.byref(needed)
            )
            if status >= 0:
                return raw
            if status & 0xFFFFFFFF not in (_INFO_LENGTH_MISMATCH, _BUFFER_TOO_SMALL):
                return None
            size_bytes = max(needed.value, size_bytes * 2)
        return None

    def _split(self, line: str) -> tuple[str, ...]:
        count = ctypes.c_int(0)
        parts = self._shell32.CommandLineToArgvW(line, ctypes.byref(count))
        if not parts:
            return (line,)
        try:
            return tuple(str(parts[n]) for n in range(count.value))
        finally:
            self._kernel32.LocalFree(parts)


def _declare(kernel32: Any, ntdll: Any, shell32: Any) -> None:
    """Say what the functions take and give; without it 64-bit handles and pointers are cut to 32."""
    kernel32.OpenProcess.argtypes = (ctypes.c_ulong, ctypes.c_int, ctypes.c_ulong)
    kernel32.OpenProcess.restype = ctypes.c_void_p
    kernel32.CloseHandle.argtypes = (ctypes.c_void_p,)
    kernel32.CloseHandle.restype = ctypes.c_int
    kernel32.LocalFree.argtypes = (ctypes.c_void_p,)
    kernel32.LocalFree.restype = ctypes.c_void_p
    ntdll.NtQueryInformationProcess.argtypes = (
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.POINTER(ctypes.c_ulong),
    )
    ntdll.NtQueryInformationProcess.restype = ctypes.c_long
    shell32.CommandLineToArgvW.argtypes = (ctypes.c_wchar_p, ctypes.POINTER(ctypes.c_int))
    shell32.CommandLineToArgvW.restype = ctypes.POINTER(ctypes.c_wchar_p)


def command_line_of(raw: ctypes.Array[ctypes.c_char]) -> str:
    """Read the answer of ProcessCommandLineInformation: a UNICODE_STRING whose text lies behind it.

    Its pointer is only used to find the text inside `raw`; anything else reads as "".
    """
    head = _UnicodeString.from_buffer(raw)
    offset = (head.buffer or 0) - ctypes.addressof(raw)
    if not ctypes.sizeof(_UnicodeString) <= offset <= len(raw) - head.length:
        return ""
    return raw.raw[offset : offset + head.length].decode("utf-16-le", "replace")


def windows_processes() -> PortableProcesses:
    """Build Windows' process table. Raises OSError elsewhere."""
    return PortableProcesses(WindowsReader())
