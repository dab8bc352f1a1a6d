"""llama-server's flags, as far as the in-process engine has them, as one table.

Decides: which flag sets which field of xllamacpp's `CommonParams`, and how its value is read.
Must not: import xllamacpp (values are looked up in the module that is handed in), or anything slow.
Source: llama.cpp `common/arg.cpp` for names and meanings; `dir(xllamacpp.CommonParams())` for the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

Reader = Callable[[ModuleType, str], Any]


class FlagError(ValueError):
    """A flag is unknown, lacks its value, or has a bad one; the text is llama-server's own."""


class Flag(NamedTuple):
    """One flag. `read` turns its value into the field's; without `read` it is a switch that sets `fixed`.

    A switch that sets several fields has a row for each.
    """

    names: str  # separated by spaces
    field: str  # dotted path inside CommonParams; "" = accepted, has no effect here
    read: Reader | None = None
    fixed: Any = True


def apply_flags(module: ModuleType, params: Any, argv: Sequence[str]) -> None:
    """Set the fields of `params` as `argv` says; later flags win. Raises FlagError."""
    table: dict[str, list[Flag]] = {}
    for flag in FLAGS:
        for name in flag.names.split():
            table.setdefault(name, []).append(flag)
    remaining = iter(argv)
    for name in remaining:
        if name not in table:
            raise FlagError(f"invalid argument: {name}")
        for flag in table[name]:
            if flag.read is None:
                value = flag.fixed if not isinstance(flag.fixed, str) else _constant(module, flag.fixed)
            else:
                value = _read(module, name, flag.read, next(remaining, None))
            if flag.field:
                _assign(params, flag.field, value)


def _read(module: ModuleType, name: str, read: Reader, text: str | None) -> Any:
    if text is None:
        raise FlagError(f"error while handling argument {name!r}: expected value for argument")
    try:
        return read(module, text)
    except (ValueError, KeyError, AttributeError) as error:
        raise FlagError(f"error while handling argument {name!r}: invalid value {text!r}") from error


def _assign(params: Any, path: str, value: Any) -> None:
    *holders, last = path.split(".")
    for holder in holders:
        params = getattr(params, holder)
    setattr(params, last, value)


def _constant(module: ModuleType, dotted: str) -> Any:
    """`llama_load_mode.LLAMA_LOAD_MODE_NONE` → that member."""
    enum_name, member = dotted.split(".")
    return getattr(getattr(module, enum_name), member)


def _text(_: ModuleType, text: str) -> str:
    return text


def _integer(_: ModuleType, text: str) -> int:
    return int(text)


def _number(_: ModuleType, text: str) -> float:
    return float(text)


def _list(_: ModuleType, text: str) -> list[str]:
    return text.split(",")


def _set(_: ModuleType, text: str) -> set[str]:
    return set(text.split(","))


