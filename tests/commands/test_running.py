"""`run`: real programs, a real socket, and signals as a terminal and a store send them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tray_valet.commands import running
from tray_valet.commands.client import Client
from tray_valet.commands.failures import CannotStart, NoValet

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and shells")

SHELL = "/bin/sh"


def _no_valet() -> Client:
    raise NoValet


def _run(program: list[str], find_client: Any = _no_valet) -> int:
    return running.run(program, reason="", find_client=find_client)


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_programs_exit_code_is_ours(code: int) -> None:
    assert _run([SHELL, "-c", f"exit {code}"]) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_that_ended_the_program_becomes_128_and_its_number(number: signal.Signals) -> None:
    assert _run([SHELL, "-c", f"kill -{number.value} $$"]) == 128 + number


def test_without_a_valet_the_program_runs_all_the_same_and_we_say_so(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert _run([SHELL, "-c", "echo played"]) == 0
    out, err = capfd.readouterr()
    assert out == "played\n"
    assert "No valet is running. Starting sh all the same." in err


def test_the_models_are_aside_before_the_program_starts_and_until_it_has_ended(
    control_api: Any, told: Any, tmp_path: Path
) -> None:
    marker = tmp_path / "started"

    def before() -> None:
        assert not marker.exists()
        time.sleep(0.1)
        assert not marker.exists()

    ended_after_start: list[bool] = []
    control_api.answers |= {
        "POST /holds": told(201, {"id": "h1", "state": "paused"}, then=before),
        "DELETE /holds/h1": told(200, {"ok": True}, then=lambda: ended_after_start.append(marker.exists())),
    }
    assert _run([SHELL, "-c", f"touch {marker}; exit 3"], control_api.client) == 3
    assert control_api.requests() == ["POST /holds", "DELETE /holds/h1"]
    assert control_api.asked[0].body == {"owner": "sh", "pid": os.getpid()}
    assert ended_after_start == [True]


def test_the_reason_goes_with_the_hold(control_api: Any, told: Any) -> None:
    control_api.answers["POST /holds"] = told(201, {"id": "h1"})
    running.run(["true"], reason="race night", find_client=control_api.client)
    assert control_api.asked[0].body["reason"] == "race night"


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_valet_that_refuses_the_hold_keeps_no_game_from_starting(
    control_api: Any, told: Any, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    error = {"message": "Not now.", "type": "x", "param": None, "code": "x"}
    control_api.answers["POST /holds"] = told(status, {"error": error})
    assert _run([SHELL, "-c", "exit 5"], control_api.client) == 5
    assert "Not now. Starting sh all the same." in capfd.readouterr().err
    assert control_api.requests() == ["POST /holds"]


@pytest.mark.parametrize("answer", [None, [], {}, "x"])
def test_a_strange_answer_keeps_no_game_from_starting(control_api: Any, told: Any, answer: Any) -> None:
    control_api.answers["POST /holds"] = told(201, answer)
    assert _run([SHELL, "-c", "exit 5"], control_api.client) == 5


def test_a_valet_that_dies_meanwhile_does_not_disturb_the_program(control_api: Any, told: Any) -> None:
    control_api.answers["POST /holds"] = told(201, {"id": "h1"})
    found: list[int] = []

    def find_client() -> Client:
        found.append(1)
        if len(found) > 1:
            raise NoValet
        return control_api.client()  # type: ignore[no-any-return]

    assert _run([SHELL, "-c", "exit 6"], find_client) == 6
    assert len(found) == 2


def test_a_program_that_does_not_exist_is_127_and_nothing_is_set_aside(
    control_api: Any, tmp_path: Path
) -> None:
    for name in ("no-such-program-anywhere", str(tmp_path / "none")):
        with pytest.raises(CannotStart) as caught:
            _run([name], control_api.client)
        assert caught.value.exit_code == 127
    assert control_api.requests() == []


def test_a_file_that_may_not_be_run_is_126(
    control_api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in (str(plain), "plain", str(tmp_path)):
        with pytest.raises(CannotStart) as caught:
            _run([name], control_api.client)
        assert caught.value.exit_code == 126
    assert control_api.requests() == []


@pytest.mark.parametrize(("content", "code"), [(b"\x00\x01\x02", 126), (b"#!/no/such/interpreter\n", 127)])
def test_a_file_that_the_system_cannot_run_ends_the_hold(
    control_api: Any, told: Any, tmp_path: Path, content: bytes, code: int
) -> None:
    control_api.answers["POST /holds"] = told(201, {"id": "h1"})
    broken = tmp_path / "broken"
    broken.write_bytes(content)
    broken.chmod(0o755)
    with pytest.raises(CannotStart) as caught:
        _run([str(broken)], control_api.client)
    assert caught.value.exit_code == code
    assert control_api.requests()[-1] == "DELETE /holds/h1"


def test_signal_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    _run(["true"])
    assert signal.getsignal(signal.SIGTERM) is before


# -- as a process of its own --------------------------------------------------------------------------

PLAYER = "trap 'echo got {name} >> {out}; exit 9' {name}; echo ready >> {out}; while :; do sleep 0.02; done"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TRAY_VALET_HOME": str(tmp_path / "home")}


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _until(out: Path, text: str) -> None:
    end_s = time.monotonic() + 60
    while text not in (out.read_text() if out.exists() else ""):
        assert time.monotonic() < end_s, f"{text!r} was not seen"
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "USR1"])
def test_signals_are_passed_on_to_the_program(
    name: str, environ: dict[str, str], tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "tray_valet", "run", "--", SHELL, "-c", PLAYER.format(name=name, out=out)]
    process = subprocess.Popen(argv, env=environ, start_new_session=True, stderr=subprocess.DEVNULL)
    started.append(process)
    _until(out, "ready")
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(60) == 9
    assert out.read_text() == f"ready\ngot {name}\n"


def test_ctrl_c_in_a_terminal_reaches_the_program_once(
    environ: dict[str, str], tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    out = tmp_path / "out"
    # It waits for the first one, and then a while for a second.
    counting = f"trap 'echo got INT >> {out}; got=1' INT; got=0; echo ready >> {out}; i=0; " \
        "while [ $got = 0 ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done; i=0; " \
        "while [ $i -lt 25 ]; do sleep 0.02; i=$((i+1)); done; exit 4"  # fmt: skip
    argv = [sys.executable, "-m", "tray_valet", "run", "--", SHELL, "-c", counting]
    leader, follower = os.openpty()
    take_terminal = "import os, sys, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); " \
        "os.execv(sys.argv[1], sys.argv[1:])"  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", take_terminal, *argv],
        env=environ,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    started.append(process)
    os.close(follower)
    _until(out, "ready")
    os.write(leader, b"\x03")
    assert process.wait(60) == 4
    os.close(leader)
    assert out.read_text().count("got INT") == 1


def test_ctrl_c_while_the_start_returns_reaches_the_program_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The program runs, and is in the terminal's group, before Popen has returned."""
    begin = subprocess.Popen
    marker = tmp_path / "ready"

    def begin_slowly(*args: Any, **options: Any) -> Any:
        child = begin(*args, **options)
        _until(marker, "ready")
        os.kill(os.getpid(), signal.SIGINT)
        return child

    monkeypatch.setattr(running, "_came_from_terminal", lambda number: number == signal.SIGINT)
    monkeypatch.setattr(subprocess, "Popen", begin_slowly)
    waits = f"trap 'exit 9' INT; echo ready > {marker}; sleep 0.3; exit 4"
    assert _run([SHELL, "-c", waits]) == 4


def test_stdin_and_stdout_are_the_programs_own(environ: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "tray_valet", "run", "--", "cat"]
    done = subprocess.run(
        argv, env=environ, input=b"a\x00b\xff", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"a\x00b\xff")


def test_files_that_we_were_given_open_reach_the_program(environ: dict[str, str]) -> None:
    reading, writing = os.pipe()
    writes = f"import os; os.write({writing}, b'through')"
    argv = [sys.executable, "-m", "tray_valet", "run", "--", sys.executable, "-c", writes]
    subprocess.run(argv, env=environ, pass_fds=(writing,), capture_output=True, timeout=60, check=False)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"through"


def test_the_options_of_the_program_are_its_own(environ: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "tray_valet", "run", "--", "echo", "--json", "--help", "--", "run"]
    done = subprocess.run(argv, env=environ, capture_output=True, timeout=60, check=False)
    assert done.stdout == b"--json --help -- run\n"
