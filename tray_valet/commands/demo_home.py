"""The demo's own little world: a temporary folder with real models, a game library and settings.

Decides: what lies there. Must not: start the valet, or touch anything outside the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tray_valet.core.errors import EngineMissing, NotSupported, ValetError
from tray_valet.core.game_tables import DEMO_FOLDER

GAME_NAME = "Lantern Keep"  # made up, and so is its number in the store
GAME_APPID = "3999990"
LARGE, TINY = "large", "tiny"
DEFAULT_CONTEXT = 1024  # tokens; the large model is loaded with another one, to see that one come back
END_DEBOUNCE_S = 1.0
GRACE_S = 1.0
_DISK_NEEDED_BYTES = 450 * 2**20
_GAME_LIFE_S = 600  # the game ends by itself should nobody be left to end it
_TRIAL_TIMEOUT_S = 20.0


class GameProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A real program inside the made-up library, and the environment that the copy needs."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}


class DemoHome:
    """A temporary folder; `remove` leaves nothing of it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=DEMO_FOLDER.strip("/"))).resolve()
        self.valet_home = self.folder / "valet"
        self.models = self.folder / "models"
        self.library = self.folder / "library"
        self.config = self.valet_home / "config.yaml"
        self.output = self.folder / "valet-output.txt"

    def write_models(self) -> dict[str, int]:
        """Write both models; returns their sizes in bytes. Raises NotSupported where the disk is full."""
        from tray_valet.engine.tiny_model import write_large_model, write_tiny_model

        free_bytes = shutil.disk_usage(self.folder).free
        if free_bytes < _DISK_NEEDED_BYTES:
            raise NotSupported(
                f"{self.folder.parent} has {free_bytes // 2**20} MB free; the demo needs "
                f"{_DISK_NEEDED_BYTES // 2**20} MB.",
                remedy="Set TMPDIR to a folder with more room.",
            )
        write_tiny_model(self.models / f"{TINY}.gguf")
        write_large_model(self.models / f"{LARGE}.gguf")
        return {name: (self.models / f"{name}.gguf").stat().st_size for name in (LARGE, TINY)}

    def write_settings(self, changes: Mapping[str, Any] | None = None) -> None:
        """Write `config.yaml`: both models, any free ports, short waits; `changes` replace sections."""
        settings = {**_settings(self), **(changes or {})}
        self.valet_home.mkdir(parents=True, exist_ok=True)
        # JSON is YAML too, and quotes every path right.
        self.config.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        self.config.chmod(0o600)

    def write_game(self) -> GameProgram:
        """Make a Steam library with one game in it, a copy of a small real program.

        Raises NotSupported where no program of this machine runs from another folder.
        """
        steamapps = self.library / "steamapps"
        folder = steamapps / "common" / GAME_NAME
        folder.mkdir(parents=True)
        (steamapps / f"appmanifest_{GAME_APPID}.acf").write_text(_appmanifest(), encoding="utf-8")
        (steamapps / "libraryfolders.vdf").write_text(_library_folders(self.library), encoding="utf-8")
        return _copy_of_a_program(folder)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment for the demo's valet: `environ` without what would make it the user's own."""
        import site

        kept = {
            name: value
            for name, value in environ.items()
            if not name.startswith(("TRAY_VALET_", "LLM_VALET_", "XDG_")) and name not in _SETTINGS_OF_OTHERS
        }
        root = str(Path(__file__).resolve().parents[2])
        kept |= {
            "TRAY_VALET_HOME": str(self.valet_home),
            "TRAY_VALET_ALLOW_ROOT": "1",  # it is gone in a minute, with all that it could write to
            "HOME": str(self.folder),  # the user's own game libraries stay out of it
            "PYTHONUSERBASE": site.getuserbase(),  # packages of `pip install --user` hang on HOME
            "PYTHONPATH": os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH", "")))),
            "PATH": _path_without_llama_server(kept.get("PATH", os.defpath)),
        }
        return kept

    def remove(self) -> None:
        """Remove the folder with all that is in it; tries again where files are still being let go."""
        for _ in range(20):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.1)
        raise ValetError(f"{self.folder} could not be removed.", remedy="Remove it by hand.")


# What other programs' settings, and a desktop that a demo has no use for, would bring in.
_SETTINGS_OF_OTHERS = frozenset(
    {
        *("CONFIG_PATH", "API_KEY", "LLAMA_SERVER_PATH", "BASE_MODELS_PATH"),
        *("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"),
    }
)


def check_engine() -> None:
    """Raise EngineMissing, with the remedy, where the embedded engine is not installed."""
    from tray_valet.engine.locate import is_embedded_installed

    if not is_embedded_installed():
        raise EngineMissing(
            "The demo needs the built-in llama.cpp engine, which is not installed.",
            remedy="Install it with: pip install 'tray-valet[engine]'",
        )


def _settings(home: DemoHome) -> dict[str, Any]:
    # Without memory mapping the weights are the process's own memory, so that it is seen to move. One thread,
    # because several wait for each other in busy loops: on a busy machine that takes ten times longer.
    flags = ["--ctx-size", str(DEFAULT_CONTEXT), "--parallel", "1", "--load-mode", "none", "--threads", "1"]
    models = {name: {"model_path": f"{name}.gguf", "flags": flags} for name in (LARGE, TINY)}
    return {
        "control": {"port": 0},
        "router": {"port": 0},
        # A machine that is busy with other things must not turn this into another story.
        "thresholds": {"ram_pause_pct": 100.0, "cpu_pause_pct": 100.0, "cpu_sustained_seconds": 3600},
        "games": {
            "grace_seconds": GRACE_S,
            "end_debounce_seconds": END_DEBOUNCE_S,
            "libraries": [{"store": "steam", "path": str(home.library)}],
            # A game that the user plays meanwhile is not part of this story.
            "rules": [{"argv_regex": f"^(?!.*{GAME_NAME})", "verdict": "not"}],
        },
        "providers": {
            "local": {"kind": "llama-server", "base_models_path": str(home.models), "models": models}
        },
        "desktop": {"notifications": False},
    }


def _appmanifest() -> str:
    return (
        f'"AppState"\n{{\n\t"appid"\t"{GAME_APPID}"\n\t"universe"\t"1"\n\t"name"\t"{GAME_NAME}"\n'
        f'\t"StateFlags"\t"4"\n\t"installdir"\t"{GAME_NAME}"\n}}\n'
    )


def _library_folders(library: Path) -> str:
    path = str(library).replace("\\", "\\\\")
    apps = f'\t\t"apps"\n\t\t{{\n\t\t\t"{GAME_APPID}"\t"1"\n\t\t}}\n'
    return f'"libraryfolders"\n{{\n\t"0"\n\t{{\n\t\t"path"\t"{path}"\n{apps}\t}}\n}}\n'


def _path_without_llama_server(path: str) -> str:
    """The demo shows the built-in engine, also where a llama-server is installed."""
    return os.pathsep.join(
        folder for folder in path.split(os.pathsep) if not shutil.which("llama-server", path=folder)
    )


def _copy_of_a_program(folder: Path) -> GameProgram:
    """Copy the first program that still runs from `folder` and does nothing for a long time."""
    python = getattr(sys, "_base_executable", None) or sys.executable
    sleep = f"import time; time.sleep({_GAME_LIFE_S})"
    candidates: list[tuple[str | None, tuple[str, ...], tuple[str, ...]]] = [
        # (program, arguments that end at once, arguments that last)
        (shutil.which("sleep"), ("0",), (str(_GAME_LIFE_S),)),
        (os.path.realpath(python), ("-c", "pass"), ("-c", sleep)),
        (shutil.which("ping"), ("-n", "1", "127.0.0.1"), ("-n", str(_GAME_LIFE_S), "127.0.0.1")),
    ]
    for source, trial, lasting in candidates:
        if source is None:
            continue
        copy = folder / ("lantern_keep" + Path(source).suffix.lower().replace(".py", ""))
        shutil.copy2(os.path.realpath(source), copy)
        env = {"PYTHONHOME": sys.base_prefix} if trial[0] == "-c" else {}
        if _runs([str(copy), *trial], env):
            return GameProgram(argv=(str(copy), *lasting), env=env)
        copy.unlink()
    raise NotSupported(
        f"No program of this machine runs from {folder}, to stand in for a game.",
        remedy="Set TMPDIR to a folder from which programs may be started.",
    )


def _runs(argv: list[str], env: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            argv, env={**os.environ, **env}, capture_output=True, timeout=_TRIAL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
