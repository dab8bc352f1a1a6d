"""The states of the models: off, starting, loading, ready, stopping, crashed or failed, each with its why.

Decides: which of these words a model gets. Must not: act on it, or ask a provider: all is known already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from tray_valet.core.commands import CatalogEntry, ModelState
from tray_valet.core.errors import ValetError
from tray_valet.core.models import OWN_RUNNERS, Demand, LoadedModel, ModelRef
from tray_valet.core.revival import Trouble
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.loader import Loader

OFF, STARTING, LOADING, READY, STOPPING = "off", "starting", "loading", "ready", "stopping"


class ModelStates:
    """`closed_by(demand)` is the gate; `last_load_s` how long a model's last load took (seconds)."""

    def __init__(
        self,
        fleet: Fleet,
        loader: Loader,
        closed_by: Callable[[Demand], ValetError | None],
        last_load_s: Callable[[ModelRef], float | None],
    ) -> None:
        self._fleet = fleet
        self._loader = loader
        self._closed_by = closed_by
        self._last_load_s = last_load_s

    def of_all(self, catalog: Iterable[CatalogEntry]) -> tuple[ModelState, ...]:
        """The state of every model of the catalog (aliases left out), and of what is loaded beside it."""
        entries = {entry.ref: entry for entry in catalog if not entry.is_alias}
        troubles = self._loader.revival.states()
        loaded = [ModelRef(slot.name, m.name) for slot in self._fleet.slots.values() for m in slot.loaded]
        refs = dict.fromkeys((*entries, *loaded))
        return tuple(
            self._state(slot, ref, entries.get(ref), troubles)
            for ref in refs
            if (slot := self._fleet.slots.get(ref.provider)) is not None
        )

    def of(self, ref: ModelRef, catalog: Iterable[CatalogEntry]) -> ModelState:
        """The state of one model."""
        known = next((state for state in self.of_all(catalog) if state.ref == ref), None)
        return known or ModelState(name=str(ref), ref=ref, status=OFF)

    def _state(
        self, slot: Slot, ref: ModelRef, entry: CatalogEntry | None, troubles: Mapping[ModelRef, Trouble]
    ) -> ModelState:
        loaded = self._fleet.is_loaded(ref)
        status = self._status(slot, ref, loaded)
        trouble = troubles.get(ref)
        if trouble is not None and status == OFF:
            status = trouble.status.value
        size_bytes = loaded.size_bytes if loaded is not None else 0
        return ModelState(
            name=entry.name if entry is not None else str(ref),
            ref=ref,
            status=status,
            port=_port(slot, ref.model) if loaded is not None else None,
            size_bytes=size_bytes or (entry.size_bytes if entry is not None else 0),
            vram_bytes=loaded.vram_bytes if loaded is not None else 0,
            load_s=self._last_load_s(ref),
            error=trouble.error if trouble is not None else "",
            attempts=trouble.attempts if trouble is not None else 0,
            retry_in_s=trouble.retry_in_s if trouble is not None else None,
        )

    def _status(self, slot: Slot, ref: ModelRef, loaded: LoadedModel | None) -> str:
        if ref in self._loader.unloading:
            return STOPPING
        if ref in self._loader.loading or (loaded is None and ref.model in slot.loading):
            # The provider tells of it once its process runs; before that room is made for it.
            return LOADING if ref.model in slot.loading else STARTING
        if loaded is None or slot.is_down:
            return OFF
        is_closed = slot.provider.can_unload and self._closed_by(slot.demand(ref.model)) is not None
        return STOPPING if is_closed else READY


def _port(slot: Slot, model: str) -> int | None:
    """Where the model's own runner listens; None where it has none, or it went this moment."""
    if slot.provider.kind not in OWN_RUNNERS:
        return None
    try:
        return urlsplit(slot.provider.upstream(model).base_url).port
    except (ValetError, ValueError):
        return None
