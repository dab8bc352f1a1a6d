"""Model names: which model at which provider a name means, as the providers were last seen.

Decides: that names are exact (never another tag), and what somebody is told who asks for one that is not
there. Must not: ask a provider, or know aliases and pools (`core.routing` does).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from tray_valet.core.errors import ProviderUnreachable, UnknownModel, ValetError
from tray_valet.core.models import ModelRef
from tray_valet.services.slot import Slot


def found(slots: Mapping[str, Slot], name: str, provider: str | None) -> ModelRef | None:
    """The model of that name, at that provider if one is given.

    `provider/model` means that provider's model first of all; then who is called exactly so comes before
    whose name it is only once it is spelled out (`m` for `m:latest`).
    """
    prefix, _, rest = name.partition("/")
    if rest and provider in (None, prefix) and (named := slots.get(prefix)) is not None:
        canonical = named.provider.canonical(rest)
        if named.has(canonical):
            return ModelRef(named.name, canonical)
    asked = [slot for slot in slots.values() if provider in (None, slot.name)]
    for slot in asked:
        if slot.has(name):
            return ModelRef(slot.name, name)
    for slot in asked:
        canonical = slot.provider.canonical(name)
        if slot.has(canonical):
            return ModelRef(slot.name, canonical)
    return None


def presumed(slots: Mapping[str, Slot], model: str, provider: str) -> ModelRef | None:
    """The model at a provider that cannot say now whether it has it; None where it can."""
    slot = slots.get(provider)
    if slot is None or not (slot.is_down or not slot.is_listed):
        return None
    return ModelRef(slot.name, slot.provider.canonical(model))


def unknown(slots: Mapping[str, Slot], name: str, provider: str | None) -> ValetError:
    """Why there is no such model: its provider does not answer, or nobody has it; with the nearest name."""
    named = slots.get(provider or name.partition("/")[0])
    if named is not None and named.is_down:
        return ProviderUnreachable(f"{named.name} does not answer. {named.error}")
    asked = [slot for slot in slots.values() if provider in (None, slot.name)]
    for slot in asked:
        for model, why in (slot.observation.unloadable if slot.observation else {}).items():
            if name in (model, f"{slot.name}/{model}"):
                return UnknownModel(
                    why, remedy=f"Correct providers.{slot.name} in the settings.", param="model"
                )
    nobody = (
        f"No model is called “{name}”." if provider is None else f"{provider} has no model called “{name}”."
    )
    if provider is not None and (other := found(slots, name, None)) is not None:
        return UnknownModel(nobody, remedy=f"{other.provider} has one.", param="model")
    names = [m.name for slot in asked for m in slot.installed]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else ""
    if not near and not names and any(slot.is_down for slot in asked):
        hint = "The provider that may have it does not answer."
    return UnknownModel(nobody, remedy=hint, param="model")
