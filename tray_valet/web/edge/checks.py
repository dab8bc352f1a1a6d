"""What a request's head must be like: the Host, the page it comes from, what its body is declared to be.

Decides: Host (400), Origin and Sec-Fetch-Site (403), JSON only (415). Must not: read bodies or keys.

Any web page can make a browser send requests to 127.0.0.1. The Host check stops names that an attacker lets
point here (DNS rebinding), the Origin check stops pages of other sites, and the JSON check stops forms.
"""

from __future__ import annotations

from functools import lru_cache

from tray_valet.web.edge.errors import EdgeCode, ErrorType, HttpError
from tray_valet.web.edge.policies import GuardPolicy
from tray_valet.web.edge.requests import (
    Authority,
    Origin,
    RequestHead,
    host_of,
    parse_authority,
    parse_origin,
)

_BROWSERS_ONLY = frozenset({b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"})
_OF_PAGES = frozenset({b"origin", b"referer", b"sec-fetch-site"})
_OWN_SITE = frozenset({"", "same-origin", "none"})
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def check_host(head: RequestHead, policy: GuardPolicy) -> None:
    """Raise 400 unless the Host header names this machine as the settings know it."""
    value = head.one(b"host")
    if value is not None and _names_us(value, policy.hosts):
        return
    authority = _authority_of(value) if value is not None else None
    if authority is None or not _is_ours(authority, head, policy):
        raise HttpError(
            400,
            ErrorType.INVALID_REQUEST,
            EdgeCode.BAD_HOST,
            "The Host header does not name this machine. Names beside localhost go into allowed_hosts.",
        )


def check_origin(head: RequestHead, policy: GuardPolicy) -> Origin | None:
    """Raise 403 for a page that is not ours. Return the origin if the settings' cors_origins list it."""
    if head.has_none_of(_OF_PAGES):
        return None  # as programs do, unlike browsers
    values = head.all(b"origin")
    origin = parse_origin(values[0].decode("latin-1").strip()) if len(values) == 1 else None
    if values:
        if origin is not None and origin in policy.origins:
            return origin
        if origin is not None and _is_own_origin(origin, head, policy):
            return None
        raise _foreign_page()
    if head.text(b"sec-fetch-site").lower() not in _OWN_SITE or len(head.all(b"sec-fetch-site")) > 1:
        if not _is_plain_navigation(head, policy):
            raise _foreign_page()
    elif head.method in WRITES and not head.all(b"sec-fetch-site"):
        # Browsers too old for both headers still send the page they came from.
        _check_referer(head, policy)
    return None


def is_from_browser(head: RequestHead) -> bool:
    """Whether a browser may have sent it: one that a page made, without a word of where from, has its name.

    Pages can neither leave these headers out of what they make a browser send nor change all of them; old
    browsers lack some, so each counts.
    """
    if not head.has_none_of(_BROWSERS_ONLY):
        return True
    return any(b"mozilla" in value.lower() for value in head.all(b"user-agent"))


def check_json(head: RequestHead, policy: GuardPolicy) -> None:
    """Raise 415 unless the body is declared to be JSON, or need not be."""
    kind = head.one(b"content-type")
    if kind is not None and _is_json(kind):
        return
    if policy.is_json_declared or is_from_browser(head):
        raise HttpError(
            415,
            ErrorType.INVALID_REQUEST,
            EdgeCode.NOT_JSON,
            "The body must be JSON. Send the header “Content-Type: application/json”.",
        )


@lru_cache(maxsize=64)
def _names_us(host: bytes, hosts: frozenset[Authority]) -> bool:
    """Whether a Host header has one of these names. Clients send the same few over and over."""
    authority = _authority_of(host)
    return authority is not None and _is_among(authority, hosts)


def _authority_of(host: bytes) -> Authority | None:
    return parse_authority(host.decode("latin-1").strip())


def _is_among(authority: Authority, hosts: frozenset[Authority]) -> bool:
    return authority in hosts or Authority(authority.host, None) in hosts


def _is_json(kind: bytes) -> bool:
    return kind == b"application/json" or kind.partition(b";")[0].strip().lower() == b"application/json"


def _check_referer(head: RequestHead, policy: GuardPolicy) -> None:
    referer = head.text(b"referer")
    if not referer:
        return
    scheme, _, rest = referer.partition("://")
    origin = parse_origin(f"{scheme}://{rest.split('/', 1)[0].split('?', 1)[0]}")
    if origin is None or not (origin in policy.origins or _is_own_origin(origin, head, policy)):
        raise _foreign_page()


def _is_plain_navigation(head: RequestHead, policy: GuardPolicy) -> bool:
    """A link that a person followed to a page of ours: nothing is readable by the page it was on."""
    return (
        head.method in ("GET", "HEAD")
        and head.path in policy.page_paths
        and head.text(b"sec-fetch-mode") == "navigate"
        and head.text(b"sec-fetch-dest") == "document"
    )


def _is_ours(authority: Authority, head: RequestHead, policy: GuardPolicy) -> bool:
    if _is_among(authority, policy.hosts):
        return True
    # Bound to every address: the one this connection came in by. An address cannot be rebound.
    came_in_by = host_of(head.server_host) if policy.any_address and head.server_host else None
    return came_in_by is not None and authority.host == came_in_by.host


def _is_own_origin(origin: Origin, head: RequestHead, policy: GuardPolicy) -> bool:
    """Same scheme, one of our hosts, and our port, or the port that a tunnel gave us (Host's own)."""
    if origin.scheme != head.scheme or not _is_ours(Authority(origin.host, origin.port), head, policy):
        return False
    shown = parse_origin(f"{head.scheme}://{head.text(b'host')}")
    return origin.port in (head.server_port, shown.port if shown else None)


def _foreign_page() -> HttpError:
    return HttpError(
        403,
        ErrorType.PERMISSION,
        EdgeCode.ORIGIN_REFUSED,
        "Web pages of other origins may not call. Origins that may go into cors_origins.",
    )
