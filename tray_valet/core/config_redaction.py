"""The settings as they may be shown: our spellings, without anything secret.

Decides: what of the settings is a secret.
Must not: be skipped. Whoever shows settings to people or programs shows these.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import SECRET_FIELDS

HIDDEN = "********"
_SECRET_WORD = re.compile(
    r"(?i)(^|[-_.])(key|api.?key|token|secret|password|passwd|auth|authorization)s?($|[-_.])"
)


def public_settings(settings: Settings) -> dict[str, Any]:
    """The settings as plain values; keys and tokens hidden, references such as `keyring:openai` shown."""
    shown: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings))
    return {name: _public(section) for name, section in shown.items()}


def _public(value: Any, *, is_secret: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            key: _public(item, is_secret=is_secret or key in SECRET_FIELDS or _is_named_secret(key, item))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return _words(value, is_secret)
    if is_secret and isinstance(value, str) and value and not value.startswith("keyring:"):
        return HIDDEN
    return value


def _is_named_secret(key: str, item: Any) -> bool:
    """A variable of a command (`HF_TOKEN: …`); our own keys that sound like it hold no text."""
    return isinstance(item, str) and _SECRET_WORD.search(key) is not None


def _words(words: list[Any], is_secret: bool) -> list[Any]:
    """The words of a command line; what follows `--api-key` is hidden, and so is `--api-key=…`."""
    shown: list[Any] = []
    hides_next = False
    for word in words:
        is_flag = isinstance(word, str) and word.startswith("-")
        if hides_next and not is_flag and isinstance(word, str):
            shown.append(HIDDEN)
        elif is_flag and "=" in word and _SECRET_WORD.search(word.partition("=")[0]):
            shown.append(word.partition("=")[0] + "=" + HIDDEN)
        else:
            shown.append(_public(word, is_secret=is_secret))
        hides_next = is_flag and "=" not in word and _SECRET_WORD.search(word) is not None
    return shown
