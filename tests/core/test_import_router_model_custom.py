"""RouterModelCustom's config.json, in both forms, in our settings."""

from typing import Any

import pytest

from tray_valet.core.config import Settings
from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.config_tree import Origin, Place, dotted, from_plain
from tray_valet.core.import_env_file import env_file_of
from tray_valet.core.import_plan import plan_import
from tray_valet.core.import_report import Ground, ImportPlan, ImportSource
from tray_valet.core.import_router_model_custom import read_router_model_custom

_PLACE = Place(Origin.FILE)


def _plan(
    document: dict[str, Any], current: dict[str, Any] | None = None, *, folder: str = "/rmc", **more: Any
) -> ImportPlan:
    now = from_plain(current or {}, _PLACE)
    ground = Ground(current=now, folder=folder, **more)
    findings = read_router_model_custom(from_plain(document, _PLACE), ground)
    return plan_import(ImportSource.ROUTER_MODEL_CUSTOM, findings, now, known_secrets={})


def _settings(plan: ImportPlan) -> Settings:
    return build_settings(from_plain(plan.change, _PLACE))


def _engine(plan: ImportPlan) -> LlamaServerSettings:
    engine = (_settings(plan).providers or {})["local"]
    assert isinstance(engine, LlamaServerSettings)
    return engine


def _left(plan: ImportPlan) -> dict[str, str]:
    return {one.source: f"{one.why} {one.remedy}".strip() for one in plan.left}


def _model(**fields: Any) -> dict[str, Any]:
    return {"models": {"m": {"model_path": "/m.gguf", **fields}}}


def test_the_whole_system_section() -> None:
    system = {
        "llama_server_path": "/opt/llama-server",
        "base_models_path": "/models",
        "max_concurrent_models": 2,
        "preload_models": ["m"],
        "enable_idle_timeout": True,
        "idle_timeout_sec": 60,
        "request_timeout_sec": 30,
        "gpu_devices": [0, 1],
        "default_parallel": 4,
        "max_queue_size_per_model": 7,
        "vram_multiplier": 1.2,
    }
    plan = _plan({"system": system, **_model()})
    settings, engine = _settings(plan), _engine(plan)
    assert not plan.left
    assert (engine.llama_server_path, engine.base_models_path) == ("/opt/llama-server", "/models")
    assert (engine.gpu_devices, engine.default_parallel) == ((0, 1), 4)
    models, router = settings.models, settings.router
    assert (models.max_concurrent, models.idle_timeout_seconds, models.preload) == (2, 60, ("m",))
    assert (models.vram_multiplier, router.request_timeout_seconds) == (1.2, 30)
    assert router.max_queue_size_per_model == 7
    told = {part.source for item in plan.taken for part in (item.parts or (item,))}
    assert {f"system.{key}" for key in system} <= told


@pytest.mark.parametrize(
    ("params", "flags", "is_cpu_only"),
    [
        ({"n_gpu_layers": 99, "n_ctx": 8192}, ("-ngl", "99", "--ctx-size", "8192"), False),
        ({"n_gpu_layers": -1}, ("-ngl", "0"), True),
        ({"embedding": True}, ("--embedding",), False),
        ({"embedding": False}, (), False),
        (
            {"type_k": "q8_0", "type_v": "q4_0"},
            ("--cache-type-k", "q8_0", "--cache-type-v", "q4_0"),
            False,
        ),
        ({}, (), False),
    ],
)
def test_params_become_flags(params: dict[str, Any], flags: tuple[str, ...], is_cpu_only: bool) -> None:
    model = _engine(_plan(_model(params=params))).models["m"]
    assert (model.flags, model.cpu_only) == (flags, is_cpu_only)


def test_a_wrong_param_costs_the_param_alone() -> None:
    plan = _plan(_model(params={"n_ctx": "big", "n_gpu_layers": 1, "rope": 2}))
    assert _engine(plan).models["m"].flags == ("-ngl", "1")
    assert "not a whole number" in _left(plan)["models.m.params.n_ctx"]
    assert "Unknown key" in _left(plan)["models.m.params.rope"]


def test_flags_for_all_models_join_each_models_own_which_count() -> None:
    document = {
        "system": {"cpu_threads": 8, "flash_attention": "on"},
        "models": {
            "a": {"model_path": "/a.gguf", "flags": ["-fa", "off"]},
            "b": {"model_path": "/b.gguf", "params": {"n_ctx": 1024}},
        },
    }
    plan = _plan(document)
    models = _engine(plan).models
    assert models["a"].flags == ("-fa", "off", "--threads", "8")
    assert models["b"].flags == ("--ctx-size", "1024", "--threads", "8", "--flash-attn", "on")
    assert "models.a sets --flash-attn to something else" in _left(plan)["system.flash_attention"]


def test_the_valets_own_flags_are_left_out_and_a_key_among_them_is_not_shown() -> None:
    flags = ["--port", "9001", "-ngl", 99, "--host", "0.0.0.0", "--api-key", "sk-secret", "-m", "x.gguf"]
    plan = _plan(_model(flags=flags))
    assert _engine(plan).models["m"].flags == ("-ngl", "99")
    assert {f"models.m.flags {name}" for name in ("--port", "--host", "--api-key")} <= _left(plan).keys()
    assert "sk-secret" not in str([item.parts for item in plan.taken]) + str(plan.left) + str(plan.change)


