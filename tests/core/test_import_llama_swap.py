"""llama-swap's config.yaml in our settings."""

from typing import Any

import pytest

from tray_valet.core.config import Settings
from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_tree import Origin, Place, from_plain
from tray_valet.core.import_llama_swap import read_llama_swap
from tray_valet.core.import_llama_swap_macros import split_command
from tray_valet.core.import_plan import plan_import
from tray_valet.core.import_report import Ground, ImportPlan, ImportSource

_PLACE = Place(Origin.FILE)
_CMD = "llama-server -m /m.gguf --port ${PORT}"


def _plan(
    document: dict[str, Any], current: dict[str, Any] | None = None, environ: dict[str, str] | None = None
) -> ImportPlan:
    now = from_plain(current or {}, _PLACE)
    ground = Ground(current=now, folder="/swap", environ=environ or {})
    findings = read_llama_swap(from_plain(document, _PLACE), ground)
    plan = plan_import(ImportSource.LLAMA_SWAP, findings, now, known_secrets={})
    if not current:
        build_settings(from_plain(plan.change, _PLACE))  # what is written is right
    return plan


def _settings(plan: ImportPlan) -> Settings:
    return build_settings(from_plain(plan.change, _PLACE))


def _left(plan: ImportPlan) -> dict[str, str]:
    return {one.source: f"{one.why} {one.remedy}".strip() for one in plan.left}


def _providers(plan: ImportPlan) -> dict[str, Any]:
    providers: dict[str, Any] = plan.change.get("providers", {})
    return providers


def test_a_llama_server_becomes_a_model_with_its_flags() -> None:
    cmd = """
      # a comment with ${nothing}
      /opt/llama/llama-server --host 0.0.0.0 --port ${PORT} \\
      --model models/a.gguf -ngl 99 --chat-template "a b" --alias x
    """
    plan = _plan({"models": {"a": {"cmd": cmd}}})
    assert _providers(plan)["local"] == {
        "kind": "llama-server",
        "llama_server_path": "/opt/llama/llama-server",
        "models": {
            "a": {"model_path": "/swap/models/a.gguf", "flags": ["-ngl", "99", "--chat-template", "a b"]}
        },
    }
    assert {f"models.a.cmd {name}" for name in ("--host", "--port", "--alias")} <= _left(plan).keys()


def test_the_llama_server_on_path_needs_no_path() -> None:
    assert "llama_server_path" not in _providers(_plan({"models": {"a": {"cmd": _CMD}}}))["local"]


def test_macros_come_from_the_environment_the_model_and_the_file() -> None:
    document = {
        "macros": {"args": "-c ${ctx}", "ctx": 4096, "server": "llama-server --port ${PORT}"},
        "models": {
            "a": {
                "macros": {"ctx": 512},
                "cmd": "${server} -m ${env.DIR}/${MODEL_ID}.gguf ${args}",
                "filters": {"setParams": {"n": "${ctx}", "note": "is ${ctx}"}},
            }
        },
    }
    # “ctx” is used by “args” although it is defined later: llama-swap replaces from the last to the first.
    document["macros"] = {"ctx": 4096, "args": "-c ${ctx}", "server": "llama-server --port ${PORT}"}
    plan = _plan(document, environ={"DIR": "/models"})
    model = _providers(plan)["local"]["models"]["a"]
    assert model == {"model_path": "/models/a.gguf", "flags": ["-c", "512"]}
    assert plan.change["routes"]["a"]["candidates"][0]["set"] == {"n": 512, "note": "is 512"}


