"""Addresses: which hosts are this machine, which are private, what an origin looks like.

Decides: whether a host or URL may be bound to, contacted as a local provider, or trusted as an origin.
Must not: resolve names. A name that only DNS could judge counts as public.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")
_ORIGIN_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{1,31}\Z")
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",  # RFC 3927, link-local
        "::1/128",
        "fc00::/7",  # RFC 4193, unique local
        "fe80::/10",  # RFC 4291, link-local
    )
)
# Clouds answer credentials there; it is never a provider.
_METADATA = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254")))

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class UrlParts(msgspec.Struct, frozen=True):
    """An http or https address, taken apart. `host` is without brackets, `port` None = the scheme's."""

    scheme: str
    host: str
    port: int | None
    path: str


def split_url(url: str) -> UrlParts | None:
    """Take an http(s) URL apart; None if it is none, or carries a user name, query or fragment."""
    if not url.isascii() or any(char.isspace() or not char.isprintable() or char == "\\" for char in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or port == 0:
        return None
    if "?" in url or "#" in url or not is_host(host):
        return None
    return UrlParts(parts.scheme, host, port, parts.path)


def is_host(host: str) -> bool:
    """Whether that is an IP address or a host name by its form."""
    if as_ip(host) is not None:
        return True
    # Names whose last label is a number are IPv4 in disguise (0x7f.1, 2130706433): WHATWG URL, "ends in
    # a number checker".
    last = host.rstrip(".").rpartition(".")[2]
    return bool(_HOST_NAME.match(host)) and re.fullmatch(r"\d+|0[xX][0-9A-Fa-f]*", last) is None


def as_ip(host: str) -> IpAddress | None:
    """The IP address in its canonical meaning (IPv4 in IPv6 is unwrapped); None for a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]") if host.startswith("[") else host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_loopback_host(host: str) -> bool:
    """Whether connecting to (or binding) that host stays on this machine."""
    address = as_ip(host)
    if address is not None:
        return address.is_loopback
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")  # RFC 6761, 6.3


def is_private_host(host: str) -> bool:
    """Whether that host is this machine, on the local network by its address, or an mDNS name."""
    address = as_ip(host)
    if address is None:
        return is_loopback_host(host) or host.lower().rstrip(".").endswith(".local")  # RFC 6762
    if isinstance(address, ipaddress.IPv6Address):
        address = ipaddress.IPv6Address(int(address))  # without its zone
    return address not in _METADATA and any(
        address in network for network in _PRIVATE if network.version == address.version
    )


def is_origin(text: str) -> bool:
    """Whether that is one web origin (scheme, host, perhaps a port; RFC 6454), never `*` or `null`."""
    scheme, separator, rest = text.partition("://")
    if not separator or not _ORIGIN_SCHEME.match(scheme) or scheme == "file":
        return False
    parts = split_url("http://" + rest)
    return parts is not None and parts.path == "" and rest == rest.lower()
