"""The load: runs of the C generator against one target, and what they saw.

Must not: know which figures are wanted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from _router_tools import LOAD_CORE, on_core

_GRACE_S = 30.0


class Series(msgspec.Struct, frozen=True):
    """Times in µs."""

    p50: float
    p99: float
    max: float
    count: int


class Load(msgspec.Struct, frozen=True):
    """What one run of the generator saw; `chunks` are events of streams."""

    answers: int
    errors: int
    reconnects: int
    seconds: float
    per_s: float
    chunks: int
    body_bytes: int
    latency: Series | None = None
    first: Series | None = None
    gap: Series | None = None


class Target(msgspec.Struct, frozen=True):
    """Where requests go, and what they are to say."""

    name: str
    whole_port: int
    stream_port: int
    key: str = "-"
    model: str = "m"


class Generator:
    """Runs the C load generator."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.errors: dict[str, int] = {}  # by target: answers that were none

    def start(
        self,
        target: Target,
        *,
        seconds: float,
        connections: int = 1,
        prompt_bytes: int = 700,
        is_stream: bool = False,
        fields: Mapping[str, Any] | None = None,
        warm_up: int = 10,
        slow_bytes_s: int = 0,
        count: int = 0,
        core: int = LOAD_CORE,
    ) -> Running:
        """Start a run; `fields` go into the body, before the messages."""
        body = {
            "model": target.model,
            "stream": is_stream,
            "temperature": 0.7,
            "max_tokens": 256,
            **(fields or {}),
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
                {"role": "user", "content": "x" * prompt_bytes},
            ],
        }
        data = json.dumps(body).encode()
        file = self._folder / f"body-{abs(hash(data))}.json"
        if not file.exists():
            file.write_bytes(data)
        port = target.stream_port if is_stream else target.whole_port
        numbers = (connections, seconds, count, target.key, warm_up, slow_bytes_s)
        argv = [str(self._program), str(port), str(file), *(str(number) for number in numbers)]
        return Running(argv, core, seconds, target.name, self.errors)

    def run(self, target: Target, *, seconds: float, **options: Any) -> Load:
        """Start a run and wait for its end."""
        return self.start(target, seconds=seconds, **options).finish()


class Running:
    """A run of the generator that has been started."""

    def __init__(
        self, argv: Sequence[str], core: int, seconds: float, name: str, errors: dict[str, int]
    ) -> None:
        self._name = name
        self._errors = errors
        self._limit_s = seconds + _GRACE_S
        self._process = subprocess.Popen(on_core(core, argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self) -> Load:
        """Its figures. Exits where there are none to speak of: errors alone tell nothing."""
        try:
            out, err = self._process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise SystemExit(f"the load on {self._name} did not end") from None
        if self._process.returncode:
            raise SystemExit(f"the load on {self._name} failed: {err.decode(errors='replace')[-1500:]}")
        load = msgspec.json.decode(out, type=Load)
        if load.errors:
            print(f"{self._name}: {err.decode(errors='replace')[:600]}", file=sys.stderr)
            self._errors[self._name] = self._errors.get(self._name, 0) + load.errors
        return load
