"""What a model takes, by place; and who has to leave for it."""

from __future__ import annotations

import msgspec
import pytest

from tray_valet.core.memory_forecast import (
    Anatomy,
    CacheType,
    MemoryNeed,
    Removable,
    RunShape,
    forecast,
    need_of,
    need_of_unread,
    to_unload_to_fit,
)
from tray_valet.core.models import ModelRef

# Four layers of 100 bytes; a token's keys and values take 2 heads × (8 + 8) × 2 bytes = 64 a layer.
SMALL = Anatomy(
    architecture="llama",
    context_length=8192,
    embedding=16,
    feed_forward=32,
    vocabulary=100,
    kv_heads=(2,) * 4,
    key_length=8,
    value_length=8,
    layer_bytes=(100,) * 4,
    input_bytes=30,
    output_bytes=40,
)
TOKEN = 64
HALF_WINDOW = msgspec.structs.replace(SMALL, sliding_window=512, has_window=(True, False, True, False))


@pytest.mark.parametrize(
    ("anatomy", "shape", "kv"),
    [
        (SMALL, RunShape(context_length=1024), 4 * 1024 * TOKEN),
        (SMALL, RunShape(), 4 * 8192 * TOKEN),
        (SMALL, RunShape(context_length=1000), 4 * 1024 * TOKEN),
        (SMALL, RunShape(context_length=1000, parallel=3), 4 * 3 * 512 * TOKEN),
        (SMALL, RunShape(context_length=1024, parallel=4, is_kv_unified=True), 4 * 1024 * TOKEN),
        (
            SMALL,
            RunShape(context_length=1024, type_k=CacheType.Q8_0, type_v=CacheType.Q8_0),
            4 * 1024 * 2 * (2 * 8 * 34 // 32),
        ),
        (SMALL, RunShape(context_length=1024, type_k=CacheType.F32), 4 * 1024 * (2 * 8 * 4 + 2 * 8 * 2)),
        # A window of 512 and a batch of 512 more, in half of the layers.
        (HALF_WINDOW, RunShape(context_length=4096), (2 * 1024 + 2 * 4096) * TOKEN),
        (HALF_WINDOW, RunShape(context_length=512), 4 * 512 * TOKEN),
        (HALF_WINDOW, RunShape(context_length=4096, has_full_window_cache=True), 4 * 4096 * TOKEN),
        (
            msgspec.structs.replace(HALF_WINDOW, has_window=(), architecture="gpt-oss"),
            RunShape(context_length=4096),
            (2 * 1024 + 2 * 4096) * TOKEN,
        ),
        (msgspec.structs.replace(SMALL, draft_layers=1), RunShape(context_length=1024), 3 * 1024 * TOKEN),
        (
            msgspec.structs.replace(SMALL, kv_heads=(2, 0, 2, 0)),
            RunShape(context_length=1024),
            2 * 1024 * TOKEN,
        ),
        (
            msgspec.structs.replace(SMALL, latent_length=576),
            RunShape(context_length=1024),
            4 * 1024 * 576 * 2,
        ),
    ],
)
def test_the_cache_is_forecast_to_the_byte(anatomy: Anatomy, shape: RunShape, kv: int) -> None:
    assert forecast(anatomy, shape).kv == kv


@pytest.mark.parametrize(
    ("gpu_layers", "is_tied", "on_gpu", "on_host"),
    [
        (0, False, 0, 470),
        (2, False, 200, 270),
        (4, False, 400, 70),
        (5, False, 440, 30),
        (99, False, 440, 30),
        (None, False, 440, 30),
        (99, True, 470, 30),
        (0, True, 0, 470),
    ],
)
def test_the_last_layers_go_to_the_gpu_first_and_the_input_never(
    gpu_layers: int | None, is_tied: bool, on_gpu: int, on_host: int
) -> None:
    anatomy = msgspec.structs.replace(SMALL, is_tied=is_tied)
    found = forecast(anatomy, RunShape(context_length=1024, gpu_layers=gpu_layers))
    assert (found.gpu_weights, found.host_weights) == (on_gpu, on_host)


def test_the_cache_lies_where_its_layer_does_unless_it_is_kept_on_the_host() -> None:
    half = RunShape(context_length=1024, gpu_layers=2)
    assert forecast(SMALL, half).gpu_kv == forecast(SMALL, half).host_kv == 2 * 1024 * TOKEN
    kept = msgspec.structs.replace(half, keeps_kv_on_host=True)
    assert forecast(SMALL, kept).gpu_kv == 0
    assert forecast(SMALL, kept).host_kv == 4 * 1024 * TOKEN


def test_the_factor_scales_the_approximate_part_alone() -> None:
    shape = RunShape(context_length=1024, gpu_layers=99)
    found = forecast(SMALL, shape)
    exact = found.gpu_weights + found.gpu_kv
    assert need_of(SMALL, shape, 1.0).vram_bytes == exact + found.gpu_compute
    assert need_of(SMALL, shape, 2.0).vram_bytes == exact + 2 * found.gpu_compute
    assert need_of(SMALL, shape, 2.0).ram_bytes == found.host_weights


def test_a_file_that_cannot_be_read_is_guessed_by_its_size() -> None:
    assert need_of_unread(1000, is_on_gpu=True, factor=1.1).vram_bytes == 1100
    assert need_of_unread(1000, is_on_gpu=False, factor=1.1).ram_bytes == 1100


def test_what_the_engine_may_shrink_is_no_reason_to_refuse() -> None:
    open_context = need_of(SMALL, RunShape(gpu_layers=99), 1.0)
    assert open_context.least_vram_bytes < open_context.vram_bytes
    assert need_of(SMALL, RunShape(context_length=1024), 1.0).least_vram_bytes == 0, (
        "layers may stay on the host"
    )
    somewhere = need_of(SMALL, RunShape(context_length=1024), 1.0)
    assert somewhere.least_total_bytes == somewhere.vram_bytes + somewhere.ram_bytes, "but they lie somewhere"
    fixed = need_of(SMALL, RunShape(gpu_layers=99, may_shrink=False), 1.0)
    assert fixed.least_vram_bytes == fixed.vram_bytes


def ref(name: str) -> ModelRef:
    return ModelRef("local", name)


@pytest.mark.parametrize(
    ("vram", "ram", "leaving"),
    [
        (5, 5, ()),
        (15, 0, ("old",)),
        (25, 0, ("old", "new")),
        (99, 0, None),
        (0, 15, ("cpu",)),
        (15, 15, ("old", "cpu")),
        (5, 99, None),
    ],
)
def test_the_least_recently_used_leave_if_that_helps_and_is_enough(
    vram: int, ram: int, leaving: tuple[str, ...] | None
) -> None:
    removable = [
        Removable(ref=ref("new"), vram_bytes=10, last_used_s=3.0),
        Removable(ref=ref("cpu"), ram_bytes=10, last_used_s=2.0),
        Removable(ref=ref("old"), vram_bytes=10, last_used_s=1.0),
    ]
    found = to_unload_to_fit(
        MemoryNeed(vram_bytes=vram, ram_bytes=ram), vram_free_bytes=10, ram_free_bytes=10, removable=removable
    )
    assert found == (None if leaving is None else tuple(map(ref, leaving)))
