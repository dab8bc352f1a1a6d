"""OpenAI's requests in Ollama's own words: the body of `/api/chat`, `/api/generate` and `/api/embed`.

Decides: what each of OpenAI's fields becomes there; those that Ollama's OpenAI routes ignore are left out.
Must not: read answers, or decide when a request is translated.
Source: Ollama's `openai/openai.go` (`FromChatRequest`, `FromCompleteRequest`) and `middleware/openai.go`:
a request comes out as Ollama itself would have made it, with context and time to live added.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from tray_valet.core.dialects import CHAT, COMPLETIONS, EMBEDDINGS
from tray_valet.core.errors import InvalidValue
from tray_valet.providers.ollama_times import keep_alive_of
from tray_valet.web.edge.json_faults import MALFORMED
from tray_valet.web.translate.ollama_messages import native_messages

_Fields = dict[str, msgspec.Raw]
_Body = dict[str, Any]
_NULL = msgspec.Raw(b"null")
# OpenAI's efforts go further at both ends than Ollama's; the nearest one is taken.
_THINK_OF_EFFORT: dict[str, str | bool] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}
_ENCODINGS = ("float", "base64")
# OpenAI's names for Ollama's options where the two differ, the one that counts first.
_OPTION_NAMES = {"max_completion_tokens": "num_predict", "max_tokens": "num_predict"}


def value_of(fields: _Fields, name: str, kind: Any, wanted: str) -> Any:
    """A field's value, None where it is missing or null. Raises InvalidValue saying what is `wanted`."""
    raw = fields.get(name)
    if raw is None or raw == _NULL:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except MALFORMED as error:
        raise InvalidValue(f"{name} must be {wanted}.", param=name) from error


def wants_stream(fields: _Fields) -> bool:
    """Whether the client asks for a stream; OpenAI's default is not."""
    return bool(value_of(fields, "stream", bool, "true or false"))


def wants_usage(fields: _Fields) -> bool:
    """Whether the client asks for the usage at a stream's end."""
    options = value_of(fields, "stream_options", dict[str, Any], "an object") or {}
    return options.get("include_usage") is True


def native_keep_alive(keep_alive_s: float | None) -> str | int | None:
    """Write a time to live (seconds; 0 = unload after the answer, inf or less than 0 = for ever)."""
    if keep_alive_s is None or keep_alive_s == 0:
        return keep_alive_s if keep_alive_s is None else 0
    return keep_alive_of(math.inf if keep_alive_s < 0 else keep_alive_s)


def option_name(name: str) -> str:
    """What Ollama calls a parameter in its `options`; an unknown one keeps its name."""
    return _OPTION_NAMES.get(name, name)


def as_option(name: str, value: Any) -> tuple[str, Any]:
    """A parameter as it stands in Ollama's `options`, which take a stop text in a list only."""
    return option_name(name), [value] if name == "stop" and isinstance(value, str) else value


def native_body(
    path: str, fields: _Fields, *, model: str, context_length: int | None, keep_alive_s: float | None
) -> bytes:
    """The body for Ollama's own route of `path` (one of `BODIES`). Raises InvalidValue.

    `context_length` in tokens, `keep_alive_s` in seconds; None = Ollama's own default.
    """
    body = BODIES[path](fields)
    body["model"] = model
    if context_length is not None:
        body.setdefault("options", {})["num_ctx"] = context_length
    keep_alive = native_keep_alive(keep_alive_s)
    if keep_alive == 0 and body.get("prompt") == "":
        keep_alive = keep_alive_of(1.0)  # an empty prompt with 0 would be the command to unload
    if keep_alive is not None:
        body["keep_alive"] = keep_alive
    return msgspec.json.encode(body)


def _chat_body(fields: _Fields) -> _Body:
    messages = value_of(fields, "messages", list[_Fields], "a list of messages")
    if not messages:
        raise InvalidValue("[] is too short - 'messages'", param="messages")
    options = _sampling(fields)
    for name in ("frequency_penalty", "presence_penalty"):
        _copy_number(fields, name, options)
    body: _Body = {"messages": native_messages(messages), "stream": wants_stream(fields), "options": options}
    tools = value_of(fields, "tools", msgspec.Raw, "a list of tools")
    if tools is not None:
        body["tools"] = tools
    answer_format = _format(fields)
    if answer_format is not None:
        body["format"] = answer_format
    think = _think(fields)
    if think is not None:
        body["think"] = think
    if value_of(fields, "logprobs", bool, "true or false"):
        body["logprobs"] = True
        body["top_logprobs"] = value_of(fields, "top_logprobs", int, "a whole number") or 0
    return body


