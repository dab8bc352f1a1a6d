"""The dialects that clients speak to the router, and the paths of each.

Decides: which paths are passed to a provider, in which dialect, and whether an answer there streams by
default. Must not: know how a provider is reached or how an error looks on the wire (`web/` does).
Sources: OpenAI's and Anthropic's API references; `docs/api.md` of Ollama; llama.cpp's server README.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Dialect(StrEnum):
    """Whose API a request is written for. Errors are shaped for it."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


class Framing(StrEnum):
    """How a streamed answer is cut into pieces."""

    EVENTS = "events"  # server-sent events
    LINES = "lines"  # one JSON value a line


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One path that the router passes on. `streams_by_default`: when the body does not say `stream`."""

    path: str
    dialect: Dialect
    framing: Framing = Framing.EVENTS
    can_stream: bool = True
    streams_by_default: bool = False


CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
OLLAMA_CHAT = "/api/chat"
OLLAMA_GENERATE = "/api/generate"
OLLAMA_EMBED = "/api/embed"
OLLAMA_EMBEDDINGS = "/api/embeddings"  # Ollama's older name, with another shape
OLLAMA_SHOW = "/api/show"


def _openai(path: str, *, can_stream: bool = True) -> Operation:
    return Operation(path=path, dialect=Dialect.OPENAI, can_stream=can_stream)


def _anthropic(path: str, *, can_stream: bool = True) -> Operation:
    return Operation(path=path, dialect=Dialect.ANTHROPIC, can_stream=can_stream)


def _ollama(path: str, *, can_stream: bool = False) -> Operation:
    return Operation(
        path=path,
        dialect=Dialect.OLLAMA,
        framing=Framing.LINES,
        can_stream=can_stream,
        streams_by_default=can_stream,
    )


OPERATIONS: dict[str, Operation] = {
    operation.path: operation
    for operation in (
        _openai(CHAT),
        _openai(COMPLETIONS),
        _openai(RESPONSES),
        _openai(EMBEDDINGS, can_stream=False),
        _openai(RERANK, can_stream=False),
        _anthropic(MESSAGES),
        _anthropic(COUNT_TOKENS, can_stream=False),
        _ollama(OLLAMA_CHAT, can_stream=True),
        _ollama(OLLAMA_GENERATE, can_stream=True),
        _ollama(OLLAMA_EMBED),
        _ollama(OLLAMA_EMBEDDINGS),
        _ollama(OLLAMA_SHOW),
    )
}

# What reads the disk only: nothing is loaded for it, and a pause does not hold it up. Programs ask it of
# every model that they list.
NEEDS_NO_MODEL = frozenset({OLLAMA_SHOW})

# What each kind of provider has of them; those of a llama-server depend on the model's flags, and it says so
# itself (501).
LLAMA_SERVER_PATHS = frozenset({CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, RERANK, MESSAGES, COUNT_TOKENS})
OLLAMA_PATHS = frozenset(
    {CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MESSAGES}
    | {OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_EMBED, OLLAMA_EMBEDDINGS, OLLAMA_SHOW}
)
OPENAI_PATHS = frozenset({CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS})


def dialect_of(path: str) -> Dialect:
    """The dialect whose errors a client at that path expects."""
    if operation := OPERATIONS.get(path):
        return operation.dialect
    if path == "/api" or path.startswith("/api/"):
        return Dialect.OLLAMA
    return Dialect.ANTHROPIC if path.startswith(MESSAGES) else Dialect.OPENAI
