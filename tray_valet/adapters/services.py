"""How the server behind a provider is started and stopped on this system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.models import ProviderKind
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import System
from tray_valet.core.service_plan import EngineService

_DEFAULT_PORTS = {"http": 80, "https": 443}


class ServiceAdapters:
    """The services of this machine's servers. Each is kept: it knows what it has started."""

    def __init__(
        self, system: System, table: ProcessTable, environ: Mapping[str, str], log_file: Path
    ) -> None:
        """`log_file`: where a server that we start writes."""
        self._system = system
        self._table = table
        self._environ = environ
        self._log_file = log_file
        self._services: dict[str, EngineService] = {}

    def service_of(self, kind: ProviderKind, url: str) -> EngineService | None:
        """The service of the server at `url`; None where it has none that can be had from here."""
        parts = split_url(url)
        if kind is not ProviderKind.OLLAMA or parts is None or not is_loopback_host(parts.host):
            return None
        if url not in self._services:
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
            self._services[url] = self._build(url, port)
        return self._services[url]

    def _build(self, url: str, port: int) -> EngineService:
        from tray_valet.desktop.service_program import ServeProgram
        from tray_valet.providers.ollama_processes import OllamaProcesses

        processes = OllamaProcesses(self._table, port)

        def program(*places: str) -> ServeProgram:
            return ServeProgram(
                places, url, environ=self._environ, log_file=self._log_file, table=self._table
            )

        if self._system is System.LINUX:
            from tray_valet.desktop import service_linux

            places = service_linux.program_places(self._environ)
            return service_linux.LinuxService(
                processes, program(*places), may_end=service_linux.may_be_signalled
            )
        if self._system is System.MACOS:
            from tray_valet.desktop.service_macos import PROGRAM_PLACES, MacService

            uid = os.getuid() if hasattr(os, "getuid") else 0
            return MacService(processes, program(*PROGRAM_PLACES), self._table, uid=uid, home=Path.home())
        from tray_valet.desktop import service_windows

        return service_windows.WindowsService(
            processes,
            program(*service_windows.program_places(self._environ)),
            self._table,
            environ=self._environ,
            log_file=self._log_file,
            may_end=service_windows.is_own_process,
        )
