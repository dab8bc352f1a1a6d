"""What the tray shows of a picture: which face, which tooltip, which menu.

Decides: what the icon says, and which problem deserves the user's eye. Must not: draw, or know a system's
limits beyond the lengths it is given.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tray_valet.core.commands import CatalogEntry
from tray_valet.core.menu import Entry, Quit, build_menu
from tray_valet.core.models import Condition, ConditionType
from tray_valet.core.short_text import one_line
from tray_valet.core.snapshot import Snapshot
from tray_valet.core.watchdog import State


class Face(StrEnum):
    """The looks of the icon: colour and sign together tell the state."""

    RUNNING = "running"
    MOVING = "moving"
    PAUSED = "paused"
    EMPTY = "empty"  # no model in memory
    ATTENTION = "attention"


class TrayPicture(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop hands to the tray: everything at one moment, and the models that could be loaded."""

    snapshot: Snapshot
    catalog: tuple[CatalogEntry, ...] = ()


class TrayView(msgspec.Struct, frozen=True, kw_only=True):
    """All that is seen of the tray; two that are equal need no redrawing."""

    face: Face
    title: str
    line: str
    entries: tuple[Entry, ...]


_MATTERS = frozenset(
    {
        ConditionType.UNREACHABLE,
        ConditionType.CANNOT_KILL,
        ConditionType.LOAD_FAILED,
        ConditionType.GIVEN_UP,
        ConditionType.KEY_MISSING,
        ConditionType.MEMORY_STILL_HELD,
        ConditionType.ENGINE_MISSING,
    }
)
_MATTERS_IN_A_PAUSE = frozenset({ConditionType.CANNOT_KILL, ConditionType.MEMORY_STILL_HELD})
_MOVING = frozenset({State.PAUSING, State.RESUMING})


def tray_view(picture: TrayPicture) -> TrayView:
    """The picture as the tray shows it."""
    snapshot = picture.snapshot
    problem = problem_of(snapshot)
    return TrayView(
        face=face_of(snapshot),
        title=one_line(snapshot.title),
        line=one_line(snapshot.line),
        entries=build_menu(snapshot, picture.catalog, problem=problem),
    )


def face_of(snapshot: Snapshot) -> Face:
    """Which face the icon has. What moves is shown moving; a problem outranks what stands still."""
    if snapshot.state in _MOVING:
        return Face.MOVING
    if problem_of(snapshot) or snapshot.state is State.PROVIDER_DOWN:
        return Face.ATTENTION
    if snapshot.state is State.PAUSED:
        return Face.PAUSED
    has_models = any(provider.loaded for provider in snapshot.providers)
    return Face.RUNNING if has_models else Face.EMPTY


def problem_of(snapshot: Snapshot) -> str:
    """The sentence of what needs the user; "" when nothing does, or when the title says it already."""
    if snapshot.settings_problem:
        return "The settings file has a mistake. The last good settings stay in use."
    if snapshot.state is State.PROVIDER_DOWN:
        return ""
    kinds = _MATTERS_IN_A_PAUSE if snapshot.state is State.PAUSED else _MATTERS
    for provider in snapshot.providers:
        for condition in provider.conditions:
            if condition.status and condition.type in kinds:
                return _sentence(provider.name, condition)
    return ""


def _sentence(provider: str, condition: Condition) -> str:
    if condition.type is ConditionType.UNREACHABLE:
        return f"{provider} does not answer."
    return condition.reason


def starting_view() -> TrayView:
    """What is shown until the first picture comes."""
    title = "Tray Valet is starting"
    entries = (
        Entry(id="state:title", label=title),
        Entry(id="separator:end"),
        Entry(id="quit", label="Quit", choice=Quit()),
    )
    return TrayView(face=Face.EMPTY, title=title, line="", entries=entries)
