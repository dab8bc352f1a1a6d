"""The words for durations: short, and never a figure that sounds more exact than it is."""

from __future__ import annotations

import pytest

from tray_valet.core.wording import duration


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
