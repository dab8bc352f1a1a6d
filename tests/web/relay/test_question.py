"""How a request is put to an engine that is asked as it is."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tray_valet.core.commands import Lease, Overrides
from tray_valet.core.dialects import (
    CHAT,
    OLLAMA_CHAT,
    OLLAMA_EMBED,
    OLLAMA_GENERATE,
    OLLAMA_SHOW,
    OPERATIONS,
)
from tray_valet.core.models import ProviderKind, Upstream
from tray_valet.web.relay.question import question_for
from tray_valet.web.relay.request_body import read_request


def said(
    body: bytes,
    model: str,
    path: str = CHAT,
    overrides: Overrides | None = None,
    kind: ProviderKind = ProviderKind.OPENAI,
) -> bytes:
    asked = read_request(OPERATIONS[path], body, [], client="", query=b"")
    upstream = Upstream(base_url="http://127.0.0.1:1", model=model, kind=kind)
    question = question_for(asked, cast(Lease, SimpleNamespace(upstream=upstream, overrides=overrides)))
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


@pytest.mark.parametrize("size", [10, 300_000], ids=["small", "large"])
@pytest.mark.parametrize("path", [OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_EMBED])
def test_a_route_sets_and_strips_in_the_options_of_ollamas_own_dialect(path: str, size: int) -> None:
    asked = {"model": "alias", "text": "x" * size, "user": "me", "options": {"temperature": 0.9, "seed": 1}}
    overrides = Overrides(
        set={"temperature": 0.25, "max_tokens": 9, "keep_alive": "5m", "model": "no"},
        strip=("user", "seed", "model"),
        context_length=8192,
        keep_alive_s=60.0,
    )
    written = said(json.dumps(asked).encode(), "real", path, overrides, ProviderKind.OLLAMA)
    assert json.loads(written) == {
        "model": "real",
        "text": "x" * size,
        "keep_alive": "5m",
        "options": {"temperature": 0.25, "num_predict": 9, "num_ctx": 8192},
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (CHAT, ProviderKind.OLLAMA),
        (CHAT, ProviderKind.OPENAI),
        (OLLAMA_CHAT, ProviderKind.OPENAI),
        (OLLAMA_SHOW, ProviderKind.OLLAMA),
    ],
)
def test_elsewhere_a_route_sets_and_strips_beside_the_model(path: str, kind: ProviderKind) -> None:
    overrides = Overrides(set={"temperature": 0.25, "max_tokens": 9}, strip=("seed",))
    body = b'{"model": "alias", "temperature": 0.9, "seed": 1, "options": {"seed": 1}}'
    told = {"model": "real", "temperature": 0.25, "max_tokens": 9, "options": {"seed": 1}}
    assert json.loads(said(body, "real", path, overrides, kind)) == told
