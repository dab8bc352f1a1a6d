"""Whether a model fits, before it is loaded: and who has to leave for it.

Decides: by `core.memory_forecast` and what is free now, which idle models are unloaded, or that there is no
room. Must not: unload (the loader does), or have a say in restores, whose forecast is the watchdog's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from tray_valet.core.config import ModelsSettings
from tray_valet.core.errors import VramExhausted
from tray_valet.core.memory_forecast import MemoryNeed, Removable, to_unload_to_fit
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import LoadedModel, LoadRequest, ModelRef
from tray_valet.core.residency import Resident, is_pinned
from tray_valet.core.thresholds import MIB
from tray_valet.core.wording import size
from tray_valet.services.fleet import Fleet, Slot

_RESERVE_BYTES = 256 * MIB  # a driver's context, and what others take meanwhile
_RESERVE_SHARE = 4  # … or this part of what is needed, if that is less


class Fit:
    """Judges loads. Loads that are on their way count as if they were there.

    `sample()` measures the machine now; `with_vram` fills in what only the GPU's driver knows of models.
    """

    def __init__(
        self,
        fleet: Fleet,
        sample: Callable[[], Awaitable[MachineSample]],
        with_vram: Callable[[Sequence[LoadedModel]], Awaitable[list[LoadedModel]]],
        settings: Callable[[], ModelsSettings],
    ) -> None:
        self._fleet = fleet
        self._sample = sample
        self._with_vram = with_vram
        self._settings = settings
        self._promised: dict[ModelRef, MemoryNeed] = {}

    async def to_unload(
        self,
        slot: Slot,
        wanted: ModelRef,
        request: LoadRequest,
        residents: Callable[[], Sequence[Resident]],
    ) -> tuple[ModelRef, ...]:
        """The idle models that have to leave first, least recently used first; () when it fits as it is.

        Raises VramExhausted where it does not fit even then, and what the provider raises.
        """
        need = await slot.provider.needs(request)
        if need is None:
            return ()
        sample = await self._sample()
        there = self._fleet.residents()  # others may come and go while the GPUs are asked
        models = await self._with_vram([model for _, model in there])
        sizes = {ModelRef(s.name, m.name): m for (s, _), m in zip(there, models, strict=True)}
        need = _placed(need, sample)
        vram_free, ram_free = self._free(need, sample, wanted, sizes)
        if _fits(need, vram_free, ram_free):
            self._promised[wanted] = need
            return ()
        leaving = to_unload_to_fit(
            _with_reserve(need),
            vram_free_bytes=vram_free,
            ram_free_bytes=ram_free,
            removable=self._removable(wanted, residents(), sizes),
        )
        least = _least(need)
        if leaving is None and not _fits(least, vram_free, ram_free) and need.is_sure_of_place:
            leaving = to_unload_to_fit(
                _with_reserve(least),
                vram_free_bytes=vram_free,
                ram_free_bytes=ram_free,
                removable=self._removable(wanted, residents(), sizes),
            )
            if leaving is None:
                raise _exhausted(wanted, least, vram_free, ram_free)
        self._promised[wanted] = need
        return leaving or ()

    def note_done(self, ref: ModelRef) -> None:
        """A load has ended, well or not: what it takes is measured from now on."""
        self._promised.pop(ref, None)

    def _free(
        self,
        need: MemoryNeed,
        sample: MachineSample,
        wanted: ModelRef,
        sizes: dict[ModelRef, LoadedModel],
    ) -> tuple[int, int]:
        """(VRAM, RAM) that is free for it: its own place counts, if it is to be loaded anew."""
        others = [n for ref, n in self._promised.items() if ref != wanted]
        vram = sum(
            g.vram_total_bytes - g.vram_used_bytes
            for g in sample.gpus
            if need.gpu_devices is None or g.index in need.gpu_devices
        )
        vram -= sum(n.vram_bytes for n in others)
        ram = sample.host.ram_available_bytes - sum(n.ram_bytes for n in others)
        if own := sizes.get(wanted):
            vram += own.vram_bytes
            ram += max(0, own.size_bytes - own.vram_bytes)
        return max(0, vram), max(0, ram)

    def _removable(
        self, wanted: ModelRef, residents: Sequence[Resident], sizes: dict[ModelRef, LoadedModel]
    ) -> list[Removable]:
        settings = self._settings()
        return [
            Removable(
                ref=r.ref,
                vram_bytes=sizes[r.ref].vram_bytes,
                ram_bytes=max(0, sizes[r.ref].size_bytes - sizes[r.ref].vram_bytes),
                last_used_s=r.last_used_s,
            )
            for r in residents
            if r.ref != wanted and not r.is_busy and r.ref in sizes and not is_pinned(r.ref, settings)
        ]


def _placed(need: MemoryNeed, sample: MachineSample) -> MemoryNeed:
    """The same need where no GPU is measured: what would lie there lies in RAM, as far as is known."""
    if sample.gpus:
        return msgspec.structs.replace(need, is_sure_of_place=True)
    return msgspec.structs.replace(
        need,
        vram_bytes=0,
        ram_bytes=need.ram_bytes + need.vram_bytes,
        least_vram_bytes=0,
        # Layers that a GPU may leave to the host are in neither of the two.
        least_ram_bytes=max(need.least_ram_bytes + need.least_vram_bytes, need.least_total_bytes),
        is_sure_of_place=need.is_sure_of_place or not need.vram_bytes,
    )


def _least(need: MemoryNeed) -> MemoryNeed:
    return msgspec.structs.replace(need, vram_bytes=need.least_vram_bytes, ram_bytes=need.least_ram_bytes)


def _with_reserve(need: MemoryNeed) -> MemoryNeed:
    return msgspec.structs.replace(
        need,
        vram_bytes=need.vram_bytes + _reserve(need.vram_bytes),
        ram_bytes=need.ram_bytes + _reserve(need.ram_bytes),
    )


def _reserve(needed_bytes: int) -> int:
    return min(_RESERVE_BYTES, needed_bytes // _RESERVE_SHARE)


def _fits(need: MemoryNeed, vram_free: int, ram_free: int) -> bool:
    whole = _with_reserve(need)
    return whole.vram_bytes <= vram_free and whole.ram_bytes <= ram_free


def _exhausted(wanted: ModelRef, need: MemoryNeed, vram_free: int, ram_free: int) -> VramExhausted:
    whole = _with_reserve(need)
    is_vram = whole.vram_bytes > vram_free
    required, free = (whole.vram_bytes, vram_free) if is_vram else (whole.ram_bytes, ram_free)
    what = "VRAM" if is_vram else "RAM"
    return VramExhausted(
        f"{wanted.model} needs {size(required)} of {what}; {size(free)} are free, and what other models "
        "hold is in use or would not be enough.",
        required_bytes=required,
        available_bytes=free,
    )
