"""The figures at the end of an answer, as engines write them."""

from __future__ import annotations

import pytest

from tray_valet.core.dialects import Framing
from tray_valet.web.relay.token_tail import TokenTail


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":20,"completion_tokens":64,"total_tokens":84}}', (20, 64)),
        (
            b'{"usage": {"completion_tokens" : 5, "prompt_tokens": 7},'
            b' "timings": {"prompt_n": 1, "predicted_n": 2}}',
            (7, 5),
        ),
        (b'{"usage":{"input_tokens":3,"output_tokens":4}}', (3, 4)),
        (b'{"prompt_eval_count":26,"eval_count":290}', (26, 290)),
        (b'{"timings":{"prompt_n":1,"predicted_n":2}}', (1, 2)),
        (
            b'{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":4},"total_tokens":5}}',
            (5, None),
        ),
        (b'{"content":"\\"usage\\": {\\"prompt_tokens\\": 9}"}', (None, None)),
        (b'{"usage":{"prompt_tokens":null}}', (None, None)),
        (b"", (None, None)),
    ],
)
def test_a_whole_answer_tells_its_tokens(answer: bytes, tokens: tuple[int | None, int | None]) -> None:
    tail = TokenTail()
    tail.add(answer)
    assert tail.tokens() == tokens


def test_figures_at_the_end_of_a_long_answer_are_found_wherever_it_is_cut() -> None:
    answer = b'{"text":"' + b"x" * 100_000 + b'","usage":{"prompt_tokens":20,"completion_tokens":64}}'
    for size in (1000, 30_000, 100_020, 100_040):
        tail = TokenTail()
        for place in range(0, len(answer), size):
            tail.add(answer[place : place + size])
        assert tail.tokens() == (20, 64), size


def test_a_stream_that_tells_nothing_counts_its_events() -> None:
    tail = TokenTail()
    tail.framing = Framing.EVENTS
    for _ in range(3):
        tail.add(b'data: {"choices":[]}\n\n')
    tail.add(b"data: [DONE]\n\n")
    assert tail.tokens() == (None, 3)


def test_anthropics_streams_tell_the_prompt_at_their_beginning() -> None:
    tail = TokenTail()
    tail.framing = Framing.EVENTS
    tail.add(b'event: message_start\ndata: {"message":{"usage":{"input_tokens":11}}}\n\n')
    tail.add(b"data: " + b"x" * 40_000 + b"\n\n")
    tail.add(b'event: message_delta\ndata: {"usage":{"output_tokens":15}}\n\n')
    assert tail.tokens() == (11, 15)


def test_events_are_counted_also_where_they_are_not_kept() -> None:
    tail = TokenTail()
    tail.framing = Framing.EVENTS
    for _ in range(3000):
        tail.add(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
    tail.add(b"data: [DONE]\n\n")
    assert tail.tokens() == (None, 3000)


def test_lines_are_counted_as_events_where_they_are_frames() -> None:
    tail = TokenTail()
    tail.framing = Framing.LINES
    for _ in range(5):
        tail.add(b'{"message":{"content":"x"},"done":false}\n')
    assert tail.tokens() == (None, 5)


def test_ollamas_last_line_tells_after_however_long_a_context() -> None:
    tail = TokenTail()
    tail.framing = Framing.LINES
    context = b",".join(b"%d" % n for n in range(9000))
    tail.add(b'{"response":"x","done":false}\n')
    tail.add(b'{"done":true,"context":[%b],"prompt_eval_count":26,"eval_count":290}\n' % context)
    assert tail.tokens() == (26, 290)


def test_a_short_stream_of_anthropics_tells_the_prompt_too() -> None:
    start = b'event: message_start\ndata: {"message":{"usage":{"input_tokens":25,"output_tokens":1}}}\n\n'
    for texts in (1, 4, 10, 40):
        tail = TokenTail()
        tail.framing = Framing.EVENTS
        tail.add(b": ping\n\n" + start)
        for _ in range(texts):
            tail.add(b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"x"}}\n\n')
        tail.add(b'event: message_delta\ndata: {"usage":{"output_tokens":15}}\n\n')
        tail.add(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        assert tail.tokens() == (25, 15), texts


def test_figures_are_found_before_however_much_in_the_last_event() -> None:
    tail = TokenTail()
    tail.framing = Framing.EVENTS
    for _ in range(50):
        tail.add(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
    usage = b'"usage":{"prompt_tokens":3,"completion_tokens":40}'
    tail.add(b'data: {%b,"citations":["%b"]}\n\ndata: [DONE]\n\n' % (usage, b"y" * 3000))
    assert tail.tokens() == (3, 40)
