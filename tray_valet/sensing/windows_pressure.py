"""Windows' word that memory runs short: a memory resource notification.

Decides: how often low memory that lasts is told. Must not: judge what follows from it.

Facts: learn.microsoft.com, CreateMemoryResourceNotification (memoryapi.h; type 0 = low memory; NULL on
failure; the object is signalled for as long as the condition exists), CreateEventW, SetEvent and
WaitForMultipleObjects (synchapi.h; of several signalled objects the first of the array is told, 258 = timed
out, 0xFFFFFFFF = failed). The wait blocks, so it has a thread of its own, which a second object ends.
Importable everywhere; it works on Windows.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable
from typing import Any

from tray_valet.core.errors import NotSupported
from tray_valet.sensing.notice_pace import NoticePace

_LOG = logging.getLogger(__name__)
_LOW_MEMORY = 0  # MEMORY_RESOURCE_NOTIFICATION_TYPE
_STOPPED = 0  # WAIT_OBJECT_0: the first of the objects
_IS_LOW = 1
_TIMED_OUT = 258
_FOR_EVER_MS = 0xFFFFFFFF
_REST_MS = 5000  # between notices while memory stays low
_THREAD_END_S = 1.0


class WindowsPressure:
    """`PressureNotices` over the low-memory notification."""

    source = "memory resource notification"

    def __init__(self, load_kernel32: Callable[[], Any] | None = None) -> None:
        """`load_kernel32` gives the library; it raises NotSupported elsewhere than on Windows."""
        self._load_kernel32 = load_kernel32 or kernel32
        self._missing_because: str | None = None

    @property
    def missing_because(self) -> str | None:
        """Why no notice will come, or None; known once `run` has tried."""
        return self._missing_because

    async def run(self, on_notice: Callable[[], None]) -> None:
        """Tell of low memory, every few seconds while it lasts, until cancelled."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as at_end:
            pace = NoticePace(on_notice, loop)
            at_end.callback(pace.close)
            try:
                wait = _LowMemoryWait(self._load_kernel32(), at_end)
            except NotSupported as error:
                self._missing_because = error.message
            else:
                self._missing_because = None
                wait.begin(
                    on_low=lambda: _call(loop, pace.tell),
                    on_failed=lambda reason: _call(loop, self._fail, reason),
                )
                at_end.callback(wait.end)
            await asyncio.Event().wait()

    def _fail(self, reason: str) -> None:
        self._missing_because = reason


class _LowMemoryWait:
    """A thread that waits for low memory. Its two handles are closed by `at_end`, after the thread's end."""

    def __init__(self, kernel: Any, at_end: contextlib.ExitStack) -> None:
        self._kernel = kernel
        self._low = self._opened(kernel.CreateMemoryResourceNotification(_LOW_MEMORY), at_end)
        # No security attributes, set until it is reset, not set yet, no name.
        self._stop = self._opened(kernel.CreateEventW(None, True, False, None), at_end)
        self._thread: threading.Thread | None = None

    def begin(self, *, on_low: Callable[[], None], on_failed: Callable[[str], None]) -> None:
        """Start to wait. Both are called in the thread."""
        # A daemon: it must not hold up the end of a process that forgot to cancel.
        self._thread = threading.Thread(
            target=self._watch, args=(on_low, on_failed), name="low memory", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """End the thread, which takes no longer than to be scheduled."""
        self._kernel.SetEvent(self._stop)
        if self._thread is not None:
            self._thread.join(_THREAD_END_S)

    def _watch(self, on_low: Callable[[], None], on_failed: Callable[[str], None]) -> None:
        while True:
            told = self._wait((self._stop, self._low), _FOR_EVER_MS)
            if told == _IS_LOW:
                on_low()
                told = self._wait((self._stop,), _REST_MS)
                if told == _TIMED_OUT:
                    continue
            if told != _STOPPED:
                on_failed("Windows does not tell of low memory: the wait for it failed")
            return

    def _wait(self, handles: tuple[int, ...], timeout_ms: int) -> int:
        array = (ctypes.c_void_p * len(handles))(*handles)
        return int(self._kernel.WaitForMultipleObjects(len(handles), array, False, timeout_ms))

    def _opened(self, handle: int | None, at_end: contextlib.ExitStack) -> int:
        if not handle:
            raise NotSupported("Windows does not tell of low memory: it gives no handle for it")
        at_end.callback(self._kernel.CloseHandle, handle)
        return handle


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *values: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, *values)
    except RuntimeError:  # the loop has ended without us
        _LOG.debug("Low memory was told to a loop that has ended")


def kernel32() -> Any:
    """kernel32.dll with the functions declared that are used here. Raises NotSupported."""
    load = getattr(ctypes, "WinDLL", None)
    if load is None:
        raise NotSupported("memory resource notifications are Windows'")
    library: Any = load("kernel32", use_last_error=True)
    handle, flag, word = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32  # HANDLE, BOOL, DWORD
    library.CreateMemoryResourceNotification.argtypes = (ctypes.c_int,)
    library.CreateMemoryResourceNotification.restype = handle
    library.CreateEventW.argtypes = (handle, flag, flag, ctypes.c_wchar_p)
    library.CreateEventW.restype = handle
    library.SetEvent.argtypes = (handle,)
    library.SetEvent.restype = flag
    library.WaitForMultipleObjects.argtypes = (word, ctypes.POINTER(handle), flag, word)
    library.WaitForMultipleObjects.restype = word
    library.CloseHandle.argtypes = (handle,)
    library.CloseHandle.restype = flag
    return library