def _completion_body(fields: _Fields) -> _Body:
    prompt = value_of(fields, "prompt", str | list[Any], "a text")
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise InvalidValue("prompt must be one text: Ollama takes no list.", param="prompt")
        prompt = prompt[0]
    options = _sampling(fields, is_strict=True)
    for name in ("frequency_penalty", "presence_penalty"):
        options[name] = 0
        _copy_number(fields, name, options)
    if not options["top_p"]:
        options["top_p"] = 1.0
    body: _Body = {"prompt": prompt or "", "stream": wants_stream(fields), "options": options}
    if suffix := value_of(fields, "suffix", str, "a text"):
        body["suffix"] = suffix
    logprobs = value_of(fields, "logprobs", int, "a whole number") or 0
    if logprobs > 0:
        body |= {"logprobs": True, "top_logprobs": logprobs}
    return body


def _embedding_body(fields: _Fields) -> _Body:
    texts = value_of(fields, "input", Any, "a text or a list of texts")
    if texts is None or texts == []:
        raise InvalidValue("invalid input", param="input")
    body: _Body = {"input": [""] if texts == "" else fields["input"]}
    if dimensions := value_of(fields, "dimensions", int, "a whole number"):
        body["dimensions"] = dimensions
    wants_base64(fields)
    return body


BODIES: dict[str, Callable[[_Fields], _Body]] = {
    CHAT: _chat_body,
    COMPLETIONS: _completion_body,
    EMBEDDINGS: _embedding_body,
}


def wants_base64(fields: _Fields) -> bool:
    """Whether the client wants its vectors as base64 of 32-bit floats. Raises InvalidValue."""
    encoding = value_of(fields, "encoding_format", str, "a text") or _ENCODINGS[0]
    if encoding.lower() not in _ENCODINGS:
        raise InvalidValue(
            f"Invalid value for 'encoding_format' = {encoding}. Supported values: ['float', 'base64'].",
            param="encoding_format",
        )
    return bool(encoding.lower() == "base64")


def _sampling(fields: _Fields, *, is_strict: bool = False) -> dict[str, Any]:
    """The options that both kinds of completion share, with OpenAI's defaults where they differ."""
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0}
    for name in ("temperature", "top_p"):
        _copy_number(fields, name, options)
    for name, option in _OPTION_NAMES.items():
        if option in options:
            continue
        limit = value_of(fields, name, int, "a whole number")
        if limit is not None:
            options[option] = limit
    seed = value_of(fields, "seed", int, "a whole number")
    if seed is not None:
        options["seed"] = seed
    stop = value_of(fields, "stop", Any, "a text or a list of texts")
    if isinstance(stop, str):
        options["stop"] = [stop]
    elif isinstance(stop, list):
        words = [word for word in stop if isinstance(word, str)]
        if is_strict and len(words) < len(stop):
            raise InvalidValue("stop must be a text or a list of texts.", param="stop")
        options["stop"] = words
    return options


def _copy_number(fields: _Fields, name: str, options: dict[str, Any]) -> None:
    number = value_of(fields, name, int | float, "a number")
    if number is not None:
        options[name] = number


def _format(fields: _Fields) -> msgspec.Raw | str | None:
    wanted = value_of(fields, "response_format", dict[str, Any], "an object") or {}
    match str(wanted.get("type", "")).strip().lower():
        case "json_object":
            return "json"
        case "json_schema":
            # Once more, undecoded: a schema is passed on byte for byte.
            outer = msgspec.json.decode(fields["response_format"], type=_Fields)
            inner = value_of(outer, "json_schema", _Fields, "an object") or {}
            return inner.get("schema")
    return None


def _think(fields: _Fields) -> str | bool | None:
    reasoning = value_of(fields, "reasoning", dict[str, Any], "an object")
    if reasoning is not None:
        effort, param = str(reasoning.get("effort") or ""), "reasoning.effort"
    else:
        effort, param = value_of(fields, "reasoning_effort", str, "a text") or "", "reasoning_effort"
    if not effort:
        return None
    if effort not in _THINK_OF_EFFORT:
        efforts = ", ".join(_THINK_OF_EFFORT)
        raise InvalidValue(f"invalid reasoning value: {effort!r} (must be one of {efforts})", param=param)
    return _THINK_OF_EFFORT[effort]
