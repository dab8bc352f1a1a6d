"""Takes a bare checkout to a working valet: `python3 packaging/dev.py setup|demo|run|test`.

Decides: which Python serves, and how `.venv/` is made and filled (uv, else pip, at uv.lock's versions).
Must not: need anything beside the standard library, or change uv.lock.
It parses on Python 3.7 and later, so that an old one meets a sentence and not a SyntaxError.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from system_packages import SYSTEM_NEEDS, SetupError, SystemNeed, install_missing, must, say, succeeds

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
EXE = ".exe" if os.name == "nt" else ""
VENV_PYTHON = BIN / f"python{EXE}"
VALET = BIN / f"tray-valet{EXE}"
STAMP = VENV / ".dev-setup"
EXTRAS = ("engine", "speed", "dev")
OLDEST_PYTHON = (3, 11)
PYTHON_NAMES = ("python3.13", "python3.12", "python3.11", "python3.14")
# uv asks the system whom to trust where one of these is set: up to 0.10 the one, from 0.11 on the other.
UV_CERTIFICATES = ("UV_NATIVE_TLS", "UV_SYSTEM_CERTS")

USAGE = """\
usage: python3 packaging/dev.py COMMAND [ARGUMENTS]

  setup            make or refresh .venv/ with the valet, its engine and the tests' tools
  demo [ARGS]      set up, then the whole story on this machine (`tray-valet demo ARGS`)
  run [ARGS]       set up, then `tray-valet ARGS`
  test [--slow] [PYTEST ARGS]
                   set up, then ruff, mypy, import-linter and pytest; --slow adds the slow tests
