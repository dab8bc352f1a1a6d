"""The demo for real: the whole story, and nothing left behind however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for leftovers in /proc")

STEPS = [
    "models_written",
    "valet_started",
    "models_loaded",
    "question_answered",
    "memory_held",
    "game_seen",
    "models_set_aside",
    "memory_back",
    "request_refused",
    "game_ended",
    "models_restored",
    "same_answer",
    "nothing_left",
]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """As on a machine where the user has settings of their own, which must not matter."""
    return {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "TRAY_VALET_HOME": str(tmp_path / "of-the-user"),
        "TRAY_VALET_CONTROL__PORT": "1",
        "LLM_VALET_PORT": "2",
    }


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(60)


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "tray_valet", "demo", *options]


def _processes_of(folder: Path) -> list[int]:
    """Every process whose command line or working directory is in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes() + os.fsencode(os.readlink(entry / "cwd"))
        except OSError:
            continue
        if os.fsencode(folder) in words:
            found.append(int(entry.name))
    return found


def _is_serving(pid: int) -> bool:
    try:
        return b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def _assert_nothing_is_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert _processes_of(folder) == []


def test_the_whole_story_is_seen_and_nothing_is_left(environ: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        _command("--json"), env=environ, capture_output=True, text=True, timeout=110, check=False
    )
    told = json.loads(done.stdout)
    assert told.get("problem") is None, told
    assert (done.returncode, told["ok"]) == (0, True)
    assert [step["name"] for step in told["steps"]] == STEPS
    assert all(step["ok"] and step["text"] for step in told["steps"])
    details = {step["name"]: step["detail"] for step in told["steps"]}
    assert details["memory_back"]["freed_bytes"] > 300e6
    assert details["request_refused"]["code"] == "paused"
    assert "Lantern Keep" in details["request_refused"]["message"]
    assert [model["context_length"] for model in details["models_restored"]["after"]] == [2048, 512]
    assert details["same_answer"]["answers"] == details["question_answered"]["answers"]
    _assert_nothing_is_left(tmp_path)


def _line_with(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the demo ended without saying {text!r}")


@pytest.mark.parametrize(
    ("moment", "number"),
    [("temporary folder", signal.SIGINT), ("Loaded in", signal.SIGTERM), ("Models set aside", signal.SIGINT)],
)
def test_an_interrupted_demo_leaves_nothing_behind(
    moment: str,
    number: signal.Signals,
    environ: dict[str, str],
    tmp_path: Path,
    started: list[subprocess.Popen[str]],
) -> None:
    process = subprocess.Popen(_command(), env=environ, stdout=subprocess.PIPE, text=True)
    started.append(process)
    _line_with(process, moment)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    _assert_nothing_is_left(tmp_path)


# The demo with a signal between the making of a thing and the knowing of it. A process that still runs when
# all is told would be ended by its tie, too late for what it writes meanwhile.
_SIGNALLED = """
import os, subprocess, sys, tempfile
from tray_valet.cli import main
processes = []

def then_signal(make, is_it):
    def made(argv=(), *arguments, **options):
        thing = make(argv, *arguments, **options) if argv else make(*arguments, **options)
        if is_it(argv):
            processes.extend([thing] if argv else [])
            os.kill(os.getpid(), int(sys.argv[1]))
        return thing
    return made

if sys.argv[2] == "folder":
    tempfile.mkdtemp = then_signal(tempfile.mkdtemp, lambda _: True)
else:
    subprocess.Popen = then_signal(subprocess.Popen, lambda argv: sys.argv[2] in argv)
code = main(["demo"])
sys.exit("still running" if any(process.poll() is None for process in processes) else code)
"""


@pytest.mark.parametrize(
    ("made", "number"),
    [("folder", signal.SIGINT), ("serve", signal.SIGTERM), ("600", signal.SIGINT)],
    ids=["folder", "valet", "game"],
)
def test_a_signal_right_after_something_was_made_leaves_nothing_behind(
    made: str, number: signal.Signals, environ: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _SIGNALLED, str(int(number)), made]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (128 + number, ""), done.stdout
    assert "Interrupted; nothing was left behind." in done.stdout
    _assert_nothing_is_left(tmp_path)


def test_a_step_that_was_not_seen_fails_the_demo_and_shows_the_log(
    environ: dict[str, str], tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = subprocess.Popen(_command(), env=environ, stdout=subprocess.PIPE, text=True)
    started.append(process)
    _line_with(process, "Valet started")
    serving = [pid for pid in _processes_of(tmp_path) if _is_serving(pid)]
    os.kill(serving[0], signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "✗" in rest
    _assert_nothing_is_left(tmp_path)


def test_a_killed_demo_leaves_no_process(
    environ: dict[str, str], tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = subprocess.Popen(_command(), env=environ, stdout=subprocess.PIPE, text=True)
    started.append(process)
    _line_with(process, "Models set aside")
    process.kill()
    process.communicate(timeout=60)
    end_s = time.monotonic() + 60
    while _processes_of(tmp_path):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_without_the_engine_the_demo_says_what_to_install(environ: dict[str, str], tmp_path: Path) -> None:
    # What is None there cannot be imported.
    code = (
        "import sys; sys.modules['xllamacpp'] = None; from tray_valet.cli import main; "
        "sys.exit(main(['demo', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "engine_missing"
    assert "pip install" in done.stderr
    assert list(tmp_path.iterdir()) == []
