"""Who may be loaded beside whom: groups and the most models at once.

Decides: which loaded models must leave before another is loaded. Must not: unload them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from tray_valet.core.config import GroupMode, ModelsSettings
from tray_valet.core.models import ModelRef


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model, as this decision sees it. `last_used_s`: monotonic seconds."""

    ref: ModelRef
    last_used_s: float = 0.0
    is_busy: bool = False


def to_unload_for(
    wanted: ModelRef, residents: Sequence[Resident], settings: ModelsSettings
) -> tuple[ModelRef, ...]:
    """The models that leave for `wanted`: those its group excludes, then the least recently used.

    Pinned and busy models never leave to keep the number down; what a group excludes leaves even when
    busy, since the user has said so.
    """
    others = [r for r in residents if r.ref != wanted]
    leaving = [r.ref for r in others if _excludes(wanted, r.ref, settings)]
    staying = [r for r in others if r.ref not in leaving]
    free = sorted(
        (r for r in staying if not r.is_busy and not is_pinned(r.ref, settings)), key=lambda r: r.last_used_s
    )
    surplus = len(staying) + 1 - settings.max_concurrent
    return (*leaving, *(r.ref for r in free[: max(0, surplus)]))


def has_to_wait(
    wanted: ModelRef,
    residents: Sequence[Resident],
    on_their_way: Collection[ModelRef],
    settings: ModelsSettings,
) -> bool:
    """Whether `wanted` waits for its place, once those that could leave have left.

    It does while a model is being loaded that its group excludes, and while as many models as there may be
    are busy or being loaded. Pinned ones are not waited for: they never leave.
    """
    coming = [ref for ref in on_their_way if ref != wanted]
    if any(_excludes(wanted, ref, settings) for ref in coming):
        return True
    others = {*coming, *(r.ref for r in residents if r.ref != wanted)}
    is_full = len(others) >= settings.max_concurrent
    return is_full and not all(is_pinned(ref, settings) for ref in others)


def _excludes(wanted: ModelRef, other: ModelRef, settings: ModelsSettings) -> bool:
    for group in settings.groups.values():
        has_wanted, has_other = _is_in(wanted, group.models), _is_in(other, group.models)
        if group.mode is GroupMode.SWAP and has_wanted and has_other:
            return True
        if group.mode is GroupMode.EXCLUSIVE and has_wanted != has_other and not is_pinned(other, settings):
            return True
    return False


def is_pinned(ref: ModelRef, settings: ModelsSettings) -> bool:
    """Whether the user has said that a model never leaves for another."""
    return any(g.mode is GroupMode.PINNED and _is_in(ref, g.models) for g in settings.groups.values())


def _is_in(ref: ModelRef, names: Collection[str]) -> bool:
    return ref.model in names or str(ref) in names
