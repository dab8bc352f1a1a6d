"""The set-up script: which Python, when `.venv/` is filled again, what it says where it cannot go on."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "packaging"


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """dev.py as a module; its folder is on the path as it is for the script itself."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("dev")
    for name in ("dev", "system_packages"):
        sys.modules.pop(name, None)


@pytest.fixture
def packages(dev: ModuleType) -> ModuleType:
    return sys.modules["system_packages"]


@pytest.fixture
def checkout(dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own with an empty `.venv/`, that dev.py takes for its own."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "uv.lock").write_text("version = 1\n")
    venv = tmp_path / ".venv"
    programs = venv / dev.BIN.name
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", venv)
    monkeypatch.setattr(dev, "BIN", programs)
    monkeypatch.setattr(dev, "VENV_PYTHON", programs / dev.VENV_PYTHON.name)
    monkeypatch.setattr(dev, "VALET", programs / dev.VALET.name)
    monkeypatch.setattr(dev, "STAMP", venv / dev.STAMP.name)
    monkeypatch.setattr(dev, "SYSTEM_NEEDS", dict.fromkeys(dev.SYSTEM_NEEDS, ()))
    return tmp_path


class Installer:
    """Stands in for the download: fills `.venv/` with the one file that counts, or fails."""

    def __init__(self, dev: ModuleType) -> None:
        self.dev, self.calls, self.is_broken = dev, 0, False

    def __call__(self, uv: str | None) -> None:
        self.calls += 1
        if self.is_broken:
            raise self.dev.SetupError("the network is gone")
        self.dev.VALET.parent.mkdir(parents=True, exist_ok=True)
        self.dev.VALET.touch()


@pytest.fixture
def installer(dev: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    installer = Installer(dev)
    monkeypatch.setattr(dev, "install_locked", installer)
    return installer


# -- the command line --------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["deploy"], ["setup", "now"], ["--slow"]])
def test_wrong_usage_ends_with_2_and_shows_the_usage(
    dev: ModuleType, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dev.main(argv) == 2
    said = capsys.readouterr()
    assert "COMMAND" in said.err
    assert said.out == ""


def test_help_names_every_command(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {command}\b", shown, re.M) for command in ("setup", "demo", "run", "test"))
    assert set(dev.SYSTEM_NEEDS) == {"setup", "demo", "run", "test"}


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ([], ["-m", "not slow"]),
        (["--slow"], []),
        (["tests/core", "-k", "hold"], ["-m", "not slow", "tests/core", "-k", "hold"]),
        (["--slow", "tests/core"], ["tests/core"]),
        (["-m", "slow"], ["-m", "not slow", "-m", "slow"]),
    ],
)
def test_slow_tests_run_only_when_asked_for(dev: ModuleType, given: list[str], passed_on: list[str]) -> None:
    assert dev.pytest_arguments(given) == [*dev.PARALLEL, *passed_on]


def test_whoever_says_how_many_files_run_at_once_is_obeyed(dev: ModuleType) -> None:
    assert dev.pytest_arguments(["-n0", "tests/core"]) == ["-m", "not slow", "-n0", "tests/core"]


# -- which Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["dev.py", "system_packages.py"])
def test_an_old_python_can_parse_the_scripts(script: str) -> None:
    ast.parse((SCRIPTS / script).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_an_old_python_is_told_what_to_install(dev: ModuleType) -> None:
    text = dev.too_old_text((3, 9))
    assert "3.11 or later" in text
    assert "this is 3.9" in text
    assert "Install" in text


@pytest.mark.skipif(os.name == "nt", reason="stand-in programs are shell scripts")
class TestNewerPython:
    @staticmethod
    def program(folder: Path, name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    @pytest.fixture
    def folder(self, dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The only folder on PATH; `.venv/` isn't there."""
        monkeypatch.setattr(dev, "VENV_PYTHON", tmp_path / "no-venv" / "python")
        monkeypatch.setattr(dev, "BIN", tmp_path / "no-venv")
        monkeypatch.setenv("PATH", str(tmp_path))
        return tmp_path

    def test_a_shim_without_its_python_is_passed_over(self, dev: ModuleType, folder: Path) -> None:
        self.program(folder, "python3.13", "exit 127")
        real = self.program(folder, "python3.12", f'exec {sys.executable} "$@"')
        assert dev.newer_python() == [str(real)]

    def test_uv_brings_one_where_none_is_on_path(self, dev: ModuleType, folder: Path) -> None:
        uv = self.program(folder, "uv", "exit 0")
        command = dev.newer_python()
        assert command[0] == str(uv)
        assert ">=3.11" in command

    def test_without_any_the_user_is_told(self, dev: ModuleType, folder: Path) -> None:
        self.program(folder, "uv", "exit 127")
        with pytest.raises(dev.SetupError, match=r"needs Python 3\.11"):
            dev.newer_python()


# -- when .venv is filled again ----------------------------------------------------------------------


def test_a_finished_set_up_is_not_repeated(dev: ModuleType, installer: Installer) -> None:
    dev.set_up("setup")
    dev.set_up("test")
    assert installer.calls == 1


@pytest.mark.parametrize("file", ["pyproject.toml", "uv.lock"])
def test_a_changed_package_list_fills_it_again(
    dev: ModuleType, installer: Installer, checkout: Path, file: str
) -> None:
    dev.set_up("setup")
    (checkout / file).write_text("# changed\n")
    dev.set_up("setup")
    assert installer.calls == 2


def test_a_venv_that_came_along_with_a_copied_checkout_is_made_anew(
    dev: ModuleType, installer: Installer, tmp_path: Path
) -> None:
    dev.set_up("setup")
    left_over = dev.VENV / "left-over"
    left_over.touch()
    dev.STAMP.write_text(dev.STAMP.read_text().replace(str(tmp_path), str(tmp_path / "elsewhere")))
    dev.set_up("setup")
    assert installer.calls == 2
    assert not left_over.exists()


def test_an_interrupted_set_up_is_taken_up_again(dev: ModuleType, installer: Installer) -> None:
    installer.is_broken = True
    with pytest.raises(dev.SetupError):
        dev.set_up("setup")
    installer.is_broken = False
    dev.set_up("setup")
    dev.set_up("setup")
    assert installer.calls == 2


def test_a_venv_whose_python_was_upgraded_is_made_anew(dev: ModuleType, installer: Installer) -> None:
    dev.set_up("setup")
    left_over = dev.VENV / "left-over"
    left_over.touch()
    # What an upgrade of the system's Python looks like from here: no packages folder of that version.
    for library in [*dev.VENV.glob("lib/python3.*"), *dev.VENV.glob("Lib")]:
        library.rename(library.with_name("python3.0"))
    assert not dev.is_venv_sound()
    dev.set_up("setup")
    assert installer.calls == 2
    assert not left_over.exists()


# -- whom uv trusts ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="stand-in programs are shell scripts")
class TestCertificates:
    """uv trusts only the authorities that it brings along, unless a variable says otherwise."""

    @pytest.fixture
    def asked(self, dev: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What a stand-in for uv was run with, a line each time; the user has said nothing."""
        for name in (*dev.UV_CERTIFICATES, "UV_PROJECT_ENVIRONMENT"):
            monkeypatch.setenv(name, "")  # so that it is put back as it was
            monkeypatch.delenv(name)
        return checkout / "asked"

    @staticmethod
    def uv(asked: Path, *, works_with: str) -> str:
        program = asked.with_name("uv")
        program.write_text(
            "#!/bin/sh\n"
            f'echo "$1:$UV_NATIVE_TLS$UV_SYSTEM_CERTS" >> {asked}\n'
            f'[ "$UV_NATIVE_TLS$UV_SYSTEM_CERTS" = "{works_with}" ]\n'
        )
        program.chmod(0o755)
        return str(program)

    def test_uv_trusts_the_systems_in_the_words_of_old_and_new_versions(
        self, dev: ModuleType, asked: Path
    ) -> None:
        dev.install_with_uv(self.uv(asked, works_with="11"))
        assert asked.read_text().split() == ["sync:11"]

    def test_without_certificates_of_the_systems_uvs_own_are_used(self, dev: ModuleType, asked: Path) -> None:
        dev.install_with_uv(self.uv(asked, works_with=""))
        assert asked.read_text().split() == ["sync:11", "sync:"]

    def test_what_the_user_has_chosen_stays(
        self, dev: ModuleType, asked: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UV_NATIVE_TLS", "0")
        with pytest.raises(dev.SetupError):
            dev.install_with_uv(self.uv(asked, works_with="never"))
        assert asked.read_text().split() == ["sync:0"]

    def test_a_python_that_uv_brings_comes_with_the_same_trust(
        self, dev: ModuleType, asked: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dev, "VENV_PYTHON", asked.with_name("no-python"))
        monkeypatch.setenv("PATH", str(asked.parent))
        self.uv(asked, works_with="")
        dev.newer_python()
        assert [os.environ.get(name) for name in dev.UV_CERTIFICATES] == ["1", "1"]


# -- the lock ----------------------------------------------------------------------------------------


def test_pip_gets_the_locked_versions_each_for_its_pythons(dev: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    lock.write_text(
        """
        [[package]]
        name = "numpy"
        version = "2.4.6"
        source = { registry = "https://pypi.org/simple" }
        resolution-markers = ["python_full_version < '3.12'"]
        [[package]]
        name = "numpy"
        version = "2.5.5"
        source = { registry = "https://pypi.org/simple" }
        resolution-markers = ["python_full_version >= '3.15'", "python_full_version == '3.12.*'"]
        [[package]]
        name = "httpx"
        version = "0.28.1"
        source = { registry = "https://pypi.org/simple" }
        [[package]]
        name = "tray-valet"
        source = { editable = "." }
        """
    )
    assert dev.locked_versions(lock) == [
        "numpy==2.4.6 ; (python_full_version < '3.12')",
        "numpy==2.5.5 ; (python_full_version >= '3.15') or (python_full_version == '3.12.*')",
        "httpx==0.28.1",
    ]


def test_the_lock_covers_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    [ours] = [package for package in lock if package["name"] == "tray-valet"]
    asked = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    locked = {(need["name"], need.get("specifier", "")) for need in ours["metadata"]["requires-dist"]}
    parsed = [re.fullmatch(r"([\w.-]+)\s*([^;]*?)\s*(?:;.*)?", need) for need in asked]
    # uv writes names in the index's spelling: lower case, one dash.
    assert {(re.sub(r"[-_.]+", "-", need[1]).lower(), need[2]) for need in parsed if need} == locked


def test_the_lock_names_only_the_public_index() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


# -- system packages ---------------------------------------------------------------------------------


def test_every_need_can_be_looked_for_and_says_why(dev: ModuleType) -> None:
    needs = [need for of_command in dev.SYSTEM_NEEDS.values() for need in of_command]
    assert needs
    assert all(need.package and need.why for need in needs)
    assert all([need.program, need.library, need.path].count("") == 2 for need in needs)


def test_a_need_is_met_by_what_the_machine_has(packages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert packages.SystemNeed("python3", "runs this", program=Path(sys.executable).name).is_met()
    assert not packages.SystemNeed("none", "is nowhere", program="no-such-program-here").is_met()
    assert not packages.SystemNeed("none", "is nowhere", library="libno-such-library.so.9").is_met()
    here = Path(__file__).resolve()
    assert packages.SystemNeed("this", "is here", path=str(here.parent / "test_d*.py")[1:]).is_met()
    assert not packages.SystemNeed("none", "is nowhere", path=str(here.parent / "no-such-file")[1:]).is_met()


@pytest.mark.skipif(sys.platform != "linux", reason="system packages are installed on Linux only")
def test_a_missing_package_is_named_with_its_reason_where_it_cannot_be_installed(
    packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    need = packages.SystemNeed("dbus-daemon", "the tray speaks over it", program="dbus-daemon")
    with pytest.raises(packages.SetupError, match="dbus-daemon"):
        packages.install_missing([need], "`dev.py test`")
    said = capsys.readouterr()
    assert "`dev.py test` needs the system package dbus-daemon: the tray speaks over it" in said.err
    assert said.out == ""


def test_without_root_the_command_to_run_is_spelled_out(packages: ModuleType) -> None:
    text = packages.by_hand_text(["libgomp1", "xvfb"], has_apt=True)
    assert "sudo apt-get install --no-install-recommends libgomp1 xvfb" in text
    assert "apt-get" not in packages.by_hand_text(["libgomp1"], has_apt=False)


# -- test --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("check_code", "exit_code"), [(0, 0), (3, 1)])
def test_a_failed_check_fails_the_run_yet_pytest_speaks_last(
    dev: ModuleType,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    check_code: int,
    exit_code: int,
) -> None:
    (checkout / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow"]\n')
    (checkout / "test_one.py").write_text("def test_one(): pass\n")
    monkeypatch.setattr(dev, "VENV_PYTHON", sys.executable)
    check = (sys.executable, "-c", f"import sys; sys.exit({check_code})")
    monkeypatch.setattr(dev, "CHECKS", (("a check", check),))
    assert dev.run_checks_and_tests(["test_one.py"]) == exit_code
    said = capfd.readouterr()
    assert re.search(r"\b1 passed\b", said.out.splitlines()[-1])
    assert ("a check: FAILED" in said.err) is (check_code != 0)


def test_failing_tests_fail_the_run(dev: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "test_one.py").write_text("def test_one(): assert False\n")
    monkeypatch.setattr(dev, "VENV_PYTHON", sys.executable)
    monkeypatch.setattr(dev, "CHECKS", ())
    assert dev.run_checks_and_tests(["test_one.py"]) == 1
