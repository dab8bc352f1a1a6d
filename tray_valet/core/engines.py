"""What can run a GGUF model here: the word that the locator and the providers share.

Decides: how an engine is described. Must not: look for one (`engine/locate.py` does).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class EngineKind(StrEnum):
    """Where the engine came from, in the order in which they are tried."""

    CONFIGURED = "configured"  # `llama_server_path` names it
    ON_PATH = "on_path"
    EMBEDDED = "embedded"  # llama.cpp inside a Python child process


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """A program that takes llama-server's flags. `argv` starts it; the flags go behind it.

    `env` holds the variables that it needs beside the usual ones; `path` is what people are shown.
    """

    kind: EngineKind
    argv: tuple[str, ...]
    path: str
    env: dict[str, str] = {}
