"""Asks llama.cpp's own `llama-fit-params` what a model will take, where it lies beside the llama-server.

Decides: how it is asked and what its answer means. Must not: be relied on; without an answer (there is no
such program, it does not know a flag, it aborts) the valet's own forecast stands.

Source: llama.cpp pull request 22171 (`--fit-print on`: a line a device and one for the host, each “name,
model, context, compute” in MiB); it loads nothing and answers in 11–14 ms.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tray_valet.core.engines import Engine, EngineKind
from tray_valet.core.memory_forecast import MemoryNeed

_TIMEOUT_S = 2.0
_MIB = 2**20
_COLUMNS = 4
_NOT_ITS_OWN = ("-fit", "--fit", "-fitp", "--fit-print")


def fit_params_beside(engine: Engine) -> str | None:
    """The program that belongs to this llama-server; None where there is none."""
    if engine.kind is EngineKind.EMBEDDED:
        return None
    server = Path(engine.path)
    for folder in dict.fromkeys((server.parent, server.resolve().parent)):
        program = folder / f"llama-fit-params{server.suffix if server.suffix == '.exe' else ''}"
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    return None


def ask_fit_params(
    program: str, *, model_path: str, flags: Sequence[str], env: Mapping[str, str]
) -> MemoryNeed | None:
    """What it says of a run with these flags; None without an answer. Blocks for up to 2 s."""
    kept: list[str] = []
    remaining = iter(flags)
    for flag in remaining:
        if flag in _NOT_ITS_OWN:
            next(remaining, None)
        else:
            kept.append(flag)
    argv = [program, "--model", model_path, *kept, "--fit", "off", "--fit-print", "on"]
    try:
        answer = subprocess.run(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parsed(answer.stdout.decode(errors="replace"))


def parsed(output: str) -> MemoryNeed | None:
    """Read its answer; None if that is no such answer."""
    vram = ram = 0
    has_host = False
    for line in output.splitlines():
        words = line.split()
        if len(words) != _COLUMNS or not all(word.isdigit() for word in words[1:]):
            continue
        n_bytes = sum(map(int, words[1:])) * _MIB
        if words[0].lower() in ("host", "cpu"):
            has_host = True
            ram += n_bytes
        else:
            vram += n_bytes
    if not has_host:
        return None
    return MemoryNeed(vram_bytes=vram, ram_bytes=ram, least_vram_bytes=vram, least_ram_bytes=ram)
