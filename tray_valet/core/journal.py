"""The journal: what must come back, written to disk before anything is unloaded.

Decides: what an entry holds, how a second pause merges with an unfinished restore.
Must not: write files (`services/journal_book.py` does).
"""

from __future__ import annotations

import math

import msgspec

from tray_valet.core.models import LoadedModel, LoadRequest, ModelRef


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model as it was. `ttl_left_s`: seconds, None = for ever."""

    provider: str
    model: str
    context_length: int | None = None
    ttl_left_s: float | None = None
    size_bytes: int = 0
    vram_bytes: int = 0

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.provider, self.model)


class PersistedHold(msgspec.Struct, frozen=True, kw_only=True):
    """A pause by the user that a restart must not undo. `until` is Unix seconds, None = until Resume."""

    id: str
    reason: str = ""
    since: float = 0.0
    until: float | None = None
    pid: int | None = None
    pid_start_time: int | None = None


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that survives a kill. `written_at` is Unix seconds.

    `set_aside`: unloaded, or about to be, and still to come back. `residents`: loaded in runners of ours,
    which die with us: after an unclean end they have to come back too.
    """

    version: int = 1
    set_aside: tuple[JournalEntry, ...] = ()
    residents: tuple[JournalEntry, ...] = ()
    holds: tuple[PersistedHold, ...] = ()
    written_at: float = 0.0
    clean_exit: bool = False


def entry_of(provider: str, model: LoadedModel) -> JournalEntry:
    """Note a loaded model down."""
    return JournalEntry(
        provider=provider,
        model=model.name,
        context_length=model.context_length,
        ttl_left_s=model.ttl_left_s,
        size_bytes=model.size_bytes,
        vram_bytes=model.vram_bytes,
    )


def request_of(entry: JournalEntry) -> LoadRequest:
    """The wish to have the model back as it was noted."""
    # A time of 0 was in use past its end: it gets the provider's own default, not 0, which would unload it.
    ttl_s = math.inf if entry.ttl_left_s is None else entry.ttl_left_s or None
    return LoadRequest(model=entry.model, context_length=entry.context_length, ttl_s=ttl_s)


def merged(missing: tuple[JournalEntry, ...], seen: tuple[JournalEntry, ...]) -> tuple[JournalEntry, ...]:
    """What a pause must bring back: what an unfinished restore still owes, and what is loaded now.

    For a model in both, what the restore owes wins: that is how it was before the first pause.
    """
    owed = {entry.ref for entry in missing}
    return (*missing, *(entry for entry in seen if entry.ref not in owed))
