"""The router's list of models in OpenAI's shape (and Anthropic's, which lies beside it), over all providers.

Decides: which model a name means in a list, and what the list says. Must not: ask a provider: what is known
is answered at once, also while one is down.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tray_valet.core.commands import CatalogEntry, ModelState, Valet
from tray_valet.core.errors import UnknownModel
from tray_valet.core.models import ModelRef, check_model_name
from tray_valet.web.edge.wire_units import MIB, utc_text
from tray_valet.web.relay.near_names import with_suggestion

_LATEST = ":latest"


def model_list(valet: Valet) -> dict[str, Any]:
    """`GET /v1/models`."""
    states = states_by_ref(valet.model_states())
    shapes = [model_object(entry, states.get(entry.ref)) for entry in valet.catalog()]
    return {
        "object": "list",
        "data": shapes,
        "has_more": False,  # Anthropic's, from here on
        "first_id": shapes[0]["id"] if shapes else None,
        "last_id": shapes[-1]["id"] if shapes else None,
    }


def one_model(valet: Valet, name: str) -> dict[str, Any]:
    """`GET /v1/models/{name}`. Raises UnknownModel, InvalidValue."""
    entry = entry_of(valet.catalog(), name)
    return model_object(entry, states_by_ref(valet.model_states()).get(entry.ref))


def model_object(entry: CatalogEntry, state: ModelState | None) -> dict[str, Any]:
    """One model: OpenAI's four fields, Anthropic's three, the seeds' three, and ours."""
    is_in_memory = state is not None and state.status in ("ready", "stopping")
    return {
        "id": entry.name,
        "object": "model",
        "created": entry.created,
        "owned_by": entry.ref.provider,
        "type": "model",
        "display_name": entry.name,
        "created_at": utc_text(entry.created),
        "status": state.status if state is not None else entry.status,
        "port": state.port if state is not None else None,
        "vram_mb": state.vram_bytes // MIB if state is not None and is_in_memory else None,
        "provider": entry.ref.provider,
        "model": entry.ref.model,
        "alias": entry.is_alias,
        "size_mb": entry.size_bytes // MIB,
        "context_length": entry.context_length,
    }


def states_by_ref(states: Iterable[ModelState]) -> dict[ModelRef, ModelState]:
    """The states, to be looked up."""
    return {state.ref: state for state in states}


def find_entry(catalog: tuple[CatalogEntry, ...], name: str) -> CatalogEntry | None:
    """The entry that a name means: as it is listed, as `provider/model`, or without `:latest`."""
    spellings = (name, name + _LATEST)
    # An alias is another name for its model, not the model that `provider/model` asks for.
    for entry in sorted(catalog, key=lambda entry: (entry.name != name, entry.is_alias)):
        if entry.name in spellings or str(entry.ref) in spellings:
            return entry
    return None


def entry_of(catalog: tuple[CatalogEntry, ...], name: str) -> CatalogEntry:
    """The entry that a name means. Raises UnknownModel with the nearest name, or InvalidValue."""
    entry = find_entry(catalog, check_model_name(name))
    if entry is None:
        raise with_suggestion(UnknownModel(f"There is no model “{name}”.", param="model"), name, catalog)
    return entry
