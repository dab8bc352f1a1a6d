"""The words for durations and facts: short, never a figure that sounds more exact than it is."""

from __future__ import annotations

import pytest

from tray_valet.core import events as ev
from tray_valet.core.wording import duration, sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.02, "under 0.1 s"),
        (0.6, "0.6 s"),
        (2.0, "2 s"),
        (9.96, "10 s"),
        (18.4, "18 s"),
        (119.4, "119 s"),
        (119.9, "2 min"),
        (180, "3 min"),
        (7199.9, "2 h"),
        (25_200, "7 h"),
    ],
)
def test_a_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (ev.LoadRefused, "qwen could not be loaded: the file is damaged."),
        (ev.RestoreFailed, "qwen could not be brought back: the file is damaged."),
    ],
)
def test_what_the_loader_says_already_is_not_said_twice(
    fact: type[ev.LoadRefused] | type[ev.RestoreFailed], text: str
) -> None:
    assert sentence(fact(model="qwen", message="qwen could not be loaded: the file is damaged.")) == text
