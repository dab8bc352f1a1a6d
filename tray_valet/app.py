"""The services as one program: settings, log, lock, then everything on one loop until the end.

Decides: what a process needs before anything is built. Must not: build (`wiring.py`), order (`lifecycle.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from tray_valet.core.errors import ValetError
from tray_valet.desktop.log_files import start_log
from tray_valet.desktop.paths import Directories, config_file_of, directories_of
from tray_valet.desktop.single_instance import InstanceLock
from tray_valet.desktop.system import refuse_root
from tray_valet.lifecycle import Lifecycle
from tray_valet.services.settings import SettingsStore
from tray_valet.wiring import Wiring

_SWITCH_INTERVAL_S = 0.0005
_LOG = logging.getLogger(__name__)


def run_services(
    *, config_path: str | None = None, is_root_allowed: bool = False, is_verbose: bool = False
) -> int:
    """Run the services in this thread until SIGTERM, Ctrl-C or a quit command; returns the exit code.

    Raises RootRefused, AlreadyRunning, AddressInUse, OSError.
    """
    # Worker threads measure while the loop answers: short turns keep the slowest answers quick.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    refuse_root(is_allowed=is_root_allowed or os.environ.get("TRAY_VALET_ALLOW_ROOT") == "1")
    directories = directories_of(os.environ)
    directories.make()
    lock = InstanceLock(directories.state_dir / "lock")
    lock.acquire()
    try:
        store = SettingsStore(
            config_file_of(directories, os.environ, config_path),
            os.environ,
            last_good_file=directories.last_good_config_file,
        )
        settings = store.load()
        start_log(
            directories.log_file, settings.log.level.value, file=settings.log.file, is_verbose=is_verbose
        )
        for warning in store.warnings:
            _LOG.warning("%s", warning)
        if store.problem is not None:
            _LOG.error("The settings have a mistake; the last good ones are in use: %s", store.problem)
        asyncio.run(_serve(directories, store))
    finally:
        lock.release()
    return 0


async def _serve(directories: Directories, store: SettingsStore) -> None:
    valet = Wiring(directories, store)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, valet.quit_requested.set)
        except NotImplementedError:  # Windows: the loop cannot; the handler may only set the event
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(valet.quit_requested.set))
    try:
        await Lifecycle(valet).run()
    except ValetError:
        await valet.fleet.close()
        raise
