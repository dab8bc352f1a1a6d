"""Reads from a runner's flags what the memory forecast needs of them.

Decides: what the flags (and the defaults of a llama-server of late 2025) mean for memory. Must not: check
them; the engine does that. Source: llama.cpp `common/arg.cpp`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from tray_valet.core.memory_forecast import CacheType, RunShape

_GPU_LAYERS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
_CONTEXT = ("-c", "--ctx-size")
_PARALLEL = ("-np", "--parallel")
_AUTO_PARALLEL = 4  # `-np -1`: four slots with one cache
_VALUED = (
    *_GPU_LAYERS,
    *_CONTEXT,
    *_PARALLEL,
    *("-ctk", "--cache-type-k", "-ctv", "--cache-type-v", "-ub", "--ubatch-size", "-fit", "--fit"),
    *("-dev", "--device"),
)


def run_shape(
    flags: Sequence[str], *, context_length: int | None, default_parallel: int, is_cpu_only: bool
) -> RunShape:
    """How a runner with these flags runs its model; `context_length` (tokens) goes before its flag."""
    values = _values(flags)
    parallel = _number(values, _PARALLEL, default_parallel) or default_parallel
    is_auto = parallel < 0
    layers = 0 if is_cpu_only or values.get("--device", values.get("-dev")) == "none" else _layers(values)
    return RunShape(
        context_length=context_length or _number(values, _CONTEXT, 0) or None,
        parallel=_AUTO_PARALLEL if is_auto else parallel,
        is_kv_unified=is_auto or "-kvu" in flags or "--kv-unified" in flags,
        type_k=_cache_type(values, ("-ctk", "--cache-type-k")),
        type_v=_cache_type(values, ("-ctv", "--cache-type-v")),
        ubatch=max(1, _number(values, ("-ub", "--ubatch-size"), 512)),
        gpu_layers=layers,
        keeps_kv_on_host="-nkvo" in flags or "--no-kv-offload" in flags,
        has_full_window_cache="--swa-full" in flags,
        may_shrink=values.get("-fit", values.get("--fit", "on")) not in ("off", "0", "false"),
    )


def _values(flags: Sequence[str]) -> Mapping[str, str]:
    """The flags that take a value, the last of each."""
    return {flag: value for flag, value in itertools.pairwise(flags) if flag in _VALUED}


def _number(values: Mapping[str, str], names: Sequence[str], default: int) -> int:
    for name in names:
        try:
            return int(values[name])
        except (KeyError, ValueError):
            continue
    return default


def _layers(values: Mapping[str, str]) -> int | None:
    """Layers on GPUs; None = as many as fit. `all` and any large number are all of them."""
    text = next((values[name] for name in _GPU_LAYERS if name in values), "auto")
    if text in ("all", "-2"):
        return 1 << 20
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number >= 0 else None


def _cache_type(values: Mapping[str, str], names: Sequence[str]) -> CacheType:
    text = next((values[name] for name in names if name in values), CacheType.F16)
    try:
        return CacheType(text.lower())
    except ValueError:
        return CacheType.F16
