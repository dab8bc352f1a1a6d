"""What the doctor's looks stand on: settings, folders, the process table, and the running valet's answers.

Decides: what is read once for all looks. Must not: judge, change anything, or wake a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tray_valet.commands.client import Client, RuntimeFile, read_runtime_file
from tray_valet.core.config import Settings
from tray_valet.core.config_providers import OllamaSettings, ProviderSettings
from tray_valet.core.errors import ValetError
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import System
from tray_valet.desktop.paths import Directories

FOUND_OLLAMA = "ollama"  # what is looked for where the settings name no provider
_ANSWER_S = 2.0
_PATHS = ("/", "/status", "/explain", "/providers")


class ValetAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The running valet of these folders, and what it told; `answers` by path, without those it refused."""

    runtime: RuntimeFile
    answers: Mapping[str, Any] = {}

    def of(self, path: str) -> dict[str, Any]:
        """The answer at a path; {} where there was none."""
        found = self.answers.get(path)
        return found if isinstance(found, dict) else {}


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that looks may use. `proc` and `sys` are where the kernel's files are."""

    environ: Mapping[str, str]
    directories: Directories
    settings_file: Path
    settings: Settings
    settings_problems: tuple[str, ...]
    settings_exist: bool
    table: ProcessTable
    system: System
    valet: ValetAnswers | None = None
    is_leftover: bool = False  # the runtime file of a valet that was killed
    home: Path = Path()
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    @property
    def providers(self) -> Mapping[str, ProviderSettings]:
        """The settings' providers; without that section the Ollama that is looked for."""
        configured = self.settings.providers
        return {FOUND_OLLAMA: OllamaSettings()} if configured is None else configured

    def of_kind(self, kind: type[Any]) -> dict[str, Any]:
        """The providers with settings of that class, by name."""
        return {name: wish for name, wish in self.providers.items() if isinstance(wish, kind)}


def lay_ground(environ: Mapping[str, str], config_path: str | None) -> Ground:
    """Read the settings and ask the running valet, if there is one. Takes at most a few seconds."""
    from tray_valet.adapters.processes import process_table
    from tray_valet.desktop.paths import config_file_of, directories_of
    from tray_valet.desktop.system import current_system
    from tray_valet.services.settings import SettingsStore

    directories = directories_of(environ)
    file = config_file_of(directories, environ, config_path)
    store = SettingsStore(file, environ)
    settings = store.load()
    problems = store.problem.problems if store.problem is not None else ()
    if problems:  # a valet uses what was right last
        settings = SettingsStore(file, environ, last_good_file=directories.last_good_config_file).load()
    table = process_table()
    runtime = read_runtime_file(directories.runtime_file)
    is_there = runtime is not None and table.is_alive(runtime.identity)
    return Ground(
        environ=environ,
        directories=directories,
        settings_file=file,
        settings=settings,
        settings_problems=tuple(map(str, problems)),
        settings_exist=os.path.lexists(file),
        table=table,
        system=current_system(),
        valet=_ask(runtime) if runtime is not None and is_there else None,
        is_leftover=os.path.lexists(directories.runtime_file) and not is_there,
        home=Path(os.path.expanduser("~")),
    )


def _ask(runtime: RuntimeFile) -> ValetAnswers:
    """Every path at once: one that hangs costs no more than the longest."""
    from concurrent.futures import ThreadPoolExecutor

    client = Client(runtime, read_timeout_s=_ANSWER_S)

    def ask(path: str) -> Any:
        try:
            return client.get(path)
        except ValetError:
            return None

    with ThreadPoolExecutor(len(_PATHS), thread_name_prefix="doctor asks") as pool:
        found = dict(zip(_PATHS, pool.map(ask, _PATHS), strict=True))
    return ValetAnswers(runtime=runtime, answers={path: a for path, a in found.items() if a is not None})
