"""The catalog: what the router serves, aliases (and what pools offer) first.

Decides: by which name a model is listed, so that every listed name can be asked for and none means two.
Must not: ask a provider: it tells what was last seen, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from tray_valet.core.commands import CatalogEntry
from tray_valet.core.config import Settings
from tray_valet.core.models import InstalledModel, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.routing import names_of_pool, plan_of, pool_members
from tray_valet.services.fleet import Fleet
from tray_valet.services.loader import Loader

_NAMES_FRESH_S = 1.0


class Catalog:
    """Reads the fleet and the settings' routes."""

    def __init__(self, fleet: Fleet, loader: Loader, settings: Callable[[], Settings], clock: Clock) -> None:
        self._fleet = fleet
        self._loader = loader
        self._settings = settings
        self._clock = clock
        self._names: dict[str, ModelRef] = {}
        self._named_at_s = -_NAMES_FRESH_S

    def entries(self) -> tuple[CatalogEntry, ...]:
        """Aliases, then models: under their own name, or as `provider/model` where that name is taken."""
        named = self._aliases()
        seen = set(named)
        models: dict[ModelRef, CatalogEntry] = {}
        installed = self._fleet.known_installed()
        spelled = {f"{slot.name}/{model.name}" for slot, model in installed}
        for slot, model in installed:
            ref = ModelRef(slot.name, model.name)
            name = str(ref) if model.name in seen or model.name in spelled else model.name
            seen.add(name)
            models[ref] = self._entry(name, ref, model)
        aliases = []
        for alias, ref in named.items():
            model_entry = models.get(ref) or self._entry(alias, ref, None)
            aliases.append(msgspec.structs.replace(model_entry, name=alias, is_alias=True))
        return (*aliases, *models.values())

    def _aliases(self) -> dict[str, ModelRef]:
        """The names of routes and of what pools offer, each with the model that it means first of all.

        A route whose candidates do not exist (yet) is there all the same, with its first one as written.
        """
        settings, fleet = self._settings(), self._fleet
        found: dict[str, ModelRef] = {}
        for alias, route in settings.routes.items():
            if plan := plan_of(alias, settings, fleet):
                found[alias] = self._first(plan.steps[0].members)
            elif route.candidates:
                found[alias] = self._ref(route.candidates[0].provider, route.candidates[0].model)
        listed = {slot.name: [m.name for m in slot.installed] for slot in fleet.slots.values()}
        for pool_name, pool in settings.pools.items():
            for model in names_of_pool(pool, listed, fleet):
                if members := pool_members(pool, model, fleet):
                    found.setdefault(f"{pool_name}/{model}", self._first(members))
        return found

    def _first(self, members: Sequence[ModelRef]) -> ModelRef:
        """Of a pool's members one that has the model loaded, else the first."""
        return next((ref for ref in members if self._fleet.is_loaded(ref)), members[0])

    def ref_of(self, name: str) -> ModelRef | None:
        """The model that a listed name means (an alias: its first candidate); a second old at most."""
        now_s = self._clock.monotonic_s()
        if now_s - self._named_at_s >= _NAMES_FRESH_S:
            self._named_at_s = now_s
            entries = self.entries()
            spelled = {str(entry.ref): entry.ref for entry in entries}
            self._names = spelled | {entry.name: entry.ref for entry in reversed(entries)}
        return self._names.get(name) or self._names.get(f"{name}:latest")

    def _ref(self, provider: str, model: str) -> ModelRef:
        slot = self._fleet.slots.get(provider)
        return ModelRef(provider, slot.provider.canonical(model) if slot is not None else model)

    def _entry(self, name: str, ref: ModelRef, model: InstalledModel | None) -> CatalogEntry:
        known = model or InstalledModel(name=ref.model)
        return CatalogEntry(
            name=name,
            ref=ref,
            status=self._status(ref),
            size_bytes=known.size_bytes,
            context_length=known.context_length,
            created=_unix_s(known.modified_at),
            modified_at=known.modified_at,
            digest=known.digest,
            details=known.details,
        )

    def _status(self, ref: ModelRef) -> str:
        if self._fleet.is_loaded(ref):
            return "ready"
        return "loading" if ref in self._loader.loading else "off"


def _unix_s(modified_at: str) -> int:
    """A time in RFC 3339 as Unix seconds; 0 where there is none."""
    try:
        return max(0, int(datetime.fromisoformat(modified_at).timestamp()))
    except (ValueError, OverflowError):
        return 0
