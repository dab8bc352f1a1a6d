"""llama-swap's macros and commands: text with `${…}` in it made into what it means.

Decides: what each macro stands for, and how a command line falls into words.
Must not: give `${PORT}` a value; ports are the valet's to give. Source: llama-swap, internal/config/macros.go
and commands.go: environment first, then macros from the last to the first, the model's over the global ones.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tray_valet.core.errors import InvalidValue

Macros = Sequence[tuple[str, Any]]
PORT, PID = "${PORT}", "${PID}"
_ENVIRONMENT = re.compile(r"\$\{env\.([a-zA-Z_][a-zA-Z0-9_]*)\}")
_MACRO = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_GIVEN_LATER = frozenset({"PORT", "PID"})
_WINDOWS_PATH = re.compile(r"(?:^|[\s\"'])[A-Za-z]:\\")


def resolved(value: Any, macros: Macros, environ: Mapping[str, str]) -> Any:
    """The value with every macro in it replaced, `${PORT}` and `${PID}` aside.

    A value that is one macro alone takes the macro's type. Raises InvalidValue for a macro that is not
    defined and a variable that is not set.
    """
    whole = _with_environment(value, environ)
    for name, stands_for in reversed([(name, _with_environment(item, environ)) for name, item in macros]):
        whole = _replaced(whole, f"${{{name}}}", stands_for)
    _refuse_unknown(whole)
    return whole


def model_macros(model_id: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Macros:
    """The macros in force for a model, in the order in which they are defined."""
    merged = {"MODEL_ID": model_id, **shared}
    merged.update(own)
    return tuple(merged.items())


def split_command(text: str) -> list[str]:
    """The words of a command, without its comment lines. Raises InvalidValue if it cannot be split."""
    lines = [line.strip() for line in text.split("\n")]
    whole = "\n".join(line.removesuffix("\\") for line in lines if not line.startswith("#"))
    try:
        if _WINDOWS_PATH.search(whole):
            return [_unquoted(word) for word in shlex.split(whole, posix=False)]
        return shlex.split(whole)
    except ValueError as error:
        raise InvalidValue(
            f"The command cannot be split into words: {error}.", remedy="Look at its quotes."
        ) from None


def without_comments(text: str) -> str:
    """A command without its comment lines: a macro in a comment is not one."""
    return "\n".join(line for line in text.split("\n") if not line.strip().startswith("#"))


def _unquoted(word: str) -> str:
    is_quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "\"'"
    return word[1:-1] if is_quoted else word


def _with_environment(value: Any, environ: Mapping[str, str]) -> Any:
    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environ:
            raise InvalidValue(
                f"The environment variable {name} is not set.", remedy=f"Set {name} and import again."
            )
        return environ[name]

    return _each_text(value, lambda text: _ENVIRONMENT.sub(variable, text))


def _replaced(value: Any, slug: str, stands_for: Any) -> Any:
    shown = str(stands_for).lower() if isinstance(stands_for, bool) else str(stands_for)
    return _each_text(value, lambda text: stands_for if text == slug else text.replace(slug, shown))


def _refuse_unknown(value: Any) -> None:
    def look(text: str) -> str:
        unknown = [name for name in _MACRO.findall(text) if name not in _GIVEN_LATER]
        if unknown:
            raise InvalidValue(
                f"The macro ${{{unknown[0]}}} is not defined.",
                remedy="Define it under macros and import again.",
            )
        return text

    _each_text(value, look)


def _each_text(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {str(change(str(key))): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    return value
