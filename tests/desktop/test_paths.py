"""Where the files are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tray_valet.desktop.paths import config_file_of, directories_of


def test_one_home_holds_everything(tmp_path: Path) -> None:
    home = tmp_path / "home"
    directories = directories_of({"TRAY_VALET_HOME": str(home)})
    assert directories.config_file == home / "config.yaml"
    assert directories.state_dir == home / "state"
    assert directories.log_dir == home / "logs"
    for path in (
        directories.runtime_file,
        directories.journal_file,
        directories.downloads_file,
        directories.ledger_file,
        directories.last_good_config_file,
        directories.runners_dir,
        directories.secrets_file,
    ):
        assert path.parent == home / "state"
    assert home in directories.models_dir.parents
    assert home in directories.demo_dir.parents
    assert not home.exists()


def test_a_relative_home_is_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert directories_of({"TRAY_VALET_HOME": "x"}).config_dir == tmp_path / "x"


def test_without_a_home_the_systems_folders_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / name))
    directories = directories_of({})
    assert directories.config_file.name == "config.yaml"
    assert "tray-valet" in str(directories.config_dir)
    folders = {directories.config_dir, directories.state_dir, directories.data_dir, directories.log_dir}
    assert len(folders) == 4


def test_folders_are_made_for_this_user_alone(tmp_path: Path) -> None:
    directories = directories_of({"TRAY_VALET_HOME": str(tmp_path / "a" / "b")})
    directories.make()
    directories.make()
    for folder in (directories.config_dir, directories.state_dir, directories.log_dir, directories.data_dir):
        assert folder.is_dir()
        if os.name == "posix":
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_settings_file_by_option_variable_and_default(tmp_path: Path) -> None:
    environ = {"TRAY_VALET_HOME": str(tmp_path), "CONFIG_PATH": str(tmp_path / "seed.json")}
    directories = directories_of(environ)
    assert config_file_of(directories, environ, str(tmp_path / "x.yaml")) == tmp_path / "x.yaml"
    assert config_file_of(directories, environ) == tmp_path / "seed.json"
    assert config_file_of(directories, {"CONFIG_PATH": ""}) == tmp_path / "config.yaml"
    assert config_file_of(directories, {}, "~/x.yaml") == Path.home() / "x.yaml"


_WITHOUT_A_HOME = """
import pwd, sys
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
from tray_valet.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows the folders of its users")
@pytest.mark.parametrize("home", ["", "~/valet"])
@pytest.mark.parametrize("words", [("serve", "--allow-root"), ("config", "path"), ("status",)])
def test_a_user_without_a_home_folder_is_told_what_to_set(words: tuple[str, ...], home: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _WITHOUT_A_HOME, *words],
        env={"PATH": os.environ["PATH"], "TRAY_VALET_HOME": home},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (said.returncode, said.stdout) == (1, "")
    [line] = said.stderr.splitlines()
    assert line.startswith("tray-valet: Your home folder is not known")
    assert "Set TRAY_VALET_HOME" in line
