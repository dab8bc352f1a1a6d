"""How a request is put to an engine that is asked as it is."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tray_valet.core.commands import Lease
from tray_valet.core.dialects import CHAT, OPERATIONS
from tray_valet.core.models import Upstream
from tray_valet.web.relay.question import question_for
from tray_valet.web.relay.request_body import read_request


def said(body: bytes, model: str) -> bytes:
    asked = read_request(OPERATIONS[CHAT], body, [], client="", query=b"")
    upstream = Upstream(base_url="http://127.0.0.1:1", model=model)
    question = question_for(asked, cast(Lease, SimpleNamespace(upstream=upstream, overrides=None)))
    return question.body if isinstance(question.body, bytes) else b"".join(question.body)


@pytest.mark.parametrize("size", [10, 300_000], ids=["small", "large"])
def test_only_the_model_changes_and_every_other_value_stays_as_it_was_written(size: int) -> None:
    rest = (
        b'"\\u00fc \\"k\\"": 123456789012345678901234567890, "b": [1.0, 1e2 ], "text": "' + b"x" * size + b'"'
    )
    written = said(b'{"model": "alias", ' + rest + b"}", 'real "m"')
    assert json.loads(written) == {"model": 'real "m"', **json.loads(b"{" + rest + b"}")}
    for value in (b"123456789012345678901234567890", b"[1.0, 1e2 ]", b"x" * size):
        assert value in written


@pytest.mark.parametrize("size", [10, 300_000], ids=["small", "large"])
def test_a_name_that_is_said_twice_is_said_once_to_the_engine(size: int) -> None:
    body = b'{"model": "a", "text": "%b", "model": "b"}' % (b"x" * size)
    pairs: list[Any] = json.loads(said(body, "real"), object_pairs_hook=list)
    assert sorted(name for name, _ in pairs) == ["model", "text"]
    assert dict(pairs)["model"] == "real"
