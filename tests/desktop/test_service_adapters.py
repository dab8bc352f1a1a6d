"""Services on Linux, macOS and Windows: what their tools are asked, and what is made of the answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.desktop.service_contract import RUNNER, SERVER, Recorded, ServiceContract, program_at
from tray_valet.core.service_plan import ServiceAction, ServiceRefused, Way
from tray_valet.desktop.service_calls import MISSING, Called, call
from tray_valet.desktop.service_linux import LinuxService, may_be_signalled
from tray_valet.desktop.service_macos import MacService
from tray_valet.desktop.service_program import ServeProgram, port_of_host
from tray_valet.desktop.service_windows import WindowsService

DONE = Called(code=0)
START, STOP, RESTART = ServiceAction.START, ServiceAction.STOP, ServiceAction.RESTART
LOCAL = r"C:\Users\me\AppData\Local"
APP_EXE, SERVER_EXE = rf"{LOCAL}\Programs\Ollama\ollama app.exe", rf"{LOCAL}\Programs\Ollama\ollama.exe"
SC = r"C:\Windows\System32\sc.exe"


@pytest.fixture
def ollama(tmp_path: Path) -> str:
    """A program of that name."""
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


# -- Linux -----------------------------------------------------------------------------------------------


def linux(recorded: Recorded, *places: str, proc: Path | None = None, ours: bool = True) -> LinuxService:
    return LinuxService(
        recorded,
        program_at(recorded, *places),
        may_end=lambda _pid: ours,
        call=recorded.call,
        proc=str(proc or "/nowhere"),
    )


class TestLinuxUnit(ServiceContract):
    way = pytest.fixture(lambda self: Way.USER_UNIT)

    @pytest.fixture
    def service(self, recorded: Recorded) -> LinuxService:
        recorded.answers["systemctl --user cat ollama.service"] = DONE
        return linux(recorded)

    @pytest.mark.parametrize("action", ServiceAction)
    def test_systemctl_is_asked_as_the_user(
        self, service: LinuxService, recorded: Recorded, action: ServiceAction
    ) -> None:
        recorded.answers["systemctl --user"] = DONE
        service.run(action, Way.USER_UNIT)
        assert recorded.calls == [["systemctl", "--user", action.value, "ollama.service"]]

    def test_a_stop_that_takes_its_time_is_no_failure(
        self, service: LinuxService, recorded: Recorded
    ) -> None:
        recorded.answers["stop ollama.service"] = Called(code=None)
        service.run(STOP, Way.USER_UNIT)


class TestLinuxProgram(ServiceContract):
    way = pytest.fixture(lambda self: Way.PROGRAM)

    @pytest.fixture
    def service(self, recorded: Recorded, ollama: str) -> LinuxService:
        return linux(recorded, ollama)

    def test_it_serves(self, service: LinuxService, recorded: Recorded, ollama: str) -> None:
        service.run(START, Way.PROGRAM)
        ((argv, environ),) = recorded.spawned
        assert argv == [ollama, "serve"]
        assert "OLLAMA_HOST" not in environ
        service.run(STOP, Way.PROGRAM)  # by signals, which are others' to send
        assert len(recorded.spawned) == 1

    def test_one_that_ended_says_so(self, service: LinuxService) -> None:
        service.run(START, Way.PROGRAM)
        assert service.why_ended() == "ollama ended with 3."


def test_a_system_unit_comes_before_the_program_unless_it_is_switched_off(ollama: str) -> None:
    for is_enabled, ways in {
        "enabled": (Way.SYSTEM_UNIT, Way.PROGRAM),
        "": (Way.SYSTEM_UNIT, Way.PROGRAM),
        "disabled": (Way.PROGRAM,),
        "masked": (Way.PROGRAM,),
    }.items():
        recorded = Recorded()
        recorded.answers["systemctl cat ollama.service"] = DONE
        recorded.answers["systemctl is-enabled ollama.service"] = Called(code=0, text=is_enabled)
        assert linux(recorded, ollama).look().installed == ways


@pytest.mark.parametrize(
    ("groups", "exe", "kept_by"),
    [
        ("0::/system.slice/ollama.service\n", "/usr/local/bin/ollama", Way.SYSTEM_UNIT),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service\n",
            "/usr/bin/ollama",
            Way.USER_UNIT,
        ),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", "/usr/bin/ollama", Way.PROGRAM),
        ("0::/system.slice/docker-0123.scope\n", "/usr/bin/ollama", Way.CONTAINER),
        ("12:memory:/docker/0123\n0::/\n", "/usr/bin/ollama", Way.CONTAINER),
        ("0::/machine.slice/libpod-0123.scope\n", "/usr/bin/ollama", Way.CONTAINER),
        ("0::/user.slice\n", "/usr/bin/docker-proxy", Way.CONTAINER),
        ("0::/user.slice\n", "/usr/bin/rootlessport", Way.CONTAINER),
        ("", "/usr/bin/ollama", Way.PROGRAM),
    ],
)
def test_who_keeps_a_server_on_linux(tmp_path: Path, groups: str, exe: str, kept_by: Way) -> None:
    recorded = Recorded()
    recorded.runs(exe)
    folder = tmp_path / str(SERVER.pid)
    folder.mkdir()
    (folder / "cgroup").write_text(groups)
    site = linux(recorded, proc=tmp_path).look()
    assert site.server is not None
    assert (site.server.kept_by, site.server.identity, site.runners) == (kept_by, SERVER, (RUNNER,))


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_another_pid_namespace_is_a_container(tmp_path: Path) -> None:
    for name, space in (("self", "pid:[1]"), (str(SERVER.pid), "pid:[2]")):
        (tmp_path / name / "ns").mkdir(parents=True)
        os.symlink(space, tmp_path / name / "ns" / "pid")
    recorded = Recorded()
    recorded.runs("/usr/bin/ollama")
    site = linux(recorded, proc=tmp_path).look()
    assert site.server is not None
    assert site.server.kept_by is Way.CONTAINER


def test_a_guessed_server_counts_only_if_it_is_not_ours() -> None:
    """One of ours whose socket is not at the address listens elsewhere; another user's socket is hidden."""
    recorded = Recorded()
    recorded.runs("/usr/bin/ollama", is_certain=False)
    assert linux(recorded, ours=True).look().server is None
    hidden = linux(recorded, ours=False).look().server
    assert hidden is not None
    assert (hidden.is_certain, hidden.is_ours) == (False, False)


