"""The forecast of what a model will take in llama.cpp: weights, KV cache and compute buffers, by place.

Decides: how many bytes a model of that anatomy, run in that shape, takes on the GPUs and on the host, and
which idle models have to leave for it. Must not: read files or flags (`providers/` do), or measure.

Weights and KV cache are exact; compute buffers are approximate, and a safety factor applies to them alone
(or to the size of a file that cannot be read). Sources: llama.cpp `llama_kv_cache` (cells padded to 256 for
each sequence), `llama_kv_cache_iswa` (sliding windows), `llama_hparams::set_swa_pattern`,
`llama_model::load_tensors` (the last layers go to GPUs first, the input embedding stays on the host).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from tray_valet.core.models import ModelRef

_CELLS_PAD = 256
_PATTERN_OF = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "olmo2": 4}
_LEAST_CONTEXT = 4_096  # tokens; llama.cpp shrinks a context nobody asked for down to this (`--fit-ctx`)


class CacheType(StrEnum):
    """How an element of the KV cache is stored."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"
    IQ4_NL = "iq4_nl"

    @property
    def bytes_per_32(self) -> int:
        """Bytes of 32 elements (ggml's block of the quantized types)."""
        return _BYTES_PER_32[self]


_BYTES_PER_32 = {
    CacheType.F32: 128,
    CacheType.F16: 64,
    CacheType.BF16: 64,
    CacheType.Q8_0: 34,
    CacheType.Q5_1: 24,
    CacheType.Q5_0: 22,
    CacheType.Q4_1: 20,
    CacheType.Q4_0: 18,
    CacheType.IQ4_NL: 18,
}


