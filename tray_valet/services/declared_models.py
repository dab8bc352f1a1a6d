"""Declared models: those that the settings name at an Ollama, to be there without being asked for.

Decides: when it is looked whether one is missing (at the start, after a change of the settings, when a
provider comes back), and that a missing one is queued once. Must not: download (`downloads` does), delete a
model, or queue again what the user took back: that waits for other words about its provider in the settings,
or for the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from tray_valet.core import events as ev
from tray_valet.core.config import Settings
from tray_valet.core.config_providers import OllamaSettings, ProviderSettings
from tray_valet.core.errors import RetryLater, ValetError
from tray_valet.core.events_disk import DownloadCancelled
from tray_valet.core.models import ModelRef
from tray_valet.services.downloads import Downloads
from tray_valet.services.fleet import Fleet, Slot

_LOG = logging.getLogger(__name__)
_AGAIN_S = 15.0  # after a list that did not come, or with a full queue


class DeclaredModels:
    """Looks where a look is due; `run` does so until it is cancelled. Everything runs on the loop thread.

    `fleet_changed`, `settings_changed` and `note` are told by others, and are quick.
    """

    def __init__(self, fleet: Fleet, downloads: Downloads, settings: Callable[[], Settings]) -> None:
        self._fleet = fleet
        self._downloads = downloads
        self._settings = settings
        self._known = _declaring(settings())
        self._due = set(self._known)  # providers whose list is to be looked through
        self._declined: set[ModelRef] = set()  # taken back by the user
        self._woken = asyncio.Event()

    def note(self, fact: ev.Fact) -> None:
        """Take down what the user takes back."""
        if isinstance(fact, DownloadCancelled):
            self._declined.add(ModelRef(fact.provider, fact.model))

    def fleet_changed(self) -> None:
        """A provider that is silent now is looked through once it is back."""
        self._due.update(name for name in self._known if self._is_down(name))
        if self._due:
            self._woken.set()

    def settings_changed(self) -> None:
        """Look everywhere again. What was taken back stays so unless its provider's section is another."""
        before, self._known = self._known, _declaring(self._settings())
        is_other = {name for name in before.keys() | self._known if before.get(name) != self._known.get(name)}
        self._declined = {ref for ref in self._declined if ref.provider not in is_other}
        self._due = set(self._known)
        self._woken.set()

    async def run(self) -> None:
        """Have what is missing queued, until cancelled."""
        while True:
            self._woken.clear()
            for name in sorted(self._due):
                await self._look(name)
            is_left = any(not self._is_down(name) for name in self._due)
            try:
                async with asyncio.timeout(_AGAIN_S if is_left else None):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _is_down(self, name: str) -> bool:
        slot = self._fleet.slots.get(name)
        return slot is None or slot.is_down

    async def _look(self, name: str) -> None:
        """Queue what a provider lacks; it stays due where it cannot be asked now."""
        slot, declared = self._fleet.slots.get(name), self._known.get(name)
        if slot is None or slot.is_down or declared is None:
            return
        listed_s = slot.installed_at_s
        await self._fleet.list_models(0.0, [slot])
        is_new = slot.is_listed and slot.installed_at_s != listed_s
        if not is_new or self._fleet.slots.get(name) is not slot or self._known.get(name) is not declared:
            return
        self._due.discard(name)
        for model in declared.models:
            await self._queue_missing(slot, model)

    async def _queue_missing(self, slot: Slot, model: str) -> None:
        ref = ModelRef(slot.name, slot.provider.canonical(model))
        if slot.has(ref.model) or ref in self._declined or self._downloads.active(ref) is not None:
            return
        try:
            await self._downloads.pull(slot, model, is_declared=True)
        except RetryLater as error:  # the queue is full
            _LOG.debug("%s is not queued yet: %s", model, error)
            self._due.add(slot.name)
        except ValetError as error:
            _LOG.error("%s is declared at %s and cannot be downloaded: %s", model, slot.name, error)
        else:
            _LOG.info("%s is declared at %s and missing there; it is queued", ref.model, slot.name)


def _declaring(settings: Settings) -> Mapping[str, OllamaSettings]:
    """The providers that have declared models. Other kinds list what to offer there, and download nothing."""
    providers: Mapping[str, ProviderSettings] = settings.providers or {}
    return {
        name: wish for name, wish in providers.items() if isinstance(wish, OllamaSettings) and wish.models
    }
