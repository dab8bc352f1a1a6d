"""Where an Ollama on this machine keeps its models.

Decides: the folder, from the environment of the running server, else from the home of whoever runs it.
Must not: look into it.

Facts: envconfig/config.go of Ollama (`Models`): OLLAMA_MODELS, else `.ollama/models` in the home of the
server's user; scripts/install.sh makes a user `ollama` with the home /usr/share/ollama for the service.
"""

from __future__ import annotations

import os

from tray_valet.core.ports import ProcessTable
from tray_valet.providers.ollama_environment import ollama_environment
from tray_valet.providers.ollama_processes import find_server

_VARIABLE = "OLLAMA_MODELS"
_BELOW_HOME = os.path.join(".ollama", "models")


def folder_of_server(table: ProcessTable, port: int) -> str:
    """The folder of the models of the server on `port`; a default where it cannot be seen. Blocks."""
    server = find_server(table, port)
    found = _of_process(server.identity.pid) if server is not None else None
    return found or os.environ.get(_VARIABLE) or os.path.join(os.path.expanduser("~"), _BELOW_HOME)


def _of_process(pid: int) -> str | None:
    """What a process tells: other users' hide their environment, but not whose they are."""
    import psutil

    if named := (ollama_environment(pid) or {}).get(_VARIABLE):
        return named
    try:
        user = psutil.Process(pid).username().rpartition("\\")[2]
    except (psutil.Error, OSError, KeyError):
        return None
    home = os.path.expanduser(f"~{user}")
    return None if home.startswith("~") else os.path.join(home, _BELOW_HOME)
