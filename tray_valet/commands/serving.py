"""Serving, finding the valet that serves, and ending it.

Decides: what `serve` and `quit` do around the services. Must not: build the services (`app.py` does).
"""

from __future__ import annotations

import os
import time

from tray_valet.commands.client import Client, find_valet
from tray_valet.commands.failures import CommandError
from tray_valet.commands.tables import as_json
from tray_valet.core.processes import ProcessIdentity

_QUIT_TIMEOUT_S = 10.0  # the valet's own bound is 5 s
_LOOK_EVERY_S = 0.02


def serve(*, config_path: str | None, is_root_allowed: bool, is_verbose: bool) -> int:
    """Run the services until they are told to end; returns the exit code.

    Raises RootRefused, AlreadyRunning, AddressInUse, and CommandError where a file cannot be written.
    """
    from tray_valet.app import run_services

    try:
        return run_services(config_path=config_path, is_root_allowed=is_root_allowed, is_verbose=is_verbose)
    except OSError as error:
        raise CommandError(f"The valet cannot work: {error}.") from error


def running_valet() -> Client:
    """A client of this user's running valet. Raises NoValet."""
    from tray_valet.desktop.paths import directories_of

    return Client(find_valet(directories_of(os.environ).runtime_file, is_alive))


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process lives."""
    from tray_valet.adapters.processes import process_table

    return process_table().is_alive(identity)


def quit_valet(client: Client, *, is_json: bool) -> None:
    """End the running valet and wait until its process is gone. Raises CommandError if it stays."""
    client.post("/quit")
    end_s = time.monotonic() + _QUIT_TIMEOUT_S
    while is_alive(client.valet.identity):
        if time.monotonic() >= end_s:
            raise CommandError(
                f"The valet (process {client.valet.pid}) was told to end and still runs.",
                remedy="End that process.",
            )
        time.sleep(_LOOK_EVERY_S)
    print(as_json({"ok": True}) if is_json else "Tray Valet has ended.")
