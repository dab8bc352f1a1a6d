r"""Ollama's service on Windows: a service by that name, Ollama's tray app, or a plain program.

Decides: which of them are there, and which one keeps the server that runs. Must not: ask for administrator
rights.

Facts: `sc` ends with Windows' own error codes (learn.microsoft.com, “System Error Codes”): 5 access denied,
1056 runs already, 1060 no such service, 1062 not started. The installer puts `ollama app.exe` and
`ollama.exe` into %LOCALAPPDATA%\Programs\Ollama; `hidden` keeps the app's window closed and
`--fast-startup` its updates for later (app/cmd/app/app.go of Ollama); the app starts its server again a
second after it has ended (app/server/server.go). Written from these; not run on Windows.
"""

from __future__ import annotations

import ntpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tray_valet.core.child_environment import child_environment
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import Process, ProcessIdentity, System
from tray_valet.core.service_plan import (
    FoundServer,
    ServerProcesses,
    ServerSeen,
    ServiceAction,
    ServiceSite,
    Way,
)
from tray_valet.desktop.service_calls import Call, Called, DetachedProgram, call, refused
from tray_valet.desktop.service_program import ServeProgram, Spawn, is_program

SERVICE = "Ollama"
ACCESS_DENIED, ALREADY_RUNNING, NOT_STARTED = 5, 1056, 1062
_APP_NAME, _SERVER_NAME, _SERVICES = "ollama app.exe", "ollama.exe", "services.exe"
_AS_ADMINISTRATOR = "As an administrator: sc {word} Ollama."


class WindowsService:
    """Implements `core.service_plan.EngineService`. `may_end`: whether that process is the user's own."""

    def __init__(
        self,
        processes: ServerProcesses,
        program: ServeProgram,
        table: ProcessTable,
        *,
        environ: Mapping[str, str],
        log_file: Path,
        may_end: Callable[[int], bool],
        call: Call = call,
        spawn: Spawn = DetachedProgram,
        exists: Callable[[str], bool] = is_program,
    ) -> None:
        self._processes = processes
        self._program = program
        self._table = table
        self._environ = environ
        self._log_file = log_file
        self._may_end = may_end
        self._call = call
        self._spawn = spawn
        self._exists = exists

    def look(self) -> ServiceSite:
        """What there is: service, app, program, and the server with who keeps it."""
        found = self._processes.server()
        if found is not None:
            self._program.learn(found)
        has_service = self._sc("query").is_done
        ways = [Way.WINDOWS_SERVICE] if has_service else []
        ways += [Way.WINDOWS_APP] if self._app_path() else []
        ways += [Way.PROGRAM] if self._program.find() else []
        if found is None or not found.is_certain:
            return ServiceSite(system=System.WINDOWS, installed=tuple(ways))
        return self._with_server(tuple(ways), found)

    def _with_server(self, ways: tuple[Way, ...], found: FoundServer) -> ServiceSite:
        process = found.process
        started = self._program.started_above(process.identity)
        apps = self._apps()
        is_ours = self._may_end(process.identity.pid)
        if started is not None:
            kept_by = Way.PROGRAM
        elif Way.WINDOWS_SERVICE in ways and (_parent(process) == _SERVICES or not is_ours):
            kept_by = Way.WINDOWS_SERVICE
        else:
            kept_by = Way.WINDOWS_APP if apps else Way.PROGRAM
        keepers = apps if kept_by is Way.WINDOWS_APP else (started,) if started else ()
        # Of a service's process the arguments are hidden, and often its program too.
        names = (_SERVER_NAME, "") if kept_by is Way.WINDOWS_SERVICE else (_SERVER_NAME,)
        is_ollama = found.is_ollama or (not process.argv and _file(process.exe) in names)
        return ServiceSite(
            system=System.WINDOWS,
            installed=ways,
            server=ServerSeen(
                identity=process.identity,
                name=_file(process.exe) or "another program",
                is_ollama=is_ollama or started is not None,
                is_ours=is_ours,
                kept_by=kept_by,
            ),
            keepers=tuple(keeper for keeper in keepers if keeper != process.identity),
            runners=self._processes.runners(process.identity),
        )

    def run(self, action: ServiceAction, way: Way) -> None:
        """By sc, or start the app or the program; these are stopped by whoever asked."""
        is_start = action is ServiceAction.START
        if way is Way.WINDOWS_SERVICE:
            word = "start" if is_start else "stop"
            done = self._sc(word)
            if done.code not in (0, None, ALREADY_RUNNING if is_start else NOT_STARTED):
                raise refused("sc", done, _AS_ADMINISTRATOR.format(word=word))
        elif way is Way.WINDOWS_APP and is_start:
            path = self._app_path() or _APP_NAME
            argv = [path, "hidden", "--fast-startup"]
            self._spawn(argv, child_environment(self._environ), self._log_file)
        elif way is Way.PROGRAM and is_start:
            self._program.start()

    def why_ended(self) -> str:
        """Of the program that was started; services and the app start theirs again."""
        return self._program.why_ended()

    def _sc(self, word: str) -> Called:
        root = self._environ.get("SystemRoot", r"C:\Windows")
        return self._call([ntpath.join(root, "System32", "sc.exe"), word, SERVICE])

    def _app_path(self) -> str | None:
        path = installed_path(self._environ, _APP_NAME)
        return path if path and self._exists(path) else None

    def _apps(self) -> tuple[ProcessIdentity, ...]:
        """This user's tray app."""
        wanted = installed_path(self._environ, _APP_NAME)
        described = (self._table.describe(pid) for pid in self._table.all_pids())
        return tuple(
            p.identity
            for p in described
            if p is not None and _file(p.exe) == _APP_NAME and wanted and _same(p.exe, wanted)
        )


def program_places(environ: Mapping[str, str]) -> Sequence[str]:
    """Where the installer puts `ollama.exe`."""
    path = installed_path(environ, _SERVER_NAME)
    return (path,) if path else ()


def installed_path(environ: Mapping[str, str], name: str) -> str | None:
    """The path of one of the installer's programs; None where the system names no such folder."""
    folder = environ.get("LOCALAPPDATA")
    return ntpath.join(folder, "Programs", "Ollama", name) if folder else None


def is_own_process(pid: int) -> bool:
    """Whether a process runs as the user that we run as."""
    import psutil

    try:
        return bool(psutil.Process(pid).username() == psutil.Process().username())
    except psutil.Error:
        return False


def _parent(process: Process) -> str:
    return process.parent_name.lower()


def _file(path: str) -> str:
    return ntpath.basename(path).lower()


def _same(one: str, other: str) -> bool:
    return ntpath.normcase(one) == ntpath.normcase(other)
