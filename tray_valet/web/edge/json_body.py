"""JSON bodies of the control API: decoded into typed values, or refused with the path at fault.

Decides: what a well-formed body is: one JSON object, no name twice, no unknown fields, no NaN.
Must not: judge what the values mean.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, Never, TypeVar

import msgspec

from tray_valet.core.errors import InvalidJson, InvalidValue

_T = TypeVar("_T", bound=msgspec.Struct)
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object (?:contains unknown|missing required) field `(?P<name>[^`]*)`")


class _Nothing(msgspec.Struct, kw_only=True):
    """A body without fields."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Decode a JSON object. Raises InvalidJson with the place of the mistake; an empty body is one."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates decode but cannot be sent
    except RecursionError:
        raise InvalidJson("The JSON is nested too deeply.") from None
    except UnicodeError:
        raise InvalidJson("The body is not valid UTF-8 text.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidJson(f"The body is not valid JSON: {error.msg} ({where}).") from None
    except ValueError as error:  # a number with thousands of digits, and what the hooks refuse
        raise InvalidJson(f"The body is not valid JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise InvalidJson("The body must be a JSON object ({…}).")
    return value


def expect_nothing(body: bytes) -> None:
    """Check that a body is empty or `{}`, for commands that say all in their path. Raises as `decode`."""
    decode(body, _Nothing)


def decode(body: bytes, kind: type[_T]) -> _T:
    """Decode a body into `kind`; an empty body counts as `{}`. Raises InvalidJson, InvalidValue."""
    value = parse_object(body) if body.strip() else {}
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    unknown = [name for name in value if name not in known]
    if unknown:
        names = ", ".join(f"“{name[:60]}”" for name in unknown[:10])
        raise InvalidValue(
            f"Unknown field: {names}.",
            remedy=f"Known fields: {', '.join(known)}." if known else "This call takes none.",
            param=unknown[0][:60],
        )
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from None


def _invalid(text: str, kind: type[msgspec.Struct]) -> InvalidValue:
    match = _AT.match(text)
    what, path = (match["what"], match["path"]) if match else (text, None)
    named = _UNKNOWN.match(what)
    if named is not None:
        path = f"{path}.{named['name']}" if path else named["name"]
    what = what.replace("`", "").replace("Object missing required field", "The body lacks the field")
    choices = _choices(kind, path)
    remedy = f"Use one of {', '.join(choices)}." if choices else ""
    return InvalidValue(f"{path}: {what}." if path else f"{what}.", remedy=remedy, param=path)


def _choices(kind: type[msgspec.Struct], path: str | None) -> tuple[str, ...]:
    """What there is to choose from where a field is an enum; () for any other."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    wanted = types.get(path or "")
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return tuple(str(choice.value) for choice in wanted)
    return ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, each in pairs:
        if name in value:
            raise ValueError(f"“{name[:60]}” is there twice")
        value[name] = each
    return value


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a JSON number")
