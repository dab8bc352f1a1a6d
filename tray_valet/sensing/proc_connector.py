"""Process starts told by the Linux kernel: the netlink proc connector.

Decides: whether the connector works here (it is tried, not guessed), and which PIDs have `exec`ed.
Must not: look into the processes; the watch does.

Only EXEC is listened to. A fork alone keeps the image and, where it matters (a game that forks and
leaves), the watch looks at everything before it tells the parent's exit; without FORK and EXIT nothing
wakes us while nothing starts.

Facts: the kernel's drivers/connector/cn_proc.c, include/uapi/linux/cn_proc.h and connector.h. From Linux
6.6 on it needs no privilege and filters by event in the kernel (`struct proc_input`, 8 bytes); before, it
wants CAP_NET_ADMIN (bind: EPERM) and takes 4 bytes, silently ignoring anything else. A private network
namespace has no connector (send: ECONNREFUSED). PIDs are those of the first PID namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

from tray_valet.core.errors import NotSupported
from tray_valet.sensing.process_sources import StartListener

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = 1
_CN_VAL_PROC = 1
_NLMSG_DONE = 3
_MCAST_LISTEN = 1
_MCAST_IGNORE = 2
_EVENT_EXEC = 0x00000002
_NLMSG_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, sender's port
_CN_HEADER = struct.Struct("=IIIIHH")  # idx, val, sequence, ack, length, flags
_EVENT_AT = _NLMSG_HEADER.size + _CN_HEADER.size
_EVENT_HEADER = struct.Struct("=IIQ")  # what, CPU, nanoseconds since boot
_EXEC_DATA = struct.Struct("=ii")  # thread's PID, process's PID
_EXEC_BYTES = _EVENT_AT + _EVENT_HEADER.size + _EXEC_DATA.size
_BUFFER_BYTES = 4 * 1024 * 1024  # some 4000 events, where the kernel grants it; 256 are usual
_SELF_TEST_S = 0.5
_SO_ATTACH_FILTER = 26


class ProcConnector:
    """`StartSource` over the proc connector. Loop thread only."""

    name = "proc connector"
    # An exec is told as it happens; these are for what changes without one, such as Wine, which puts
    # the game's own path into its argv when it has started up.
    relook_ages_s = (0.1, 0.3, 1.0, 2.5, 5.0)

    def __init__(self, *, buffer_bytes: int = _BUFFER_BYTES) -> None:
        """`buffer_bytes` is asked for; the kernel grants what net.core.rmem_max allows."""
        self._buffer_bytes = buffer_bytes
        self._socket: socket.socket | None = None
        self._listener: StartListener | None = None
        self._awaited_pid = 0
        self._awaited: asyncio.Event | None = None

    async def open(self, listener: StartListener) -> None:
        """Subscribe and prove by a process of our own that events come, within a second or so.

        Raises NotSupported with the reason.
        """
        self._listener = listener
        # First as kernels from 6.6 on want it, then as those before do; the other is never answered.
        for request in (
            struct.pack("=II", _MCAST_LISTEN, _EVENT_EXEC),
            struct.pack("=I", _MCAST_LISTEN),
        ):
            self._subscribe(request)
            with contextlib.suppress(NotSupported):
                return await self.check()
            self._unsubscribe()
        raise NotSupported(f"no event came for a process of our own within {_SELF_TEST_S:g} s")

    async def check(self) -> None:
        """Start a process that ends at once and wait for its event. Raises NotSupported if none comes."""
        arrived = asyncio.Event()
        pid = _start_test_process()
        # Its event may be in the socket already, but is only read when the loop turns.
        self._awaited_pid, self._awaited = pid, arrived
        try:
            await asyncio.wait_for(arrived.wait(), _SELF_TEST_S)
        except TimeoutError:
            raise NotSupported(f"no event came for a process of our own within {_SELF_TEST_S:g} s") from None
        finally:
            self._awaited = None
            await _reap(pid)

    def close(self) -> None:
        """Unsubscribe and stop."""
        self._unsubscribe()
        self._listener = None

    # -- the socket ----------------------------------------------------------------------------------

    def _subscribe(self, request: bytes) -> None:
        family = getattr(socket, "AF_NETLINK", None)
        if family is None:
            raise NotSupported("this system has no netlink sockets")
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | _nonblocking(), _NETLINK_CONNECTOR)
        except OSError as error:
            raise NotSupported(_reason(error)) from error
        self._socket = sock
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
            _attach_filter(sock)
            sock.bind((0, _CN_IDX_PROC))
            sock.send(_message(request))
        except OSError as error:
            self._socket = None
            sock.close()
            raise NotSupported(_reason(error)) from error
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def _unsubscribe(self) -> None:
        sock, self._socket = self._socket, None
        if sock is None:
            return
        asyncio.get_running_loop().remove_reader(sock.fileno())
        with contextlib.suppress(OSError):  # closing ends it too, but old kernels count listeners
            sock.send(_message(struct.pack("=I", _MCAST_IGNORE)))
        sock.close()

    def _readable(self) -> None:
        listener, sock = self._listener, self._socket
        if listener is None or sock is None:
            return
        pids: list[int] = []
        try:
            for pid in _receive(sock):
                pids.append(pid)
                if pid == self._awaited_pid and self._awaited is not None:
                    self._awaited.set()
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                listener.missed_some()
            else:
                self._unsubscribe()
                listener.lost(_reason(error))
        if pids:
            listener.heard(pids)


def _receive(sock: socket.socket) -> Iterator[int]:
    """Yield the PIDs of the execs that wait in the socket. Raises OSError, ENOBUFS when some were lost."""
    while True:
        try:
            data, sender = sock.recvfrom(1024)
        except (BlockingIOError, InterruptedError):
            return
        # Any local program may send to us; only the kernel has port 0.
        if sender[0] != 0 or len(data) < _EXEC_BYTES:
            continue
        what, _, _ = _EVENT_HEADER.unpack_from(data, _EVENT_AT)
        if what == _EVENT_EXEC:
            _, pid = _EXEC_DATA.unpack_from(data, _EVENT_AT + _EVENT_HEADER.size)
            yield pid


def _message(request: bytes) -> bytes:
    payload = _CN_HEADER.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, len(request), 0) + request
    return _NLMSG_HEADER.pack(_NLMSG_HEADER.size + len(payload), _NLMSG_DONE, 0, 0, 0) + payload


def _attach_filter(sock: socket.socket) -> None:
    """Let the kernel drop everything but EXEC; older kernels tell every fork, thread and exit.

    A classic BPF program (socket(7), linux/filter.h): it loads big-endian, hence the `htonl`.
    """
    import ctypes

    load_word, jump_equal, answer = 0x20, 0x15, 0x06
    program = b"".join(
        struct.pack("=HBBI", *step)
        for step in (
            (load_word, 0, 0, _EVENT_AT),
            (jump_equal, 0, 1, socket.htonl(_EVENT_EXEC)),
            (answer, 0, 0, 0xFFFFFFFF),
            (answer, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))  # alive until the kernel has copied it
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("@HP", len(program) // 8, ctypes.addressof(held)),
    )


def _nonblocking() -> int:
    return int(getattr(socket, "SOCK_NONBLOCK", 0)) | int(getattr(socket, "SOCK_CLOEXEC", 0))


def _reason(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "not permitted; it takes Linux 6.6, or CAP_NET_ADMIN"
    if error.errno == errno.ECONNREFUSED:
        return "not available in this network namespace or kernel"
    return error.strerror or str(error)


def _start_test_process() -> int:
    try:
        # posix_spawn, not fork: there are threads. /bin/sh is the one program that is everywhere.
        return os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {})
    except OSError as error:
        raise NotSupported(f"no process could be started to test it: {error.strerror}") from error


async def _reap(pid: int) -> None:
    """Wait for the test process, a second at most."""
    for _ in range(100):
        if _is_reaped(pid):
            return
        await asyncio.sleep(0.01)


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True  # somebody reaps all children of this process
