"""Which way a server is started and stopped, for every mix of what may be on a machine; or why not."""

from __future__ import annotations

import pytest

from tray_valet.core.errors import NotSupported
from tray_valet.core.processes import ProcessIdentity, System
from tray_valet.core.service_plan import (
    ServerSeen,
    ServiceAction,
    ServicePlan,
    ServiceSite,
    Way,
    plan_for,
)

START, STOP, RESTART = ServiceAction.START, ServiceAction.STOP, ServiceAction.RESTART
URL = "http://127.0.0.1:11434"


def server(
    kept_by: Way = Way.PROGRAM, *, is_ollama: bool = True, is_ours: bool = True, is_certain: bool = True
) -> ServerSeen:
    return ServerSeen(
        identity=ProcessIdentity(10, 1),
        name="ollama" if is_ollama else "docker-proxy",
        is_ollama=is_ollama,
        is_ours=is_ours,
        is_certain=is_certain,
        kept_by=kept_by,
    )


def plan(
    action: ServiceAction,
    *installed: Way,
    seen: ServerSeen | None = None,
    is_answering: bool | None = None,
    system: System = System.LINUX,
) -> ServicePlan:
    site = ServiceSite(system=system, installed=installed, server=seen)
    answers = seen is not None if is_answering is None else is_answering
    return plan_for(action, site, provider="ollama", url=URL, is_answering=answers)


@pytest.mark.parametrize("way", [w for w in Way if w not in (Way.SYSTEM_UNIT, Way.CONTAINER)])
def test_a_server_is_started_by_the_first_way_there_is(way: Way) -> None:
    assert plan(START, way, Way.PROGRAM) == ServicePlan(start_by=way)


def test_a_server_that_runs_is_not_started_again() -> None:
    assert plan(START, Way.PROGRAM, seen=server()) == ServicePlan()
    assert plan(START, Way.PROGRAM, is_answering=True) == ServicePlan()


@pytest.mark.parametrize("way", [w for w in Way if w not in (Way.SYSTEM_UNIT, Way.CONTAINER)])
def test_a_server_is_stopped_by_what_keeps_it(way: Way) -> None:
    assert plan(STOP, Way.PROGRAM, seen=server(way)) == ServicePlan(stop_by=way)


def test_a_server_that_does_not_run_needs_no_stop() -> None:
    assert plan(STOP, Way.PROGRAM) == ServicePlan()
    assert plan(STOP) == ServicePlan()
    # A unit that is restarted again and again has no server at the moment.
    assert plan(STOP, Way.USER_UNIT) == ServicePlan(stop_by=Way.USER_UNIT)


def test_a_program_beside_a_unit_is_stopped_with_the_unit() -> None:
    assert plan(STOP, Way.USER_UNIT, Way.PROGRAM, seen=server()) == ServicePlan(stop_by=Way.USER_UNIT)


def test_a_restart_goes_the_way_it_came() -> None:
    assert plan(RESTART, Way.SYSTEM_UNIT, Way.PROGRAM, seen=server()) == ServicePlan(
        stop_by=Way.PROGRAM, start_by=Way.PROGRAM
    )
    assert plan(RESTART, Way.MAC_APP, Way.LAUNCH_AGENT, seen=server(Way.LAUNCH_AGENT)) == ServicePlan(
        stop_by=Way.LAUNCH_AGENT, start_by=Way.LAUNCH_AGENT
    )
    assert plan(RESTART, Way.USER_UNIT) == ServicePlan(start_by=Way.USER_UNIT)


@pytest.mark.parametrize("action", [STOP, RESTART])
@pytest.mark.parametrize(
    ("seen", "installed", "says"),
    [
        (server(Way.SYSTEM_UNIT), (Way.SYSTEM_UNIT,), "sudo systemctl {} ollama"),
        (server(Way.SYSTEM_UNIT, is_ours=False), (Way.SYSTEM_UNIT,), "sudo systemctl {} ollama"),
        (server(Way.SYSTEM_UNIT), (Way.USER_UNIT,), "sudo systemctl {} ollama"),
        (server(Way.CONTAINER), (Way.PROGRAM,), "docker {} NAME"),
        (server(is_ours=False), (Way.PROGRAM,), "as that user"),
        (server(is_ollama=False), (Way.PROGRAM,), "docker-proxy (process 10)"),
        (None, (Way.SYSTEM_UNIT,), "sudo systemctl {} ollama"),
        (None, (Way.PROGRAM,), "another user"),
        (None, (), "another user"),
    ],
)
def test_what_is_not_ours_is_refused_with_the_remedy(
    action: ServiceAction, seen: ServerSeen | None, installed: tuple[Way, ...], says: str
) -> None:
    with pytest.raises(NotSupported) as error:
        plan(action, *installed, seen=seen, is_answering=True)
    assert says.format(action.value) in str(error.value)
    assert error.value.remedy


def test_a_hidden_windows_service_is_the_administrators() -> None:
    with pytest.raises(NotSupported, match="sc stop Ollama"):
        plan(RESTART, Way.WINDOWS_SERVICE, is_answering=True, system=System.WINDOWS)


@pytest.mark.parametrize(
    ("installed", "says"),
    [((), "ollama.com/download"), ((Way.SYSTEM_UNIT, Way.PROGRAM), "sudo systemctl start")],
)
def test_what_cannot_be_started_is_refused_with_the_remedy(installed: tuple[Way, ...], says: str) -> None:
    for action in (START, RESTART):
        with pytest.raises(NotSupported, match=says):
            plan(action, *installed)


def test_a_server_that_was_only_guessed_counts_while_the_address_answers() -> None:
    guessed = server(Way.SYSTEM_UNIT, is_ours=False, is_certain=False)
    assert plan(START, Way.PROGRAM, seen=guessed, is_answering=False) == ServicePlan(start_by=Way.PROGRAM)
    assert plan(STOP, Way.PROGRAM, seen=guessed, is_answering=False) == ServicePlan()
    with pytest.raises(NotSupported, match="sudo systemctl stop"):
        plan(STOP, Way.PROGRAM, seen=guessed, is_answering=True)
