"""The models' folder: where on this machine the models lie, as far as a provider tells.

Decides: whose folder stands for all of them. Must not: look into it.
"""

from __future__ import annotations

from tray_valet.services.fleet import Fleet


class ModelsFolder:
    """`own`: where our own models lie, which counts until a provider has told of another."""

    def __init__(self, fleet: Fleet, own: str) -> None:
        self._fleet = fleet
        self._told = ""
        self.own = own

    @property
    def path(self) -> str:
        return self._told or self.own

    async def find(self) -> None:
        """Ask the local providers, the first that can download first."""
        providers = [slot.provider for slot in self._fleet.slots.values() if slot.provider.is_local]
        for provider in sorted(providers, key=lambda each: not each.can_pull):
            if folder := await provider.models_folder():
                self._told = folder
                return
        self._told = ""
