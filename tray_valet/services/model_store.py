"""The models on the disk: downloads by name, and deletions (`core.desks.ModelStore`).

Decides: which provider a download goes to, and what comes before a deletion.
Must not: delete anything that was not asked for by name, or unload where the provider cannot delete.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tray_valet.core.downloads import Download
from tray_valet.core.errors import NotSupported, Refused
from tray_valet.core.events import Fact
from tray_valet.core.events_disk import ModelDeleted
from tray_valet.core.models import ModelRef, check_model_name
from tray_valet.services.downloads import Downloads
from tray_valet.services.fleet import Fleet, Slot


class StoreDesk:
    """Implements `core.desks.ModelStore`.

    `unload(model, provider)` takes a model out of memory and out of what is to be brought back.
    """

    def __init__(
        self,
        fleet: Fleet,
        downloads: Downloads,
        record: Callable[[Fact], None],
        unload: Callable[[str, str], Awaitable[object]],
    ) -> None:
        self._fleet = fleet
        self._downloads = downloads
        self._record = record
        self._unload = unload

    def downloads(self) -> tuple[Download, ...]:
        return self._downloads.all()

    async def pull(self, model: str, provider: str | None = None) -> Download:
        slot, name = self._place_for(check_model_name(model), provider)
        return await self._downloads.pull(slot, check_model_name(name))

    async def wait(self, download_id: str) -> Download:
        return await self._downloads.wait(download_id)

    async def cancel(self, download_id: str) -> Download:
        return await self._downloads.cancel(download_id)

    async def delete(self, model: str, provider: str | None = None) -> ModelRef:
        named, spelled = self._named(check_model_name(model), provider)
        if named is not None:
            self._refuse_during_download(ModelRef(named.name, named.provider.canonical(spelled)))
        slot, name = await self._fleet.resolve(model, provider)
        ref = ModelRef(slot.name, name)
        self._refuse_during_download(ref)
        if not slot.provider.can_pull:
            await slot.provider.delete(name)  # says why not, and what can be done
        size_bytes = next((m.size_bytes for m in slot.installed if m.name == name), 0)
        await self._unload(name, slot.name)
        await slot.provider.delete(name)
        await self._fleet.list_models(0.0, [slot])  # it is another one now
        self._record(ModelDeleted(provider=slot.name, model=name, size_bytes=size_bytes))
        return ref

    def _refuse_during_download(self, ref: ModelRef) -> None:
        if (download := self._downloads.active(ref)) is not None:
            raise Refused(
                f"{ref.model} is being downloaded.",
                remedy=f"Cancel that first (tray-valet downloads --cancel {download.id}).",
                param="model",
            )

    def _named(self, model: str, provider: str | None) -> tuple[Slot | None, str]:
        """The provider that is named, in the name or beside it, and the model's name there."""
        if provider is not None:
            slot = self._fleet.slot(provider)
            return slot, model.removeprefix(f"{provider}/")
        prefix, _, rest = model.partition("/")
        slot_of_prefix = self._fleet.slots.get(prefix) if rest else None
        if slot_of_prefix is not None:
            return slot_of_prefix, rest
        return next((s for s in self._fleet.slots.values() if s.provider.can_pull), None), model

    def _place_for(self, model: str, provider: str | None) -> tuple[Slot, str]:
        slot, name = self._named(model, provider)
        if slot is None:
            raise NotSupported(
                "No provider here can download a model.",
                remedy="Install Ollama, or put a GGUF file on the disk and name it in the settings.",
            )
        return slot, name
