"""Ollama's times: what is sent as keep_alive, and how expires_at is read."""

import math

import pytest

from tray_valet.providers.ollama_times import (
    DEFAULT_KEEP_ALIVE_S,
    keep_alive_of,
    ttl_left_s,
    unix_s,
)

NOON_S = 1_786_968_000.0  # 2026-08-17T12:00:00Z


@pytest.mark.parametrize(
    ("ttl_s", "sent"),
    [
        (None, None),
        (math.inf, -1),
        (300, "300.000s"),
        (83.25, "83.250s"),
        (0.0, "1.000s"),  # 0 would unload
        (0.2, "1.000s"),
        (-5.0, "1.000s"),
        (1e12, -1),
    ],
)
def test_a_time_to_live_becomes_a_keep_alive_and_never_an_unload(ttl_s: float, sent: object) -> None:
    assert keep_alive_of(ttl_s) == sent


@pytest.mark.parametrize(
    ("expires_at", "left_s"),
    [
        ("2026-08-17T12:05:00Z", 300.0),
        ("2026-08-17T12:05:00.5Z", 300.5),
        ("2026-08-17T05:05:00.123456789-07:00", 300.123456789),
        ("2026-08-17T17:35:00.1+05:30", 300.1),
        ("2026-08-17T14:05:00.000000001+02:00", 300.0),
        ("2026-08-17T11:59:00Z", 0.0),  # in use past its time
        ("2318-11-28T03:46:16.854775807-07:00", None),  # now + MaxInt64 ns: for ever
        ("0001-01-01T00:00:00Z", DEFAULT_KEEP_ALIVE_S),
        ("not a time", DEFAULT_KEEP_ALIVE_S),
        ("2026-13-45T12:00:00Z", DEFAULT_KEEP_ALIVE_S),
        ("", None),
        (None, None),
    ],
)
def test_the_time_left_is_read_from_what_go_prints(expires_at: str | None, left_s: float | None) -> None:
    left = ttl_left_s(expires_at, NOON_S)
    assert left == (None if left_s is None else pytest.approx(left_s, abs=1e-5))


def test_offsets_name_the_same_moment() -> None:
    assert unix_s("2026-08-17T12:00:00Z") == unix_s("2026-08-17T05:00:00-07:00") == NOON_S
