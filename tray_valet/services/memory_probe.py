"""The memory probe: what the engines' processes and the GPUs hold, before and after an eviction.

Decides: how much was freed, and whether the memory itself proves it. Must not: unload anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from enum import StrEnum

import msgspec

from tray_valet.core.eviction import is_given_back
from tray_valet.core.models import LoadedModel
from tray_valet.core.ports import GpuSensor, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.services.fleet import Slot


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What was held at one moment, in bytes."""

    runners: tuple[ProcessIdentity, ...]
    ram_bytes: int  # by the runners
    vram_bytes: int  # by the runners, where the driver tells it by process; else 0
    vram_total_bytes: int | None  # in use on all GPUs, by anybody; None: no GPU can be measured


class Proof(StrEnum):
    """What the memory says of an eviction."""

    FREE = "free"
    HELD = "held"  # the engine's own processes still hold it
    UNCLEAR = "unclear"  # all that is known is that the GPUs are as full as before; it may be the game
    UNTOLD = "untold"  # nothing here can be measured: residency is all the proof there is


class MemoryProbe:
    """Measures in worker threads; never blocks the loop."""

    def __init__(self, table: ProcessTable, gpus: GpuSensor) -> None:
        self._table = table
        self._gpus = gpus

    async def look(self, slots: Sequence[Slot], *, apart: Collection[int] = ()) -> Held:
        """Measure the runners of these providers, but those with a PID in `apart`, and all VRAM in use."""
        found = await asyncio.gather(*(slot.provider.runners() for slot in slots))
        return await self.look_again(
            tuple(dict.fromkeys(r for rs in found for r in rs if r.pid not in apart))
        )

    async def look_again(self, runners: tuple[ProcessIdentity, ...]) -> Held:
        """Measure these runners and all VRAM in use."""
        usage, gpus = await asyncio.to_thread(lambda: (self._table.usage(runners), self._gpus.sample()))
        pids = {r.pid for r in runners}
        by_runners = sum(n for g in gpus for pid, n in (g.process_bytes or {}).items() if pid in pids)
        return Held(
            runners=runners,
            ram_bytes=usage.resident_bytes,
            vram_bytes=by_runners,
            vram_total_bytes=sum(g.vram_used_bytes for g in gpus) if gpus else None,
        )

    async def with_vram(self, models: Sequence[LoadedModel]) -> list[LoadedModel]:
        """The same models with their VRAM filled in, where only the GPU's driver knows it."""
        if all(m.vram_bytes or m.pid is None for m in models):
            return list(models)
        gpus = await asyncio.to_thread(self._gpus.sample)
        by_pid: dict[int, int] = {}
        for gpu in gpus:
            for pid, n_bytes in (gpu.process_bytes or {}).items():
                by_pid[pid] = by_pid.get(pid, 0) + n_bytes
        return [_with_vram(m, by_pid.get(m.pid or 0, 0)) for m in models]


def _with_vram(model: LoadedModel, vram_bytes: int) -> LoadedModel:
    if model.vram_bytes or not vram_bytes:
        return model
    return msgspec.structs.replace(model, vram_bytes=vram_bytes, size_bytes=max(model.size_bytes, vram_bytes))


def freed_bytes(before: Held, after: Held) -> int:
    """What came back as measured; 0 where nothing was measured."""
    by_runners = max(0, before.vram_bytes - after.vram_bytes)
    in_all = max(0, (before.vram_total_bytes or 0) - (after.vram_total_bytes or 0))
    return max(0, before.ram_bytes - after.ram_bytes) + (by_runners or in_all)


def proof(before: Held, after: Held, models: Sequence[LoadedModel]) -> Proof:
    """What the memory says about these models being gone."""
    vram_expected = sum(m.vram_bytes for m in models)
    ram_expected = sum(m.size_bytes for m in models) - vram_expected
    of_runners = [
        is_given_back(before_bytes=before.ram_bytes, now_bytes=after.ram_bytes, expected_bytes=ram_expected),
        is_given_back(
            before_bytes=before.vram_bytes, now_bytes=after.vram_bytes, expected_bytes=vram_expected
        ),
    ]
    if False in of_runners:
        return Proof.HELD
    if of_runners[1] is None and before.vram_total_bytes is not None and after.vram_total_bytes is not None:
        in_all = is_given_back(
            before_bytes=before.vram_total_bytes,
            now_bytes=after.vram_total_bytes,
            expected_bytes=vram_expected,
        )
        if in_all is False:
            return Proof.UNCLEAR
        of_runners.append(in_all)
    return Proof.FREE if True in of_runners else Proof.UNTOLD
