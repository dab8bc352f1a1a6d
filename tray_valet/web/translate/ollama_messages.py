"""OpenAI's chat messages in Ollama's own words: texts, pictures, tool calls and their results.

Decides: how one message becomes one or several there. Must not: fetch anything (pictures come as data).
Source: Ollama's `openai/openai.go` (`FromChatRequest`, `decodeImageURL`, `FromCompletionToolCall`).
"""

from __future__ import annotations

import binascii
from typing import Any

import msgspec

from tray_valet.core.errors import InvalidValue
from tray_valet.web.edge.json_faults import MALFORMED

_Message = dict[str, Any]
_PARAM = "messages"
_QUOTE = ord('"')
_READ = frozenset({"role", "content", "name", "reasoning", "tool_calls", "tool_call_id"})
_IMAGE_HEADS = tuple(
    f"data:{kind};base64," for kind in ("", "image/jpeg", "image/jpg", "image/png", "image/webp")
)


def native_messages(messages: list[dict[str, msgspec.Raw]]) -> list[_Message]:
    """The messages of a chat. Raises InvalidValue, worded as Ollama does."""
    read = [_read(message) for message in messages]
    names = _tool_names(read)
    return [native for message in read for native in _native(message, names)]


def _read(message: dict[str, msgspec.Raw]) -> _Message:
    """The fields that count. A text stays as it is on the wire: it may be megabytes long."""
    try:
        return {
            name: raw if name == "content" and memoryview(raw)[0] == _QUOTE else msgspec.json.decode(raw)
            for name, raw in message.items()
            if name in _READ
        }
    except MALFORMED as error:
        raise _invalid("invalid message format") from error


def _native(message: _Message, tool_names: dict[str, str]) -> list[_Message]:
    role, content = _text(message.get("role")), message.get("content")
    frame: _Message = {"role": role}
    if call_id := _text(message.get("tool_call_id")):
        frame["tool_call_id"] = call_id
    if role.lower() == "tool" and (name := _text(message.get("name")) or tool_names.get(call_id)):
        frame["tool_name"] = name
    saying: _Message = {}
    if thinking := _text(message.get("reasoning")):
        saying["thinking"] = thinking
    if calls := message.get("tool_calls"):
        saying["tool_calls"] = [_tool_call(call) for call in _list_of_objects(calls)]
    if isinstance(content, msgspec.Raw):
        return [{**frame, "content": content, **saying}]
    if isinstance(content, list):
        # Each part becomes a message, as Ollama has it; what else was said goes with the last.
        parts = [frame | _part(part) for part in content]
        if parts and "tool_calls" in saying:
            parts[-1] |= saying
        return parts
    if content is not None or message.get("tool_calls") is None:
        raise _invalid(f"invalid message content type: {type(content).__name__}")
    return [{**frame, "content": "", **saying}]


def _part(part: Any) -> _Message:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"content": part["text"]}
    if kind == "image_url":
        url = part.get("image_url")
        return {"content": "", "images": [_image(url.get("url") if isinstance(url, dict) else url)]}
    if kind == "input_audio":
        audio = part.get("input_audio")
        data = audio.get("data") if isinstance(audio, dict) else None
        if not isinstance(data, str) or not _is_base64(data):
            raise _invalid("invalid input_audio format")
        return {"content": "", "images": [data]}  # Ollama takes sounds where it takes pictures
    raise _invalid("invalid message format")


def _image(url: Any) -> str:
    """A picture's base64 out of a `data:` address."""
    if not isinstance(url, str):
        raise _invalid("invalid message format")
    if url.startswith(("http://", "https://")):
        raise _invalid(
            "image URLs are not currently supported, please use base64 encoded data instead",
        )
    for head in _IMAGE_HEADS:
        if url.startswith(head) and _is_base64(data := url[len(head) :]):
            return data
    raise _invalid("invalid image input")


def _is_base64(text: str) -> bool:
    try:
        binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)
    except ValueError:
        return False
    return True


def _tool_call(call: _Message) -> _Message:
    function = call.get("function")
    if not isinstance(function, dict):
        raise _invalid("invalid message format")
    native: _Message = {"function": {"name": _text(function.get("name")), "arguments": _arguments(function)}}
    return {"id": call["id"], **native} if _text(call.get("id")) else native


def _arguments(function: _Message) -> Any:
    """OpenAI writes a call's arguments as a text of JSON, Ollama as an object."""
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        return arguments
    try:
        if msgspec.json.decode(_text(arguments), type=dict[str, Any] | None) is None:
            return {}
    except MALFORMED as error:
        raise _invalid("invalid tool call arguments") from error
    return msgspec.Raw(_text(arguments).encode())


def _tool_names(messages: list[_Message]) -> dict[str, str]:
    """Which function each call was of: a result tells the call alone. The last one wins."""
    return {
        _text(call.get("id")): _text(call["function"].get("name"))
        for message in messages
        for call in _list_of_objects(message.get("tool_calls") or [])
        if isinstance(call.get("function"), dict)
    }


def _list_of_objects(value: Any) -> list[_Message]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _invalid("invalid message format")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _invalid(message: str) -> InvalidValue:
    return InvalidValue(message, param=_PARAM)
