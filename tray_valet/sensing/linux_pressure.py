"""Linux's word that memory runs short: a PSI trigger on /proc/pressure/memory.

Decides: how much stalling is worth a notice. Must not: judge what follows from it.

Facts: the kernel's Documentation/accounting/psi.rst and kernel/sched/psi.c. A trigger is a line
`some <stall> <window>` in microseconds, written with its NUL (the last byte is overwritten by one), and
lives as long as the file is open. Without CAP_SYS_RESOURCE the window must be a multiple of 2 s, and kernels
before 6.4 refuse (EPERM). Events come as POLLPRI, once a window at most; POLLERR means that the source is
gone. The file itself is always readable, so the loop watches an epoll that waits for POLLPRI alone; asking
whether that epoll is readable already takes the event, so the call is the notice, whatever is read then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
from collections.abc import Callable
from pathlib import Path

from tray_valet.core.errors import NotSupported
from tray_valet.sensing.notice_pace import NoticePace

# Half of systemd's default for its services (200 ms in 2 s): a look costs a few milliseconds.
_STALL_S = 0.1
_WINDOW_S = 2
_MICROSECONDS = 1_000_000


class LinuxPressure:
    """`PressureNotices` over PSI. Loop thread only; no thread of its own."""

    source = "PSI"

    def __init__(
        self,
        *,
        file: Path = Path("/proc/pressure/memory"),
        stall_s: float = _STALL_S,
        window_s: int = _WINDOW_S,
    ) -> None:
        """A notice when some task waited for memory `stall_s` of any `window_s` (a multiple of 2)."""
        self._file = file
        self._trigger = f"some {round(stall_s * _MICROSECONDS)} {window_s * _MICROSECONDS}\0".encode()
        self._missing_because: str | None = None

    @property
    def missing_because(self) -> str | None:
        """Why no notice will come, or None; known once `run` has tried."""
        return self._missing_because

    async def run(self, on_notice: Callable[[], None]) -> None:
        """Tell of pressure until cancelled; without PSI only wait."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as at_end:
            pace = NoticePace(on_notice, loop)
            at_end.callback(pace.close)
            try:
                events = self._register(at_end)
            except NotSupported as error:
                self._missing_because = error.message
            else:
                self._missing_because = None
                loop.add_reader(events.fileno(), self._heard, events, pace)
                at_end.callback(loop.remove_reader, events.fileno())
            await asyncio.Event().wait()

    def _register(self, at_end: contextlib.ExitStack) -> select.epoll:
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            at_end.callback(os.close, descriptor)
            os.write(descriptor, self._trigger)
            events = select.epoll()
            at_end.callback(events.close)
            events.register(descriptor, select.EPOLLPRI | select.EPOLLERR)
        except OSError as error:
            raise NotSupported(_reason(error)) from error
        return events

    def _heard(self, events: select.epoll, pace: NoticePace) -> None:
        happened = events.poll(0)  # also makes the epoll unreadable again
        if any(mask & select.EPOLLERR for _, mask in happened):
            # It would be told again and again, as fast as the loop can turn.
            asyncio.get_running_loop().remove_reader(events.fileno())
            self._missing_because = "the kernel has taken its pressure figures away"
            return
        pace.tell()


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP):
        return "this kernel keeps no pressure figures (PSI)"
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return "the kernel, or this container, does not let us ask for pressure notices (PSI)"
    return f"the kernel takes no PSI trigger: {error.strerror}"
