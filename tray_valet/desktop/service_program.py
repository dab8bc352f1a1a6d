"""The server as a plain program: `ollama serve`, started so that it goes on without us.

Decides: which `ollama` is started, at which address it listens, and which process is the one we started.
Must not: end it (`services/service_desk.py` does).

Source: envconfig/config.go of Ollama: OLLAMA_HOST is `host`, `host:port` or either behind a scheme; the
port is 11434 unless a scheme says 80 or 443.
"""

from __future__ import annotations

import ntpath
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tray_valet.core.addresses import split_url
from tray_valet.core.child_environment import child_environment
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.service_plan import FoundServer, ServiceRefused
from tray_valet.desktop.service_calls import DetachedProgram

_HOST = "OLLAMA_HOST"
_DEFAULT_PORT = 11434
Spawn = Callable[[Sequence[str], Mapping[str, str], Path], DetachedProgram]


class ServeProgram:
    """`ollama serve` for the server at `url`. `places`: where an `ollama` may be besides PATH."""

    def __init__(
        self,
        places: Sequence[str],
        url: str,
        *,
        environ: Mapping[str, str],
        log_file: Path,
        table: ProcessTable,
        spawn: Spawn = DetachedProgram,
    ) -> None:
        self._places = places
        self._url = url
        self._environ = environ
        self._log_file = log_file
        self._table = table
        self._spawn = spawn
        self._program: DetachedProgram | None = None
        self._started: ProcessIdentity | None = None
        self._seen_at = ""

    def find(self) -> str | None:
        """The absolute path of the program, or None."""
        on_path = shutil.which("ollama", path=self._environ.get("PATH"))
        if on_path is not None:
            return os.path.abspath(on_path)
        return next((place for place in (*self._places, self._seen_at) if is_program(place)), None)

    def learn(self, server: FoundServer) -> None:
        """Note where the program of a server that runs lies: it may be started from there again."""
        exe = server.process.exe
        if server.is_ollama and ntpath.basename(exe).lower() in ("ollama", "ollama.exe"):
            self._seen_at = exe

    def start(self) -> None:
        """Start it. Raises ServiceRefused."""
        path = self.find()
        if path is None:
            raise ServiceRefused("There is no program ollama.", remedy="Install Ollama, or put it on PATH.")
        environ = child_environment(self._environ)
        if port_of_host(environ.get(_HOST, "")) != _port_of(self._url):
            environ[_HOST] = self._url.partition("://")[2].strip("/")
        self._program = self._spawn([path, "serve"], environ, self._log_file)
        seen = self._table.describe(self._program.pid)
        self._started = seen.identity if seen else None

    def why_ended(self) -> str:
        """Why the one that was started has ended; "" while it runs."""
        return self._program.why_ended() if self._program is not None else ""

    def started_above(self, server: ProcessIdentity) -> ProcessIdentity | None:
        """The process that we started, if `server` is it or below it."""
        self.why_ended()  # one that has ended is forgotten by the system only when it is asked for
        started = self._started
        if started is None or not self._table.is_alive(started):
            return None
        is_it = server == started or server in self._table.descendants(started.pid)
        return started if is_it else None


def is_program(path: str) -> bool:
    """Whether that is a file that may be run."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def port_of_host(value: str) -> int:
    """The port that a value of OLLAMA_HOST means."""
    text = value.strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    default = {"http": 80, "https": 443}.get(scheme, _DEFAULT_PORT) if separator else _DEFAULT_PORT
    host_and_port = (rest if separator else text).rstrip("/")
    port = host_and_port.rpartition(":")[2] if ":" in host_and_port.rpartition("]")[2] else ""
    return int(port) if port.isdigit() and int(port) < 65536 else default


def _port_of(url: str) -> int:
    parts = split_url(url)
    if parts is None:
        return _DEFAULT_PORT
    return parts.port or (443 if parts.scheme == "https" else 80)
