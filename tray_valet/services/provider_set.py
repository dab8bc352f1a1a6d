"""The provider set: which providers there are, from the settings or found.

Decides: what stands in when the settings name none (an Ollama that answers, else the built-in demo
model), and which providers a change of settings replaces. Must not: know how a kind is built.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import OllamaSettings, ProviderSettings
from tray_valet.core.errors import ValetError
from tray_valet.core.models import ConditionType
from tray_valet.core.ports import Provider
from tray_valet.services.fleet import Fleet

_LOG = logging.getLogger(__name__)
_LOOK_FOR_OLLAMA_S = 10.0
FOUND_OLLAMA = "ollama"
DEMO = "demo"


class ProviderSet:
    """Keeps the fleet's providers in step with the settings.

    `build` makes a provider of its settings, or takes them over into the one there was; None for a kind
    that this version does not serve. `demo` makes the built-in one. `is_ollama_there` looks at Ollama's
    default address.
    """

    def __init__(
        self,
        fleet: Fleet,
        build: Callable[[str, ProviderSettings, Settings, Provider | None], Provider | None],
        demo: Callable[[Settings], Awaitable[Provider]],
        is_ollama_there: Callable[[], Awaitable[bool]],
    ) -> None:
        self._fleet = fleet
        self._build = build
        self._demo = demo
        self._is_ollama_there = is_ollama_there
        self._built: dict[str, tuple[object, Provider]] = {}
        self._settings: Settings | None = None
        self._lock = asyncio.Lock()
        self._is_demo = False

    async def apply(self, settings: Settings) -> None:
        """Take the settings' providers over; those that are as before keep their models."""
        async with self._lock:
            self._settings = settings
            wanted = await self._wanted(settings)
            built: dict[str, tuple[object, Provider]] = {}
            for name, wish in wanted.items():
                mark = (wish, settings.models.idle_timeout_seconds)
                mark_before, before = self._built.get(name, (None, None))
                provider = before if mark == mark_before else await self._make(name, wish, settings, before)
                if provider is not None:
                    built[name] = (mark, provider)
            self._is_demo = settings.providers is None and DEMO in built
            self._built = built
            await self._fleet.replace(provider for _, provider in built.values())
            if self._is_demo:
                self._fleet.note(
                    self._fleet.slots[DEMO],
                    ConditionType.BUILT_IN_DEMO,
                    "No LLM software was found, so the built-in demo model serves. "
                    "Start Ollama, or name a provider in the settings.",
                )

    async def run(self) -> None:
        """While no provider is named or found, look whether an Ollama has appeared. Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_FOR_OLLAMA_S)
            settings = self._settings
            is_open = settings is not None and settings.providers is None and FOUND_OLLAMA not in self._built
            if settings is not None and is_open and await self._is_ollama_there():
                await self.apply(settings)

    async def _wanted(self, settings: Settings) -> dict[str, ProviderSettings | None]:
        if settings.providers is not None:
            return dict(settings.providers)
        if await self._is_ollama_there():
            return {FOUND_OLLAMA: OllamaSettings()}
        return {DEMO: None}

    async def _make(
        self, name: str, wish: ProviderSettings | None, settings: Settings, before: Provider | None
    ) -> Provider | None:
        try:
            provider = (
                await self._demo(settings) if wish is None else self._build(name, wish, settings, before)
            )
        except (ValetError, OSError) as error:
            _LOG.error("The provider %s cannot be used: %s", name, error)
            return None
        if provider is None and wish is not None:
            _LOG.error("The provider %s is of kind %s, which this version does not serve", name, wish.kind)
        return provider
