"""What the guard enforces at each of the two APIs, read from the settings in force.

Decides: hosts, origins, sizes and times. Must not: look at a request.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import msgspec

from tray_valet.core.addresses import as_ip
from tray_valet.core.config import ControlSettings, RouterSettings, Settings
from tray_valet.web.edge.requests import Authority, Origin, host_of, parse_origin

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class GuardPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one API. Sizes in bytes, times in seconds.

    `any_address`: bound to every address, so the one that a connection came in by is ours too.
    `is_json_declared`: a body must be declared to be JSON by programs too, not only by browsers.
    `page_paths`: where a link on another page may lead (a plain navigation), being pages for people.
    """

    hosts: frozenset[Authority]
    any_address: bool
    origins: frozenset[Origin]
    max_body_bytes: int
    body_timeout_s: float
    page_paths: tuple[str, ...] = ()
    max_in_flight: int = 256
    is_json_declared: bool = True


class _Bounds(msgspec.Struct, frozen=True, kw_only=True, eq=False):  # the two below; looked up by identity
    """What the two APIs differ in, whatever the settings say. Fields as in GuardPolicy."""

    body_timeout_s: float
    page_paths: tuple[str, ...]
    max_in_flight: int
    is_json_declared: bool


_CONTROL = _Bounds(
    body_timeout_s=10.0,
    page_paths=("/", "/ui", "/ui/", "/docs"),
    max_in_flight=128,
    is_json_declared=True,
)
_ROUTER = _Bounds(
    body_timeout_s=120.0,  # pictures travel in bodies
    page_paths=(),
    max_in_flight=2048,
    is_json_declared=False,  # Ollama's users send JSON by `curl -d`, which declares it to be a form
)


def control_policy(settings: Settings) -> GuardPolicy:
    """The control API's policy."""
    return _policy(settings.control, _CONTROL)


def router_policy(settings: Settings) -> GuardPolicy:
    """The router API's policy."""
    return _policy(settings.router, _ROUTER)


def as_settings_are(
    make: Callable[[Settings], GuardPolicy], settings: Callable[[], Settings]
) -> Callable[[], GuardPolicy]:
    """The policy at this moment, which is asked for each request."""
    made_of: Settings | None = None
    policy: GuardPolicy | None = None

    def current() -> GuardPolicy:
        nonlocal made_of, policy
        now = settings()
        if policy is None or now is not made_of:
            made_of, policy = now, make(now)
        return policy

    return current


def _policy(section: ControlSettings | RouterSettings, bounds: _Bounds) -> GuardPolicy:
    # One object for as long as nothing in it changes: what passed it need not pass it again.
    return _policy_of(
        section.host, section.allowed_hosts, section.cors_origins, section.max_body_bytes, bounds
    )


@lru_cache(maxsize=8)
def _policy_of(
    host: str,
    allowed_hosts: tuple[str, ...],
    cors_origins: tuple[str, ...],
    max_body_bytes: int,
    bounds: _Bounds,
) -> GuardPolicy:
    hosts = (host, *_LOOPBACK_NAMES, *allowed_hosts)
    address = as_ip(host)
    return GuardPolicy(
        hosts=frozenset(authority for name in hosts if (authority := host_of(name)) is not None),
        any_address=address is not None and address.is_unspecified,
        origins=frozenset(origin for text in cors_origins if (origin := parse_origin(text)) is not None),
        max_body_bytes=max_body_bytes,
        **msgspec.structs.asdict(bounds),
    )
