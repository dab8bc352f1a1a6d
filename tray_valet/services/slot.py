"""One provider, and what is known of it.

Decides: what a request for one of its models takes of this machine. Must not: ask the provider, or change
what is known (the fleet does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tray_valet.core.models import (
    Condition,
    ConditionType,
    Demand,
    InstalledModel,
    LoadedModel,
    Observation,
)
from tray_valet.core.snapshot import ProviderView

if TYPE_CHECKING:
    from tray_valet.core.ports import Provider


INSTALLED_FRESH_S = 30.0  # so old a list of models is at most


class Slot:
    """One provider and what is known of it. Written by the fleet only."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.observation: Observation | None = None
        self.failures = 0
        self.is_down = False
        self.is_stopped = False  # by the user, who knows that it does not answer
        self.is_in_hands = False  # its server is being started or stopped: silence is no news
        self.error = ""
        self.seen_at = 0.0
        self.conditions: dict[ConditionType, Condition] = {}
        self.installed: tuple[InstalledModel, ...] = ()
        self.installed_at_s = -INSTALLED_FRESH_S
        self.looks_begun = 0
        self.look_seen = 0  # the number of the look that the rest tells of

    @property
    def name(self) -> str:
        return self.provider.name

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        return self.observation.loaded if self.observation else ()

    @property
    def loading(self) -> tuple[str, ...]:
        return self.observation.loading if self.observation else ()

    @property
    def state(self) -> str:
        """As in `ProviderView`."""
        return "unreachable" if self.is_down else "ready" if self.observation else "unknown"

    @property
    def is_silence_known(self) -> bool:
        """Whether it would be no news that it does not answer."""
        return self.is_down or self.is_stopped or self.is_in_hands

    def demand(self, model: str) -> Demand:
        """What a request for a model here takes of this machine; a GPU, where it is not known."""
        if not self.provider.is_local:
            return Demand.NOTHING
        for loaded in self.loaded:
            if loaded.name == model:
                return Demand.GPU if loaded.needs_gpu else Demand.CPU
        for installed in self.installed:
            if installed.name == model:
                return Demand.GPU if installed.needs_gpu else Demand.CPU
        return Demand.GPU

    def has(self, model: str) -> bool:
        """Whether a model of that canonical name is known here."""
        return any(m.name == model for m in self.loaded) or any(m.name == model for m in self.installed)

    @property
    def is_listed(self) -> bool:
        """Whether it has ever said what it could load."""
        return self.installed_at_s > -INSTALLED_FRESH_S

    def view(self) -> ProviderView:
        """The picture of it."""
        return ProviderView(
            name=self.name,
            kind=self.provider.kind,
            url=self.provider.endpoint,
            is_local=self.provider.is_local,
            state=self.state,
            version=self.observation.version if self.observation else None,
            conditions=tuple(self.conditions.values()),
            loaded=self.loaded,
            loading=self.loading,
            seen_at=self.seen_at,
        )

    @property
    def essence(self) -> object:
        """What makes a difference to others."""
        return (
            self.is_down,
            self.observation is not None,
            tuple((m.name, m.context_length, m.needs_gpu, m.slots, m.is_in_background) for m in self.loaded),
            self.loading,
        )
