"""The tray's menu: a tree of entries whose ids name their meaning, never their place.

Decides: which entries there are, what they say, and what choosing one asks of the valet.
Must not: draw, act, or grow: every list in it is bounded.

The same meaning has the same id in every menu (`model:ollama/qwen:load`), so a menu that changes while it
is open cannot turn a click on one entry into another.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable

import msgspec

from tray_valet.core.commands import CatalogEntry
from tray_valet.core.holds import GameCause, HoldKind, is_users_own
from tray_valet.core.models import ConditionType, LoadedModel, ModelRef
from tray_valet.core.short_text import cut, one_line
from tray_valet.core.snapshot import HoldView, ProviderView, Snapshot
from tray_valet.core.watchdog import State
from tray_valet.core.wording import count, size

MAX_LOADED = 8
MAX_LOADABLE = 12
_MAX_LINES = 3
_LINE_CHARS = 60
_NAME_UNITS = 40
_PAUSE_LENGTHS_S = ((1800, "30 minutes"), (3600, "1 hour"), (7200, "2 hours"), (14400, "4 hours"))


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """Set the models aside, until the user resumes or for so many seconds."""

    for_s: float | None = None


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """Bring the models back, whatever else would keep them away."""


class EndPauses(msgspec.Struct, frozen=True, tag="end_pauses"):
    """End the user's own pauses; a game that runs still keeps the models away."""

    hold_ids: tuple[str, ...]


class KeepRunning(msgspec.Struct, frozen=True, tag="keep_running"):
    """Bring the models back in spite of the games that run now, until each has ended."""


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load a model."""

    ref: ModelRef


class Unload(msgspec.Struct, frozen=True, tag="unload"):
    """Take a model out of memory."""

    ref: ModelRef


class OpenWindow(msgspec.Struct, frozen=True, tag="open"):
    """Show the window, or bring it to the front."""


class Quit(msgspec.Struct, frozen=True, tag="quit"):
    """End the valet in order."""


Choice = Pause | Resume | EndPauses | KeepRunning | Load | Unload | OpenWindow | Quit


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the menu. Without a choice and without children it only tells something (greyed)."""

    id: str
    label: str = ""  # "" = a separator
    choice: Choice | None = None
    is_checked: bool | None = None  # None = it has no mark
    is_default: bool = False  # what a left click on the icon chooses
    children: tuple[Entry, ...] = ()

    @property
    def is_separator(self) -> bool:
        return not self.label

    @property
    def is_enabled(self) -> bool:
        return self.choice is not None or bool(self.children)


def build_menu(
    snapshot: Snapshot, catalog: tuple[CatalogEntry, ...] = (), *, problem: str = ""
) -> tuple[Entry, ...]:
    """The whole menu for a picture; `problem` is a sentence that stands under the state, "" for none."""
    return (
        *_state_lines(snapshot, problem),
        _separator("pausing"),
        *_pausing(snapshot),
        _separator("models"),
        _models(snapshot, catalog),
        Entry(id="open", label="Open…", choice=OpenWindow(), is_default=True),
        _separator("end"),
        Entry(id="quit", label="Quit", choice=Quit()),
    )


def _separator(before: str) -> Entry:
    return Entry(id=f"separator:{before}")


def _state_lines(snapshot: Snapshot, problem: str) -> tuple[Entry, ...]:
    """What is so, then why and what happens next, then what needs the user; broken to a readable width."""
    entries = [Entry(id="state:title", label=cut(one_line(snapshot.title) or "Tray Valet", _LINE_CHARS))]
    entries += (
        Entry(id=f"state:line:{number}", label=line)
        for number, line in enumerate(_wrapped(snapshot.line), start=1)
    )
    if problem:
        label = cut(f"⚠ {one_line(problem)}", _LINE_CHARS)
        entries.append(Entry(id="state:problem", label=label, choice=OpenWindow()))
    return tuple(entries)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        one_line(text), _LINE_CHARS, max_lines=_MAX_LINES, placeholder="…", break_on_hyphens=False
    )


# -- pausing -----------------------------------------------------------------------------------------


def _pausing(snapshot: Snapshot) -> tuple[Entry, ...]:
    in_effect = tuple(view for view in snapshot.holds if not view.is_overridden)
    own = tuple(view for view in in_effect if is_users_own(view.hold))
    is_paused_for_good = any(view.expires_in_s is None and view.hold.process is None for view in own)
    lengths = tuple(
        Entry(id=f"pause:{length_s}", label=label, choice=Pause(float(length_s)))
        for length_s, label in _PAUSE_LENGTHS_S
    )
    return (
        Entry(id="pause", label="Pause", choice=None if is_paused_for_good else Pause()),
        Entry(id="pause:for", label="Pause for…", children=lengths),
        _resume(snapshot, in_effect, own),
        *_keep_running(snapshot.holds),
    )