def _file_text(_: ModuleType, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ValueError(str(error)) from error


def _on_off(_: ModuleType, text: str) -> bool:
    return {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}[text]


def _gpu_layers(_: ModuleType, text: str) -> int:
    return {"auto": -1, "all": -2}.get(text) or int(text)


def _no_device(_: ModuleType, text: str) -> int:
    """`--device none` = no layer on a GPU; the packaged engine cannot choose between devices."""
    if text != "none":
        raise ValueError(text)
    return 0


def _choice(enum_name: str, prefix: str, **also: str) -> Reader:
    """Read a member of an xllamacpp enum by llama-server's word for it (`mean`, `q8_0`, `mmap+mlock`)."""

    def read(module: ModuleType, text: str) -> Any:
        word = also.get(text, text).upper().replace("+", "_").replace("-", "_")
        return getattr(getattr(module, enum_name), prefix + word)

    return read


_CACHE_TYPE = _choice("ggml_type", "GGML_TYPE_")
_FLASH_ATTENTION = _choice(
    "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", on="enabled", off="disabled", **{"1": "enabled"}
)

FLAGS = (
    # what to load, and how
    Flag("-m --model", "model.path", _text),
    Flag("-a --alias", "model_alias", _set),
    Flag("-mm --mmproj", "mmproj.path", _text),
    Flag("-lm --load-mode", "load_mode", _choice("llama_load_mode", "LLAMA_LOAD_MODE_", dio="direct_io")),
    Flag("--no-mmap", "load_mode", fixed="llama_load_mode.LLAMA_LOAD_MODE_NONE"),
    Flag("--mmap", "load_mode", fixed="llama_load_mode.LLAMA_LOAD_MODE_MMAP"),
    Flag("--mlock", "load_mode", fixed="llama_load_mode.LLAMA_LOAD_MODE_MLOCK"),
    Flag("-dio --direct-io", "load_mode", fixed="llama_load_mode.LLAMA_LOAD_MODE_DIRECT_IO"),
    Flag("-ndio --no-direct-io", "load_mode", fixed="llama_load_mode.LLAMA_LOAD_MODE_NONE"),
    Flag("--warmup", "warmup"),
    Flag("--no-warmup", "warmup", fixed=False),
    Flag("--check-tensors", "check_tensors"),
    # context and batches
    Flag("-c --ctx-size", "n_ctx", _integer),
    Flag("-np --parallel", "n_parallel", _integer),
    Flag("-kvu --kv-unified", "kv_unified"),
    Flag("-n --predict --n-predict", "n_predict", _integer),
    Flag("--keep", "n_keep", _integer),
    Flag("-b --batch-size", "n_batch", _integer),
    Flag("-ub --ubatch-size", "n_ubatch", _integer),
    Flag("-cb --cont-batching", "cont_batching"),
    Flag("-nocb --no-cont-batching", "cont_batching", fixed=False),
    Flag("--context-shift", "ctx_shift"),
    Flag("--no-context-shift", "ctx_shift", fixed=False),
    Flag("--swa-full", "swa_full"),
    Flag("-ctk --cache-type-k", "cache_type_k", _CACHE_TYPE),
    Flag("-ctv --cache-type-v", "cache_type_v", _CACHE_TYPE),
    Flag("-cram --cache-ram", "cache_ram_mib", _integer),
    Flag("--cache-prompt", "cache_prompt"),
    Flag("--no-cache-prompt", "cache_prompt", fixed=False),
    Flag("--cache-reuse", "n_cache_reuse", _integer),
    Flag("-fa --flash-attn", "flash_attn_type", _FLASH_ATTENTION),
    Flag("-fit --fit", "fit_params", _on_off),
    Flag("--rope-freq-base", "rope_freq_base", _number),
    Flag("--rope-freq-scale", "rope_freq_scale", _number),
    # processors
    Flag("-t --threads", "cpuparams.n_threads", _integer),
    Flag("-tb --threads-batch", "cpuparams_batch.n_threads", _integer),
    Flag("--prio", "cpuparams.priority", _integer),
    Flag("--poll", "cpuparams.poll", _integer),
    Flag("-ngl --gpu-layers --n-gpu-layers", "n_gpu_layers", _gpu_layers),
    Flag("-dev --device", "n_gpu_layers", _no_device),
    Flag("-mg --main-gpu", "main_gpu", _integer),
    Flag("-sm --split-mode", "split_mode", _choice("llama_split_mode", "LLAMA_SPLIT_MODE_")),
    Flag("-nkvo --no-kv-offload", "no_kv_offload"),
    Flag("--no-op-offload", "no_op_offload"),
    # what it serves
    Flag("--embedding --embeddings", "embedding"),
    Flag("--pooling", "pooling_type", _choice("llama_pooling_type", "LLAMA_POOLING_TYPE_")),
    Flag("--rerank --reranking", "embedding"),
    Flag("--rerank --reranking", "pooling_type", fixed="llama_pooling_type.LLAMA_POOLING_TYPE_RANK"),
    Flag("--jinja", "use_jinja"),
    Flag("--no-jinja", "use_jinja", fixed=False),
    Flag("--chat-template", "chat_template", _text),
    Flag("--chat-template-file", "chat_template", _file_text),
    Flag(
        "--reasoning-format",
        "reasoning_format",
        _choice("common_reasoning_format", "COMMON_REASONING_FORMAT_"),
    ),
    Flag("--metrics", "endpoint_metrics"),
    Flag("--props", "endpoint_props"),
    Flag("--slots", "endpoint_slots"),
    Flag("--no-slots", "endpoint_slots", fixed=False),
    Flag("--webui --ui", "ui"),
    Flag("--no-webui --no-ui", "ui", fixed=False),
    Flag("--sleep-idle-seconds", "sleep_idle_seconds", _integer),
    # the usual sampling, where a request does not say
    Flag("-s --seed", "sampling.seed", _integer),
    Flag("--temp --temperature", "sampling.temp", _number),
    Flag("--top-k", "sampling.top_k", _integer),
    Flag("--top-p", "sampling.top_p", _number),
    Flag("--min-p", "sampling.min_p", _number),
    Flag("--repeat-penalty", "sampling.penalty_repeat", _number),
    Flag("--repeat-last-n", "sampling.penalty_last_n", _integer),
    Flag("--presence-penalty", "sampling.penalty_present", _number),
    Flag("--frequency-penalty", "sampling.penalty_freq", _number),
    Flag("--ignore-eos", "sampling.ignore_eos"),
    # the server
    Flag("--host", "hostnames", _list),
    Flag("--port", "port", _integer),
    Flag("--api-key", "api_keys", _list),
    Flag("--api-prefix", "api_prefix", _text),
    Flag("-to --timeout", "timeout_read", _integer),
    Flag("--threads-http", "n_threads_http", _integer),
    Flag("-lv --verbosity --log-verbosity", "verbosity", _integer),
    Flag("-v --verbose --log-verbose", "verbosity", fixed=9),
    Flag("--no-perf", "no_perf"),
    Flag("--log-prefix --log-timestamps --log-colors", ""),
)
