"""Which engine is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tray_valet.core.engines import EngineKind
from tray_valet.core.errors import EngineMissing
from tray_valet.engine.locate import embedded_engine, locate_engine

pytestmark = pytest.mark.skipif(os.name != "posix", reason="makes programs out of shell scripts")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "llama-server"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_configured_engine_comes_first(program: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my-server"
    mine.symlink_to(program)
    found = locate_engine(str(mine), {"PATH": str(program.parent)})
    assert (found.kind, found.argv) == (EngineKind.CONFIGURED, (str(mine),))


def test_a_configured_name_is_looked_up_on_path(program: Path) -> None:
    found = locate_engine("llama-server", {"PATH": str(program.parent)})
    assert (found.kind, found.path) == (EngineKind.CONFIGURED, str(program))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_configured_engine_that_cannot_run_is_an_error_that_names_it(
    is_there: bool, program: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    if is_there:
        broken.write_text("no program")
    with pytest.raises(EngineMissing) as error:
        locate_engine(str(broken), {"PATH": str(program.parent)})
    assert str(broken) in error.value.message
    assert error.value.remedy
    assert error.value.param == "llama_server_path"


def test_llama_server_on_path_comes_before_the_embedded_one(program: Path) -> None:
    found = locate_engine(None, {"PATH": str(program.parent)}, has_embedded=lambda: True)
    assert (found.kind, found.argv) == (EngineKind.ON_PATH, (str(program),))


def test_the_embedded_engine_comes_last(tmp_path: Path) -> None:
    found = locate_engine(None, {"PATH": str(tmp_path)}, has_embedded=lambda: True)
    assert found.kind is EngineKind.EMBEDDED


def test_without_any_engine_the_remedy_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing) as error:
        locate_engine(None, {"PATH": str(tmp_path)}, has_embedded=lambda: False)
    assert "llama-server" in error.value.remedy


def test_the_embedded_engine_starts_from_any_folder_and_takes_no_module_from_it(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('taken from the working directory')")
    engine = embedded_engine(os.environ)
    done = subprocess.run(
        [*engine.argv, "--version"],
        cwd=tmp_path,
        env=os.environ | engine.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr[:9]) == (0, "version: ")


def test_looking_for_the_embedded_engine_does_not_import_it() -> None:
    check = (
        "import os, sys; from tray_valet.engine.locate import locate_engine;"
        "locate_engine(None, {'PATH': ''}); sys.exit('xllamacpp' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0
