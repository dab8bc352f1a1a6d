"""TCP sockets of this machine, from /proc/net/tcp and tcp6, and who holds them.

Decides: which sockets answer on a port of loopback, and which are connected to it. Must not: connect.

Facts: kernel Documentation/networking/proc_net_tcp.rst (address in host byte order, inode in the tenth
column) and include/net/tcp_states.h (01 = ESTABLISHED, 0A = LISTEN); proc_pid_fd(5) (`socket:[inode]`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

_ESTABLISHED, _LISTEN = "01", "0A"
_MAPPED_V4 = bytes(10) + b"\xff\xff"


def listener_inodes(proc: str, port: int) -> frozenset[str]:
    """Name the sockets (inode numbers) that listen on `port` of loopback or of all addresses.

    `proc` is where procfs is mounted. One on loopback is preferred to one on all addresses: it is the
    one that a connection to 127.0.0.1 reaches.
    """
    exact: set[str] = set()
    wildcard: set[str] = set()
    for fields in _rows(proc, _LISTEN):
        address, _, port_hex = fields[1].rpartition(":")
        if int(port_hex, 16) != port:
            continue
        raw = _address(address)
        if not any(raw):
            wildcard.add(fields[9])
        elif _is_loopback(raw):
            exact.add(fields[9])
    return frozenset(exact or wildcard)


def client_inodes(proc: str, port: int) -> frozenset[str]:
    """Name the sockets (inode numbers) that are connected to `port` of this machine, from the callers' side.

    A caller may have used another address of this machine than loopback: then the other end is listed too.
    """
    callers: list[tuple[bytes, str]] = []
    answering: set[bytes] = set()
    for fields in _rows(proc, _ESTABLISHED):
        if _port(fields[1]) == port:
            answering.add(_plain(_address(fields[1].rpartition(":")[0])))
        if _port(fields[2]) == port:
            callers.append((_address(fields[2].rpartition(":")[0]), fields[9]))
    return frozenset(
        inode for address, inode in callers if _is_loopback(address) or _plain(address) in answering
    )


def _port(text: str) -> int:
    return int(text.rpartition(":")[2], 16)


def _plain(raw: bytes) -> bytes:
    """An IPv4 address as such, also where an IPv6 socket carries it."""
    return raw.removeprefix(_MAPPED_V4) if len(raw) == 16 else raw


def _rows(proc: str, state: str) -> Iterator[list[str]]:
    """The fields of every TCP socket in that state."""
    for name in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/net/{name}", encoding="ascii") as table:
                lines = table.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) >= 10 and fields[3] == state:
                yield fields


def socket_inodes_of(proc: str, pid: int) -> frozenset[str]:
    """Name the sockets (inode numbers) that a process holds; empty where we may not look."""
    folder = f"{proc}/{pid}/fd"
    found: set[str] = set()
    try:
        handles = os.listdir(folder)
    except OSError:
        return frozenset()
    for handle in handles:
        try:
            target = os.readlink(f"{folder}/{handle}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return frozenset(found)


def _address(text: str) -> bytes:
    """The address in network order; the kernel prints each 32-bit word in the machine's own order."""
    words = bytes.fromhex(text)
    if sys.byteorder == "big":
        return words
    return b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))


def _is_loopback(raw: bytes) -> bool:
    if len(raw) == 4:
        return raw[0] == 127
    if raw.startswith(_MAPPED_V4):
        return raw[12] == 127 or not any(raw[12:])
    return raw == bytes(15) + b"\x01"