@pytest.mark.skipif(sys.platform == "win32", reason="0 is a signal there")
def test_this_process_may_be_signalled() -> None:
    assert may_be_signalled(os.getpid())


# -- the program -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "port"),
    [
        ("", 11434),
        ("0.0.0.0", 11434),
        ("0.0.0.0:11500", 11500),
        (":11500", 11500),
        ("http://127.0.0.1", 80),
        ("https://host", 443),
        ("http://127.0.0.1:11500/", 11500),
        (' "127.0.0.1:11500" ', 11500),
        ("[::1]", 11434),
        ("[::1]:11500", 11500),
        ("host:none", 11434),
        ("host:99999", 11434),
    ],
)
def test_the_port_of_ollama_host(value: str, port: int) -> None:
    assert port_of_host(value) == port


@pytest.mark.parametrize(
    ("url", "before", "after"),
    [
        ("http://127.0.0.1:11434", None, None),
        ("http://127.0.0.1:11434", "0.0.0.0", "0.0.0.0"),  # the user serves the network: it stays so
        ("http://127.0.0.1:11434", "0.0.0.0:11500", "127.0.0.1:11434"),
        ("http://127.0.0.1:11500", None, "127.0.0.1:11500"),
        ("http://[::1]:11500/", None, "[::1]:11500"),
        ("http://localhost:11500", "0.0.0.0:11500", "0.0.0.0:11500"),
    ],
)
def test_the_program_listens_where_the_provider_is(
    ollama: str, url: str, before: str | None, after: str | None
) -> None:
    recorded = Recorded()
    environ = {"PATH": os.path.dirname(ollama), **({"OLLAMA_HOST": before} if before else {})}
    program = ServeProgram(
        (), url, environ=environ, log_file=Path("/nowhere/log"), table=recorded, spawn=recorded.spawn
    )
    program.start()
    ((argv, given),) = recorded.spawned
    assert argv == [ollama, "serve"]
    assert given.get("OLLAMA_HOST") == after


def test_a_server_that_runs_from_elsewhere_can_be_started_again_from_there(ollama: str) -> None:
    recorded = Recorded()
    recorded.runs(ollama)
    service = linux(recorded)
    assert service.look().installed == (Way.PROGRAM,)
    recorded.found = None
    service.run(START, Way.PROGRAM)
    assert recorded.spawned[0][0] == [ollama, "serve"]


def test_a_packed_programs_libraries_do_not_reach_the_server(ollama: str) -> None:
    recorded = Recorded()
    environ = {"LD_LIBRARY_PATH": "/bundle", "LD_LIBRARY_PATH_ORIG": "/user"}
    program_at(recorded, ollama, environ=environ).start()
    assert recorded.spawned[0][1]["LD_LIBRARY_PATH"] == "/user"


def test_a_tool_that_is_missing_or_slow_is_told_as_such() -> None:
    assert call(["no-such-tool-here"]).code == MISSING
    assert call([sys.executable, "-c", "import time; time.sleep(9)"], timeout_s=0.05).code is None


