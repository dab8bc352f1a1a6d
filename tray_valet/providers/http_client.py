"""What the providers' HTTP clients have in common.

Decides: when proxies and certificate authorities count, and which failures say that an answer is no JSON.
Must not: send anything.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import httpx

_KEEPALIVE_S = 30.0
# What decoding an answer may raise; all but the first are not msgspec's own.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def new_client(
    url: str, *, is_loopback: bool, max_connections: int, max_idle: int, timeout: httpx.Timeout
) -> httpx.AsyncClient:
    """Make the client for the server at `url`. Proxies of the environment are not for this machine's own."""
    import httpx

    # Loading the list of certificate authorities costs 25 ms and a megabyte, and plain http needs none.
    no_authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(
        trust_env=not is_loopback,
        verify=no_authorities if url.startswith("http://") else True,
        timeout=timeout,
        limits=httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_idle,
            keepalive_expiry=_KEEPALIVE_S,
        ),
    )
