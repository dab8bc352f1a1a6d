"""Where this product keeps its files.

Decides: the folders of this user on this system, or all of them under one (`TRAY_VALET_HOME`).
Must not: write anything but the folders themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tray_valet.core.errors import Refused

APP_NAME = "tray-valet"
HOME_VARIABLE = "TRAY_VALET_HOME"
CONFIG_VARIABLE = "CONFIG_PATH"  # RouterModelCustom's


class Directories(msgspec.Struct, frozen=True, kw_only=True):
    """The folders. Nothing need exist; `make` makes them."""

    config_dir: Path
    state_dir: Path
    log_dir: Path
    data_dir: Path  # what can be made again: the demo's models, caches

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.yaml"

    @property
    def runtime_file(self) -> Path:
        """Who runs, on which ports, and the token: for the commands of the same user."""
        return self.state_dir / "runtime.json"

    @property
    def journal_file(self) -> Path:
        """What was set aside and is to come back."""
        return self.state_dir / "journal.json"

    @property
    def last_good_config_file(self) -> Path:
        return self.state_dir / "last_good_config.yaml"

    @property
    def downloads_file(self) -> Path:
        return self.state_dir / "downloads.json"

    @property
    def ledger_file(self) -> Path:
        return self.state_dir / "ledger.json"

    @property
    def autostart_file(self) -> Path:
        """The last wish about starting at sign-in that was applied."""
        return self.state_dir / "autostart.json"

    @property
    def runners_dir(self) -> Path:
        """Records of our children, by which the leftovers of a killed run are found."""
        return self.state_dir / "runners"

    @property
    def secrets_file(self) -> Path:
        """Keys, on systems without a keyring; 0600."""
        return self.state_dir / "secrets.json"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def demo_dir(self) -> Path:
        return self.data_dir / "demo"

    @property
    def log_file(self) -> Path:
        return self.log_dir / "tray-valet.log"

    @property
    def requests_file(self) -> Path:
        """A line for each request that passed the router."""
        return self.log_dir / "requests.jsonl"

    def make(self) -> None:
        """Make the folders that are missing, for this user alone (0700). Raises OSError."""
        for folder in (self.config_dir, self.state_dir, self.log_dir, self.data_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def directories_of(environ: Mapping[str, str]) -> Directories:
    """The folders for this environment: all under TRAY_VALET_HOME where it is set, else the system's own.

    Raises Refused where the system does not know this user's home folder and one of them lies in it.
    """
    home = os.path.expanduser(environ.get(HOME_VARIABLE, ""))
    if home.startswith("~"):
        raise _no_home()
    if home:
        return _under(Path(os.path.abspath(home)))
    import platformdirs

    dirs = platformdirs.PlatformDirs(APP_NAME, appauthor=False, ensure_exists=False)
    try:
        config, state, data, log = map(
            Path, (dirs.user_config_dir, dirs.user_state_dir, dirs.user_data_dir, dirs.user_log_dir)
        )
    except RuntimeError:  # pathlib's, where there is neither HOME nor an entry for this user
        raise _no_home() from None
    if not all(folder.is_absolute() for folder in (config, state, data, log)):
        raise _no_home()
    # Windows and macOS have one folder for all three; there they get folders of their own in it.
    return Directories(
        config_dir=config,
        state_dir=state / "state" if state == config else state,
        log_dir=log,
        data_dir=data / "data" if data == config else data,
    )


def config_file_of(
    directories: Directories, environ: Mapping[str, str], command_line: str | None = None
) -> Path:
    """The settings file: `--config`, else CONFIG_PATH, else the one in the config folder."""
    chosen = command_line or environ.get(CONFIG_VARIABLE) or ""
    return Path(os.path.abspath(os.path.expanduser(chosen))) if chosen else directories.config_file


def _no_home() -> Refused:
    return Refused(
        "Your home folder is not known: HOME is not set, and the system has no entry for this user.",
        remedy=f"Set {HOME_VARIABLE} to a folder for Tray Valet's files.",
        param=HOME_VARIABLE,
    )


def _under(home: Path) -> Directories:
    return Directories(
        config_dir=home, state_dir=home / "state", log_dir=home / "logs", data_dir=home / "data"
    )