# -- macOS -----------------------------------------------------------------------------------------------


def mac(recorded: Recorded, home: Path, *, app: bool = False, label: str | None = None) -> MacService:
    if app:
        (home / "Ollama.app").mkdir()
    if label:
        (home / "Library" / "LaunchAgents").mkdir(parents=True)
        (home / "Library" / "LaunchAgents" / f"{label}.plist").touch()
    program = program_at(recorded)
    return MacService(
        recorded, program, recorded, uid=501, home=home, app=home / "Ollama.app", call=recorded.call
    )


class TestMacApp(ServiceContract):
    way = pytest.fixture(lambda self: Way.MAC_APP)

    @pytest.fixture
    def service(self, recorded: Recorded, tmp_path: Path) -> MacService:
        return mac(recorded, tmp_path, app=True)

    def test_it_is_opened_and_asked_to_quit(self, service: MacService, recorded: Recorded) -> None:
        recorded.answers["open"] = DONE
        service.run(START, Way.MAC_APP)
        service.run(STOP, Way.MAC_APP)  # that it does not quit is found out by looking
        assert recorded.calls == [["open", "-j", "-a", "Ollama"], ["osascript", "-e", 'quit app "Ollama"']]

    def test_its_server_is_kept_by_the_app_which_goes_first(
        self, service: MacService, recorded: Recorded
    ) -> None:
        app = recorded.also(90, "/Applications/Ollama.app/Contents/MacOS/Ollama")
        recorded.also(91, "/Users/me/ollama")
        recorded.runs("/Applications/Ollama.app/Contents/Resources/ollama")
        site = service.look()
        assert site.server is not None
        assert (site.server.kept_by, site.keepers) == (Way.MAC_APP, (app,))

    def test_a_server_of_homebrews_beside_the_app_is_not_the_apps(
        self, service: MacService, recorded: Recorded
    ) -> None:
        recorded.runs("/opt/homebrew/bin/ollama")
        site = service.look()
        assert site.server is not None
        assert (site.server.kept_by, site.keepers) == (Way.PROGRAM, ())


@pytest.mark.parametrize("label", ["homebrew.mxcl.ollama", "com.ollama.ollama"])
class TestMacAgent(ServiceContract):
    way = pytest.fixture(lambda self: Way.LAUNCH_AGENT)

    @pytest.fixture
    def service(self, recorded: Recorded, tmp_path: Path, label: str) -> MacService:
        return mac(recorded, tmp_path, label=label)

    def test_it_is_loaded_into_the_users_domain(
        self, service: MacService, recorded: Recorded, tmp_path: Path, label: str
    ) -> None:
        recorded.answers["launchctl bootstrap"] = DONE
        service.run(START, Way.LAUNCH_AGENT)
        plist = tmp_path / "Library" / "LaunchAgents" / f"{label}.plist"
        assert recorded.calls[-1] == ["launchctl", "bootstrap", "gui/501", str(plist)]
        assert ["launchctl", "enable", f"gui/501/{label}"] in recorded.calls

    def test_one_that_is_loaded_but_does_not_run_is_kicked(
        self, service: MacService, recorded: Recorded, label: str
    ) -> None:
        recorded.answers |= {"launchctl print": DONE, "launchctl kickstart": DONE}
        service.run(START, Way.LAUNCH_AGENT)
        assert recorded.calls[-1] == ["launchctl", "kickstart", f"gui/501/{label}"]

    @pytest.mark.parametrize("text", ["", "Boot-out failed: 3: No such process"])
    def test_one_that_is_gone_already_is_stopped(
        self, service: MacService, recorded: Recorded, label: str, text: str
    ) -> None:
        recorded.answers["launchctl bootout"] = Called(code=3 if text else 0, text=text)
        service.run(STOP, Way.LAUNCH_AGENT)
        assert recorded.calls == [["launchctl", "bootout", f"gui/501/{label}"]]

    def test_another_failure_is_told(self, service: MacService, recorded: Recorded, label: str) -> None:
        recorded.answers["launchctl bootout"] = Called(code=5, text="Boot-out failed: 5: Input/output error")
        with pytest.raises(ServiceRefused, match="Input/output error"):
            service.run(STOP, Way.LAUNCH_AGENT)

    def test_its_server_is_kept_by_the_agent(
        self, service: MacService, recorded: Recorded, label: str
    ) -> None:
        recorded.runs("/opt/homebrew/bin/ollama")
        for is_loaded, kept_by in ((True, Way.LAUNCH_AGENT), (False, Way.PROGRAM)):
            recorded.answers[f"launchctl print gui/501/{label}"] = DONE if is_loaded else Called(code=113)
            site = service.look()
            assert site.server is not None
            assert site.server.kept_by is kept_by


