"""Who has the memory: each kind of it (VRAM, RAM) divided among models, games, other programs and nobody.

Decides: what is counted to whom, and how few names a bar shows. Must not: measure.
What a driver does not tell by process (a game's VRAM on Windows) is counted to the other programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from tray_valet.core.metrics import GpuSample
from tray_valet.core.models import LoadedModel
from tray_valet.core.snapshot import GameView, Snapshot

_NAMED_MODELS = 3  # more would not be told apart by colour


class PartKind(StrEnum):
    """Whose memory it is."""

    MODEL = "model"
    GAME = "game"
    OTHER = "other"
    FREE = "free"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of a bar."""

    kind: PartKind
    name: str
    size_bytes: int


class MemoryBar(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of memory; the parts add up to the total."""

    total_bytes: int
    used_bytes: int
    parts: tuple[Part, ...]


def vram_bar(snapshot: Snapshot) -> MemoryBar | None:
    """VRAM of all GPUs together; None where no GPU can be measured."""
    gpus = snapshot.sample.gpus if snapshot.sample else ()
    if not gpus:
        return None
    loaded = [model for view in snapshot.providers if view.is_local for model in view.loaded]
    models = [
        Part(kind=PartKind.MODEL, name=model.name, size_bytes=model.vram_bytes)
        for model in sorted(loaded, key=_by_vram)
        if model.vram_bytes > 0
    ]
    games = [_game(game, _vram_of(game, gpus)) for game in snapshot.games]
    return _bar(
        sum(gpu.vram_total_bytes for gpu in gpus),
        sum(gpu.vram_used_bytes for gpu in gpus),
        [*_few(models), *games],
    )


def ram_bar(snapshot: Snapshot, game_ram_bytes: Sequence[int]) -> MemoryBar | None:
    """RAM; `game_ram_bytes` in the order of `snapshot.games`. None before the first sample."""
    if snapshot.sample is None:
        return None
    host = snapshot.sample.host
    models = Part(kind=PartKind.MODEL, name="Models", size_bytes=_models_ram_bytes(snapshot))
    games = [_game(game, size) for game, size in zip(snapshot.games, game_ram_bytes, strict=False)]
    return _bar(host.ram_total_bytes, host.ram_used_bytes, [models, *games])


def _models_ram_bytes(snapshot: Snapshot) -> int:
    """As the pressure rules measure it; before their first look, what is not in VRAM."""
    assert snapshot.sample is not None
    for signal in snapshot.signals:
        if signal.signal == "ram":
            return int(snapshot.sample.host.ram_total_bytes * signal.ours_pct / 100)
    loaded = [model for view in snapshot.providers if view.is_local for model in view.loaded]
    return sum(max(0, model.size_bytes - model.vram_bytes) for model in loaded)


def _bar(total_bytes: int, used_bytes: int, named: Sequence[Part]) -> MemoryBar:
    """Measured at different moments, the parts may add up to more than is in use: then the last give way."""
    used_bytes = min(used_bytes, total_bytes)
    left_bytes = used_bytes
    parts: list[Part] = []
    for part in named:
        size = min(part.size_bytes, left_bytes)
        if size > 0:
            parts.append(msgspec.structs.replace(part, size_bytes=size))
            left_bytes -= size
    parts.append(Part(kind=PartKind.OTHER, name="Other programs", size_bytes=left_bytes))
    parts.append(Part(kind=PartKind.FREE, name="Free", size_bytes=total_bytes - used_bytes))
    return MemoryBar(total_bytes=total_bytes, used_bytes=used_bytes, parts=tuple(parts))


def _few(models: Sequence[Part]) -> list[Part]:
    """The largest by name, the rest as one."""
    if len(models) <= _NAMED_MODELS:
        return list(models)
    rest = models[_NAMED_MODELS - 1 :]
    together = Part(
        kind=PartKind.MODEL,
        name=f"{len(rest)} more models",
        size_bytes=sum(part.size_bytes for part in rest),
    )
    return [*models[: _NAMED_MODELS - 1], together]


def _game(game: GameView, size_bytes: int) -> Part:
    return Part(kind=PartKind.GAME, name=game.name, size_bytes=size_bytes)


def _vram_of(game: GameView, gpus: Sequence[GpuSample]) -> int:
    return sum((gpu.process_bytes or {}).get(pid, 0) for gpu in gpus for pid in game.pids)


def _by_vram(model: LoadedModel) -> tuple[int, str]:
    return -model.vram_bytes, model.name
