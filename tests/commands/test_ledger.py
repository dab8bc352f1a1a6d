"""`tray-valet ledger`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tray_valet.commands import grammar, ledger
from tray_valet.commands.failures import ApiError

GAME = {
    "key": "steam:1",
    "name": "Hades",
    "times": 12,
    "median_seconds": 0.62,
    "worst_seconds": 6.2,
    "freed_mb": 20480,
    "restore_median_seconds": 4.1,
    "played_seconds": 7200.0,
    "text": "Your models stepped aside 12 times.",
}


def test_a_row_and_a_sentence_for_each_game() -> None:
    nothing = dict.fromkeys(("median_seconds", "worst_seconds", "restore_median_seconds"))
    zeros = {"times": 0, "freed_mb": 0, "played_seconds": 0.0}
    bare = {**GAME, **nothing, **zeros, "name": "Do\x1bom", "text": "No model was loaded."}
    lines = ledger.text({"games": [GAME, bare]}).splitlines()
    assert lines[0].split() == ["GAME", "TIMES", "MEDIAN", "WORST", "FREED", "BACK", "IN", "PLAYED"]
    assert lines[1].split() == ["Hades", "12", "0.6", "s", "6.2", "s", "20.0", "GB", "4.1", "s", "2", "h"]
    assert lines[2].split() == ["Do", "om", "0", "-", "-", "-", "-", "-"]
    assert lines[4:] == ["Hades: Your models stepped aside 12 times.", "Do om: No model was loaded."]


def test_an_empty_one_says_so() -> None:
    assert ledger.text({"games": []}) == "No model has stepped aside for a game yet."


def test_json_is_the_apis_own(control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    control_api.answers["GET /ledger"] = told(200, {"games": [GAME], "more": "ü"})
    ledger.show(control_api.client(), is_json=True)
    assert json.loads(capsys.readouterr().out) == {"games": [GAME], "more": "ü"}


def test_forgetting_one_or_all(control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    control_api.answers["DELETE /ledger"] = told(200, {"forgotten": 1})
    ledger.forget(control_api.client(), "Doom Eternal", is_json=False)
    ledger.forget(control_api.client(), None, is_json=True)
    assert control_api.requests() == ["DELETE /ledger?game=Doom+Eternal", "DELETE /ledger"]
    said, _, answer = capsys.readouterr().out.partition("\n")
    assert said == "1 game forgotten."
    assert json.loads(answer) == {"forgotten": 1}
    control_api.answers["DELETE /ledger"] = told(200, {"forgotten": 0})
    ledger.forget(control_api.client(), None, is_json=False)
    assert capsys.readouterr().out == "Nothing was remembered.\n"


def test_a_game_that_is_not_known_is_a_failure(control_api: Any) -> None:
    with pytest.raises(ApiError):
        ledger.forget(control_api.client(), "Chess", is_json=False)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [([], None), (["--forget"], True), (["--forget", "Hades"], "Hades"), (["--forget", "--json"], True)],
)
def test_what_may_be_typed(argv: list[str], wanted: object) -> None:
    assert grammar.parse(["ledger", *argv]).forget == wanted
