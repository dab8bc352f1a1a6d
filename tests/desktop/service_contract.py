"""What every system's service adapter must do: one class of tests, with recorded runs of its tools.

An adapter's test class subclasses `ServiceContract` and gives `machine`: an `EngineService` with a
`Recorded` behind it, on which exactly one way is installed and no server runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage
from tray_valet.core.service_plan import EngineService, FoundServer, ServiceAction, ServiceRefused, Way
from tray_valet.desktop.service_calls import Called, DetachedProgram
from tray_valet.desktop.service_program import ServeProgram

URL = "http://127.0.0.1:11434"
SERVER, RUNNER = ProcessIdentity(100, 1), ProcessIdentity(101, 1)
_NOT_THERE = Called(code=1, text="not there")


class Recorded:
    """The machine: answers to tools by their words (the longest that fits), processes, started programs."""

    def __init__(self) -> None:
        self.answers: dict[str, Called] = {}
        self.calls: list[list[str]] = []
        self.spawned: list[tuple[list[str], dict[str, str]]] = []
        self.processes: dict[int, Process] = {}
        self.found: FoundServer | None = None
        self.refusal: ServiceRefused | None = None

    def call(self, argv: Sequence[str]) -> Called:
        self.calls.append(list(argv))
        words = " ".join(argv)
        fitting = [known for known in self.answers if words.endswith(known) or words.startswith(known)]
        return self.answers[max(fitting, key=len)] if fitting else _NOT_THERE

    def spawn(self, argv: Sequence[str], environ: Mapping[str, str], log_file: Path) -> DetachedProgram:
        if self.refusal is not None:
            raise self.refusal
        self.spawned.append((list(argv), dict(environ)))
        program = object.__new__(DetachedProgram)
        program._process = _Ended()  # type: ignore[assignment]
        program._name, program._log_file = "ollama", log_file
        return program

    def runs(
        self, exe: str, *argv: str, is_certain: bool = True, is_ollama: bool = True, parent: int = 1
    ) -> None:
        """Have a server listen."""
        process = Process(
            identity=SERVER, exe=exe, argv=argv or (exe, "serve"), parent_pid=parent, parent_name="init"
        )
        self.processes[SERVER.pid] = process
        self.found = FoundServer(process=process, is_certain=is_certain, is_ollama=is_ollama)

    def also(self, pid: int, exe: str) -> ProcessIdentity:
        """Have another process run."""
        identity = ProcessIdentity(pid, 1)
        self.processes[pid] = Process(identity=identity, exe=exe, argv=(exe,), parent_pid=1)
        return identity

    # -- ServerProcesses --

    def server(self) -> FoundServer | None:
        return self.found

    def runners(self, server: ProcessIdentity) -> tuple[ProcessIdentity, ...]:
        return (RUNNER,)

    # -- ProcessTable --

    def describe(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def all_pids(self) -> Sequence[int]:
        return list(self.processes)

    def is_alive(self, identity: ProcessIdentity) -> bool:
        return identity.pid in self.processes

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        return tuple(p.identity for p in self.processes.values() if p.parent_pid == pid)

    def listening_on(self, port: int) -> ProcessIdentity | None:
        return None

    def usage(self, processes: Sequence[ProcessIdentity]) -> ProcessUsage:
        return ProcessUsage()

    def terminate(self, identity: ProcessIdentity) -> None: ...

    def kill(self, identity: ProcessIdentity) -> None: ...


class _Ended:
    """A program that ended with 3."""

    pid = 4242

    def poll(self) -> int:
        return 3


def program_at(recorded: Recorded, *places: str, environ: Mapping[str, str] | None = None) -> ServeProgram:
    """`ollama serve` that is only written down."""
    return ServeProgram(
        places,
        URL,
        environ={"PATH": "/nowhere", **(environ or {})},
        log_file=Path("/nowhere/log"),
        table=recorded,
        spawn=recorded.spawn,
    )


class ServiceContract:
    """Give `recorded`, `service` (one way is installed) and `way`."""

    @pytest.fixture
    def recorded(self) -> Recorded:
        return Recorded()

    def test_what_is_installed_is_seen_and_nothing_runs(self, service: EngineService, way: Way) -> None:
        site = service.look()
        assert site.installed == (way,)
        assert (site.server, site.keepers, site.runners) == (None, (), ())

    def test_a_look_changes_nothing(self, service: EngineService, recorded: Recorded) -> None:
        service.look()
        words = {word for call in recorded.calls for word in call}
        assert not words & {"start", "stop", "restart", "bootstrap", "bootout", "kickstart", "-a", "-e"}
        assert recorded.spawned == []

    def test_nothing_goes_through_a_shell(self, service: EngineService, recorded: Recorded, way: Way) -> None:
        recorded.answers[""] = Called(code=0)
        service.look()
        for action in (ServiceAction.START, ServiceAction.STOP):
            service.run(action, way)
        assert all(call[0] not in ("sh", "cmd", "bash", "powershell") for call in recorded.calls)
        assert recorded.calls or recorded.spawned

    def test_a_start_that_is_refused_says_why_and_what_helps(
        self, service: EngineService, recorded: Recorded, way: Way
    ) -> None:
        recorded.answers = {"": Called(code=5, text="one\nAccess is denied.")}
        recorded.refusal = ServiceRefused("Access is denied.", remedy="Install it anew.")
        with pytest.raises(ServiceRefused, match="Access is denied") as error:
            service.run(ServiceAction.START, way)
        assert error.value.remedy

    def test_as_long_as_nothing_was_started_nothing_has_ended(self, service: EngineService) -> None:
        assert service.why_ended() == ""
