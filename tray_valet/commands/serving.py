"""Serving with and without a tray, finding the valet that serves, its window, and ending it.

Decides: what a second start does, and what `open` and `quit` say. Must not: build anything (`app.py` does).
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tray_valet.commands.client import Client, find_valet
from tray_valet.commands.failures import CommandError, NoValet
from tray_valet.commands.tables import as_json
from tray_valet.core.processes import ProcessIdentity

_QUIT_TIMEOUT_S = 10.0  # the valet's own bound is 5 s
_LOOK_EVERY_S = 0.02
_OPEN_TIMEOUT_S = 90.0  # several ways may be tried, each with its own bound
_OTHER_START_S = 15.0  # another start may be on its way up, or an end on its way down
_OTHER_LOOK_S = 0.1


def serve(*, config_path: str | None, is_root_allowed: bool, is_verbose: bool) -> int:
    """Run the services until they are told to end; returns the exit code.

    Raises RootRefused, AlreadyRunning, AddressInUse, and CommandError where a file cannot be written.
    """
    from tray_valet.app import run_services

    try:
        return run_services(config_path=config_path, is_root_allowed=is_root_allowed, is_verbose=is_verbose)
    except OSError as error:
        raise CommandError(f"The valet cannot work: {error}.") from error


def serve_with_tray(
    *, config_path: str | None, is_root_allowed: bool, is_verbose: bool, is_json: bool
) -> int:
    """Run tray and services until they are told to end; where a valet runs already, open its window.

    Returns the exit code. Raises as `serve` does; AlreadyRunning if the other one does not answer.
    """
    from tray_valet.app import run_with_tray
    from tray_valet.desktop.single_instance import AlreadyRunning

    end_s = time.monotonic() + _OTHER_START_S
    while True:
        try:
            return run_with_tray(
                say=_say, config_path=config_path, is_root_allowed=is_root_allowed, is_verbose=is_verbose
            )
        except OSError as error:
            raise CommandError(f"The valet cannot work: {error}.") from error
        except AlreadyRunning:
            if _handed_over(is_json=is_json):
                return 0
            if time.monotonic() >= end_s:
                raise
            time.sleep(_OTHER_LOOK_S)


def _handed_over(*, is_json: bool) -> bool:
    """Have the running valet open its window; False while it does not answer (yet, or any more)."""
    try:
        client = running_valet()
        client.get("/")
    except (NoValet, CommandError):
        return False
    open_window(client, is_json=is_json, before="Tray Valet is already running. ")
    return True


def open_window(client: Client, *, is_json: bool, before: str = "") -> None:
    """Open the running valet's window, or bring it to the front. Raises ApiError, CommandError."""
    answer: dict[str, Any] = client.post("/open", timeout_s=_OPEN_TIMEOUT_S)
    if is_json:
        print(as_json(answer))
    elif answer.get("way") == "address":
        print(f"{before}No window can be opened here. Tray Valet is at {answer.get('url')}")
    elif answer.get("way") == "focused":
        print(f"{before}The window is in front.")
    else:
        print(f"{before}The window is open.")


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


def _say(text: str) -> None:
    if sys.stderr is not None:  # None: started without a console
        print(f"tray-valet: {text}", file=sys.stderr, flush=True)
