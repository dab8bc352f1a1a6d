"""The file's text: YAML 1.2's words, lines for every mistake, and nothing that crashes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tray_valet.core.config_tree import to_plain
from tray_valet.core.errors import SettingsError
from tray_valet.services.settings_text import MAX_FILE_BYTES, parse_settings


def plain(text: str) -> Any:
    return to_plain(parse_settings(text.encode()))


def mistake(data: bytes | str) -> tuple[int | None, str, str]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(data.encode() if isinstance(data, str) else data)
    first = caught.value.problems[0]
    return first.line, first.path, first.message


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~", "null", "\ufeff"])
def test_an_empty_file_says_nothing(text: str) -> None:
    assert plain(text) == {}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("80", 80),
        ("+80", 80),
        ("080", 80),
        ("0x10", 16),
        ("8.5", 8.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("'80'", "80"),
        ('"true"', "true"),
        ("=", "="),
        ("eighty", "eighty"),
        ("12345678901234567890123", 12345678901234567890123.0),
    ],
)
def test_words_are_read_as_yaml_1_2_does(written: str, value: Any) -> None:
    found = plain(f"a: {written}\n")["a"]
    assert found == value
    assert type(found) is type(value)


def test_infinity_is_read_and_left_to_the_checks() -> None:
    assert plain("a: -.inf")["a"] == float("-inf")


def test_every_value_knows_its_line() -> None:
    tree = parse_settings(b"# c\na:\n  b: 1\n\n  c:\n    - x\n    - {d: 1}\n")
    assert [
        tree.place_of(path).line for path in (("a",), ("a", "b"), ("a", "c"), ("a", "c", 1, "d"), ("a", "zz"))
    ] == [2, 3, 5, 7, 2]


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "“a” is written twice; the first is in line 1."),
        ("a:\n  b: 1\n  b: 2\n", 3, "is written twice"),
        ("a: [1, 2\nb: 3\n", 2, "not YAML"),
        ("a:\n\t- b\n", 2, "A tab stands here"),
        ("a: b: c\n", 1, "not YAML"),
        ("a: 'x\n", 2, "not YAML"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("a: 1\nb: \0\n", 2, "control character"),
        ("a: *x\n", 1, "undefined alias"),
        ("a: &x [*x]\n", 1, "nested too deeply"),
        ("a: !!python/object/apply:os.system ['ls']\n", 1, "The tag"),
        ("a: !!float 3\n", 1, "The tag"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("- a\n", 1, "does not hold keys and values"),
        ("hello\n", 1, "does not hold keys and values"),
        ("1: 2\n", 1, "is not text, and a key must be"),
        ("true: 2\n", 1, "is not text, and a key must be"),
        ("[a]: 2\n", 1, "is not text, and a key must be"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "Merge keys"),
        ("%YAML 9.9\n---\na: 1\n", 1, "not YAML"),
    ],
)
def test_mistakes_have_a_line_and_words(data: bytes | str, line: int, words: str) -> None:
    found_line, _, message = mistake(data)
    assert found_line == line
    assert words in message


@pytest.mark.parametrize(
    "data",
    [
        "[" * 20_000,
        "{a: " * 5_000 + "1" + "}" * 5_000,
        "a:\n" + "".join(" " * i + f"k{i}:\n" for i in range(1, 900)),
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{c}: &{c} [{','.join([f'*{chr(ord(c) - 1)}'] * 9)}]\n" for c in "bcdefghi"),
        b"x" * (MAX_FILE_BYTES + 1),
        "a: " + "9" * 5_000 + "\n? " * 3,
        b"\xff\xfea\x00:\x00",
        "? ? ? ?",
        "a: \x85\u2028 b",
        "&a",
        "*",
        "a: !",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_no_file_crashes_the_reader(data: bytes | str) -> None:
    with contextlib.suppress(SettingsError):
        parse_settings(data.encode() if isinstance(data, str) else data)


def test_all_duplicates_are_told() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(b"a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [problem.path for problem in caught.value.problems] == ["a", "b.c"]


def test_json_is_read_with_its_tabs() -> None:
    assert plain('{\n\t"a": {\n\t\t"b": [1, "x"]\n\t}\n}') == {"a": {"b": [1, "x"]}}
