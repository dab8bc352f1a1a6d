"""The environment that a running Ollama server was started with.

Decides: where it can be seen. Must not: open the process. Only Linux shows it as a file, to its own user;
elsewhere it could be read only through a handle with rights that anti-cheat software watches for.
"""

from __future__ import annotations

from pathlib import Path


def ollama_environment(pid: int) -> dict[str, str] | None:
    """The server's OLLAMA_* variables; None where the system does not show them. Source: proc(5)."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.partition("=") for entry in raw.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("OLLAMA_")}