@pytest.mark.parametrize(
    ("cmd", "words"),
    [
        ("llama-server -m ${env.GONE}/a.gguf", "variable GONE is not set. Set GONE"),
        ("llama-server -m ${nothing}", "macro ${nothing} is not defined"),
        ('llama-server -m "a.gguf', "cannot be split"),
        ("", "no command"),
        ("# only a comment", "no command"),
        (None, "no command"),
    ],
)
def test_a_command_that_cannot_be_read_costs_its_model_alone(cmd: str | None, words: str) -> None:
    plan = _plan({"models": {"bad": {"cmd": cmd}, "good": {"cmd": _CMD}}})
    assert words in _left(plan)["models.bad"]
    assert list(_providers(plan)["local"]["models"]) == ["good"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ("a \\\n  b\n# no\n  # no\nc", ["a", "b", "c"]),
        ('C:\\llama\\llama-server.exe -m "C:\\my models\\a.gguf"',
         ["C:\\llama\\llama-server.exe", "-m", "C:\\my models\\a.gguf"]),
    ],
)  # fmt: skip
def test_how_a_command_falls_into_words(text: str, words: list[str]) -> None:
    assert split_command(text) == words


def test_each_program_and_each_choice_of_gpus_is_a_provider() -> None:
    models = {
        "a": {"cmd": "/one/llama-server -m /a.gguf", "env": ["CUDA_VISIBLE_DEVICES=0"]},
        "b": {"cmd": "/one/llama-server -m /b.gguf", "env": ["CUDA_VISIBLE_DEVICES=1"]},
        "c": {"cmd": "/two/llama-server -m /c.gguf"},
        "d": {"cmd": "/one/llama-server -m /d.gguf", "env": ["CUDA_VISIBLE_DEVICES=0"]},
    }
    plan = _plan({"models": models})
    served = {name: list(one["models"]) for name, one in _providers(plan).items()}
    assert served == {"local": ["a", "d"], "local-2": ["b"], "local-3": ["c"]}
    assert _providers(plan)["local-2"]["gpu_devices"] == [1]
    assert _plan({"models": models}, plan.change).change == {}


def test_a_model_that_may_see_no_gpu_is_for_the_cpu() -> None:
    plan = _plan({"models": {"a": {"cmd": _CMD, "env": ["CUDA_VISIBLE_DEVICES="]}}})
    assert _providers(plan)["local"]["models"]["a"]["cpu_only"] is True


def test_other_variables_are_told() -> None:
    plan = _plan({"models": {"a": {"cmd": _CMD, "env": ["GGML_X=1", "CUDA_VISIBLE_DEVICES=GPU-ab"]}}})
    assert {"models.a.env GGML_X", "models.a.env CUDA_VISIBLE_DEVICES"} <= _left(plan).keys()


def test_other_programs_become_commands_without_their_keys() -> None:
    model = {
        "cmd": "docker run -p ${PORT}:8000 vllm --model x --api-key sk-secret --name ${MODEL_ID}",
        "cmdStop": "docker stop ${MODEL_ID}",
        "checkEndpoint": "/ready",
        "env": ["HF_TOKEN=hf-secret", "A=1"],
    }
    plan = _plan({"models": {"v": model}})
    assert _providers(plan)["commands"]["models"]["v"] == {
        "command": ["docker", "run", "-p", "{port}:8000", "vllm", "--model", "x", "--name", "v"],
        "env": {"A": "1"},
        "health": "/ready",
        "stop": ["docker", "stop", "v"],
    }
    assert "secret" not in str(plan.change) + str(plan.left) + str([item.parts for item in plan.taken])
    assert {"models.v --api-key", "models.v env HF_TOKEN"} <= _left(plan).keys()


def test_a_fixed_port_of_a_program_becomes_the_valets() -> None:
    model = {"cmd": "sd-server --listen-port 9999", "proxy": "http://127.0.0.1:9999", "checkEndpoint": "/"}
    assert _providers(_plan({"models": {"s": model}}))["commands"]["models"]["s"]["command"] == [
        "sd-server", "--listen-port", "{port}",
    ]  # fmt: skip
    plan = _plan({"models": {"s": {"cmd": "sd-server"}}})
    assert "names no port" in _left(plan)["models.s.cmd"]


def test_llama_server_with_a_model_from_a_hub_is_a_command() -> None:
    plan = _plan({"models": {"h": {"cmd": "llama-server -hf a/b --port ${PORT}"}}})
    assert _providers(plan)["commands"]["models"]["h"]["command"][1:3] == ["-hf", "a/b"]


