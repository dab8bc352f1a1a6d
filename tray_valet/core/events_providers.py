"""Facts of providers: whether they answer, and what became of their servers.

Decides: which facts there are of them and what each carries (seconds). Must not: word them
(`fact_sentences.py` does).
"""

from __future__ import annotations

import msgspec


class ProviderLost(msgspec.Struct, frozen=True, kw_only=True, tag="provider_lost"):
    """A provider has not answered several times in a row."""

    provider: str
    message: str


class ProviderBack(msgspec.Struct, frozen=True, kw_only=True, tag="provider_back"):
    """A provider answers again."""

    provider: str


class ServiceStarted(msgspec.Struct, frozen=True, kw_only=True, tag="service_started"):
    """The user had a provider's server started (or restarted), and it answers."""

    provider: str
    took_s: float
    is_restart: bool = False


class ServiceStopped(msgspec.Struct, frozen=True, kw_only=True, tag="service_stopped"):
    """The user had a provider's server stopped, and it is gone. `was_killed`: it did not end when asked."""

    provider: str
    took_s: float
    was_killed: bool = False


class ServiceFailed(msgspec.Struct, frozen=True, kw_only=True, tag="service_failed"):
    """A provider's server could not be started, stopped or restarted (`action`)."""

    provider: str
    action: str
    message: str  # with the remedy


ProviderFact = ProviderLost | ProviderBack | ServiceStarted | ServiceStopped | ServiceFailed
