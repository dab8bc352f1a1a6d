"""Asks a starting runner how it is: over HTTP, on loopback, with short waits.

Decides: what its answers mean, and whether the one that answers knows the key of this very run.
Must not: keep connections open (llama-server does not stop while it serves one).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from tray_valet.providers.http_client import NOT_JSON

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 2.0


class Health(StrEnum):
    """What /health says."""

    NO_ANSWER = "no_answer"  # nobody listens yet, or it is too busy to answer
    LOADING = "loading"
    READY = "ready"


class _GenerationSettings(msgspec.Struct, frozen=True):
    n_ctx: int = 0


class RunnerProperties(msgspec.Struct, frozen=True):
    """The part of /props that is used. `n_ctx` there is one slot's."""

    default_generation_settings: _GenerationSettings = _GenerationSettings()
    total_slots: int = 1
    build_info: str = ""

    @property
    def version(self) -> str | None:
        """llama.cpp's build (`b6123-abcdef0`); None for builds that were not told theirs."""
        return None if self.build_info in ("", "b0-unknown") else self.build_info

    @property
    def slot_context(self) -> int:
        """Tokens that one request may fill."""
        return self.default_generation_settings.n_ctx

    @property
    def whole_context(self) -> int:
        """Tokens of all slots together, which is what `--ctx-size` asks for."""
        return self.slot_context * max(1, self.total_slots)


class RunnerProbe:
    """One client for all runners of a provider."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def health(self, base_url: str) -> Health:
        """Ask once, within 2 s."""
        answer = await self._get(f"{base_url}/health", {})
        if answer is None:
            return Health.NO_ANSWER
        return Health.READY if answer.status_code == 200 else Health.LOADING

    async def properties(self, base_url: str, api_key: str) -> RunnerProperties | None:
        """Return /props if the server there refuses strangers and takes `api_key`; None otherwise.

        Only our own child was told that key, so nobody else on the port passes this by accident.
        """
        url = f"{base_url}/props"
        stranger = await self._get(url, {})
        if stranger is None or stranger.status_code != 401:
            return None
        known = await self._get(url, {"Authorization": f"Bearer {api_key}"})
        if known is None or known.status_code != 200:
            return None
        try:
            return msgspec.json.decode(known.content, type=RunnerProperties)
        except NOT_JSON:
            return None

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _get(self, url: str, headers: dict[str, str]) -> httpx.Response | None:
        import httpx

        if self._client is None:
            # verify=False: plain HTTP on loopback only, and it saves reading all certificates.
            self._client = httpx.AsyncClient(
                trust_env=False,
                verify=False,
                timeout=_TIMEOUT_S,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        try:
            return await self._client.get(url, headers=headers)
        except httpx.HTTPError:
            return None