def test_a_model_on_another_machine_becomes_a_provider_there() -> None:
    models = {
        "a": {"proxy": "http://192.168.1.7:9000", "useModelName": "org/a"},
        "b": {"proxy": "http://192.168.1.7:9000", "cmd": "ssh gpu start"},
    }
    plan = _plan({"models": models})
    remote = _providers(plan)["192.168.1.7-9000"]
    assert remote == {"kind": "openai", "url": "http://192.168.1.7:9000/v1", "models": ["org/a", "b"]}
    assert plan.change["routes"] == {
        "a": {"candidates": [{"provider": "192.168.1.7-9000", "model": "org/a"}]}
    }
    assert "nothing is started here" in _left(plan)["models.b.cmd"]


def test_aliases_and_filters_become_routes() -> None:
    model = {
        "cmd": _CMD,
        "aliases": ["gpt-4o", "other", "bad name"],
        "filters": {
            "stripParams": "temperature, top_k,model",
            "setParams": {"top_p": 0.9, "model": "x"},
            "setParamsByID": {"${MODEL_ID}:high": {"effort": "high"}},
        },
    }
    plan = _plan({"models": {"a": model, "other": {"cmd": _CMD}}})
    routes = plan.change["routes"]
    base = {"provider": "local", "model": "a", "strip": ["temperature", "top_k"], "set": {"top_p": 0.9}}
    assert routes["a"] == routes["gpt-4o"] == {"candidates": [base]}
    assert routes["a:high"]["candidates"] == [{**base, "set": {"top_p": 0.9, "effort": "high"}}]
    assert set(routes) == {"a", "gpt-4o", "a:high"}
    assert "a model already" in _left(plan)["models.a.aliases other"]
    assert "models.a.aliases bad name" in _left(plan)


@pytest.mark.parametrize(
    ("group", "mode"),
    [
        ({}, "swap"),
        ({"swap": True, "exclusive": False}, "swap"),
        ({"swap": False}, "exclusive"),
        ({"swap": False, "exclusive": False}, "together"),
        ({"swap": False, "exclusive": False, "persistent": True}, "pinned"),
    ],
)
@pytest.mark.parametrize("is_old_form", [True, False])
def test_groups(group: dict[str, Any], mode: str, is_old_form: bool) -> None:
    groups = {"g": {**group, "members": ["a", "gone"]}}
    where = {"groups": groups} if is_old_form else {"routing": {"router": {"settings": {"groups": groups}}}}
    plan = _plan({"models": {"a": {"cmd": _CMD}}, **where})
    assert plan.change["models"]["groups"] == {"g": {"mode": mode, "models": ["a"]}}
    assert any(source.endswith("groups.g.members") for source in _left(plan))


def test_preload_knows_aliases() -> None:
    document = {
        "models": {"a": {"cmd": _CMD, "aliases": ["x"]}},
        "hooks": {"on_startup": {"preload": ["x", "a", "gone"]}},
    }
    plan = _plan(document)
    assert plan.change["models"]["preload"] == ["a"]
    assert "gone" in _left(plan)["hooks.on_startup.preload"]


@pytest.mark.parametrize(
    ("shared", "ttls", "seconds"),
    [
        (None, [60, 60], 60),
        (None, [60, None], None),
        (None, [60, 30], None),
        (120, [None, None], 120),
        (120, [None, 30], 120),
        (120, [-1, -1], 120),
        (0, [None], 0),
        (None, [0], 0),
    ],
)
def test_the_idle_time_is_taken_where_it_is_one(
    shared: int | None, ttls: list[int | None], seconds: int | None
) -> None:
    models: dict[str, Any] = {f"m{i}": {"cmd": _CMD, "ttl": ttl} for i, ttl in enumerate(ttls)}
    plan = _plan({"models": models, **({} if shared is None else {"globalTTL": shared})})
    assert plan.change.get("models", {}).get("idle_timeout_seconds") == seconds
    for i, ttl in enumerate(ttls):
        is_told = f"models.m{i}.ttl" in {*_left(plan), *(item.source for item in plan.taken)}
        assert is_told == (ttl not in (None, -1) and ttl != shared)


