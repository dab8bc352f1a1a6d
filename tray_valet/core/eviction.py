"""Which models go when a hold appears, and when their memory counts as given back.

Decides: the set to unload, and whether what was measured proves that the memory is free.
Must not: unload.
"""

from __future__ import annotations

from collections.abc import Iterable

from tray_valet.core.holds import HOST_PRESSURE_KINDS, Hold
from tray_valet.core.models import LoadedModel

# Of what a model was said to take, this share must be seen to come back: sizes are estimates, and other
# programs allocate at the same time.
_PROOF_SHARE = 0.5


def must_go(model: LoadedModel, holds: Iterable[Hold]) -> bool:
    """Whether a model leaves memory for these holds.

    One that needs no GPU goes on serving during a game; only RAM and CPU pressure sets it aside too.
    """
    return model.needs_gpu or stops_cpu_models(holds)


def stops_cpu_models(holds: Iterable[Hold]) -> bool:
    """Whether models that need no GPU have to go as well."""
    return any(h.kind in HOST_PRESSURE_KINDS for h in holds)


def is_given_back(*, before_bytes: int, now_bytes: int, expected_bytes: int) -> bool | None:
    """Whether memory in use fell by what was expected; None where it cannot be told.

    It cannot when the measured processes never held that much: then residency is all the proof there is.
    """
    proof_bytes = int(expected_bytes * _PROOF_SHARE)
    if expected_bytes <= 0 or before_bytes < proof_bytes:
        return None
    return before_bytes - now_bytes >= proof_bytes
