"""The picture of the demo: all its words, on lines that fit."""

from __future__ import annotations

import importlib
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

DEMO_OUTPUT = """\
What this is.
Two lines of it.

  1.03 s  ✓  Two <real> models made: large (0.4 GB) and tiny (1 MB)  (1.0 s)
 12.20 s  ✓  Asked: “A question so long that it cannot stand on one line with all the rest, & more”  (15 ms)
 13.00 s  ✗  It failed  (3 ms)

Why it failed.
"""


@pytest.fixture
def demo_picture(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    yield importlib.import_module("demo_picture")
    sys.modules.pop("demo_picture", None)


def words_in(svg: str) -> str:
    """All text of an SVG but its title, in order, with single spaces."""
    lines = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return " ".join(" ".join("".join(line.itertext()) for line in lines).split())


def test_the_picture_says_every_word_of_the_demo_and_nothing_else(demo_picture: ModuleType) -> None:
    assert words_in(demo_picture.picture(DEMO_OUTPUT)) == " ".join(f"$ tray-valet demo {DEMO_OUTPUT}".split())


def test_no_line_of_the_picture_is_wider_than_the_picture(demo_picture: ModuleType) -> None:
    for line in demo_picture.layout(DEMO_OUTPUT):
        most = demo_picture.COLUMNS if line.is_step else demo_picture.PROSE_COLUMNS
        assert len(line.text) <= most


def test_the_stored_picture_shows_a_demo_that_saw_every_step() -> None:
    words = words_in((ROOT / "assets" / "demo.svg").read_text(encoding="utf-8"))
    steps = words.count("✓")
    assert steps >= 10
    assert "✗" not in words
    assert f"All {steps} steps were seen" in words