def test_keys_go_to_the_keyring() -> None:
    document = {"models": {"a": {"cmd": _CMD}}, "apiKeys": ["sk-one", "${env.GONE}", "${env.K}", "", "a b"]}
    plan = _plan(document, environ={"K": "sk-three"})
    assert plan.secrets == {"llama-swap-1": "sk-one", "llama-swap-3": "sk-three"}
    assert plan.change["router"]["api_keys"]["llama-swap-3"] == "keyring:llama-swap-3"
    assert {"apiKeys[1]", "apiKeys[3]", "apiKeys[4]"} <= _left(plan).keys()


def test_a_peer_becomes_a_provider_with_its_key_and_filters() -> None:
    peer = {
        "proxy": "https://openrouter.ai/api",
        "apiKey": "${env.K}",
        "models": ["z/a", "z/b"],
        "filters": {"setParams": {"zdr": True}},
        "timeouts": {"connect": 3},
    }
    plan = _plan({"peers": {"open router": peer}}, environ={"K": "sk-p"})
    assert _providers(plan)["open-router"] == {
        "kind": "openai",
        "url": "https://openrouter.ai/api/v1",
        "models": ["z/a", "z/b"],
        "api_key": "keyring:open-router",
    }
    assert plan.secrets == {"open-router": "sk-p"}
    assert plan.change["routes"]["z/b"]["candidates"][0]["set"] == {"zdr": True}
    assert "peers.open router.timeouts" in _left(plan)


@pytest.mark.parametrize("proxy", ["http://example.com", "http://bob:pw@10.0.0.1", "ftp://x", "nonsense"])
def test_the_key_of_a_peer_that_is_refused_goes_nowhere(proxy: str) -> None:
    plan = _plan({"peers": {"p": {"proxy": proxy, "apiKey": "sk-p", "models": ["a"]}}})
    assert (plan.change, plan.secrets) == ({}, {})
    assert _left(plan)
    assert "pw" not in str(plan.left)


def test_log_level_and_first_port() -> None:
    plan = _plan({"models": {"a": {"cmd": _CMD}}, "logLevel": "warn", "startPort": 10001})
    settings = _settings(plan)
    assert settings.log.level == "warning"
    assert _providers(plan)["local"]["first_port"] == 10001
    bad = _plan({"models": {"a": {"cmd": _CMD}}, "logLevel": "loud", "startPort": 99999})
    assert {"logLevel", "startPort"} <= _left(bad).keys()


@pytest.mark.parametrize(
    "key",
    ["healthCheckTimeout", "logToStdout", "matrix", "profiles", "selectors", "performance", "nonsense"],
)
def test_what_has_no_place_here_is_told_with_what_to_do(key: str) -> None:
    plan = _plan({"models": {"a": {"cmd": _CMD}}, key: {"x": 1}})
    assert len([one for one in plan.left if one.source == key and one.why and one.remedy]) == 1


@pytest.mark.parametrize("key", ["name", "unlisted", "concurrencyLimit", "useModelName", "timeouts", "odd"])
def test_what_has_no_place_in_a_model_is_told_with_what_to_do(key: str) -> None:
    left = _left(_plan({"models": {"a": {"cmd": _CMD, key: "x"}}}))
    assert left[f"models.a.{key}"]


def test_a_model_name_that_is_none_here() -> None:
    plan = _plan({"models": {"a b": {"cmd": _CMD}}, "hooks": {"on_startup": {"preload": ["a b"]}}})
    assert plan.change == {}
    assert {"models.a b", "hooks.on_startup.preload"} <= _left(plan).keys()


@pytest.mark.parametrize("document", [{"models": []}, {"models": None}, {"peers": [1]}, {"groups": 3}])
def test_odd_shapes_are_no_crash(document: dict[str, Any]) -> None:
    assert _plan(document).change == {}