"""

PARALLEL = ["-n", "3", "--dist", "loadfile"]
# The tools that read the tree. pytest is not among them: it runs last, so that its summary ends the output.
CHECKS = (
    ("ruff check", (str(VENV_PYTHON), "-m", "ruff", "check", ".")),
    ("ruff format", (str(VENV_PYTHON), "-m", "ruff", "format", "--check", ".")),
    ("mypy", (str(VENV_PYTHON), "-m", "mypy")),
    ("import-linter", (str(BIN / f"lint-imports{EXE}"),)),
)


def main(argv: list[str]) -> int:
    """Carry out one command; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    if argv[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if not argv or argv[0] not in SYSTEM_NEEDS or (argv[0] == "setup" and len(argv) > 1):
        print(USAGE, end="", file=sys.stderr)
        return 2
    command, arguments = argv[0], argv[1:]
    try:
        if sys.version_info[:2] < OLDEST_PYTHON:
            hand_over([*newer_python(), str(Path(__file__).resolve()), *argv])
        set_up(command)
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    if command == "demo":
        # The demo has a temporary home and free ports, so root may run it: a bare machine has nobody else.
        os.environ.setdefault("TRAY_VALET_ALLOW_ROOT", "1")
        hand_over([str(VALET), "demo", *arguments])
    if command == "run":
        hand_over([str(VALET), *arguments])
    return run_checks_and_tests(arguments) if command == "test" else 0


# -- which Python ------------------------------------------------------------------------------------


def newer_python() -> list[str]:
    """The start of a command line that runs a Python new enough; SetupError if there is none."""
    for candidate in (str(VENV_PYTHON), *PYTHON_NAMES):
        path = shutil.which(candidate)
        # Asked rather than believed: a version switcher's shim has the name without the Python.
        if path and answers(path, f"import sys; sys.exit(sys.version_info[:2] < {OLDEST_PYTHON})"):
            return [path]
    uv = find_uv()
    if uv:
        # uv brings a Python of its own where the machine has none.
        trust_the_system()
        return [uv, "run", "--quiet", "--no-project", "--python", ">={}.{}".format(*OLDEST_PYTHON), "python"]
    raise SetupError(too_old_text(sys.version_info[:2]))


def too_old_text(version: tuple[int, int]) -> str:
    """What a user whose newest Python is `version` should know and do."""
    return (
        "Tray Valet needs Python {}.{} or later; this is {}.{}, ".format(*OLDEST_PYTHON, *version)
        + f"and neither {', '.join(PYTHON_NAMES)} nor uv is on PATH.\n"
        "Install a newer Python (with your system's package tool, or from python.org) or uv, then run the\n"
        "same command again."
    )


def find_uv() -> str | None:
    """The path of a uv that runs, the machine's before the one in `.venv/`, or None."""
    for candidate in ("uv", str(BIN / "uv")):
        path = shutil.which(candidate)
        if path and succeeds([path, "--version"]):
            return path
    return None


def trust_the_system() -> tuple[str, ...]:
    """Have uv trust the system's certificates: a company may read along with one that uv does not bring.

    Returns the variables that were set for it: none where the user has chosen.
    """
    if any(name in os.environ for name in UV_CERTIFICATES):
        return ()
    os.environ.update(dict.fromkeys(UV_CERTIFICATES, "1"))
    return UV_CERTIFICATES


def base_python() -> str:
    """The interpreter outside any virtual environment, so that `.venv/` can be remade from within it."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def answers(python: str, program: str) -> bool:
    """Whether `program`, run by that Python, ends with exit code 0."""
    return succeeds([python, "-c", program])


def has_module(python: Path | str, name: str) -> bool:
    """Whether that Python can import a module."""
    return answers(str(python), f"import {name}")


# -- .venv -------------------------------------------------------------------------------------------


def set_up(command: str) -> None:
    """Fill `.venv/` with the project and every extra; quick when all is there.

    First the machine gets the system packages that `command` needs.
    """
    needs, purpose = SYSTEM_NEEDS[command], f"`dev.py {command}`"
    digest, (made_at, made_from) = setup_digest(ROOT), read_stamp()
    # The scripts in .venv/ hold absolute paths: one that came along with a moved checkout is no use.
    is_sound = is_venv_sound() and made_at in ("", str(ROOT))
    if is_sound and VALET.exists() and made_from == digest:
        install_missing(needs, purpose)
        return
    started_s = time.monotonic()
    if VENV.exists() and not is_sound:
        say("the Python of .venv/ is gone, too old, or was set up in another place: making it anew")
        shutil.rmtree(VENV)
    uv = find_uv()
    if uv is None and not has_module(VENV_PYTHON, "pip"):
        needs = (*needs, *pip_needs(base_python()))
    install_missing(needs, purpose)
    install_locked(uv)
    if not VALET.exists():
        raise SetupError(f"all is installed, yet {VALET} is missing; remove .venv/ and run this again")
    STAMP.write_text(f"{ROOT}\n{digest}", encoding="utf-8")
    say(f"{VENV} is ready ({time.monotonic() - started_s:.0f} s)")


def is_venv_sound() -> bool:
    """Whether the Python of `.venv/` runs, is new enough and has the packages folder it was made with.

    After an upgrade of the system's Python the link in `.venv/` still runs, but looks into another folder.
    """
    return VENV_PYTHON.exists() and answers(
        str(VENV_PYTHON),
        "import os, sys, sysconfig; sys.exit(sys.prefix == sys.base_prefix "
        f"or sys.version_info[:2] < {OLDEST_PYTHON} or not os.path.isdir(sysconfig.get_path('purelib')))",
    )


def pip_needs(python: str) -> list[SystemNeed]:
    """What `python` lacks to make an environment with pip: Debian packs ensurepip apart."""
    if has_module(python, "ensurepip") or has_module(python, "pip"):
        return []
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    return [SystemNeed(package, "this Python has neither pip nor ensurepip, so .venv/ could not be filled")]


def setup_digest(root: Path) -> str:
    """What `.venv/` holds, as a hash of the two files that say so."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "uv.lock"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def read_stamp() -> tuple[str, str]:
    """Where the last complete set-up was made and the hash it was made from; empty where there was none."""
    try:
        made_at, _, made_from = STAMP.read_text(encoding="utf-8").rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return "", ""
    return made_at, made_from


def install_locked(uv: str | None) -> None:
    """Fill `.venv/` at the versions of uv.lock: with uv, which pip can bring, else with pip alone."""
    pip = [] if uv else make_pip()
    uv = uv or fetch_uv(pip)
    if uv:
        try:
            return install_with_uv(uv)
        except SetupError as error:
            say(f"{error}; going on with pip")
    say("installing the locked packages with pip (about half a minute)")
    return must([*(pip or make_pip()), "--use-pep517", "--editable", f"{ROOT}[{','.join(EXTRAS)}]"])


def install_with_uv(uv: str) -> None:
    """Fill `.venv/` with uv, which makes it where it is missing and checks every file against the lock."""
    say("installing the locked packages with uv")
    os.environ["UV_PROJECT_ENVIRONMENT"] = str(VENV)
    python = str(VENV_PYTHON) if VENV_PYTHON.exists() else base_python()
    # --frozen: a set-up never rewrites the lock. --inexact: pip, and what a developer added by hand, stay.
    how = ["--quiet", "--frozen", "--inexact", "--compile-bytecode", "--python", python]
    sync = [uv, "sync", *how, *(f"--extra={extra}" for extra in EXTRAS)]
    ours = trust_the_system()
    try:
        return must(sync, cwd=ROOT)
    except SetupError as error:
        if not ours:
            raise
        # A bare container has no certificates, and with none of the system's uv does not even begin.
        say(f"{error}; once more with the certificates that uv brings along")
    for name in ours:
        del os.environ[name]
    return must(sync, cwd=ROOT)


def fetch_uv(pip: list[str]) -> str | None:
    """Bring the locked uv into `.venv/`: it fills it much faster than pip. None where it won't run."""
    with suppress(SetupError):
        must([*pip, "--only-binary=uv", "uv"])
    return find_uv()


def make_pip() -> list[str]:
    """Give `.venv/` a pip, making it first where it is missing; returns the start of a locked install."""
    python, base = str(VENV_PYTHON), base_python()
    if not VENV_PYTHON.exists():
        must([base, "-m", "venv", *([] if has_module(base, "ensurepip") else ["--without-pip"]), str(VENV)])
    if not has_module(python, "pip"):
        if has_module(python, "ensurepip"):
            must([python, "-m", "ensurepip"])
        else:
            must([base, "-m", "pip", "--python", python, "install", "--quiet", "pip"])
    constraints = VENV / "constraints.txt"
    constraints.write_text("\n".join(locked_versions(ROOT / "uv.lock")) + "\n", encoding="utf-8")
    how = ["--quiet", "--disable-pip-version-check", "--constraint", str(constraints)]
    return [python, "-m", "pip", "install", *how]


def locked_versions(lock: Path) -> list[str]:
    """The lock's packages as pip constraints, each with the Python versions for which it holds."""
    import tomllib  # An older Python gets as far as its message only without it.

    packages: list[dict[str, Any]] = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    lines = []
    for package in packages:
        if "registry" not in package["source"]:
            continue  # the project itself
        markers = " or ".join(f"({marker})" for marker in package.get("resolution-markers", ()))
        lines.append(f"{package['name']}=={package['version']}" + (f" ; {markers}" if markers else ""))
    return lines


# -- test, and the last step -------------------------------------------------------------------------


def run_checks_and_tests(arguments: list[str]) -> int:
    """Run every check and then pytest, whatever fails before; 0 only if all passed."""
    failed = []
    for name, command in CHECKS:
        started_s = time.monotonic()
        code = subprocess.run(command, check=False, cwd=ROOT).returncode
        say(f"{name}: {'passed' if code == 0 else 'FAILED'} ({time.monotonic() - started_s:.1f} s)")
        if code != 0:
            failed.append(name)
    say(f"pytest follows; FAILED before it: {', '.join(failed)}" if failed else "pytest follows")
    pytest = [str(VENV_PYTHON), "-m", "pytest", *pytest_arguments(arguments)]
    return subprocess.run(pytest, check=False, cwd=ROOT).returncode or (1 if failed else 0)


def pytest_arguments(arguments: list[str]) -> list[str]:
    """Our arguments as pytest's: slow tests stay out unless `--slow` or an `-m` asks for them.

    Most tests wait for real processes most of the time, so several files run at once, also on two cores.
    """
    chosen = [argument for argument in arguments if argument != "--slow"]
    workers = [] if any(argument.startswith("-n") for argument in chosen) else PARALLEL
    return [*workers, *([] if "--slow" in arguments else ["-m", "not slow"]), *chosen]


def hand_over(command: list[str]) -> NoReturn:
    """Become `command`: its signals, output and exit code are the caller's."""
    if os.name == "nt":
        # Windows' exec starts another process and lets go of the console.
        raise SystemExit(subprocess.run(command, check=False).returncode)
    sys.stderr.flush()
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
