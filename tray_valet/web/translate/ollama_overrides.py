"""What a route changes in a request that comes in Ollama's own dialect.

Decides: what stands beside the model's name, and what in `options`, where alone Ollama looks for sampling
parameters.
Must not: talk to anybody, or touch a value that the route does not speak of.
Source: Ollama's `api/types.go`: the JSON names of its requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tray_valet.core.dialects import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_EMBEDDINGS, OLLAMA_GENERATE
from tray_valet.web.translate.ollama_requests import as_option, native_keep_alive, option_name, value_of

_Fields = dict[str, msgspec.Raw]
_NULL = msgspec.Raw(b"null")
_OPTIONS = "options"
_EVERYWHERE = frozenset({"model", _OPTIONS, "keep_alive"})
_COMPLETION = _EVERYWHERE | frozenset(
    {"stream", "format", "think", "truncate", "shift", "logprobs", "top_logprobs", "_debug_render_only"}
)
_FIELDS = {
    OLLAMA_CHAT: _COMPLETION | {"messages", "tools"},
    OLLAMA_GENERATE: _COMPLETION
    | {"prompt", "suffix", "system", "template", "context", "raw", "images"}
    | {"width", "height", "steps"},  # of the pictures that it makes
    OLLAMA_EMBED: _EVERYWHERE | {"input", "truncate", "dimensions"},
    OLLAMA_EMBEDDINGS: _EVERYWHERE | {"prompt"},
}
# What an empty one of these does is load or unload.
_CONTENT_OF = {OLLAMA_CHAT: "messages", OLLAMA_GENERATE: "prompt"}
_LONGEST_EMPTY_BYTES = 64  # `[]`, `""` or `null`, with spaces inside
_encode = msgspec.json.encode


def takes_options(path: str) -> bool:
    """Whether Ollama's requests of that path have `options`."""
    return path in _FIELDS


def native_changes(path: str, fields: _Fields, added: Mapping[str, Any], strip: Sequence[str]) -> _Fields:
    """A request in Ollama's own dialect with what a route adds, without what it strips.

    `path` is one that `takes_options`. Both name parameters as OpenAI or as Ollama does. Raises InvalidValue
    where `options` would have to be changed and are no object.
    """
    # What is added stays unless its very name is stripped: `strip: [max_tokens]` with
    # `set: {num_predict: 100}` is a limit of the route's own.
    kept = {name: value for name, value in added.items() if name not in strip}
    beside = {name: msgspec.Raw(_encode(kept[name])) for name in kept if name in _FIELDS[path]}
    within = dict(as_option(name, kept[name]) for name in kept if name not in _FIELDS[path])
    if isinstance(kept.get(_OPTIONS), dict):
        del beside[_OPTIONS]  # they join the client's
        within = {name: value for name, value in kept[_OPTIONS].items() if name not in strip} | within
    changed = {name: raw for name, raw in (fields | beside).items() if name not in strip}
    stripped = {option_name(name) for name in strip}
    if not within and not (stripped and _OPTIONS in changed):
        return changed
    options = value_of(changed, _OPTIONS, _Fields, "an object") or {}
    if within or not stripped.isdisjoint(options):
        rest = {name: raw for name, raw in options.items() if name not in stripped}
        changed[_OPTIONS] = msgspec.Raw(_encode({**rest, **within}))
    return changed


def native_overrides(
    path: str, fields: _Fields, context_length: int | None, keep_alive_s: float | None
) -> _Fields:
    """A request in Ollama's own dialect with a route's context and time to live, unless it sets its own.

    An empty request is a command to load: it is never turned into one to unload.
    """
    if not takes_options(path):
        return fields
    changed = dict(fields)
    if context_length is not None:
        options = value_of(fields, _OPTIONS, _Fields, "an object") or {}
        if options.get("num_ctx", _NULL) == _NULL:
            number = msgspec.Raw(str(context_length).encode())
            changed[_OPTIONS] = msgspec.Raw(_encode({**options, "num_ctx": number}))
    keep_alive = native_keep_alive(keep_alive_s)
    is_own = fields.get("keep_alive", _NULL) != _NULL
    if keep_alive is not None and not is_own and not (keep_alive == 0 and _is_command(path, fields)):
        changed["keep_alive"] = msgspec.Raw(_encode(keep_alive))
    return changed


def _is_command(path: str, fields: _Fields) -> bool:
    """Whether a request asks for nothing, which Ollama takes as the wish to load or unload."""
    if path not in _CONTENT_OF:
        return False
    content = bytes(fields.get(_CONTENT_OF[path], _NULL))
    return len(content) < _LONGEST_EMPTY_BYTES and not msgspec.json.decode(content)
