"""A question on its way: its bytes, and the connection to an engine that they went out on.

Decides: whether a question may go out before anything is prepared for its answer. Must not: read answers.
"""

from __future__ import annotations

from typing import cast

import msgspec

from tray_valet.core.commands import Lease
from tray_valet.core.errors import ValetError
from tray_valet.web.relay.passed_headers import headers_upstream
from tray_valet.web.relay.question import Question, question_for
from tray_valet.web.relay.request_body import Asked
from tray_valet.web.relay.upstream_client import UpstreamClient, UpstreamHead, UpstreamRequest
from tray_valet.web.relay.upstream_connection import Connection

JSON = (b"content-type", b"application/json")


class Asking(msgspec.Struct):
    """A question, and the connection that it went out on already; None = it is still to be sent."""

    question: Question
    request: UpstreamRequest
    connection: Connection | None = None


def asking_for(asked: Asked, lease: Lease) -> Asking:
    """What is to be sent. Raises InvalidValue for what the engine's dialect cannot say."""
    question = question_for(asked, lease)
    head = _head_for(question, asked, lease)
    return Asking(question, UpstreamRequest(head=head, body=question.body, who=lease.ref.provider))


def ask_at_once(client: UpstreamClient, asked: Asked, lease: Lease) -> Asking | None:
    """Send the question if there is an open connection and the answer may pass as it is.

    Its `expect` is due in the same breath, before the loop goes on: the engine may work on the question while
    we prepare for its answer. None: it cannot be put at all, and comes again where that can be told.
    """
    try:
        asking = asking_for(asked, lease)
        if not asking.question.is_translated:
            asking.connection = client.send(asking.request)
    except ValetError:
        return None
    return asking


def _head_for(question: Question, asked: Asked, lease: Lease) -> UpstreamHead:
    upstream, known = lease.upstream, asked.known
    if known is not None and (memo := known.memo) is not None:
        where, head = memo  # of the last question with this head
        if where == upstream and head.target == question.target:
            return cast(UpstreamHead, head)
    theirs = (_encoded(name, value) for name, value in upstream.headers.items())
    head = UpstreamHead(
        base_url=upstream.base_url,
        target=question.target,
        headers=(*headers_upstream(asked.headers), JSON, *theirs),
    )
    if known is not None:
        known.memo = (upstream, head)
    return head


def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")
