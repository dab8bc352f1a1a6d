import pytest

from tray_valet.commands.durations import parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("0.5", 0.5),
        ("5m", 300),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1H30M", 5400),
        (" 2h ", 7200),
        ("1d", 86400),
        ("1d2h3m4s", 93784),
        ("1.5h", 5400),
        ("366d", 366 * 86400),
    ],
)
def test_a_duration_means_its_seconds(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "h", "2x", "-5", "-5m", "0", "0s", "0h0m", "1m1h", "1m1m", "2 h", "1,5h", "1e3", "inf",
        "nan", "٣", "1h30", "367d", "99999999999999999999", "2h!", "1..5h", ".5h",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_to_write_instead(text: str) -> None:
    with pytest.raises(ValueError, match=r"Use "):
        parse_duration_s(text)
