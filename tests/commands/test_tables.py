import pytest

from tray_valet.commands.tables import gb, pct, plain, table


def test_columns_line_up_and_numbers_end_flush() -> None:
    text = table(("MODEL", "SIZE"), [("tiny", "62 MB"), ("a-longer-name", "17.3 GB")], right=("SIZE",))
    assert text.splitlines() == [
        "MODEL             SIZE",
        "tiny             62 MB",
        "a-longer-name  17.3 GB",
    ]


def test_no_line_ends_in_blanks() -> None:
    assert table(("A", "B"), [("x", ""), ("yy", None)]).splitlines() == ["A   B", "x   -", "yy  -"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\x1b[31mred\nline", "a [31mred line"),
        ("0.6\u00a0s", "0.6 s"),
        ("\u202egnp.exe", " gnp.exe"),
        (None, "-"),
        (0, "0"),
        ("Ünïcode 龍", "Ünïcode 龍"),
    ],
)
def test_text_from_outside_cannot_steer_the_terminal(value: object, shown: str) -> None:
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("size_mb", "shown"), [(None, "-"), (0, "-"), (17715, "17.3 GB"), (62, "62 MB"), (379, "0.4 GB")]
)
def test_sizes_are_gb_with_one_decimal(size_mb: int | None, shown: str) -> None:
    assert gb(size_mb) == shown


def test_a_share_has_one_decimal() -> None:
    assert (pct(46.44), pct(None)) == ("46.4%", "-")
