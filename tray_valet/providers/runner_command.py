"""Turns a model's settings into the command line and environment of its runner.

Decides: which flags are the user's and which are ours. Must not: start anything or read the system.
Sources: llama.cpp `common/arg.cpp` (flags, LLAMA_API_KEY and the LLAMA_ARG_* variables); CUDA C++
Programming Guide, “CUDA Environment Variables”.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from tray_valet.core.child_environment import child_environment
from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.engines import Engine
from tray_valet.providers.runner_port import LOOPBACK

_CONTEXT = ("-c", "--ctx-size")
_PARALLEL = ("-np", "--parallel")
_DEVICES = ("-dev", "--device", "-ngl", "--gpu-layers", "--n-gpu-layers")
_EMBEDDING = ("--embedding", "--embeddings", "--rerank", "--reranking")  # a reranker is one, with a pooling
# What a runner in the background gets from us: threads, and no priority of its own.
_PROCESSORS = (
    "-t",
    "--threads",
    "-tb",
    "--threads-batch",
    "--prio",
    "--prio-batch",
    "--poll",
    "--poll-batch",
)
_PROCESSOR_VARIABLES = ("LLAMA_ARG_THREADS", "LLAMA_ARG_THREADS_BATCH")
# All take a value. What a runner serves, where, and to whom is not the user's to choose.
_OURS = (
    *(
        "-m",
        "--model",
        "-mu",
        "--model-url",
        "-dr",
        "--docker-repo",
        "-hf",
        "-hfr",
        "--hf-repo",
        "-a",
        "--alias",
    ),
    *("--host", "--port", "--api-key", "--api-key-file", "--api-prefix", "--ssl-key-file", "--ssl-cert-file"),
)
_OUR_VARIABLES = (
    *(
        "LLAMA_ARG_MODEL",
        "LLAMA_ARG_MODEL_URL",
        "LLAMA_ARG_HF_REPO",
        "LLAMA_ARG_DOCKER_REPO",
        "LLAMA_ARG_ALIAS",
        "LLAMA_ARG_HOST",
    ),
    *("LLAMA_ARG_PORT", "LLAMA_ARG_API_KEY_FILE", "LLAMA_ARG_API_PREFIX"),
    *("LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE"),
)
_VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


class RunnerCommand(msgspec.Struct, frozen=True, kw_only=True):
    """How to start one runner. `ignored` are the user's flags that were left out."""

    argv: tuple[str, ...]
    env: dict[str, str]
    ignored: tuple[str, ...] = ()
    is_in_background: bool = False  # to be run at idle CPU and I/O priority
    flags: tuple[str, ...] = ()  # the part of `argv` that is not the engine's or who it serves

    def __repr__(self) -> str:  # the environment holds the runner's key
        return f"RunnerCommand(argv={self.argv!r})"


def runner_command(
    engine: Engine,
    settings: LlamaServerSettings,
    *,
    alias: str,
    model_path: str,
    context_length: int | None,
    port: int,
    api_key: str,
    environ: Mapping[str, str],
    background_threads: int | None = None,
) -> RunnerCommand:
    """Build the command for the model `alias` of `settings`; `context_length` overrides its flag.

    `background_threads`: it runs on the CPU beside a game, with so many threads at idle priority.
    """
    model = settings.models[alias]
    flags, ignored = _without(model.flags, _OURS)
    if context_length is not None:
        flags = [*_without(flags, _CONTEXT)[0], "--ctx-size", str(context_length)]
    if not any(flag in _PARALLEL for flag in flags):
        flags += ["--parallel", str(settings.default_parallel)]
    if model.cpu_only:
        flags = [*_without(flags, _DEVICES)[0], "-ngl", "0", "--device", "none"]
    if background_threads is not None:
        count = str(background_threads)
        flags = [*_without(flags, _PROCESSORS)[0], "--threads", count, "--threads-batch", count]
    ours = ["--model", model_path, "--alias", alias, "--host", LOOPBACK, "--port", str(port)]
    env = child_environment(environ) | engine.env
    env |= _device_variables(model, settings.gpu_devices) | {"LLAMA_API_KEY": api_key}
    for variable in _OUR_VARIABLES:
        env.pop(variable, None)
    if background_threads is not None:
        for variable in _PROCESSOR_VARIABLES:
            env.pop(variable, None)
        env["OMP_WAIT_POLICY"] = "passive"  # its threads sleep between two pieces of work
    return RunnerCommand(
        argv=(*engine.argv, *ours, *flags),
        flags=tuple(flags),
        env=env,
        ignored=tuple(ignored),
        is_in_background=background_threads is not None,
    )


def threads_in_background(core_count: int) -> int:
    """How many threads a runner gets beside a game: a quarter of the cores, one at least."""
    return max(1, core_count // 4)


def configured_context(flags: Sequence[str]) -> int | None:
    """Return the context in tokens that the flags ask for; None = the engine's choice."""
    found = None
    for flag, value in itertools.pairwise(flags):
        if flag in _CONTEXT and value.isdigit():
            found = int(value) or None
    return found


def is_for_embeddings(flags: Sequence[str]) -> bool:
    """Say whether the flags make an embedding server, which then cannot chat."""
    return any(flag in _EMBEDDING for flag in flags)


def _without(flags: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off `names`, each with its value: (what is left, the names that were left out)."""
    kept: list[str] = []
    left_out: list[str] = []
    remaining = iter(flags)
    for flag in remaining:
        if flag in names:
            left_out.append(flag)
            next(remaining, None)
        else:
            kept.append(flag)
    return kept, left_out


def _device_variables(model: LlamaServerModelSettings, gpu_devices: Sequence[int] | None) -> dict[str, str]:
    """The GPUs that a runner may see. Hidden ones get no context, which takes VRAM even when idle."""
    if model.cpu_only:
        return dict.fromkeys(_VISIBLE_DEVICES, "")
    if gpu_devices is None:
        return {}
    visible = ",".join(map(str, gpu_devices))
    # By default CUDA counts the fastest GPU first; NVML and `nvidia-smi` count by bus.
    return dict.fromkeys(_VISIBLE_DEVICES, visible) | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
