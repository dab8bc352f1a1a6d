"""The doctor's looks at an Ollama of this machine from outside: whose it is, how it was started, who uses it.

Decides: how each is looked at. Must not: judge (`core/checkup_providers.py` does), or ask Ollama anything.
"""

from __future__ import annotations

import os

from tray_valet.commands.doctor_ground import Ground
from tray_valet.core import checkup_providers as rules
from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.checkup import Finding
from tray_valet.core.checkup_providers import OllamaProcessSeen
from tray_valet.core.config_providers import OllamaSettings

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OLLAMA_PORT = 11434


def ollama_rights(ground: Ground) -> Finding:
    """Whose Ollama it is."""
    from tray_valet.desktop.system import is_root

    return rules.of_ollama_rights(_ollama_process(ground), is_root=is_root())


def ollama_settings(ground: Ground) -> Finding:
    """The variables that Ollama was started with."""
    urls = tuple(wish.url for wish in ground.of_kind(OllamaSettings).values())
    own = ground.environ.get("OLLAMA_HOST", "")
    return rules.of_ollama_settings(
        _ollama_process(ground), urls, own if own and urls and not _is_one_of(own, urls) else None
    )


def _is_one_of(own_host: str, urls: tuple[str, ...]) -> bool:
    """Whether OLLAMA_HOST (`host`, `host:port` or an address) means one of these."""
    parts = split_url(own_host if "//" in own_host else f"http://{own_host}")
    if parts is None:
        return True  # what is meant is not clear
    port = parts.port or (_OLLAMA_PORT if "//" not in own_host else _DEFAULT_PORTS[parts.scheme])
    for url in urls:
        there = split_url(url)
        if there is None or (there.port or _DEFAULT_PORTS[there.scheme]) != port:
            continue
        is_any = parts.host in ("0.0.0.0", "::", "[::]")
        if is_any or there.host == parts.host or all(map(is_loopback_host, (there.host, parts.host))):
            return True
    return False


def _ollama_process(ground: Ground) -> OllamaProcessSeen:
    """The server of the first Ollama on this machine, with what the system lets us see."""
    import psutil

    from tray_valet.providers.ollama_environment import ollama_environment
    from tray_valet.providers.ollama_processes import find_server

    port = ollama_port(ground)
    server = find_server(ground.table, port) if port is not None else None
    if server is None:
        return OllamaProcessSeen()
    try:
        owner, me = psutil.Process(server.identity.pid).username(), psutil.Process().username()
    except psutil.Error:
        return OllamaProcessSeen(pid=server.identity.pid, is_ours=False)
    return OllamaProcessSeen(
        pid=server.identity.pid,
        owner=owner,
        is_ours=owner == me,
        environment=ollama_environment(server.identity.pid),
    )


def ollama_port(ground: Ground) -> int | None:
    """The port of the first Ollama on this machine."""
    for wish in ground.of_kind(OllamaSettings).values():
        parts = split_url(wish.url)
        if parts is not None and is_loopback_host(parts.host):
            return parts.port or _DEFAULT_PORTS[parts.scheme]
    return None


def ollama_clients(ground: Ground) -> Finding:
    """Who is connected to Ollama that is not the valet."""
    port = ollama_port(ground)
    router = ground.settings.router
    default = f"http://{router.host}:{router.port}"
    url = (ground.valet.of("/status").get("router_url") if ground.valet else None) or default
    return rules.of_ollama_clients(() if port is None else _clients_of(ground, port), url)


def _clients_of(ground: Ground, port: int) -> tuple[str, ...] | None:
    """Programs with a connection to that port of this machine; None where the system does not tell."""
    import psutil

    from tray_valet.providers.ollama_processes import find_server

    server = find_server(ground.table, port)
    if server is None:
        return ()
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    known = {os.getpid(), server.identity.pid, ground.valet.runtime.pid if ground.valet else 0}
    known |= {child.pid for child in ground.table.descendants(server.identity.pid)}
    pids = {
        c.pid
        for c in connections
        if c.status == psutil.CONN_ESTABLISHED
        and c.raddr
        and c.raddr.port == port
        and is_loopback_host(c.raddr.ip)
        and c.pid not in known
    }
    names = []
    for pid in sorted(pid for pid in pids if pid is not None):
        process = ground.table.describe(pid)
        name = os.path.basename(process.exe) if process is not None else ""
        names.append(f"{name or 'a program'} (PID {pid})")
    if None in pids:
        names.append("a program of another user")
    return tuple(names)