def _resume(snapshot: Snapshot, in_effect: tuple[HoldView, ...], own: tuple[HoldView, ...]) -> Entry:
    """Resume. While a game keeps the models away it ends the user's own pauses only: running beside a
    game has an entry of its own that says so."""
    choice: Choice | None = None
    if any(view.hold.kind is HoldKind.GAME for view in in_effect):
        choice = EndPauses(tuple(view.hold.id for view in own)) if own else None
    elif in_effect or snapshot.state in (State.PAUSING, State.PAUSED):
        choice = Resume()
    is_counting_down = not in_effect and snapshot.resumes_in_s is not None
    return Entry(id="resume", label="Resume now" if is_counting_down else "Resume", choice=choice)


def _keep_running(holds: tuple[HoldView, ...]) -> tuple[Entry, ...]:
    games = tuple(view for view in holds if view.hold.kind is HoldKind.GAME)
    if not games:
        return ()
    names = tuple(dict.fromkeys(_game_name(view) for view in games))
    what = cut(names[0], _NAME_UNITS) if len(names) == 1 else f"these {len(names)} games"
    is_chosen = all(view.is_overridden for view in games)
    return (
        Entry(
            id="keep-running",
            label=f"Keep running for {what}",
            choice=None if is_chosen else KeepRunning(),
            is_checked=is_chosen,
        ),
    )


def _game_name(view: HoldView) -> str:
    name = one_line(view.hold.cause.name) if isinstance(view.hold.cause, GameCause) else ""
    return name.strip() or "this game"


# -- models ------------------------------------------------------------------------------------------


def _models(snapshot: Snapshot, catalog: tuple[CatalogEntry, ...]) -> Entry:
    local = tuple(provider for provider in snapshot.providers if provider.is_local)
    loaded = tuple((provider, model) for provider in local for model in provider.loaded)
    present = {ModelRef(provider.name, model.name) for provider, model in loaded}
    loadable = _loadable(catalog, local, present)
    ambiguous = _ambiguous((*present, *(entry.ref for entry in loadable)))
    takes_loads = not _is_making_room(snapshot)
    inside = [_loaded_entry(provider, model, ambiguous) for provider, model in loaded[:MAX_LOADED]]
    if loaded and loadable:
        inside.append(_separator("models:off"))
    inside += (_load_entry(entry, ambiguous, takes_loads) for entry in loadable[:MAX_LOADABLE])
    hidden = max(0, len(loaded) - MAX_LOADED) + max(0, len(loadable) - MAX_LOADABLE)
    if hidden:
        inside.append(Entry(id="models:more", label=f"{hidden} more…", choice=OpenWindow()))
    if not inside:
        inside.append(Entry(id="models:none", label="No model is installed"))
    label = f"Models ({count(len(loaded), 'model')} loaded)" if loaded else "Models"
    return Entry(id="models", label=label, children=tuple(inside))


def _loadable(
    catalog: tuple[CatalogEntry, ...], local: tuple[ProviderView, ...], present: set[ModelRef]
) -> tuple[CatalogEntry, ...]:
    """What could be loaded here, each model once: no aliases, nothing in the cloud."""
    names = {provider.name for provider in local if provider.state != "unreachable"}
    by_ref = {
        entry.ref: entry
        for entry in catalog
        if not entry.is_alias and entry.ref.provider in names and entry.ref not in present
    }
    return tuple(by_ref.values())


def _ambiguous(refs: Iterable[ModelRef]) -> frozenset[str]:
    """Names that more than one provider has."""
    return frozenset(name for name, times in Counter(ref.model for ref in refs).items() if times > 1)


def _is_making_room(snapshot: Snapshot) -> bool:
    """Whether a load would be refused: a game keeps the models away, or they are just leaving."""
    return snapshot.state is State.PAUSING or any(
        view.hold.kind is HoldKind.GAME and not view.is_overridden for view in snapshot.holds
    )


def _name(ref: ModelRef, ambiguous: frozenset[str]) -> str:
    name = cut(one_line(ref.model), _NAME_UNITS)
    return f"{name} ({cut(one_line(ref.provider), _NAME_UNITS)})" if ref.model in ambiguous else name


def _loaded_entry(provider: ProviderView, model: LoadedModel, ambiguous: frozenset[str]) -> Entry:
    ref = ModelRef(provider.name, model.name)
    takes = f" · {size(model.size_bytes)}" if model.size_bytes else ""
    can_unload = not any(
        condition.type is ConditionType.CANNOT_UNLOAD and condition.status
        for condition in provider.conditions
    )
    if not can_unload:
        return Entry(id=f"model:{ref}:unload", label=f"{_name(ref, ambiguous)}{takes} · loaded")
    return Entry(id=f"model:{ref}:unload", label=f"Unload {_name(ref, ambiguous)}{takes}", choice=Unload(ref))


def _load_entry(entry: CatalogEntry, ambiguous: frozenset[str], takes_loads: bool) -> Entry:
    name = _name(entry.ref, ambiguous)
    if entry.status == "loading":
        return Entry(id=f"model:{entry.ref}:load", label=f"Loading {name}…")
    return Entry(
        id=f"model:{entry.ref}:load", label=f"Load {name}", choice=Load(entry.ref) if takes_loads else None
    )
