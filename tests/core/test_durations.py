"""Durations as engines spell them: every spelling of Go's, and what is none."""

from __future__ import annotations

import math

import pytest

from tray_valet.core.durations import go_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("300ms", 0.3),
        ("2m0s", 120),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("3ns", 3e-9),
        ("-1s", math.inf),
        ("+2s", 2),
        ("0", 0),
        (".5s", 0.5),
        ("300", 300),
        ("", None),
        ("-", None),
        ("5 m", None),
        ("5d", None),
        ("m5", None),
    ],
)
def test_go_durations_are_read(text: str, seconds: float | None) -> None:
    assert go_seconds(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [(300, 300), ("5m", 300), (-1, math.inf), ("-1m", math.inf), (0, 0), ("0", 0), ("soon", None)],
)
def test_what_people_write_as_keep_alive_is_read(keep_alive: float | str, seconds: float | None) -> None:
    assert go_seconds(keep_alive) == seconds
