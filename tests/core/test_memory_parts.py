"""Who has the memory: every bar adds up, whatever was measured."""

from __future__ import annotations

import msgspec
import pytest

from tests.web.page_stage import (
    GIB,
    HADES,
    MODELS,
    gpu,
    ollama,
    paused_for_hades,
    running,
    sample,
)
from tray_valet.core.memory_parts import MemoryBar, PartKind, ram_bar, vram_bar
from tray_valet.core.models import LoadedModel


def gib(bar: MemoryBar | None) -> list[tuple[str, str, float]]:
    assert bar is not None
    assert sum(part.size_bytes for part in bar.parts) == bar.total_bytes
    assert all(part.size_bytes >= 0 for part in bar.parts)
    return [(part.kind.value, part.name, round(part.size_bytes / GIB, 1)) for part in bar.parts]


def model(name: str, vram_gib: float) -> LoadedModel:
    return LoadedModel(name=name, size_bytes=int(vram_gib * GIB), vram_bytes=int(vram_gib * GIB))


def test_models_come_largest_first_then_other_programs_and_what_is_free() -> None:
    bar = vram_bar(running(providers=(ollama(*reversed(MODELS)),)))
    assert gib(bar) == [
        ("model", "qwen2.5:14b", 10.6),
        ("model", "llama3.1:8b", 6.1),
        ("model", MODELS[2].name, 0.6),
        ("other", "Other programs", 1.8),
        ("free", "Free", 4.9),
    ]


def test_a_game_is_shown_with_what_its_processes_hold_in_both_memories() -> None:
    picture = paused_for_hades(signals=())
    assert gib(vram_bar(picture))[0] == ("game", "Hades", 7.0)
    assert gib(ram_bar(picture, [5 * GIB])) == [
        ("game", "Hades", 5.0),
        ("other", "Other programs", 28.2),
        ("free", "Free", 30.8),
    ]


def test_a_game_that_the_driver_does_not_tell_apart_counts_as_other_programs() -> None:
    blind = msgspec.structs.replace(gpu(8.8), process_bytes=None)
    bar = vram_bar(paused_for_hades(sample=sample(blind)))
    assert gib(bar) == [("other", "Other programs", 8.8), ("free", "Free", 15.2)]


def test_more_models_than_can_be_told_apart_are_one_part() -> None:
    many = [model(f"m{i}", 5 - i / 2) for i in range(5)]
    bar = vram_bar(running(providers=(ollama(*many),), sample=sample(gpu(23))))
    named = [part for part in gib(bar) if part[0] == "model"]
    assert named == [("model", "m0", 5.0), ("model", "m1", 4.5), ("model", "3 more models", 10.5)]


@pytest.mark.parametrize("used_gib", [0.0, 3.0, 17.3, 24.0, 30.0])
def test_what_models_claim_never_exceeds_what_is_in_use(used_gib: float) -> None:
    bar = vram_bar(running(sample=sample(gpu(used_gib)), games=(HADES,)))
    assert bar is not None
    gib(bar)
    held = sum(part.size_bytes for part in bar.parts if part.kind is not PartKind.FREE)
    assert held == bar.used_bytes <= bar.total_bytes


def test_several_gpus_are_one_bar() -> None:
    bar = vram_bar(running(sample=sample(gpu(19.1), gpu(4.9))))
    assert bar is not None
    assert (bar.total_bytes, bar.used_bytes) == (48 * GIB, int(19.1 * GIB) + int(4.9 * GIB))


def test_no_gpu_no_bar_and_no_sample_none_at_all() -> None:
    assert vram_bar(running(sample=sample())) is None
    assert vram_bar(running(sample=None)) is None
    assert ram_bar(running(sample=None), []) is None


def test_models_of_other_machines_hold_nothing_here() -> None:
    away = running(providers=(ollama(*MODELS, is_local=False),), signals=())
    assert {part[0] for part in gib(vram_bar(away))} == {"other", "free"}
    assert {part[0] for part in gib(ram_bar(away, []))} == {"other", "free"}


def test_ram_of_models_is_what_the_pressure_rules_measured_else_what_is_not_in_vram() -> None:
    half = LoadedModel(name="half", size_bytes=8 * GIB, vram_bytes=5 * GIB)
    measured = running(providers=(ollama(half),))
    assert gib(ram_bar(measured, []))[0] == ("model", "Models", 1.3)  # 2% of 64 GB
    unmeasured = running(providers=(ollama(half),), signals=())
    assert gib(ram_bar(unmeasured, []))[0] == ("model", "Models", 3.0)
