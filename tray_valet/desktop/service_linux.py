"""Ollama's service on Linux: a systemd unit of the user, or a plain program.

Decides: which of them are there, and which one keeps the server that runs. Must not: ask for a password,
or command the system's own systemd.

Facts: systemctl(1): `cat` fails for a unit that does not exist, `is-enabled` prints `disabled` or `masked`;
systemd.unit(5) on `~/.config/systemd/user`; cgroups(7) on /proc/PID/cgroup, whose path names the unit;
namespaces(7) on /proc/PID/ns/pid; Ollama's own installer (scripts/install.sh) makes a system unit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tray_valet.core.processes import Process, System
from tray_valet.core.service_plan import ServerProcesses, ServerSeen, ServiceAction, ServiceSite, Way
from tray_valet.desktop.service_calls import Call, call, refused
from tray_valet.desktop.service_program import ServeProgram

UNIT = "ollama.service"
_CONTAINER = re.compile(r"docker|libpod|podman|containerd|kubepods|crio|/lxc|machine\.slice")
# What listens here for a server in a container.
_FORWARDERS = frozenset({"docker-proxy", "rootlessport", "rootlesskit", "pasta", "pasta.avx2", "slirp4netns"})
_OFF = frozenset({"disabled", "masked"})


class LinuxService:
    """Implements `core.service_plan.EngineService`."""

    def __init__(
        self,
        processes: ServerProcesses,
        program: ServeProgram,
        *,
        may_end: Callable[[int], bool],
        call: Call = call,
        proc: str = "/proc",
    ) -> None:
        """`may_end`: whether the system lets us end that process; `proc` is where procfs is mounted."""
        self._processes = processes
        self._program = program
        self._may_end = may_end
        self._call = call
        self._proc = proc

    def look(self) -> ServiceSite:
        """What there is: units, a program, and the server with who keeps it."""
        found = self._processes.server()
        if found is not None:
            self._program.learn(found)
        installed = self._installed()
        if found is None:
            return ServiceSite(system=System.LINUX, installed=installed)
        identity = found.process.identity
        started = self._program.started_above(identity)
        is_ours = self._may_end(identity.pid)
        if not found.is_certain and is_ours:  # a server of ours that listens elsewhere
            return ServiceSite(system=System.LINUX, installed=installed)
        return ServiceSite(
            system=System.LINUX,
            installed=installed,
            server=ServerSeen(
                identity=identity,
                name=_name(found.process),
                is_ollama=found.is_ollama or started is not None,
                is_ours=is_ours,
                is_certain=found.is_certain,
                kept_by=Way.PROGRAM if started else self._keeper(found.process),
            ),
            keepers=(started,) if started is not None and started != identity else (),
            runners=self._processes.runners(identity),
        )

    def run(self, action: ServiceAction, way: Way) -> None:
        """By systemctl, or start the program; a program is stopped by whoever asked."""
        if way is Way.USER_UNIT:
            done = self._call(["systemctl", "--user", action.value, UNIT])
            if not done.is_done and done.code is not None:
                raise refused("systemctl", done, f"See: systemctl --user status {UNIT}")
        elif way is Way.PROGRAM and action is ServiceAction.START:
            self._program.start()

    def why_ended(self) -> str:
        """Of the program that was started; systemd restarts a unit by itself."""
        return self._program.why_ended()

    def _installed(self) -> tuple[Way, ...]:
        ways = []
        if self._call(["systemctl", "--user", "cat", UNIT]).is_done:
            ways.append(Way.USER_UNIT)
        elif self._has_system_unit():
            ways.append(Way.SYSTEM_UNIT)
        if self._program.find() is not None:
            ways.append(Way.PROGRAM)
        return tuple(ways)

    def _has_system_unit(self) -> bool:
        """One that is switched off does not count: it is not how this user runs Ollama."""
        if not self._call(["systemctl", "cat", UNIT]).is_done:
            return False
        return self._call(["systemctl", "is-enabled", UNIT]).text not in _OFF

    def _keeper(self, process: Process) -> Way:
        pid = process.identity.pid
        groups = self._read(f"{pid}/cgroup")
        if _name(process) in _FORWARDERS or self._is_in_container(pid, groups):
            return Way.CONTAINER
        if UNIT in groups:
            return Way.USER_UNIT if "user@" in groups else Way.SYSTEM_UNIT
        return Way.PROGRAM

    def _is_in_container(self, pid: int, groups: str) -> bool:
        try:
            return os.readlink(f"{self._proc}/{pid}/ns/pid") != os.readlink(f"{self._proc}/self/ns/pid")
        except OSError:  # another user's: its groups are for all to see
            return bool(_CONTAINER.search(groups)) and not _CONTAINER.search(self._read("self/cgroup"))

    def _read(self, name: str) -> str:
        try:
            return (Path(self._proc) / name).read_text(errors="replace")
        except OSError:
            return ""


def program_places(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where installers put `ollama`, for those whose PATH lacks it."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return ("/usr/local/bin/ollama", "/usr/bin/ollama", os.path.join(home, ".local/bin/ollama"))


def may_be_signalled(pid: int) -> bool:
    """Whether the system would let us end that process. Not for Windows: there 0 is a signal."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except OSError:
        return True  # gone: nothing is in the way
    return True


def _name(process: Process) -> str:
    path = process.exe.removesuffix(" (deleted)") or (process.argv[0] if process.argv else "")
    return os.path.basename(path) or "another program"