class Anatomy(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file says of its build. One entry a layer where a tuple; lengths in elements."""

    architecture: str
    context_length: int  # tokens it was trained for
    embedding: int
    feed_forward: int
    vocabulary: int
    kv_heads: tuple[int, ...]  # 0 = a layer without attention
    key_length: int
    value_length: int
    latent_length: int = 0  # MLA: what is cached instead of keys and values; 0 = none
    sliding_window: int = 0  # tokens; 0 = none
    has_window: tuple[bool, ...] = ()  # () = none has, or all by the architecture's pattern
    draft_layers: int = 0  # the last ones, for guessing ahead: without a cache of their own
    layer_bytes: tuple[int, ...] = ()
    input_bytes: int = 0  # the token embedding
    output_bytes: int = 0  # everything else outside the layers
    is_tied: bool = False  # the output uses the token embedding


class RunShape(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is to be run. `gpu_layers` None = as many as fit (the engine decides)."""

    context_length: int | None = None  # tokens; None = as trained, shrunk by the engine if need be
    parallel: int = 1
    is_kv_unified: bool = False
    type_k: CacheType = CacheType.F16
    type_v: CacheType = CacheType.F16
    ubatch: int = 512
    gpu_layers: int | None = None
    keeps_kv_on_host: bool = False
    has_full_window_cache: bool = False
    may_shrink: bool = True  # the engine adapts what was left open to what is free


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by purpose and place."""

    gpu_weights: int = 0
    host_weights: int = 0
    gpu_kv: int = 0
    host_kv: int = 0
    gpu_compute: int = 0
    host_compute: int = 0

    @property
    def weights(self) -> int:
        return self.gpu_weights + self.host_weights

    @property
    def kv(self) -> int:
        return self.gpu_kv + self.host_kv


class MemoryNeed(msgspec.Struct, frozen=True, kw_only=True):
    """What a load would take. `least_…`: with everything shrunk that the engine may shrink; the total is that
    wherever its layers lie in the end.

    `gpu_devices`: the GPUs it may use, None = all. `is_sure_of_place`: False where the engine may use GPUs
    that nobody here can measure; then lack of RAM says little.
    """

    vram_bytes: int = 0
    ram_bytes: int = 0
    least_vram_bytes: int = 0
    least_ram_bytes: int = 0
    least_total_bytes: int = 0
    gpu_devices: tuple[int, ...] | None = None
    is_sure_of_place: bool = True


class Removable(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may leave for another, and what that gives back."""

    ref: ModelRef
    vram_bytes: int = 0
    ram_bytes: int = 0
    last_used_s: float = 0.0  # monotonic


def forecast(anatomy: Anatomy, shape: RunShape) -> Forecast:
    """Forecast one run of a model, all in bytes; compute buffers as they come, without a safety factor."""
    layers = len(anatomy.layer_bytes)
    wanted = layers + 1 if shape.gpu_layers is None else shape.gpu_layers
    on_gpu = [i >= layers - min(wanted, layers) for i in range(layers)]
    is_output_on_gpu = wanted > layers
    outside = anatomy.output_bytes + (anatomy.input_bytes if anatomy.is_tied else 0)
    gpu_weights = sum(n for n, is_there in zip(anatomy.layer_bytes, on_gpu, strict=True) if is_there)
    gpu_weights += outside if is_output_on_gpu else 0
    host_weights = sum(anatomy.layer_bytes) - sum(
        n for n, is_there in zip(anatomy.layer_bytes, on_gpu, strict=True) if is_there
    )
    host_weights += anatomy.input_bytes + (0 if is_output_on_gpu else anatomy.output_bytes)
    kv = _kv_bytes(anatomy, shape)
    gpu_kv = 0 if shape.keeps_kv_on_host else sum(n for n, on in zip(kv, on_gpu, strict=True) if on)
    compute = _compute_bytes(anatomy, shape)
    is_on_gpu = any(on_gpu)
    return Forecast(
        gpu_weights=gpu_weights,
        host_weights=host_weights,
        gpu_kv=gpu_kv,
        host_kv=sum(kv) - gpu_kv,
        gpu_compute=compute if is_on_gpu else 0,
        host_compute=0 if is_on_gpu else compute,
    )


def need_of(anatomy: Anatomy, shape: RunShape, compute_factor: float) -> MemoryNeed:
    """What a run needs; `compute_factor` scales the compute buffers, which are approximate."""
    whole = forecast(anatomy, shape)
    need = MemoryNeed(
        vram_bytes=_with_compute(whole.gpu_weights + whole.gpu_kv, whole.gpu_compute, compute_factor),
        ram_bytes=_with_compute(whole.host_weights + whole.host_kv, whole.host_compute, compute_factor),
    )
    least_shape = shape
    if shape.may_shrink and shape.context_length is None:
        least_context = min(_LEAST_CONTEXT, anatomy.context_length or _LEAST_CONTEXT)
        least_shape = msgspec.structs.replace(shape, context_length=least_context)
    least = forecast(anatomy, least_shape)
    is_open = shape.gpu_layers is None and shape.may_shrink  # layers that do not fit go to the host
    return msgspec.structs.replace(
        need,
        least_vram_bytes=0
        if is_open
        else _with_compute(least.gpu_weights + least.gpu_kv, least.gpu_compute, compute_factor),
        least_ram_bytes=_with_compute(least.host_weights + least.host_kv, least.host_compute, compute_factor),
        least_total_bytes=_with_compute(
            least.weights + least.kv, least.gpu_compute + least.host_compute, compute_factor
        ),
    )


def need_of_unread(file_bytes: int, *, is_on_gpu: bool, factor: float) -> MemoryNeed:
    """The guess for a file that cannot be read: its size, times the safety factor."""
    guess = int(file_bytes * factor)
    if is_on_gpu:
        return MemoryNeed(vram_bytes=guess, least_vram_bytes=guess)
    return MemoryNeed(ram_bytes=guess, least_ram_bytes=guess)


def to_unload_to_fit(
    need: MemoryNeed, *, vram_free_bytes: int, ram_free_bytes: int, removable: Sequence[Removable]
) -> tuple[ModelRef, ...] | None:
    """The least recently used models that have to leave so that `need` fits; None if even all would not do.

    Only those go that give back what is lacking.
    """
    vram_lacking = need.vram_bytes - vram_free_bytes
    ram_lacking = need.ram_bytes - ram_free_bytes
    leaving = []
    for candidate in sorted(removable, key=lambda r: r.last_used_s):
        helps = (vram_lacking > 0 and candidate.vram_bytes) or (ram_lacking > 0 and candidate.ram_bytes)
        if not helps:
            continue
        leaving.append(candidate.ref)
        vram_lacking -= candidate.vram_bytes
        ram_lacking -= candidate.ram_bytes
    return tuple(leaving) if vram_lacking <= 0 and ram_lacking <= 0 else None


def _with_compute(exact: int, compute: int, factor: float) -> int:
    return exact + int(compute * factor)


def _kv_bytes(anatomy: Anatomy, shape: RunShape) -> list[int]:
    """Bytes of the KV cache, by layer."""
    sequences = 1 if shape.is_kv_unified else max(1, shape.parallel)
    context = shape.context_length or anatomy.context_length
    cells = _padded(context // sequences) * sequences
    window_cells = cells
    if anatomy.sliding_window and not shape.has_full_window_cache:
        window = anatomy.sliding_window * (shape.parallel if shape.is_kv_unified else 1)
        window_cells = min(cells, _padded(window + shape.ubatch) * sequences)
    result = []
    with_cache = len(anatomy.layer_bytes) - anatomy.draft_layers
    for layer, heads in enumerate(anatomy.kv_heads):
        if layer >= with_cache or not heads:
            result.append(0)
            continue
        n_cells = window_cells if _is_windowed(anatomy, layer) else cells
        if anatomy.latent_length:
            result.append(n_cells * anatomy.latent_length * shape.type_k.bytes_per_32 // 32)
            continue
        keys = heads * anatomy.key_length * shape.type_k.bytes_per_32 // 32
        values = heads * anatomy.value_length * shape.type_v.bytes_per_32 // 32
        result.append(n_cells * (keys + values))
    return result


def _is_windowed(anatomy: Anatomy, layer: int) -> bool:
    if not anatomy.sliding_window:
        return False
    if anatomy.has_window:
        return layer < len(anatomy.has_window) and anatomy.has_window[layer]
    pattern = _PATTERN_OF.get(anatomy.architecture)
    return pattern is None or layer % pattern < pattern - 1


def _compute_bytes(anatomy: Anatomy, shape: RunShape) -> int:
    """Approximate: logits or feed-forward of one micro-batch in f32, and the attention's mask."""
    context = shape.context_length or anatomy.context_length
    ubatch = min(shape.ubatch, context)
    widest = max(anatomy.vocabulary, anatomy.embedding + 2 * anatomy.feed_forward)
    per_sequence = _padded(context // (1 if shape.is_kv_unified else max(1, shape.parallel)))
    return 4 * ubatch * (widest + 3 * anatomy.embedding) + 2 * per_sequence * ubatch


def _padded(cells: int) -> int:
    return -(-cells // _CELLS_PAD) * _CELLS_PAD
