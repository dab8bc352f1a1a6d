"""The service of an engine: from what is there to the one way it is started and stopped, or why not.

Decides: which way is taken, and the sentence with its remedy where there is none. Must not: look at the
system or do anything (`desktop/service_*.py` do, one a system).

A service that belongs to the administrator, to a container or to another user is never touched, not even
when we could: whoever started it would start it again, and its models are not where the user's are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from tray_valet.core.errors import NotSupported
from tray_valet.core.processes import Process, ProcessIdentity, System

DOWNLOAD_PAGE = "https://ollama.com/download"


class ServiceAction(StrEnum):
    """What is asked of a service. The values are the words of the API and of the command line."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class Way(StrEnum):
    """How a server is, or was, started."""

    USER_UNIT = "systemd user unit"
    SYSTEM_UNIT = "systemd system unit"
    PROGRAM = "ollama serve"
    MAC_APP = "Ollama.app"
    LAUNCH_AGENT = "launch agent"
    WINDOWS_SERVICE = "Windows service"
    WINDOWS_APP = "Ollama's tray app"
    CONTAINER = "container"


class ServerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The process that answers at the address. `kept_by`: who has started it, and would again."""

    identity: ProcessIdentity
    name: str  # of its program, as people know it
    is_ollama: bool  # it is Ollama's server, not a proxy or a tunnel to one
    is_ours: bool  # the system lets us end it
    is_certain: bool = True  # it was seen to hold the port; else it is the only Ollama server there is
    kept_by: Way = Way.PROGRAM


class ServiceSite(msgspec.Struct, frozen=True, kw_only=True):
    """What there is on this machine at one moment.

    `installed`: the ways to start it, the first is the one to take. `keepers`: processes that would start
    the server again, to be ended before it. `runners`: what holds its models, by parentage.
    """

    system: System
    installed: tuple[Way, ...] = ()
    server: ServerSeen | None = None
    keepers: tuple[ProcessIdentity, ...] = ()
    runners: tuple[ProcessIdentity, ...] = ()


class ServicePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done. None: nothing, it is so already."""

    stop_by: Way | None = None
    start_by: Way | None = None


class ServiceBegun(msgspec.Struct, frozen=True, kw_only=True):
    """An action that has begun. `is_done`: there was nothing to do; `message` says what comes."""

    action: ServiceAction
    provider: str
    message: str
    is_done: bool = False


class FoundServer(msgspec.Struct, frozen=True, kw_only=True):
    """The process that listens at an address. `is_certain`: it was seen to hold the port."""

    process: Process
    is_certain: bool
    is_ollama: bool


class ServerProcesses(Protocol):
    """Finds the processes of the server at one address of this machine. Slow calls: worker threads."""

    def server(self) -> FoundServer | None: ...

    def runners(self, server: ProcessIdentity) -> tuple[ProcessIdentity, ...]:
        """What holds the server's models, told by parentage."""
        ...


class EngineService(Protocol):
    """One server's service on this system. Every call blocks (seconds, bounded): use worker threads."""

    def look(self) -> ServiceSite:
        """What there is now; never raises."""
        ...

    def run(self, action: ServiceAction, way: Way) -> None:
        """Have it started or stopped by that way; returning says that it was asked, not that it has
        happened. RESTART: by ways that know it (`can_restart`). Raises ServiceRefused."""
        ...

    def why_ended(self) -> str:
        """Why the server that `run` started has ended again, one sentence; "" as long as it has not."""
        ...


class ServiceRefused(NotSupported):
    """The system refused to start or stop a service; the remedy says who can."""


def can_restart(way: Way | None) -> bool:
    """Whether that way restarts by one command of its own."""
    return way is Way.USER_UNIT


def plan_for(
    action: ServiceAction, site: ServiceSite, *, provider: str, url: str, is_answering: bool
) -> ServicePlan:
    """What to do for `action`. `is_answering`: something answers at the provider's address.

    Raises NotSupported with the remedy when that is not for us to do.
    """
    if site.server is not None and not site.server.is_certain and not is_answering:
        site = msgspec.structs.replace(site, server=None)  # it serves another address
    if action is ServiceAction.START:
        return ServicePlan(start_by=None if is_answering or site.server else _way_to_start(site))
    if site.server is None and is_answering:
        raise _hidden(site, url, action)
    if action is ServiceAction.STOP:
        return ServicePlan(stop_by=_way_to_stop(site, provider, url, action))
    stop_by = _way_to_stop(site, provider, url, action) if site.server else None
    return ServicePlan(stop_by=stop_by, start_by=_way_to_start(site, stop_by))


def _way_to_start(site: ServiceSite, before: Way | None = None) -> Way:
    """The way it ran by `before`, else the first there is."""
    if before is not None and before in site.installed:
        return before
    if not site.installed:
        raise NotSupported(
            "No Ollama was found on this machine.",
            remedy=f"Install it ({DOWNLOAD_PAGE}), or start it where it is.",
        )
    way = site.installed[0]
    if way is Way.SYSTEM_UNIT:
        raise _not_ours(way, ServiceAction.START)
    return way


def _way_to_stop(site: ServiceSite, provider: str, url: str, action: ServiceAction) -> Way | None:
    server = site.server
    if server is None:
        # A unit that is starting, or being restarted again and again, has no server at the moment.
        return Way.USER_UNIT if Way.USER_UNIT in site.installed else None
    if server.kept_by in (Way.SYSTEM_UNIT, Way.CONTAINER):
        raise _not_ours(server.kept_by, action)
    if not server.is_ollama:
        raise NotSupported(
            f"What answers at {url} is not Ollama's own server but {server.name} "
            f"(process {server.identity.pid}).",
            remedy=f"{action.value.capitalize()} it where it was started, "
            f"or give the provider {provider} Ollama's own address.",
        )
    if not server.is_ours and server.kept_by is not Way.WINDOWS_SERVICE:
        raise _another_users(site, action)
    if server.kept_by is Way.PROGRAM and Way.USER_UNIT in site.installed:
        return Way.USER_UNIT  # else the unit takes the address as soon as the program has gone
    return server.kept_by


def _hidden(site: ServiceSite, url: str, action: ServiceAction) -> NotSupported:
    """Something answers, but which process it is the system does not tell: it is not ours."""
    if Way.SYSTEM_UNIT in site.installed:
        return _not_ours(Way.SYSTEM_UNIT, action)
    if Way.WINDOWS_SERVICE in site.installed:
        return NotSupported(
            f"Which process answers at {url} cannot be told.",
            remedy=f"As an administrator: sc {_sc_word(action)} Ollama.",
        )
    return _another_users(site, action)


def _not_ours(way: Way, action: ServiceAction) -> NotSupported:
    if way is Way.CONTAINER:
        return NotSupported(
            "Ollama runs in a container.",
            remedy=f"Use: docker {action.value} NAME (podman {action.value} NAME); docker ps tells the name.",
        )
    return NotSupported(
        "Ollama is a system service here, which only the administrator may start and stop.",
        remedy=f"Use: sudo systemctl {action.value} ollama. Or make it a unit of your own: "
        "~/.config/systemd/user/ollama.service.",
    )


def _another_users(site: ServiceSite, action: ServiceAction) -> NotSupported:
    if site.system is System.WINDOWS:
        remedy = "End it as that user, or in the Task Manager as an administrator."
    else:
        remedy = (
            f"{action.value.capitalize()} it as that user, or with sudo; a container with docker or podman."
        )
    return NotSupported("Ollama runs as another user, or in a container.", remedy=remedy)


def _sc_word(action: ServiceAction) -> str:
    return "start" if action is ServiceAction.START else "stop"
