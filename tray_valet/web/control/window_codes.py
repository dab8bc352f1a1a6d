"""One-time codes: how a window of ours buys its key.

Decides: how long a code and a key are good. Must not: keep either where it could be read: only hashes
stay here. A code goes to the window by a private way, works once and for 30 s; the key it buys lives in
the page's memory alone and ends with the valet, so nothing stays behind in files, cookies or histories.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict

from tray_valet.core.ports import Clock
from tray_valet.web.edge.errors import EdgeCode, ErrorType, HttpError

CODE_LIFE_S = 30.0
_MAX_CODES = 16
_MAX_TOKENS = 32  # the oldest window's key goes first
_ENTROPY_BYTES = 32


class WindowCodes:
    """Makes codes, sells keys for them. Loop thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._codes: OrderedDict[bytes, float] = OrderedDict()  # hash → good until, monotonic s
        self._tokens: OrderedDict[bytes, None] = OrderedDict()

    def new_code(self) -> str:
        """A code that is good once, for `CODE_LIFE_S` seconds."""
        code = secrets.token_urlsafe(_ENTROPY_BYTES)
        self._codes[_hash(code.encode())] = self._clock.monotonic_s() + CODE_LIFE_S
        while len(self._codes) > _MAX_CODES:
            self._codes.popitem(last=False)
        return code

    def buy_token(self, code: str) -> str:
        """The key for a code, which is spent then. Raises HttpError (401) for a wrong, used or old one."""
        good_until_s = self._codes.pop(_hash(code.encode(errors="replace")), None)
        if good_until_s is None or self._clock.monotonic_s() > good_until_s:
            raise HttpError(
                401,
                ErrorType.AUTHENTICATION,
                EdgeCode.KEY_WRONG,
                "That code was used already, or is too old. Open the window again: tray-valet open.",
            )
        token = secrets.token_urlsafe(_ENTROPY_BYTES)
        self._tokens[_hash(token.encode())] = None
        while len(self._tokens) > _MAX_TOKENS:
            self._tokens.popitem(last=False)
        return token

    def accepts(self, token: bytes) -> bool:
        """Whether a window bought this key."""
        return _hash(token) in self._tokens


def _hash(secret: bytes) -> bytes:
    """What is compared and kept: the time a look-up takes then tells nothing about the secret."""
    return hashlib.sha256(secret).digest()
