"""`games --classify FILE`: the file's form, its mistakes, and what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tray_valet.commands.classify import classify_file
from tray_valet.core.errors import InvalidValue, NotFound
from tray_valet.core.games import Action, GameRule, Verdict

HADES = {
    "id": "A1",
    "os": "linux",
    "exe": "/home/ada/.local/share/Steam/steamapps/common/Hades/Hades",
    "argv": ["Hades"],
    "env": {"SteamAppId": "1145360"},
    "parent": "reaper",
}
ELSEWHERE = {
    "id": "A2",
    "os": "linux",
    "exe": "/srv/g/Hades/hades",
    "argv": ["hades"],
    "env": {},
    "parent": None,
}
LIBRARY = {
    "store": "gog",
    "path": "/srv/g/Hades",
    "installdir": "Hades",
    "name": "Hades!",
    "appid": 7,
    "kind": "game",
}


def write(folder: Path, content: Any) -> Path:
    file = folder / "cases.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_every_case_gets_its_five_fields_in_the_files_order(tmp_path: Path) -> None:
    answer = classify_file(write(tmp_path, [ELSEWHERE, HADES]))
    assert answer == [
        {"id": "A2", "verdict": "not", "name": "hades", "store": "", "rule": "no rule matched"},
        {"id": "A1", "verdict": "game", "name": "Hades", "store": "steam", "rule": "steam folder"},
    ]
    assert json.loads(json.dumps(answer)) == answer


def test_a_case_has_only_the_libraries_that_it_carries(tmp_path: Path) -> None:
    cases = [
        {**ELSEWHERE, "id": 1, "libraries": [LIBRARY]},
        {**ELSEWHERE, "id": 2},
        {**ELSEWHERE, "libraries": None},
    ]
    answer = classify_file(write(tmp_path, cases))
    assert [(entry["id"], entry["verdict"], entry["store"]) for entry in answer] == [
        (1, "game", "gog"),
        (2, "not", ""),
        ("A2", "not", ""),
    ]
    assert answer[0]["name"] == "Hades!"


def test_fields_for_people_are_ignored_and_others_have_defaults(tmp_path: Path) -> None:
    case = {"exe": "/usr/bin/vim", "label": "not", "also_ok": ["launcher"], "note": "x", "libraries": []}
    assert classify_file(write(tmp_path, [case]))[0]["verdict"] == "not"
    assert classify_file(write(tmp_path, [])) == []


def test_the_users_rules_are_applied_first(tmp_path: Path) -> None:
    rules = [GameRule(name="Hades", action=Action.OFF), GameRule(exe="hades", verdict=Verdict.GPU_APP)]
    answer = classify_file(write(tmp_path, [HADES, {**ELSEWHERE, "exe": "/srv/x/vim"}]), rules)
    assert [(entry["verdict"], entry["rule"]) for entry in answer] == [
        ("not", "user rule 1"),
        ("not", "no rule matched"),
    ]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "cases.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps([HADES]).encode())
    assert classify_file(file)[0]["verdict"] == "game"


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([HADES, {"id": "x", "os": "linux"}], "[1]"),
        ([HADES, "text"], "[1]"),
        ([{**HADES, "exe": 5}], "[0].exe"),
        ([{**HADES, "os": "beos"}], "[0].os"),
        ([{**HADES, "argv": "Hades"}], "[0].argv"),
        ([{**HADES, "argv": ["Hades", 1]}], "[0].argv[1]"),
        ([{**HADES, "env": {"SteamAppId": 5}}], "[0].env[...]"),
        ([{**HADES, "libraries": [LIBRARY, {"store": "gog"}]}], "[0].libraries[1]"),
        ([{**HADES, "libraries": {}}], "[0].libraries"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, content: Any, param: str) -> None:
    file = write(tmp_path, content)
    with pytest.raises(InvalidValue) as caught:
        classify_file(file)
    assert caught.value.param == param
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1,", b"{}", b"7", b"null", b"\xff\xfe[]", b"[" * 100_000, b'["\xff"]']
)
def test_a_file_that_is_no_list_of_cases_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "cases.json"
    file.write_bytes(text)
    with pytest.raises(InvalidValue) as caught:
        classify_file(file)
    assert str(file) in caught.value.message


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        classify_file(tmp_path / "none.json")
    with pytest.raises(InvalidValue):
        classify_file(tmp_path)


def test_a_bad_rule_is_refused_before_anything_is_judged(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue):
        classify_file(write(tmp_path, [HADES]), [GameRule(argv_regex="(", action=Action.ON)])