def test_idle_switch() -> None:
    plan = _plan({"system": {"enable_idle_timeout": False, "idle_timeout_sec": 60}})
    assert plan.change == {"models": {"idle_timeout_seconds": 0}}
    assert "switched off" in _left(plan)["system.idle_timeout_sec"]
    assert _plan({"system": {"enable_idle_timeout": True}}).change == {
        "models": {"idle_timeout_seconds": 300}
    }


def test_the_port_is_taken_and_an_open_address_is_not() -> None:
    plan = _plan({"api": {"host": "0.0.0.0", "port": 8000}})
    assert plan.change == {"router": {"port": 8000}}
    assert "stays 127.0.0.1" in _left(plan)["api.host"]


def test_a_key_beside_the_file_goes_to_the_keyring() -> None:
    plan = _plan({"api": {"host": "0.0.0.0", "port": 8000}}, env_file={"API_KEY": "k3y"})
    assert plan.secrets == {"router-model-custom": "k3y"}
    assert plan.change["router"]["api_keys"] == {"router-model-custom": "keyring:router-model-custom"}
    assert plan.change["router"]["host"] == "0.0.0.0"


def test_the_control_apis_port_is_not_taken() -> None:
    plan = _plan({"api": {"port": 8765}})
    assert plan.change == {}
    assert "control API's already" in _left(plan)["api.port"]


@pytest.mark.parametrize(
    ("system", "current", "path", "file"),
    [
        ({}, {}, "m.gguf", "/rmc/m.gguf"),
        ({}, {}, "/abs/m.gguf", "/abs/m.gguf"),
        ({}, {}, "C:\\m\\m.gguf", "C:\\m\\m.gguf"),
        ({"base_models_path": "/base"}, {}, "sub/m.gguf", "sub/m.gguf"),
        ({"base_models_path": "/base"}, {"base_models_path": "/other"}, "m.gguf", "/base/m.gguf"),
        ({}, {"base_models_path": "/other"}, "m.gguf", "/rmc/m.gguf"),
    ],
)
def test_a_relative_path_means_the_same_file_as_before(
    system: dict[str, Any], current: dict[str, Any], path: str, file: str
) -> None:
    ours = {"providers": {"local": {"kind": "llama-server", **current}}} if current else {}
    plan = _plan({"system": system, "models": {"m": {"model_path": path}}}, ours)
    assert plan.change["providers"]["local"]["models"]["m"]["model_path"] == file


def test_a_provider_called_local_of_another_kind_is_left_alone() -> None:
    ours = {"providers": {"local": {"kind": "ollama"}}}
    plan = _plan(_model(), ours)
    assert plan.change["providers"]["local-2"]["kind"] == "llama-server"


def test_a_model_that_is_there_otherwise_stays() -> None:
    ours = {"providers": {"local": {"kind": "llama-server", "models": {"m": {"model_path": "/mine.gguf"}}}}}
    plan = _plan(_model(), ours)
    assert plan.change == {}
    assert "is set already" in _left(plan)["models.m"]


def test_what_the_user_added_to_an_imported_model_is_no_difference() -> None:
    first = _plan(_model(params={"n_ctx": 1024}))
    ours = first.change
    ours["providers"]["local"]["models"]["m"]["cpu_only"] = True
    again = _plan(_model(params={"n_ctx": 1024}), ours)
    assert (again.change, again.left) == ({}, ())


@pytest.mark.parametrize(
    ("document", "source"),
    [
        ({"models": {"a b": {"model_path": "/a.gguf"}}}, "models.a b"),
        ({"models": {"a": {"flags": []}}}, "models.a"),
        ({"models": {"a": 1, "b": {"model_path": "/b"}}}, "models.a"),
        ({"models": {"a": {"model_path": "/a.gguf", "flags": "-ngl 99"}}}, "models.a.flags"),
        ({"models": {"a": {"model_path": "/a.gguf", "nonsense": 1}}}, "models.a.nonsense"),
        ({"system": {"max_concurrent_models": "three"}}, "system.max_concurrent_models"),
        ({"system": {"preload_models": ["gone", {"x": 1}]}, **_model()}, "system.preload_models"),
        ({"system": {"flash_attention": "maybe"}, **_model()}, "system.flash_attention"),
        ({"system": {"cpu_threads": 0}, **_model()}, "system.cpu_threads"),
        ({"system": {"gpu_devices": ["cuda"]}, **_model()}, "system.gpu_devices[0]"),
        ({"system": {"nonsense": 1}}, "system.nonsense"),
        ({"system": 5}, "system"),
        ({"api": {"workers": 1}}, "api.workers"),
        ({"system": {}, "extra": 1}, "extra"),
    ],
)
def test_what_is_wrong_is_told_and_not_taken(document: dict[str, Any], source: str) -> None:
    plan = _plan(document)
    assert _left(plan)[source]
    assert source not in {dotted(item.path) for item in plan.taken}
    _settings(plan)


def test_a_dotenv_file() -> None:
    text = "# comment\nexport API_KEY='a b'\nB = c # note\nEMPTY=\nnonsense\nC=\"x#y\"\n"
    assert env_file_of(text) == {"API_KEY": "a b", "B": "c", "EMPTY": "", "C": "x#y"}
