"""Half an event is never passed on, however the bytes come."""

import random

import pytest

from tray_valet.web.relay.whole_events import WholeEvents

EVENTS = b'data: {"a": 1}\n\n: ping\n\nevent: x\ndata: {"b": "\xc3\xa9"}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_any_cut_of_the_bytes_gives_the_same_stream_and_only_whole_events(newline: bytes) -> None:
    stream = EVENTS.replace(b"\n", newline)
    dice = random.Random(3)
    for _ in range(200):
        events, sent, at = WholeEvents(), b"", 0
        while at < len(stream):
            step = dice.randint(1, 12)
            sent += events.pass_on(stream[at : at + step])
            at += step
            assert sent == b"" or sent.endswith(newline * 2)
        assert sent + events.finish() == stream


def test_what_is_cut_is_dropped_and_our_own_event_stands_alone() -> None:
    events = WholeEvents()
    assert events.pass_on(b'data: {"a": 1}\n\ndata: {"b"') == b'data: {"a": 1}\n\n'
    assert events.cut() == b""
    assert events.finish() == b""


def test_an_event_too_long_to_hold_goes_on_in_pieces_and_is_closed_before_ours() -> None:
    events = WholeEvents()
    long = b"data: " + b"x" * 2**21
    assert events.pass_on(long) == long
    assert events.cut() == b"\n\n"


def test_a_last_event_without_its_empty_line_is_passed_on_at_the_end() -> None:
    events = WholeEvents()
    assert events.pass_on(b"data: 1\n") == b""
    assert events.finish() == b"data: 1\n"
