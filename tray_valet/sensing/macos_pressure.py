"""macOS' word that memory runs short: its pressure level, read every few seconds.

Decides: which change of the level is worth a notice (a rise). Must not: judge what follows from it.

Facts: xnu bsd/kern/kern_memorystatus_notify.c: sysctl `kern.memorystatus_vm_pressure_level` is an unsigned
int that any user may read, 1 normal, 2 warning, 4 critical, as in dispatch/source.h. It is polled since
nothing else serves from here: kqueue's EVFILT_VM is switched off (bsd/kern/kern_event.c: bad_filtops), its
EVFILT_MEMORYSTATUS is private, and a dispatch source would call us from a thread of its own. A level stays
for hours at times, hence only rises are told. Importable everywhere; it works on macOS.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable
from typing import Any

from tray_valet.core.errors import NotSupported
from tray_valet.sensing.notice_pace import NoticePace

_LEVEL = b"kern.memorystatus_vm_pressure_level"
_NORMAL = 1
_POLL_S = 2.0


class Rises:
    """Tells a rise from a level that stays or falls."""

    def __init__(self) -> None:
        self._before = _NORMAL

    def has_risen_to(self, level: int) -> bool:
        """Whether this level is above the one before (at first: above normal)."""
        before, self._before = self._before, max(level, _NORMAL)
        return level > before


class MacPressure:
    """`PressureNotices` over the kernel's pressure level; a read takes microseconds."""

    source = "memory pressure level"

    def __init__(
        self,
        *,
        read_level: Callable[[], int] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`read_level` tells the level (1, 2, 4), or raises NotSupported; `sleep` waits (seconds)."""
        self._read_level = read_level or pressure_level
        self._sleep = sleep
        self._missing_because: str | None = None

    @property
    def missing_because(self) -> str | None:
        """Why no notice will come, or None; known once `run` has tried."""
        return self._missing_because

    async def run(self, on_notice: Callable[[], None]) -> None:
        """Tell of every rise, and of a level that is raised already, until cancelled."""
        pace = NoticePace(on_notice, asyncio.get_running_loop())
        self._missing_because = None
        rises = Rises()
        try:
            while True:
                if rises.has_risen_to(self._read_level()):
                    pace.tell()
                await self._sleep(_POLL_S)
        except NotSupported as error:
            self._missing_because = error.message
            await asyncio.Event().wait()
        finally:
            pace.close()


def pressure_level() -> int:
    """The kernel's pressure level: 1 normal, 2 warning, 4 critical. Raises NotSupported."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "sysctlbyname"):
        raise NotSupported("the memory pressure level is macOS'")
    level = ctypes.c_uint32()
    size = ctypes.c_size_t(ctypes.sizeof(level))
    # sysctl(3): name, where to, its size, what to set (nothing), its size
    libc.sysctlbyname.argtypes = (
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_size_t),
        ctypes.c_void_p,
        ctypes.c_size_t,
    )
    if libc.sysctlbyname(_LEVEL, ctypes.byref(level), ctypes.byref(size), None, 0) != 0:
        raise NotSupported(f"macOS does not tell its memory pressure: {os.strerror(ctypes.get_errno())}")
    return level.value
