"""Finds the llama.cpp engine: the configured one, else `llama-server` on PATH, else the embedded one.

Decides: the order, and what to say where there is none.
Must not: start or import an engine (looking must be cheap: it happens before every load).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from tray_valet.core.engines import Engine, EngineKind
from tray_valet.core.errors import EngineMissing

FROZEN_ENGINE_ARGUMENT = "engine-server"  # the packaged program's hidden command for this process
_PROGRAM = "llama-server"
_INSTALL = "Install llama.cpp so that llama-server is on PATH, or install tray-valet[engine]."


def locate_engine(
    configured: str | None, environ: Mapping[str, str], *, has_embedded: Callable[[], bool] | None = None
) -> Engine:
    """Return the engine to use; `configured` is the setting `llama_server_path`.

    A configured engine that is not there is an error, not a reason to take another one silently.
    Raises EngineMissing with the remedy.
    """
    search_path = environ.get("PATH", os.defpath)
    if configured:
        return _configured(configured, search_path)
    if found := shutil.which(_PROGRAM, path=search_path):
        return Engine(kind=EngineKind.ON_PATH, argv=(found,), path=found)
    if (has_embedded or is_embedded_installed)():
        return embedded_engine(environ)
    raise EngineMissing("There is no llama.cpp engine on this machine.", remedy=_INSTALL)


def embedded_engine(environ: Mapping[str, str]) -> Engine:
    """Return the embedded engine's command line; it is not checked whether xllamacpp is there."""
    if getattr(sys, "frozen", False):
        return Engine(
            kind=EngineKind.EMBEDDED,
            argv=(sys.executable, FROZEN_ENGINE_ARGUMENT),
            path="built-in llama.cpp",
        )
    # -P: a file in the working directory must not stand in for a module. PYTHONPATH: from a checkout too.
    root = str(Path(__file__).resolve().parents[2])
    inherited = environ.get("PYTHONPATH", "")
    return Engine(
        kind=EngineKind.EMBEDDED,
        argv=(sys.executable, "-P", "-m", "tray_valet.engine.server"),
        path="built-in llama.cpp",
        env={"PYTHONPATH": os.pathsep.join(filter(None, (root, inherited)))},
    )


def is_embedded_installed() -> bool:
    """Say whether xllamacpp could be imported, without importing it (9–34 MB of native code)."""
    return find_spec("xllamacpp") is not None


def _configured(configured: str, search_path: str) -> Engine:
    expanded = os.path.expanduser(os.path.expandvars(configured))
    if found := shutil.which(expanded, path=search_path):
        path = os.path.abspath(found)
        return Engine(kind=EngineKind.CONFIGURED, argv=(path,), path=path)
    problem = "is not executable" if os.path.isfile(expanded) else "does not exist"
    raise EngineMissing(
        f"llama_server_path is {configured}, which {problem}.",
        remedy="Correct it, or remove it to use llama-server from PATH or the built-in engine.",
        param="llama_server_path",
    )
