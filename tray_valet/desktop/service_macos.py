"""Ollama's service on macOS: Ollama.app, a launch agent (Homebrew's), or a plain program.

Decides: which of them are there, and which one keeps the server that runs. Must not: need root; all is done
in the user's own domain (gui/<uid>).

Facts: open(1) (`-a`, and `-j` for hidden, which app/cmd/app/app.go of Ollama respects); the app starts its
server again a second after it has ended (app/server/server.go); launchctl(1): bootstrap, bootout, kickstart,
enable, print; Homebrew's label is homebrew.mxcl.ollama, an older one com.ollama.ollama. `bootstrap` of what
is loaded, and of what was disabled, fails with 5 (Input/output error); `bootout` of what is not loaded says
“No such process” (3). Written from these; not run on a Mac.
"""

from __future__ import annotations

import os
from pathlib import Path

from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import ProcessIdentity, System
from tray_valet.core.service_plan import (
    FoundServer,
    ServerProcesses,
    ServerSeen,
    ServiceAction,
    ServiceSite,
    Way,
)
from tray_valet.desktop.service_calls import Call, call, refused
from tray_valet.desktop.service_program import ServeProgram

APP = "/Applications/Ollama.app"
LABELS = ("homebrew.mxcl.ollama", "com.ollama.ollama")
PROGRAM_PLACES = (
    "/usr/local/bin/ollama",
    "/opt/homebrew/bin/ollama",
    f"{APP}/Contents/Resources/ollama",
)
_IN_APP = "/Ollama.app/Contents/"
_APP_PROGRAM = "/Ollama.app/Contents/MacOS/Ollama"
_NO_SUCH_PROCESS = "no such process"


class MacService:
    """Implements `core.service_plan.EngineService`. `uid`: the user's; `home`: their folder."""

    def __init__(
        self,
        processes: ServerProcesses,
        program: ServeProgram,
        table: ProcessTable,
        *,
        uid: int,
        home: Path,
        app: Path = Path(APP),
        call: Call = call,
    ) -> None:
        self._processes = processes
        self._program = program
        self._table = table
        self._domain = f"gui/{uid}"
        self._agents = home / "Library" / "LaunchAgents"
        self._app = app
        self._call = call

    def look(self) -> ServiceSite:
        """What there is: app, agent, program, and the server with who keeps it."""
        found = self._processes.server()
        if found is not None:
            self._program.learn(found)
        label = self._label()
        ways = [Way.MAC_APP] if self._app.is_dir() else []
        ways += [Way.LAUNCH_AGENT] if label else []
        ways += [Way.PROGRAM] if self._program.find() else []
        if found is None or not found.is_certain:
            return ServiceSite(system=System.MACOS, installed=tuple(ways))
        return self._with_server(tuple(ways), found, label)

    def _with_server(self, ways: tuple[Way, ...], found: FoundServer, label: str | None) -> ServiceSite:
        process = found.process
        started = self._program.started_above(process.identity)
        apps = self._apps()
        if started is not None:
            kept_by = Way.PROGRAM
        elif _IN_APP in process.exe or process.parent_pid in {app.pid for app in apps}:
            kept_by = Way.MAC_APP
        else:
            kept_by = Way.LAUNCH_AGENT if label and self._is_loaded(label) else Way.PROGRAM
        keepers = apps if kept_by is Way.MAC_APP else (started,) if started else ()
        return ServiceSite(
            system=System.MACOS,
            installed=ways,
            server=ServerSeen(
                identity=process.identity,
                name=os.path.basename(process.exe) or "another program",
                is_ollama=found.is_ollama or started is not None,
                is_ours=True,  # the system tells other users' sockets to root alone
                kept_by=kept_by,
            ),
            keepers=tuple(keeper for keeper in keepers if keeper != process.identity),
            runners=self._processes.runners(process.identity),
        )

    def run(self, action: ServiceAction, way: Way) -> None:
        """By open and osascript, by launchctl, or start the program."""
        is_start = action is ServiceAction.START
        if way is Way.MAC_APP:
            argv = ["open", "-j", "-a", "Ollama"] if is_start else ["osascript", "-e", 'quit app "Ollama"']
            done = self._call(argv)
            if is_start and not done.is_done:
                raise refused("open", done, "Start Ollama from the Applications folder.")
            # An app that does not quit when it is asked is ended by its process.
        elif way is Way.LAUNCH_AGENT:
            label = self._label() or LABELS[0]
            self._bootstrap(label) if is_start else self._bootout(label)
        elif way is Way.PROGRAM and is_start:
            self._program.start()

    def why_ended(self) -> str:
        """Of the program that was started; launchd and the app start theirs again."""
        return self._program.why_ended()

    def _bootstrap(self, label: str) -> None:
        service = f"{self._domain}/{label}"
        if self._is_loaded(label):
            done = self._call(["launchctl", "kickstart", service])
        else:
            self._call(["launchctl", "enable", service])
            done = self._call(["launchctl", "bootstrap", self._domain, str(self._agents / f"{label}.plist")])
        if not done.is_done:
            raise refused("launchctl", done, "Try: brew services restart ollama")

    def _bootout(self, label: str) -> None:
        done = self._call(["launchctl", "bootout", f"{self._domain}/{label}"])
        if not done.is_done and done.code is not None and _NO_SUCH_PROCESS not in done.text.lower():
            raise refused("launchctl", done, "Try: brew services stop ollama")

    def _is_loaded(self, label: str) -> bool:
        return self._call(["launchctl", "print", f"{self._domain}/{label}"]).is_done

    def _label(self) -> str | None:
        return next((label for label in LABELS if (self._agents / f"{label}.plist").exists()), None)

    def _apps(self) -> tuple[ProcessIdentity, ...]:
        described = (self._table.describe(pid) for pid in self._table.all_pids())
        return tuple(p.identity for p in described if p is not None and p.exe.endswith(_APP_PROGRAM))
