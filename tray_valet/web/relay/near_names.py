"""The name that was probably meant by one that nobody has.

Decides: how near is near. Must not: send a request there.
"""

from __future__ import annotations

import difflib

from tray_valet.core.commands import CatalogEntry
from tray_valet.core.errors import UnknownModel


def with_suggestion(error: UnknownModel, name: str, catalog: tuple[CatalogEntry, ...]) -> UnknownModel:
    """The error, naming the model that was probably meant, where it does not say more itself."""
    if error.remedy:
        return error
    # An alias may be listed without its model being there: its own model is no help then.
    spelled = (*(e.name for e in catalog), *(str(e.ref) for e in catalog if not e.is_alias))
    names = [spelling for spelling in spelled if spelling != name]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"Did you mean “{near[0]}”?" if near else "GET /v1/models lists what there is."
    return UnknownModel(error.message, remedy=remedy, param=error.param or "model")
