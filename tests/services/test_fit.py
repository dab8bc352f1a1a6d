"""Before a model is loaded: does it fit, and who leaves for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.services.house import GB, FakeProvider, House, machine
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings, GroupMode, GroupSettings, ModelsSettings
from tray_valet.core.errors import VramExhausted
from tray_valet.core.memory_forecast import MemoryNeed
from tray_valet.core.metrics import GpuSample, MachineSample
from tray_valet.core.models import LoadedModel, LoadRequest, ModelRef
from tray_valet.services.fit import Fit


def gpu(index: int, free_bytes: int) -> GpuSample:
    return GpuSample(
        index=index,
        uuid=f"GPU-{index}",
        name="x",
        vram_total_bytes=64 * GB,
        vram_used_bytes=64 * GB - free_bytes,
    )


def on_gpu(n_bytes: int, **changes: object) -> MemoryNeed:
    return msgspec.structs.replace(MemoryNeed(vram_bytes=n_bytes, least_vram_bytes=n_bytes), **changes)


def on_host(n_bytes: int) -> MemoryNeed:
    return MemoryNeed(ram_bytes=n_bytes, least_ram_bytes=n_bytes)


class Scene:
    """Models of 4 GB each; what is free follows what is loaded."""

    def __init__(self, tmp_path: Path) -> None:
        self.provider = FakeProvider(models=("a", "b", "c", "big"))
        self.house = House(tmp_path, self.provider, EvictionSettings())
        self.settings = ModelsSettings(max_concurrent=10)
        self.ram_bytes = 10 * GB
        self.gpu_bytes: list[int] = []  # of each GPU, with nothing loaded
        self.house.loader.fit = Fit(self.house.fleet, self._sample, self._with_vram, lambda: self.settings)

    @property
    def _is_on_gpu(self) -> bool:
        return bool(self.gpu_bytes)

    async def _sample(self) -> MachineSample:
        held = self.provider.memory_bytes
        gpus = tuple(gpu(i, n - (held if i == 0 else 0)) for i, n in enumerate(self.gpu_bytes))
        return msgspec.structs.replace(machine(self.ram_bytes - (0 if gpus else held)), gpus=gpus)

    async def _with_vram(self, models: Sequence[LoadedModel]) -> list[LoadedModel]:
        return [msgspec.structs.replace(m, vram_bytes=m.size_bytes if self._is_on_gpu else 0) for m in models]

    async def load(self, model: str, need: MemoryNeed | None = None) -> None:
        if need is not None:
            self.provider.memory_needs[model] = need
        slot = self.house.fleet.slots["fake"]
        await self.house.loader.ensure(slot, LoadRequest(model=model))

    @property
    def unloads(self) -> list[str]:
        return [model for what, model in self.provider.calls if what == "unload"]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    async with scene.house.running():
        yield scene


async def test_what_fits_is_loaded_and_nobody_leaves(scene: Scene) -> None:
    await scene.load("a")
    await scene.load("big", on_host(5 * GB))
    assert scene.unloads == []


async def test_r18_the_least_recently_used_leave_when_that_makes_it_fit(scene: Scene) -> None:
    await scene.load("a")
    await scene.load("b")
    scene.house.loader.touch(ModelRef("fake", "a"))
    await scene.load("big", on_host(5 * GB))
    assert scene.unloads == ["b"]
    assert [f.model for f in scene.house.seen(ev.ModelUnloaded)] == ["b"]  # type: ignore[attr-defined]


async def test_r18_nobody_leaves_for_what_would_not_fit_even_then(scene: Scene) -> None:
    await scene.load("a")
    with pytest.raises(VramExhausted) as caught:
        await scene.load("big", on_host(20 * GB))
    assert scene.unloads == []
    assert caught.value.required_bytes > 20 * GB
    assert caught.value.available_bytes == 6 * GB
    assert "RAM" in caught.value.message
    assert "big" in caught.value.message
    assert ("load", "big") not in scene.provider.calls
    assert len(scene.house.seen(ev.LoadRefused)) == 1


async def test_who_answers_or_is_pinned_does_not_leave(scene: Scene) -> None:
    await scene.load("a")
    await scene.load("b")
    scene.settings = ModelsSettings(
        max_concurrent=10, groups={"keep": GroupSettings(mode=GroupMode.PINNED, models=("b",))}
    )
    scene.house.loader._is_busy = lambda ref: ref.model == "a"
    with pytest.raises(VramExhausted):
        await scene.load("big", on_host(5 * GB))
    assert scene.unloads == []


async def test_vram_of_the_gpus_that_it_may_use_counts(scene: Scene) -> None:
    scene.gpu_bytes = [24 * GB, 8 * GB]
    with pytest.raises(VramExhausted) as caught:
        await scene.load("big", on_gpu(12 * GB, gpu_devices=(1,)))
    assert caught.value.available_bytes == 8 * GB
    assert "VRAM" in caught.value.message
    await scene.load("big", on_gpu(12 * GB, gpu_devices=(0,)))


async def test_a_model_for_the_cpu_is_never_counted_against_vram(scene: Scene) -> None:
    scene.gpu_bytes = [0]
    await scene.load("big", on_host(8 * GB))


async def test_what_the_engine_shrinks_by_itself_is_loaded_without_turning_anyone_out(scene: Scene) -> None:
    scene.gpu_bytes = [10 * GB]
    await scene.load("a")
    await scene.load("big", on_gpu(40 * GB, least_vram_bytes=0))
    assert scene.unloads == []


async def test_where_gpus_cannot_be_measured_lack_of_ram_refuses_nothing(scene: Scene) -> None:
    await scene.load("big", on_gpu(40 * GB, is_sure_of_place=False))
    with pytest.raises(VramExhausted):
        await scene.load("a", on_gpu(40 * GB, is_sure_of_place=True))


async def test_layers_that_no_gpu_takes_need_room_on_the_host(scene: Scene) -> None:
    """Nothing is said of the flags: the engine puts on a GPU what fits there, and here there is none."""
    need = on_gpu(40 * GB, least_vram_bytes=0, least_ram_bytes=GB, least_total_bytes=40 * GB)
    with pytest.raises(VramExhausted) as caught:
        await scene.load("big", need)
    assert caught.value.required_bytes >= 40 * GB
    assert caught.value.available_bytes == 10 * GB
    await scene.load("big", on_gpu(40 * GB, least_vram_bytes=0, least_ram_bytes=GB, least_total_bytes=8 * GB))


async def test_two_loads_at_once_do_not_count_on_the_same_room(scene: Scene) -> None:
    scene.provider.load_s = 0.2
    scene.provider.memory_needs = {"a": on_host(6 * GB), "b": on_host(6 * GB)}
    results = await asyncio.gather(scene.load("a"), scene.load("b"), return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["NoneType", "VramExhausted"]


async def test_a_model_that_is_loaded_anew_gets_its_own_place_back(scene: Scene) -> None:
    await scene.load("a", on_host(8 * GB))
    slot = scene.house.fleet.slots["fake"]
    await scene.house.loader.ensure(slot, LoadRequest(model="a", context_length=8192))
    assert scene.unloads == []


async def test_a_ready_model_costs_no_look(scene: Scene) -> None:
    await scene.load("a")
    scene.provider.memory_needs["a"] = on_host(100 * GB)
    await scene.load("a")


async def test_a_restore_is_not_judged_here(scene: Scene) -> None:
    scene.provider.memory_needs["big"] = on_host(100 * GB)
    slot = scene.house.fleet.slots["fake"]
    await scene.house.loader.ensure(slot, LoadRequest(model="big"), makes_room=False)


async def test_a_model_that_leaves_meanwhile_does_not_lend_its_size_to_another(scene: Scene) -> None:
    scene.provider.size_bytes = 1 * GB
    await scene.load("a")
    scene.provider.size_bytes = 4 * GB
    await scene.load("b")

    async def with_vram(models: Sequence[LoadedModel]) -> list[LoadedModel]:
        scene.house.fleet.note_gone(ModelRef("fake", "a"))
        return list(models)

    fit = Fit(scene.house.fleet, scene._sample, with_vram, lambda: scene.settings)
    scene.house.loader.fit = fit
    await scene.load("big", on_host(8 * GB))
    assert scene.unloads == ["b"]
