"""Every error of the product has its own place in the table of statuses."""

from __future__ import annotations

import json
import math

import pytest

from tray_valet.core import errors
from tray_valet.core.errors import SettingsProblem, ValetError
from tray_valet.web.edge.errors import STATUS_OF, EdgeCode, ErrorType, HttpError, answer_for, status_of


def _all_errors(root: type[ValetError] = ValetError) -> list[type[ValetError]]:
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += _all_errors(child)
    return found


@pytest.mark.parametrize("error", _all_errors(), ids=lambda error: error.__name__)
def test_no_error_is_missing_in_the_table(error: type[ValetError]) -> None:
    assert error in STATUS_OF
    assert 400 <= STATUS_OF[error][0] <= 599


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.Paused("Hades runs."), 503, "unavailable_error", "paused"),
        (errors.ProviderUnreachable("Silent."), 502, "server_error", "provider_unreachable"),
        (errors.UpstreamFailed("Broke off."), 502, "server_error", "upstream_failed"),
        (errors.TimedOut("Late."), 504, "timeout_error", "timed_out"),
        (errors.QueueFull("Full."), 429, "rate_limit_error", "queue_full"),
        (errors.Cooldown("Again."), 429, "rate_limit_error", "cooldown"),
        (errors.GameRunning("Hades runs."), 409, "conflict_error", "game_running"),
        (errors.UnknownModel("None."), 404, "not_found_error", "model_not_found"),
        (errors.NotFound("None."), 404, "not_found_error", "not_found"),
        (errors.Refused("No."), 409, "conflict_error", "refused"),
        (errors.InvalidValue("Bad."), 400, "invalid_request_error", "invalid_value"),
        (errors.InvalidJson("Bad."), 400, "invalid_request_error", "invalid_json"),
        (errors.NotSupported("No."), 501, "invalid_request_error", "not_supported"),
        (errors.CannotKill("No."), 409, "conflict_error", "cannot_kill"),
        (errors.SettingsError(()), 400, "invalid_request_error", "settings_invalid"),
        (errors.SettingsChangedElsewhere("Changed."), 409, "conflict_error", "settings_changed"),
        (errors.SettingsUnwritable("Full."), 500, "server_error", "settings_unwritable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ValetError) else None,
)
def test_errors_have_their_status_type_and_code(error: ValetError, status: int, kind: str, code: str) -> None:
    answer = answer_for(error)
    inner = json.loads(answer.body)["error"]
    assert (answer.status, inner["type"], inner["code"]) == (status, kind, code)
    assert set(inner) >= {"message", "type", "param", "code"}


def test_an_error_of_a_later_part_takes_its_ancestors_row() -> None:
    class Stranger(errors.Paused):
        pass

    assert status_of(Stranger("x")) == (503, ErrorType.UNAVAILABLE)


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.2, b"1"), (12.1, b"13"), (math.inf, b"86400"), (math.nan, b"86400")]
)
def test_retry_after_is_whole_seconds_within_a_day(seconds: float, header: bytes) -> None:
    assert answer_for(errors.Paused("x", retry_after_s=seconds)).headers == ((b"retry-after", header),)


def test_the_message_carries_the_remedy() -> None:
    error = errors.InvalidValue("Too small.", remedy="Use 512 or more.", param="num_ctx")
    inner = json.loads(answer_for(error).body)["error"]
    assert inner["message"] == "Too small. Use 512 or more."
    assert inner["param"] == "num_ctx"


def test_what_does_not_fit_says_how_much_is_needed_and_there() -> None:
    error = errors.VramExhausted("No room.", required_bytes=3 * 2**30 + 1, available_bytes=2**30)
    answer = answer_for(error)
    inner = json.loads(answer.body)["error"]
    assert answer.status == 503
    assert (inner["code"], inner["required_mb"], inner["available_mb"]) == ("vram_exhausted", 3073, 1024)


def test_every_problem_of_the_settings_is_listed() -> None:
    problems = (
        SettingsProblem(path="thresholds.ram_pause_pct", message="Too much."),
        SettingsProblem(path="thresholds.cpu_pause_pct", message="Too little.", line=7),
    )
    inner = json.loads(answer_for(errors.SettingsError(problems)).body)["error"]
    assert inner["param"] == "thresholds.ram_pause_pct"
    assert [each["path"] for each in inner["details"]] == [each.path for each in problems]


def test_refusals_of_the_edge_have_the_same_form() -> None:
    refusal = HttpError(413, ErrorType.INVALID_REQUEST, EdgeCode.TOO_LARGE, "Too large.")
    answer = answer_for(refusal)
    assert answer.status == 413
    assert json.loads(answer.body) == {
        "error": {
            "message": "Too large.",
            "type": "invalid_request_error",
            "param": None,
            "code": "body_too_large",
        }
    }
