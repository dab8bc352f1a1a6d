import json
from typing import Any

import pytest

from tray_valet.commands import holding
from tray_valet.commands.failures import ApiError, CommandError, ExitCode, WrongUsage, exit_code_of

PAUSED = {"state": "paused", "title": "Paused by you", "line": "1 model waits until you resume."}
LARGE = {"provider": "local", "name": "large", "size_mb": 2048, "context_length": 4096}


def _pause(api: Any, **changes: Any) -> None:
    wishes: dict[str, Any] = {"is_forced": False, "reason": "", "for_s": None, "pid": None, "is_json": False}
    holding.pause(api.client(), **{**wishes, **changes})


def test_pause_says_how_things_stand(control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    control_api.answers |= {"POST /pause": told(200, {"state": "paused"}), "GET /watchdog": told(200, PAUSED)}
    _pause(control_api)
    assert capsys.readouterr().out == "Paused by you\n1 model waits until you resume.\n"
    assert control_api.asked[0].body is None


def test_pause_passes_its_wishes_on(control_api: Any, told: Any) -> None:
    control_api.answers["POST /pause/force"] = told(200, {"state": "paused"})
    _pause(control_api, is_forced=True, reason="a film", for_s=90.0, pid=77, is_json=True)
    assert control_api.asked[0].body == {"reason": "a film", "for_seconds": 90.0, "pid": 77}


def test_a_pause_that_is_not_one_yet_fails(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pausing = {**PAUSED, "state": "pausing", "title": "Making room"}
    control_api.answers |= {
        "POST /pause": told(200, {"state": "pausing"}),
        "GET /watchdog": told(200, pausing),
    }
    with pytest.raises(CommandError, match="not out of the way"):
        _pause(control_api, is_json=True)
    assert capsys.readouterr().out == ""  # the failure is the one object on stdout


def test_a_refusal_is_told_in_the_apis_words(control_api: Any, told: Any) -> None:
    error = {"message": "Paused a moment ago.", "type": "rate_limit_error", "param": None, "code": "cooldown"}
    control_api.answers["POST /pause"] = told(429, {"error": error}, {"Retry-After": "2"})
    with pytest.raises(ApiError, match="a moment ago"):
        _pause(control_api)


def test_resume_with_json_prints_the_answer(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    control_api.answers["POST /resume"] = told(200, {"state": "running"})
    holding.resume(control_api.client(), is_json=True)
    assert json.loads(capsys.readouterr().out) == {"state": "running"}


def _load(api: Any, model: str = "large", **changes: Any) -> None:
    wishes: dict[str, Any] = {"num_ctx": None, "provider": None, "override": False, "is_json": False}
    holding.load(api.client(), model, **{**wishes, **changes})


def test_load_says_what_it_takes_and_with_which_context(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    control_api.answers |= {
        "POST /load": told(200, {"ok": True}),
        "GET /status": told(200, {"models": [LARGE]}),
    }
    _load(control_api, num_ctx=4096, provider="local", override=True)
    assert capsys.readouterr().out == "large is loaded with a context of 4096. It takes 2.0 GB.\n"
    assert control_api.asked[0].path == "/load?provider=local"
    assert control_api.asked[0].body == {"model": "large", "num_ctx": 4096, "override": True}


@pytest.mark.parametrize("name", ["large", "local/large"])
def test_load_finds_the_model_under_either_name(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    control_api.answers |= {"POST /load": told(200, {}), "GET /status": told(200, {"models": [LARGE]})}
    _load(control_api, name)
    assert "2.0 GB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "num_ctx"), [("a b", None), ("../x", None), ("", None), ("m", 511), ("m" * 301, None)]
)
def test_what_no_provider_would_take_is_wrong_usage(model: str, num_ctx: int | None) -> None:
    with pytest.raises(WrongUsage) as caught:
        holding.check_load_arguments(model, num_ctx)
    assert exit_code_of(caught.value) is ExitCode.WRONG_USAGE


@pytest.mark.parametrize("model", ["qwen2.5:14b", "hf.co/user/model:Q4_K_M", "a@b", None])
def test_names_that_models_have_are_taken(model: str | None) -> None:
    holding.check_load_arguments(model, 512)


def test_unload_names_what_went(control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    control_api.answers["GET /status"] = told(200, {"models": [LARGE]})

    def goes() -> None:
        control_api.answers["GET /status"] = told(200, {"models": []})

    control_api.answers["POST /unload"] = told(200, {"ok": True}, then=goes)
    holding.unload(control_api.client(), "large", provider=None, is_json=False)
    assert capsys.readouterr().out == "large unloaded. 2.0 GB freed.\n"
    assert next(asked.body for asked in control_api.asked if asked.path == "/unload") == {"model": "large"}


def test_unload_of_nothing_says_so(control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    control_api.answers |= {"POST /unload": told(200, {}), "GET /status": told(200, {"models": []})}
    holding.unload(control_api.client(), None, provider=None, is_json=False)
    assert capsys.readouterr().out == "Nothing was loaded.\n"
    assert next(asked.body for asked in control_api.asked if asked.path == "/unload") is None
