"""V15: Ollama's runners are told from its server, and from everybody else's llama-server, by parentage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage
from tray_valet.providers.ollama_processes import OllamaProcesses, is_server
from tray_valet.services.clock import SystemClock
from tray_valet.services.server_end import ServerEnd

_TABLE = json.loads((Path(__file__).parents[1] / "data" / "service_processes.json").read_text())
CASES: list[dict[str, Any]] = _TABLE["processes"]


def _process(case: dict[str, Any], start_time: int = 1) -> Process:
    return Process(
        identity=ProcessIdentity(case["pid"], start_time),
        exe=case["exe"],
        argv=tuple(case["argv"]),
        parent_pid=case["parent"],
    )


class Told:
    """A process table of the cases. A process that was killed is gone."""

    def __init__(self, listener: int | None = _TABLE["listener"]) -> None:
        self.processes = {case["pid"]: _process(case) for case in CASES}
        self.listener = listener
        self.killed: list[int] = []

    def describe(self, pid: int) -> Process | None:
        found = self.processes.get(pid)
        is_hidden = found is None or (not found.argv and not found.exe)  # zombies are not described
        return None if is_hidden else found

    def all_pids(self) -> Sequence[int]:
        return list(self.processes)

    def is_alive(self, identity: ProcessIdentity) -> bool:
        found = self.processes.get(identity.pid)
        return found is not None and found.identity == identity

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        below = [p for p in self.processes.values() if p.parent_pid == pid]
        return tuple(i for p in below for i in (p.identity, *self.descendants(p.identity.pid)))

    def listening_on(self, port: int) -> ProcessIdentity | None:
        return self.processes[self.listener].identity if self.listener else None

    def usage(self, processes: Sequence[ProcessIdentity]) -> ProcessUsage:
        return ProcessUsage()

    def terminate(self, identity: ProcessIdentity) -> None:
        self.kill(identity)

    def kill(self, identity: ProcessIdentity) -> None:
        if self.is_alive(identity):
            self.killed.append(identity.pid)
            del self.processes[identity.pid]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_v15_every_process_is_told_for_what_it_is(case: dict[str, Any]) -> None:
    table = Told()
    processes = OllamaProcesses(table, 11434)
    found = processes.server()
    assert found is not None
    assert (found.process.identity.pid, found.is_certain, found.is_ollama) == (100, True, True)
    runners = {identity.pid for identity in processes.runners(found.process.identity)}
    verdict = "runner" if case["pid"] in runners else "server" if is_server(_process(case)) else "other"
    assert verdict == case["is"]


async def test_v15_force_kills_the_runners_of_this_server_and_nothing_else() -> None:
    table = Told()
    processes = OllamaProcesses(table, 11434)
    found = processes.server()
    assert found is not None
    await ServerEnd(table, SystemClock()).kill(processes.runners(found.process.identity))
    assert sorted(table.killed) == [case["pid"] for case in CASES if case["force"]]


async def test_v15_a_pid_that_was_given_to_another_process_is_not_killed() -> None:
    table = Told()
    processes = OllamaProcesses(table, 11434)
    found = processes.server()
    assert found is not None
    runners = processes.runners(found.process.identity)
    reused = next(case for case in CASES if case["pid"] == 101)
    table.processes[101] = _process(reused, start_time=2)
    await ServerEnd(table, SystemClock()).kill(runners)
    assert 101 in table.processes


def test_of_several_servers_whose_sockets_are_hidden_none_is_taken() -> None:
    assert OllamaProcesses(Told(listener=None), 11434).server() is None


def test_a_proxy_that_listens_is_told_as_none_of_ollamas() -> None:
    found = OllamaProcesses(Told(listener=205), 11434).server()
    assert found is not None
    assert not found.is_ollama
