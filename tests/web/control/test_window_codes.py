"""One-time codes: good once, for 30 s, and never to be read back."""

from __future__ import annotations

import pytest

from tests.web.fake_valet import FakeClock
from tray_valet.web.control.window_codes import CODE_LIFE_S, WindowCodes
from tray_valet.web.edge.errors import HttpError


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def codes(clock: FakeClock) -> WindowCodes:
    return WindowCodes(clock)


def test_a_code_buys_a_key_that_is_neither_the_code_nor_the_last_one(codes: WindowCodes) -> None:
    first, second = codes.new_code(), codes.new_code()
    tokens = {codes.buy_token(first), codes.buy_token(second)}
    assert len(tokens) == 2
    assert not tokens & {first, second}
    assert all(codes.accepts(token.encode()) for token in tokens)
    assert all(len(text) >= 40 for text in (first, *tokens))


def test_a_code_works_once(codes: WindowCodes) -> None:
    code = codes.new_code()
    codes.buy_token(code)
    with pytest.raises(HttpError) as refused:
        codes.buy_token(code)
    assert refused.value.status == 401
    assert code not in refused.value.message


@pytest.mark.parametrize(
    ("age_s", "is_good"), [(CODE_LIFE_S, True), (CODE_LIFE_S + 0.1, False), (3600, False)]
)
def test_a_code_is_good_for_30_seconds(
    codes: WindowCodes, clock: FakeClock, age_s: float, is_good: bool
) -> None:
    code = codes.new_code()
    clock.now_s += age_s
    if is_good:
        assert codes.accepts(codes.buy_token(code).encode())
        return
    with pytest.raises(HttpError):
        codes.buy_token(code)
    clock.now_s -= age_s
    with pytest.raises(HttpError):
        codes.buy_token(code)  # an old code that was shown is spent, too


@pytest.mark.parametrize("code", ["", "x", "é" * 40, "\ud800", "0" * 10_000])
def test_what_was_never_a_code_buys_nothing(codes: WindowCodes, code: str) -> None:
    codes.new_code()
    with pytest.raises(HttpError):
        codes.buy_token(code)


@pytest.mark.parametrize("token", [b"", b"x", "ü".encode()])
def test_what_was_never_sold_is_no_key(codes: WindowCodes, token: bytes) -> None:
    code = codes.new_code()
    assert not codes.accepts(token)
    assert not codes.accepts(code.encode()), "a code is no key"


def test_a_thousand_windows_leave_a_bounded_number_of_codes_and_keys(codes: WindowCodes) -> None:
    first_token = codes.buy_token(codes.new_code())
    first_code = codes.new_code()
    for _ in range(1000):
        last_token = codes.buy_token(codes.new_code())
    kept = [codes.new_code() for _ in range(1000)]
    assert codes.accepts(last_token.encode())
    assert not codes.accepts(first_token.encode())
    with pytest.raises(HttpError):
        codes.buy_token(first_code)
    assert codes.buy_token(kept[-1])
