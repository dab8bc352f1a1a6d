"""What an Ollama has on disk, and what was learnt about its models.

Decides: which models are known, how their names are spelled there, which are the cloud's, and which files
a model is made of.
Must not: load, or ask for details twice: they are kept by digest, which changes with the model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from tray_valet.core.errors import ValetError
from tray_valet.core.models import InstalledModel
from tray_valet.providers.ollama_api import OllamaApi
from tray_valet.providers.ollama_names import canonical_name, is_cloud_name
from tray_valet.providers.ollama_wire import ShowAnswer, TagModel, installed_model

_log = logging.getLogger(__name__)
_SHOWS_AT_ONCE = 4
_BLOBS_WAIT_S = 1.0  # for news of files that are mostly known already


class OllamaCatalogue:
    """The models of one Ollama. Lives on the loop."""

    def __init__(self, api: OllamaApi) -> None:
        """Nothing is known before the first `read`."""
        self._api = api
        self._installed: frozenset[str] = frozenset()
        self._cloud: frozenset[str] = frozenset()
        self._spellings: dict[str, str] = {}  # Ollama takes names in any case; by casefold
        self._shown: dict[str, ShowAnswer] = {}  # by digest
        self._blobs: dict[str, tuple[str, ...]] = {}  # by model; still needed when its files are gone

    @property
    def cloud(self) -> frozenset[str]:
        """The models that Ollama passes on to its cloud, as far as known."""
        return self._cloud

    def spelled(self, model: str) -> str:
        """Spell a name as Ollama does, in the case it has there."""
        name = canonical_name(model)
        return self._spellings.get(name.casefold(), name)

    def learn_spellings(self, names: Iterable[str]) -> None:
        """Note how Ollama writes the names of models."""
        self._spellings.update({name.casefold(): name for name in names})

    def has(self, name: str) -> bool:
        """Whether the last `read` showed the model."""
        return name in self._installed

    def is_cloud(self, name: str) -> bool:
        """Whether the model takes no memory of Ollama's machine."""
        return name in self._cloud or is_cloud_name(name)

    async def read(self) -> tuple[InstalledModel, ...]:
        """List what is on disk, with details. Raises ProviderUnreachable."""
        entries = [entry for entry in (await self._api.tags()).models or () if entry.name or entry.model]
        self._cloud = frozenset(entry.canonical for entry in entries if entry.is_cloud)
        self._installed = frozenset(entry.canonical for entry in entries)
        self.learn_spellings(self._installed)
        gate = asyncio.Semaphore(_SHOWS_AT_ONCE)
        shown = await asyncio.gather(*(self._details(entry, gate) for entry in entries))
        digests = {entry.digest for entry in entries}
        self._shown = {digest: answer for digest, answer in self._shown.items() if digest in digests}
        return tuple(map(installed_model, entries, shown))

    async def learn_blobs(self, names: Iterable[str]) -> None:
        """Ask for the files of models where they are not known yet; later Ollama may not answer."""
        await asyncio.gather(*(self.blobs_of(name) for name in names if not self._blobs.get(name)))

    async def blobs_of(self, name: str) -> tuple[str, ...]:
        """The names of the model's files (`sha256-…`); () where Ollama never told them."""
        try:
            async with asyncio.timeout(_BLOBS_WAIT_S):
                self._blobs[name] = (await self._api.show(name)).blobs
        except (ValetError, TimeoutError) as error:
            _log.debug("no details of %s: %s", name, error)
        return self._blobs.get(name, ())

    async def _details(self, entry: TagModel, gate: asyncio.Semaphore) -> ShowAnswer | None:
        """Ask for what the list left out, once for each digest."""
        if entry.is_cloud or (entry.capabilities and entry.context_length):
            return None
        if entry.digest and entry.digest in self._shown:
            return self._shown[entry.digest]
        try:
            async with gate:
                answer = await self._api.show(entry.canonical)
        except ValetError as error:
            _log.debug("no details of %s: %s", entry.canonical, error)
            return None
        self._blobs[entry.canonical] = answer.blobs
        if entry.digest:
            self._shown[entry.digest] = msgspec.structs.replace(answer, modelfile=None)
        return answer