def test_of_two_agents_the_current_formulas_is_taken(tmp_path: Path) -> None:
    recorded = Recorded()
    service = mac(recorded, tmp_path, label="com.ollama.ollama")
    (tmp_path / "Library" / "LaunchAgents" / "homebrew.mxcl.ollama.plist").touch()
    recorded.answers["launchctl bootout"] = DONE
    service.run(STOP, Way.LAUNCH_AGENT)
    assert recorded.calls == [["launchctl", "bootout", "gui/501/homebrew.mxcl.ollama"]]


# -- Windows ---------------------------------------------------------------------------------------------


def windows(
    recorded: Recorded, *there: str, ours: bool = True, environ: dict[str, str] | None = None
) -> WindowsService:
    return WindowsService(
        recorded,
        program_at(recorded),
        recorded,
        environ={"LOCALAPPDATA": LOCAL} if environ is None else environ,
        log_file=Path("/nowhere/log"),
        may_end=lambda _pid: ours,
        call=recorded.call,
        spawn=recorded.spawn,
        exists=lambda path: path in there,
    )


class TestWindowsService(ServiceContract):
    way = pytest.fixture(lambda self: Way.WINDOWS_SERVICE)

    @pytest.fixture
    def service(self, recorded: Recorded) -> WindowsService:
        recorded.answers[f"{SC} query Ollama"] = DONE
        return windows(recorded)

    def test_sc_is_asked_by_its_full_path(self, service: WindowsService, recorded: Recorded) -> None:
        recorded.answers[""] = DONE
        service.run(START, Way.WINDOWS_SERVICE)
        service.run(STOP, Way.WINDOWS_SERVICE)
        assert recorded.calls == [[SC, "start", "Ollama"], [SC, "stop", "Ollama"]]

    @pytest.mark.parametrize(("action", "code"), [(START, 1056), (STOP, 1062)])
    def test_what_is_so_already_is_done(
        self, service: WindowsService, recorded: Recorded, action: ServiceAction, code: int
    ) -> None:
        recorded.answers[f"{action.value} Ollama"] = Called(code=code, text=f"[SC] FAILED {code}:")
        service.run(action, Way.WINDOWS_SERVICE)

    @pytest.mark.parametrize(("action", "code"), [(START, 5), (STOP, 5), (START, 1062), (STOP, 1056)])
    def test_the_administrators_are_named_when_access_is_denied(
        self, service: WindowsService, recorded: Recorded, action: ServiceAction, code: int
    ) -> None:
        recorded.answers[f"{action.value} Ollama"] = Called(code=code, text="Access is denied.")
        with pytest.raises(ServiceRefused) as error:
            service.run(action, Way.WINDOWS_SERVICE)
        assert error.value.remedy == f"As an administrator: sc {action.value} Ollama."

    def test_a_server_of_the_system_is_the_services(self, recorded: Recorded) -> None:
        recorded.answers[f"{SC} query Ollama"] = DONE
        recorded.runs("", is_ollama=False)
        site = windows(recorded, ours=False).look()
        assert site.server is not None
        assert site.server.kept_by is Way.WINDOWS_SERVICE


class TestWindowsApp(ServiceContract):
    way = pytest.fixture(lambda self: Way.WINDOWS_APP)

    @pytest.fixture
    def service(self, recorded: Recorded) -> WindowsService:
        return windows(recorded, APP_EXE)

    def test_it_is_started_with_its_window_closed(self, service: WindowsService, recorded: Recorded) -> None:
        service.run(START, Way.WINDOWS_APP)
        assert [argv for argv, _ in recorded.spawned] == [[APP_EXE, "hidden", "--fast-startup"]]

    def test_its_server_is_kept_by_this_users_app_alone(
        self, service: WindowsService, recorded: Recorded
    ) -> None:
        app = recorded.also(90, APP_EXE.upper())
        recorded.also(91, r"C:\Users\other\AppData\Local\Programs\Ollama\ollama app.exe")
        recorded.runs(SERVER_EXE)
        site = service.look()
        assert site.server is not None
        assert (site.server.kept_by, site.server.is_ours, site.keepers) == (Way.WINDOWS_APP, True, (app,))

    def test_without_the_app_it_is_a_program(self, service: WindowsService, recorded: Recorded) -> None:
        recorded.runs(SERVER_EXE)
        site = service.look()
        assert site.server is not None
        assert (site.server.kept_by, site.keepers) == (Way.PROGRAM, ())


def test_without_a_folder_of_its_own_windows_has_no_app() -> None:
    assert windows(Recorded(), environ={}).look().installed == ()
