"""Long texts are passed over: what comes out is what the parser finds in the whole body."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import msgspec
import pytest

from tray_valet.web.relay import long_texts
from tray_valet.web.relay.long_texts import fields_of_large
from tray_valet.web.relay.request_body import Fields

_decode = msgspec.json.Decoder(Fields).decode
LONG = 20_000


class Counting:
    """The parser, and how many bytes it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, body: bytes | memoryview) -> Fields:
        self.given.append(len(body))
        return _decode(body)


def _plain(fields: Fields) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in fields.items()}


def _as_view(body: bytes) -> memoryview:
    return memoryview(bytearray(body + b"what an earlier request has left"))[: len(body)]


def _random_text(rng: random.Random) -> str:
    kind = rng.randrange(8)
    if kind == 0:
        return ""
    if kind == 1:
        return "\\" * rng.randrange(200)
    if kind == 2:
        return "long text " + chr(0x7F) + "long text 0" + chr(0x7F)
    size = rng.choice([3, 300, LONG, 3 * LONG])
    alphabet = rng.choice(["x", 'ab"\\', "aé漢🎲", "ab\n\t{}[],:"])
    return "".join(rng.choices(alphabet, k=size)) if size <= 300 else rng.choice(alphabet) * size


def _random_value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(6 if depth < 3 else 4)
    if kind == 4:
        return [_random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return {_random_text(rng)[:40]: _random_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 0:
        return rng.choice([None, True, 1, -2.5e9, 123456789012345678901234567890])
    return _random_text(rng)


def _random_bodies(seed: int, count: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        fields = {_random_text(rng)[:40]: _random_value(rng) for _ in range(rng.randrange(6))}
        if rng.random() < 0.2:
            fields["k" * LONG] = 1
        text = json.dumps(fields, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 2]))
        if rng.random() < 0.3 and fields:  # a name that comes twice, as JSON allows
            text = text[:-1].rstrip() + ',"' + "twice" + '": "' + "y" * LONG + '", "twice": ["z"]}'
        yield text.encode()


@pytest.mark.parametrize("seed", range(8))
def test_the_fields_are_those_of_the_whole_body(seed: int) -> None:
    for body in _random_bodies(seed, 40):
        expected = _plain(_decode(body))
        assert _plain(fields_of_large(body, _decode)) == expected
        assert _plain(fields_of_large(_as_view(body), _decode)) == expected
        assert list(fields_of_large(body, _decode)) == list(expected)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_no_json_is_none_with_marks_either_and_the_place_is_told(seed: int) -> None:
    rng = random.Random(100 + seed)
    for body in _random_bodies(seed, 40):
        broken = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(broken))
            what = rng.choice(b'"\\{}[],:x \x00')
            if rng.random() < 0.5:
                broken[place] = what
            else:
                broken.insert(place, what)
        if rng.random() < 0.2:
            del broken[rng.randrange(len(broken)) :]
        whole = bytes(broken)
        try:
            expected: dict[str, bytes] | str = _plain(_decode(whole))
        except (msgspec.DecodeError, UnicodeError) as error:
            expected = str(error)
        try:
            found: dict[str, bytes] | str = _plain(fields_of_large(whole, _decode))
        except (msgspec.DecodeError, UnicodeError) as error:
            found = str(error)
        if isinstance(found, dict) and isinstance(expected, str):
            # Only what is inside of a long text is left to the engine: with that out of the way it is JSON.
            assert _plain(_decode(_without_long_texts(whole))).keys() == found.keys()
        else:
            assert found == expected


def _without_long_texts(body: bytes) -> bytes:
    """Slowly: every text of that length empty."""
    kept, text, is_open = bytearray(), bytearray(), False
    place = 0
    while place < len(body):
        byte = body[place : place + 1]
        if not is_open:
            kept += byte
            is_open = byte == b'"'
        elif byte == b"\\":
            text += body[place : place + 2]
            place += 1
        elif byte == b'"':
            kept += b'"' if len(text) >= long_texts._LONG_BYTES else bytes(text) + b'"'
            text.clear()
            is_open = False
        else:
            text += byte
        place += 1
    return bytes(kept + text)


def test_the_parser_is_spared_the_long_texts() -> None:
    picture = "QUJD" * 1_000_000
    content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]
    messages = [{"role": "user", "content": content}, {"role": "user", "content": 'say \\"hi\\"' * 3000}]
    body = json.dumps({"model": "m", "messages": messages, "stream": True}).encode()
    parse = Counting()
    fields = fields_of_large(_as_view(body), parse)
    assert len(parse.given) == 1
    assert parse.given[0] < 100_000
    assert _plain(fields) == _plain(_decode(body))


def test_a_body_of_short_texts_is_the_parser_s() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}] * 20_000}).encode()
    parse = Counting()
    assert _plain(fields_of_large(body, parse)) == _plain(_decode(body))
    assert parse.given == [len(body)]


def test_one_that_speaks_of_our_marks_gets_no_other_s_text() -> None:
    mark = (long_texts._MARK + b"0" + long_texts._MARK_END).decode()
    for fields in (
        {"a": "x" * LONG, "b": mark},
        {"b": mark, "a": "x" * LONG},
        {mark: 1, "a": "x" * LONG},
        {"a": mark + "x" * LONG},
    ):
        body = json.dumps(fields, ensure_ascii=False).encode()
        assert _plain(fields_of_large(body, _decode)) == _plain(_decode(body))


@pytest.mark.parametrize("count", [63, 64, 65, 66, 1000, 300_000])
def test_as_many_backslashes_as_somebody_likes(count: int) -> None:
    body = b'{"a":"' + b"\\" * count + b'"' + b"x" * LONG + b'","b":"' + b"y" * LONG + b'"}'
    try:
        expected: dict[str, bytes] | None = _plain(_decode(body))
    except msgspec.DecodeError:
        expected = None
    try:
        found: dict[str, bytes] | None = _plain(fields_of_large(body, _decode))
    except msgspec.DecodeError:
        found = None
    assert found == expected


def test_a_view_that_does_not_begin_where_its_memory_does_is_read_as_it_is() -> None:
    body = json.dumps({"model": "m", "prompt": "x" * LONG}).encode()
    view = memoryview(b"{" + body)[1:]
    assert _plain(fields_of_large(view, _decode)) == _plain(_decode(body))
