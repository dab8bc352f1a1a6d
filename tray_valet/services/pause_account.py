"""The account of one pause: what it found, what it has set aside, which providers were seen clear of it.

Decides: whether a model was there when the pause came to its provider, or came back in its middle.
Must not: unload, measure or write anything.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tray_valet.core.eviction import stops_cpu_models
from tray_valet.core.holds import Hold
from tray_valet.core.models import LoadedModel
from tray_valet.core.snapshot import PauseReport
from tray_valet.services.fleet import Slot
from tray_valet.services.memory_probe import Held

Target = tuple[Slot, LoadedModel]


class PauseAccount:
    """Lives from the first hold to the end of the pause, over all eviction passes.

    A round is what lies between two reports: usually the whole pause; a model that comes back in its
    middle, or a provider that answers late, begins another. `started_s`: monotonic seconds.
    """

    def __init__(self) -> None:
        self.report: PauseReport | None = None
        self.started_s: float | None = None
        self.before: Held | None = None
        self._targets: dict[tuple[Slot, str], LoadedModel] = {}
        self._reloaded: set[tuple[Slot, str]] = set()  # those of them that came in mid-pause
        self._cleared: dict[Slot, bool] = {}  # value: whether its CPU-only models had to go as well

    @property
    def targets(self) -> list[Target]:
        """What this round sets aside, gone or not."""
        return [(slot, model) for (slot, _), model in self._targets.items()]

    @property
    def has_only_reloads(self) -> bool:
        """Whether this round sets nothing aside but models that came in mid-pause."""
        return set(self._targets) <= self._reloaded

    def begin_pass(self, now_s: float, held: Held) -> None:
        """Note the time and what the engines hold before anything is unloaded."""
        if self.started_s is None or self.before is None or not self._targets:
            self.started_s, self.before = now_s, held
            return
        # A pass that did not get everything out is followed by this one: the most that was seen counts.
        self.before = Held(
            runners=tuple(dict.fromkeys((*self.before.runners, *held.runners))),
            ram_bytes=max(self.before.ram_bytes, held.ram_bytes),
            vram_bytes=max(self.before.vram_bytes, held.vram_bytes),
            vram_total_bytes=max(self.before.vram_total_bytes or 0, held.vram_total_bytes or 0) or None,
        )

    def add(self, targets: Iterable[Target]) -> list[Target]:
        """Note what is about to be set aside; returns those that were there before the pause."""
        found = []
        for slot, model in targets:
            key = (slot, model.name)
            self._targets.setdefault(key, model)
            if self.is_reload(slot, model):
                self._reloaded.add(key)
            else:
                found.append((slot, model))
        return found

    def note_clear(self, slot: Slot, holds: tuple[Hold, ...]) -> None:
        """Note that a provider answered and held nothing that has to go for these holds."""
        self._cleared[slot] = self._cleared.get(slot, False) or stops_cpu_models(holds)

    def is_reload(self, slot: Slot, model: LoadedModel) -> bool:
        """Whether the model came in mid-pause: its provider was clear of models of its sort before."""
        did_stop_cpu_models = self._cleared.get(slot)
        return did_stop_cpu_models is not None and (model.needs_gpu or did_stop_cpu_models)

    def close_round(self, round_report: PauseReport) -> None:
        """Add a finished round to the report; rounds with nothing but reloads were no part of the pause."""
        found = tuple(model for slot, model in self._targets if (slot, model) not in self._reloaded)
        if self.report is None:
            self.report = round_report
        elif found:
            self.report = msgspec.structs.replace(
                round_report,
                models=tuple(dict.fromkeys((*self.report.models, *found))),
                freed_bytes=self.report.freed_bytes + round_report.freed_bytes,
            )
        self.drop_round()

    def drop_round(self) -> None:
        """Begin the next round."""
        self._targets.clear()
        self._reloaded.clear()
        self.started_s = self.before = None
