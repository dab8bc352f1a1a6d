"""Whole answers from streams: for which requests, and by whom they are put together.

llama.cpp's server notices that its client has left only while it streams, so it is always asked to stream.

Decides: where that gives the very answer that the engine would have given whole.
Must not: talk to anybody; bytes in, bytes out.
Source: llama.cpp's `tools/server/server-task.cpp` and `server-context.cpp`; compared with its own whole
answers in the tests.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from tray_valet.core.dialects import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tray_valet.web.edge.json_faults import MALFORMED
from tray_valet.web.translate.streamed_answer import StreamedAnswer
from tray_valet.web.translate.whole_choices import WholeChat, WholeCompletion
from tray_valet.web.translate.whole_messages import WholeMessage
from tray_valet.web.translate.whole_responses import WholeResponse

_Fields = dict[str, msgspec.Raw]
_ASSEMBLERS: dict[str, type[StreamedAnswer]] = {
    CHAT: WholeChat,
    COMPLETIONS: WholeCompletion,
    RESPONSES: WholeResponse,
    MESSAGES: WholeMessage,
}
# Where a request whose last message is the assistant's is continued: a whole answer begins with what was
# given, a stream after it. (Not with `/v1/responses`.)
_CONTINUES = frozenset({CHAT, MESSAGES})
# Fields that make a streamed answer another one, and what they ask for:
# - log probabilities: a stream lacks those of tokens that end no character or no text (the last one, half
#   a letter), and has those of a stop word, which a whole answer leaves out;
# - `verbose`: what it tells in a stream is of the last piece alone.
_CHANGED_BY_STREAMING = ("logprobs", "n_probs", "verbose")
_LEGACY_REASONING = "deepseek-legacy"  # puts thoughts into the content, but only of streams


class WholeAnswer(Protocol):
    """One answer in the making. `error`: the engine's own (status, body), once the stream has told one."""

    error: tuple[int, bytes] | None

    def request_fields(self, fields: _Fields) -> _Fields:
        """The request's fields, asking for a stream; all others byte for byte."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take the stream's next bytes, cut anywhere."""
        ...

    def finish(self) -> bytes:
        """The whole answer as JSON. Raises UpstreamFailed if the stream broke off or told an error."""
        ...


def assembler_for(path: str) -> WholeAnswer | None:
    """What puts an answer of that path together; None = it can only be passed through."""
    assembler = _ASSEMBLERS.get(path)
    return assembler() if assembler is not None else None


def can_stream_whole(path: str, fields: _Fields) -> bool:
    """Whether a request for a whole answer can be sent as one for a stream and come out the same."""
    if path not in _ASSEMBLERS or _value_of(fields, "stream"):
        return False
    if any(_value_of(fields, name) for name in _CHANGED_BY_STREAMING):
        return False
    if _value_of(fields, "reasoning_format") == _LEGACY_REASONING:
        return False
    return not (path in _CONTINUES and _is_continued(fields.get("messages")))


class _Message(msgspec.Struct):
    role: str = ""


_roles_of = msgspec.json.Decoder(list[_Message]).decode


def _is_continued(messages: msgspec.Raw | None) -> bool:
    """Whether the last message is the assistant's. Only roles are read: messages may be megabytes long."""
    try:
        roles = _roles_of(messages) if messages is not None else []
    except MALFORMED:
        return False
    return bool(roles) and roles[-1].role == "assistant"


def _value_of(fields: _Fields, name: str) -> Any:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except MALFORMED:
        return None
