"""Ports for servers that tests start: of a range out of which no system names any by itself.

A port that the system has named (by a bind to 0) is given to somebody else as soon as nobody holds it, also
to the near end of a connection. So it may be gone when the server that it was looked up for binds it, or
when a server that was killed comes back at its address.
"""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _PER_WORKER, _WORKERS = 12_000, 750, 8
# Elsewhere in each run, so that two runs on one machine seldom meet.
_OFFSETS = itertools.count(os.getpid() * 37)


def quiet_port() -> int:
    """A port of 127.0.0.1 that is free, and that no other test of this run was given lately."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    for offset in itertools.islice(_OFFSETS, _PER_WORKER):
        port = _FIRST + worker * _PER_WORKER + offset % _PER_WORKER
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("every port for tests is taken")
