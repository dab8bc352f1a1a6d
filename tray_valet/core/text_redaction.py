"""Text that leaves this machine for a report: without keys, names and places that tell who wrote it.

Decides: what in a line, or in a value of JSON, is taken out and what stands in its place.
Must not: be relied on for prompts and window titles: those are never written down in the first place.

Sources: RFC 7235 (`Authorization: scheme credentials`), RFC 3986 (userinfo in addresses); the forms of
keys that providers publish (`sk-…`, `AIza…`, `hf_…`, `gsk_…`, `xai-…`, `ghp_…`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tray_valet.core.config_redaction import HIDDEN

_LEAST_CHARS = 4  # a shorter secret would take common words with it
_SECRET_WORDS = r"(?:api[-_. ]?key|key|token|secret|passwd|password|pwd|authorization|cookie|credential)s?"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host
    (re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s\"'@]+@"), rf"\g<scheme>{HIDDEN}@"),
    (
        re.compile(r"(?i)\b(?P<scheme>bearer|basic|digest|token)\s+[A-Za-z0-9._~+/=-]{6,}"),
        rf"\g<scheme> {HIDDEN}",
    ),
    # Authorization: anything, x-api-key: anything, Cookie: a=b; c=d
    (
        re.compile(
            r"(?i)(?P<name>\b(?:proxy-)?authorization|\bx-api-key|\bset-cookie|\bcookie)"
            r"(?P<sep>[\"']?\s*[:=]\s*[\"']?)[^\"'\r\n,}]+"
        ),
        rf"\g<name>\g<sep>{HIDDEN}",
    ),
    # api_key=…, "token": "…", --api-key …, ?key=…, HF_TOKEN=…
    (
        re.compile(
            rf"(?i)(?P<name>[A-Za-z0-9_.-]*{_SECRET_WORDS})(?P<sep>\\?[\"']?\s*[:=]\s*\\?[\"']?)"
            r"(?!keyring:|null\b|true\b|false\b|none\b|\s)[^\s\"'&,;}\]\\]{3,}"
        ),
        rf"\g<name>\g<sep>{HIDDEN}",
    ),
    (
        re.compile(rf"(?i)(?P<name>--?[a-z-]*{_SECRET_WORDS})(?P<sep>\s+)(?!-)[^\s\"']{{3,}}"),
        rf"\g<name>\g<sep>{HIDDEN}",
    ),
    # what looks like a key wherever it stands
    (re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|glpat|github_pat)[-_][A-Za-z0-9_-]{8,}"), HIDDEN),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{20,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"), HIDDEN),  # JSON Web Token
)
_SECRET_KEY = re.compile(rf"(?i)^[A-Za-z0-9_.-]*{_SECRET_WORDS}$")
_PROMPT_KEYS = frozenset({"prompt", "messages", "input", "content", "window_title", "titles"})


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who and where this is. `secrets`: keys that are known word for word."""

    user: str = ""
    homes: tuple[str, ...] = ()
    host: str = ""
    secrets: tuple[str, ...] = ()


class Redactor:
    """Takes out what is private; the same text always becomes the same text."""

    def __init__(self, identity: Identity) -> None:
        self._words = tuple(_words_of(identity))

    def text(self, text: str) -> str:
        """A text without keys, user name, home folder and host name."""
        for pattern, stand_in in self._words:
            text = pattern.sub(stand_in, text)
        for pattern, stand_in in _RULES:
            text = pattern.sub(stand_in, text)
        return text

    def value(self, value: Any) -> Any:
        """JSON without them: texts, and every value under a name that means a key or a prompt."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._named(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def _named(self, key: str, item: Any) -> Any:
        is_private = _SECRET_KEY.match(key) is not None or key.lower() in _PROMPT_KEYS
        if is_private and isinstance(item, str) and item and not item.startswith("keyring:"):
            return HIDDEN
        if key.lower() in _PROMPT_KEYS and isinstance(item, list | dict):
            return HIDDEN
        return self.value(item)


def _words_of(identity: Identity) -> Iterable[tuple[re.Pattern[str], str]]:
    """Exact words, the longest first: a home folder holds the user's name."""
    for secret in sorted(set(identity.secrets), key=len, reverse=True):
        if len(secret) >= _LEAST_CHARS:
            yield re.compile(re.escape(secret)), HIDDEN
    for home in sorted({home.rstrip("/\\") for home in identity.homes}, key=len, reverse=True):
        if len(home) > 1:
            for spelling in dict.fromkeys((home, home.replace("\\", "\\\\"), home.replace("\\", "/"))):
                yield re.compile(re.escape(spelling) + r"(?![A-Za-z0-9_-])"), "~"
    for name, stand_in in ((identity.host, "HOST"), (identity.user, "USER")):
        if len(name) >= 2 and name.lower() not in _COMMON:
            yield re.compile(rf"(?i)(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"), stand_in


# Names that say nothing of anybody and stand in every log.
_COMMON = frozenset({"root", "user", "ollama", "localhost", "admin", "local"})
