"""The command line and environment of a runner."""

from __future__ import annotations

import pytest

from tray_valet.core.child_environment import child_environment
from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.engines import Engine, EngineKind
from tray_valet.providers.runner_command import (
    RunnerCommand,
    configured_context,
    is_for_embeddings,
    runner_command,
)

ENGINE = Engine(kind=EngineKind.ON_PATH, argv=("llama-server",), path="llama-server", env={"MORE": "1"})


def command(
    *flags: str,
    cpu_only: bool = False,
    gpu_devices: tuple[int, ...] | None = None,
    context_length: int | None = None,
    environ: dict[str, str] | None = None,
) -> RunnerCommand:
    model = LlamaServerModelSettings(model_path="x", flags=flags, cpu_only=cpu_only)
    return runner_command(
        ENGINE,
        LlamaServerSettings(models={"a": model}, gpu_devices=gpu_devices, default_parallel=3),
        alias="a",
        model_path="/m/x.gguf",
        context_length=context_length,
        port=8085,
        api_key="secret",
        environ=environ or {},
    )


OURS = "llama-server --model /m/x.gguf --alias a --host 127.0.0.1 --port 8085"


@pytest.mark.parametrize(
    ("flags", "context_length", "expected"),
    [
        ((), None, "--parallel 3"),
        (("-ngl", "99", "--ctx-size", "8192"), None, "-ngl 99 --ctx-size 8192 --parallel 3"),
        (("-c", "1", "-ngl", "9", "--ctx-size", "2"), 4096, "-ngl 9 --ctx-size 4096 --parallel 3"),
        (("-np", "2"), None, "-np 2"),
        (("--parallel", "2"), 512, "--parallel 2 --ctx-size 512"),
        (
            ("--jinja", "--host", "0.0.0.0", "--port", "1", "--metrics"),
            None,
            "--jinja --metrics --parallel 3",
        ),
        (("-m", "y", "-a", "b", "--api-key", "k", "-np", "1"), None, "-np 1"),
        (("--port",), None, "--parallel 3"),
    ],
)
def test_flags(flags: tuple[str, ...], context_length: int | None, expected: str) -> None:
    assert " ".join(command(*flags, context_length=context_length).argv) == f"{OURS} {expected}"


def test_flags_that_were_left_out_are_named() -> None:
    assert command("--host", "0.0.0.0", "--jinja", "--api-key", "k").ignored == ("--host", "--api-key")


def test_a_cpu_only_runner_gets_no_layer_no_device_and_sees_no_gpu() -> None:
    built = command("-ngl", "99", "-dev", "CUDA0", "-np", "1", cpu_only=True, gpu_devices=(0,))
    assert built.argv[-5:] == ("1", "-ngl", "0", "--device", "none")
    assert "99" not in built.argv
    assert built.env["CUDA_VISIBLE_DEVICES"] == built.env["GGML_VK_VISIBLE_DEVICES"] == ""


def test_chosen_gpus_are_the_only_ones_seen_and_counted_as_nvml_counts() -> None:
    env = command(gpu_devices=(0, 2)).env
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("0,2", "PCI_BUS_ID")


def test_without_a_choice_the_users_variables_stay() -> None:
    assert command(environ={"CUDA_VISIBLE_DEVICES": "1"}).env["CUDA_VISIBLE_DEVICES"] == "1"


def test_the_key_goes_by_the_environment_and_is_not_shown() -> None:
    built = command()
    assert built.env["LLAMA_API_KEY"] == "secret"
    assert built.env["MORE"] == "1"
    assert "secret" not in " ".join(built.argv)
    assert "secret" not in repr(built)


def test_variables_that_would_move_the_runner_are_taken_away() -> None:
    env = command(environ={"LLAMA_ARG_API_PREFIX": "/x", "LLAMA_ARG_THREADS": "2"}).env
    assert "LLAMA_ARG_API_PREFIX" not in env
    assert env["LLAMA_ARG_THREADS"] == "2"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LD_LIBRARY_PATH": "/user"}, {"LD_LIBRARY_PATH": "/user"}),
        (
            {"LD_LIBRARY_PATH": "/bundle:/user", "LD_LIBRARY_PATH_ORIG": "/user"},
            {"LD_LIBRARY_PATH": "/user"},
        ),
        ({"LD_LIBRARY_PATH": "/bundle", "LD_LIBRARY_PATH_ORIG": ""}, {}),
        (
            {"LD_LIBRARY_PATH": "/bundle", "_PYI_APPLICATION_HOME_DIR": "/bundle"},
            {"_PYI_APPLICATION_HOME_DIR": "/bundle"},
        ),
    ],
)
def test_a_packed_programs_own_libraries_do_not_reach_children(
    environ: dict[str, str], expected: dict[str, str]
) -> None:
    assert child_environment(environ) == expected


@pytest.mark.parametrize(
    ("flags", "context"),
    [
        ((), None),
        (("-c", "4096"), 4096),
        (("--ctx-size", "0"), None),
        (("-c", "1", "--ctx-size", "2"), 2),
        (("-c", "x"), None),
        (("-c",), None),
    ],
)
def test_the_context_that_flags_ask_for(flags: tuple[str, ...], context: int | None) -> None:
    assert configured_context(flags) == context


def test_flags_make_an_embedding_server() -> None:
    assert is_for_embeddings(("--embedding",))
    assert is_for_embeddings(("--reranking",))
    assert not is_for_embeddings(("-c", "512"))
