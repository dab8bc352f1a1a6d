"""The stand-in's OpenAI routes, and the words that all its routes answer with.

Facts: openai/openai.go and middleware/openai.go of Ollama.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from ollama_http import HttpError, Reply
from ollama_models import StandinModel
from ollama_scheduler import LoadError, Runner, Settings

SENTENCE = (
    "Hello",
    "from",
    "the",
    "stand-in:",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight.",
)


class Tokens:
    """Makes answers: one word a token. `generating` counts the requests at it now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.generating = 0

    async def of(self, runner: Runner, limit: int) -> AsyncIterator[str]:
        """One word a token, at the set rate; a runner that dies ends it with Ollama's error."""
        count = self._settings.answer_tokens or len(SENTENCE)
        async with runner.slots:
            self.generating += 1
            try:
                for number in range(count if limit <= 0 else min(count, limit)):
                    await asyncio.sleep(1 / self._settings.tokens_per_s)
                    if runner.is_dead:
                        raise LoadError("an error was encountered while running the model: unexpected EOF")
                    yield ("" if number == 0 else " ") + SENTENCE[number % len(SENTENCE)]
            finally:
                self.generating -= 1


class OpenAiRoutes:
    """/v1: the same models, in OpenAI's shapes."""

    def __init__(
        self,
        models: Callable[[], list[StandinModel]],
        find: Callable[[dict[str, Any]], StandinModel],
        use: Callable[..., Any],
        tokens: Tokens,
    ) -> None:
        self._models = models
        self._find = find
        self._use = use
        self._tokens = tokens

    async def models(self, _: Any, reply: Reply) -> None:
        """List what is on disk."""
        data = [
            {"id": m.name, "object": "model", "created": m.modified_ns // 10**9, "owned_by": "library"}
            for m in sorted(self._models(), key=lambda m: -m.modified_ns)
        ]
        await reply.json({"object": "list", "data": data})

    async def chat(self, body: dict[str, Any], reply: Reply) -> None:
        """Complete a chat, whole or streamed."""
        model = self._find(body)
        if not body.get("messages"):
            raise HttpError(400, "[] is too short - 'messages'")
        if "completion" not in model.capabilities:
            raise HttpError(400, f'"{body["model"]}" does not support chat')
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or -1
        async with self._use(model, {}, None) as runner:
            answer = _OpenAiAnswer(body)
            async for word in self._tokens.of(runner, limit):
                answer.words.append(word)
                if body.get("stream"):
                    role = {} if len(answer.words) > 1 else {"role": "assistant"}
                    await reply.part(answer.chunk(role | {"content": word}), "text/event-stream")
            reason = "length" if len(answer.words) == limit else "stop"
            if not body.get("stream"):
                await reply.json(answer.whole(reason))
                return
            await reply.part(answer.chunk({}, reason), "text/event-stream")
            if (body.get("stream_options") or {}).get("include_usage"):
                await reply.part(answer.usage_chunk(), "text/event-stream")
            await reply.part("data: [DONE]\n\n", "text/event-stream")
            await reply.end()

    async def embeddings(self, body: dict[str, Any], reply: Reply) -> None:
        """Embed texts."""
        model = self._find(body)
        async with self._use(model, {}, None):
            vectors = vectors_of(body.get("input"))
            data = [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)]
            usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
            await reply.json({"object": "list", "data": data, "model": body["model"], "usage": usage})


class _OpenAiAnswer:
    """A chat completion in the making."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.words: list[str] = []
        self._head = {"id": "chatcmpl-1", "created": int(time.time()), "model": body["model"]}
        self._head["system_fingerprint"] = "fp_ollama"

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._event({"choices": [choice]})

    def usage_chunk(self) -> str:
        return self._event({"choices": [], "usage": self._usage()})

    def whole(self, finish_reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self.words)}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        told = self._head | {"object": "chat.completion", "choices": [choice]}
        return told | {"usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        count = len(self.words)
        return {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}

    def _event(self, fields: dict[str, Any]) -> str:
        return f"data: {json.dumps(self._head | {'object': 'chat.completion.chunk'} | fields)}\n\n"


def vectors_of(texts: Any) -> list[list[float]]:
    """Four numbers a text, always the same for the same text."""
    if texts is None or texts == "":
        return []
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise HttpError(400, "invalid input type")
    return [[byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:4]] for text in texts]
