"""Keys: who may call, once the request itself is in order.

Decides: whether a caller needs a key, whether the one it shows fits, and its name for the log.
Must not: store, log or return a key. Comparisons take the same time wherever the difference is.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Protocol

from tray_valet.core.config import LocalAccess, Settings
from tray_valet.web.edge.errors import EdgeCode, ErrorType, HttpError
from tray_valet.web.edge.requests import RequestHead

_KEYRING = "keyring:"
_BEARER = b"bearer "
_KEY_HEADERS = frozenset({b"authorization", b"x-api-key"})


class Keys(Protocol):
    """Lets a caller in, or raises HttpError (401, 403)."""

    def admit(self, head: RequestHead) -> str:
        """Return the caller's name ("" where it has none)."""
        ...


class SecretResolver:
    """Turns a reference of the settings into the secret. `look_up` gets the name after `keyring:`.

    A value that is no reference is the secret itself (it came from the environment).
    """

    def __init__(self, look_up: Callable[[str], str | None]) -> None:
        self._look_up = look_up

    def resolve(self, reference: str | None) -> bytes | None:
        """The secret as bytes; None where none is configured, or the keyring has none of that name."""
        if not reference:
            return None
        if reference.startswith(_KEYRING):
            secret = self._look_up(reference.removeprefix(_KEYRING))
            return secret.encode() if secret else None
        return reference.encode()


class ControlKeys:
    """The control API: open from loopback (or by token), by `X-API-Key` from elsewhere."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        token: Callable[[], str],
        resolve_secret: Callable[[str], str | None],
        is_window_token: Callable[[bytes], bool] = lambda token: False,
    ) -> None:
        self._settings = settings
        self._token = token
        self._is_window_token = is_window_token
        self._secrets = SecretResolver(resolve_secret)

    def admit(self, head: RequestHead) -> str:
        """Raise 403 where no key is configured for callers from elsewhere, 401 for a wrong one."""
        control = self._settings().control
        if head.is_from_loopback:
            if control.local_access is LocalAccess.OPEN:
                return "local"
            token, shown = self._token().encode(), _shown(head)
            if token and _fits(token, shown):
                return "local"
            if any(map(self._is_window_token, shown)) or _is_of_the_page(head):
                return "window"
            raise _refused_key(
                head,
                "This machine's settings ask for a token (control.local_access: token). "
                "The commands read it from the runtime file by themselves.",
            )
        key = self._secrets.resolve(control.api_key)
        if key is None:
            raise HttpError(
                403,
                ErrorType.PERMISSION,
                EdgeCode.NO_KEY_CONFIGURED,
                "Only programs on this machine may call: no API key is configured (control.api_key).",
            )
        shown_key = head.one(b"x-api-key")
        if shown_key is not None and hmac.compare_digest(shown_key, key):
            return "lan"
        raise _refused_key(head, "Send the API key in the header X-API-Key.")


class RouterKeys:
    """The router API: when keys are set everyone shows one, as `Authorization: Bearer` or `x-api-key`."""

    def __init__(
        self, settings: Callable[[], Settings], *, resolve_secret: Callable[[str], str | None]
    ) -> None:
        self._settings = settings
        self._secrets = SecretResolver(resolve_secret)

    def admit(self, head: RequestHead) -> str:
        """Return the key's name. Raise 401 for a wrong key, 403 where none is set and one is needed."""
        keys = self._settings().router.api_keys
        if not keys:
            if head.is_from_loopback:
                return ""
            raise HttpError(
                403,
                ErrorType.PERMISSION,
                EdgeCode.NO_KEY_CONFIGURED,
                "Only programs on this machine may call: no API key is configured (router.api_keys).",
            )
        found = ""
        shown = head.shown_keys
        if shown is None:
            shown = head.shown_keys = _shown(head)
        for name, reference in keys.items():
            key = self._secrets.resolve(reference)
            # Every key is compared, so that the time tells nothing of which one came close.
            if key is not None and _fits(key, shown):
                found = found or name
        if found:
            return found
        raise _refused_key(head, "Send an API key as “Authorization: Bearer …” or in the header x-api-key.")


def _is_of_the_page(head: RequestHead) -> bool:
    """The page's own files and the API's description tell nothing, and the page buys its key by a code."""
    if head.method in ("GET", "HEAD"):
        return head.path in ("/ui", "/docs", "/openapi.json") or head.path.startswith("/ui/")
    return head.method == "POST" and head.path == "/ui/session"


def _shown(head: RequestHead) -> list[bytes]:
    """The keys that a request shows, one of each header at most."""
    shown = []
    bearers = [value for value in head.all(b"authorization") if value[: len(_BEARER)].lower() == _BEARER]
    if len(bearers) == 1:
        shown.append(bearers[0][len(_BEARER) :].strip())
    key = head.one(b"x-api-key")
    if key is not None:
        shown.append(key)
    return shown


def _fits(key: bytes, shown: list[bytes]) -> bool:
    fits = False
    for value in shown:
        fits |= hmac.compare_digest(value, key)
    return fits


def _refused_key(head: RequestHead, how: str) -> HttpError:
    is_missing = head.has_none_of(_KEY_HEADERS)
    return HttpError(
        401,
        ErrorType.AUTHENTICATION,
        EdgeCode.KEY_MISSING if is_missing else EdgeCode.KEY_WRONG,
        f"{'An API key is needed.' if is_missing else 'That API key is not right.'} {how}",
        headers=((b"www-authenticate", b"Bearer"),),
    )
