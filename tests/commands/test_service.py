"""`service start|stop|restart`: waits for how it went, and says that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tray_valet.commands import grammar, service
from tray_valet.commands.failures import ApiError, CommandError, WrongUsage

BEGUN = {
    "ok": True,
    "action": "start",
    "provider": "ollama",
    "message": "It is being started.",
    "done": False,
}


def entry(number: int, kind: str, text: str) -> dict[str, Any]:
    return {"id": number, "at": 0.0, "kind": kind, "text": text}


def do(api: Any, action: str = "start", provider: str | None = None, **changes: Any) -> None:
    wishes: dict[str, Any] = {"is_forced": False, "is_json": False, "sleep": lambda _s: None}
    service.service(api.client(), action, provider, **{**wishes, **changes})


def happens(api: Any, told: Any, *entries: dict[str, Any], begun: dict[str, Any] = BEGUN) -> None:
    """The entries come into the activity once the command was given."""
    before = [entry(7, "service_failed", "ollama could not be started: an older story")]
    api.answers["GET /activity"] = told(200, {"activity": before})
    later = told(200, {"activity": [*reversed(entries), *before]})

    def begin() -> None:
        api.answers["GET /activity"] = later

    for path in ("/start", "/stop", "/stop/force", "/restart"):
        api.answers[f"POST {path}"] = told(200, begun, then=begin)


def test_it_waits_for_the_end_and_says_it(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = entry(8, "service_started", "other started in 1 s.")
    happens(control_api, told, other, entry(9, "service_started", "ollama started in 2 s."))
    do(control_api)
    assert capsys.readouterr().out == "ollama started in 2 s.\n"
    assert "POST /start" in control_api.requests()


def test_a_failure_is_one(control_api: Any, told: Any) -> None:
    happens(control_api, told, entry(8, "service_failed", "ollama could not be started: no."))
    with pytest.raises(CommandError, match="could not be started: no"):
        do(control_api)


def test_what_is_so_already_is_said_without_waiting(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    happens(control_api, told, begun={**BEGUN, "done": True, "message": "ollama is running already."})
    do(control_api)
    assert capsys.readouterr().out == "ollama is running already.\n"


def test_json_is_the_answer_with_its_end(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    happens(control_api, told, entry(8, "service_stopped", "ollama stopped in 1 s."))
    do(control_api, "stop", "ollama", is_forced=True, is_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["done"], said["message"]) == (True, True, "ollama stopped in 1 s.")
    assert "POST /stop/force?provider=ollama" in control_api.requests()


def test_a_refusal_is_told_in_the_apis_words(control_api: Any, told: Any) -> None:
    happens(control_api, told)
    error = {
        "message": "Use: sudo …",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_supported",
    }
    control_api.answers["POST /restart"] = told(501, {"error": error})
    with pytest.raises(ApiError, match="sudo"):
        do(control_api, "restart")


def test_one_that_never_ends_is_given_up(
    control_api: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PATIENCE_S", 1.0)
    happens(control_api, told)
    with pytest.raises(CommandError, match="Nothing is known of ollama"):
        do(control_api)


@pytest.mark.parametrize(
    ("action", "provider", "is_forced"),
    [("start", None, True), ("restart", None, True), ("stop", "a b", False)],
)
def test_what_makes_no_sense_is_wrong_usage(
    control_api: Any, action: str, provider: str | None, is_forced: bool
) -> None:
    with pytest.raises(WrongUsage):
        do(control_api, action, provider, is_forced=is_forced)
    assert control_api.asked == []


def test_the_grammar() -> None:
    parsed = grammar.parse(["service", "stop", "ollama", "--force", "--json"])
    assert (parsed.action, parsed.provider, parsed.force, parsed.json) == ("stop", "ollama", True, True)
    assert grammar.parse(["service", "start"]).provider is None
    for words in (["service"], ["service", "pause"], ["service", "start", "a", "b"]):
        with pytest.raises(WrongUsage):
            grammar.parse(words)
