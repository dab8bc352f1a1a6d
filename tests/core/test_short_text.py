"""Texts that must fit."""

from __future__ import annotations

import pytest

from tray_valet.core.short_text import cut, one_line


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("", 5, ""),
        ("abcde", 5, "abcde"),
        ("abcdef", 5, "abcd…"),
        ("abc def", 5, "abc…"),
        ("🎮🎮🎮", 6, "🎮🎮🎮"),
        ("🎮🎮🎮", 5, "🎮🎮…"),
        ("🎮🎮🎮", 4, "🎮…"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_a_cut_text_fits_in_utf16_units_and_shows_the_cut(text: str, limit: int, short: str) -> None:
    assert cut(text, limit) == short
    assert len(cut(text, limit).encode("utf-16-le")) // 2 <= limit


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\nb", "a  b"),
        ("a\x00b\x1b[31m", "ab[31m"),
        ("a\u202eb\u2066c", "abc"),
        ("30\u00a0s", "30\u00a0s"),
        ("👩\u200d💻 ü _ & <b>", "👩\u200d💻 ü _ & <b>"),
        ("a\ud800b", "ab"),
    ],
)
def test_one_line_drops_what_could_break_or_turn_the_line(text: str, line: str) -> None:
    assert one_line(text) == line
