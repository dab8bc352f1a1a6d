"""The services as one program: settings, log, lock, then everything until the end.

Decides: what a process needs before anything is built, and which thread does what: `run_services` has one
thread with the loop; `run_with_tray` gives the main thread to the tray and the loop one of its own.
Must not: build (`wiring.py`, `tray_front.py`), order (`lifecycle.py`), or import the tray for `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from tray_valet.core.errors import ValetError
from tray_valet.desktop.log_files import start_log
from tray_valet.desktop.paths import Directories, config_file_of, directories_of
from tray_valet.desktop.single_instance import InstanceLock
from tray_valet.desktop.system import refuse_root
from tray_valet.services.settings import SettingsStore

if TYPE_CHECKING:  # imported when the lock is ours: a second start is to be quick
    from tray_valet.wiring import Wiring

_SWITCH_INTERVAL_S = 0.0005
_COLLECT_AFTER_OBJECTS = 10_000
_LOG = logging.getLogger(__name__)
Loops = Mapping[str, Callable[[], Awaitable[None]]]


def run_services(
    *, config_path: str | None = None, is_root_allowed: bool = False, is_verbose: bool = False
) -> int:
    """Run the services in this thread until SIGTERM, Ctrl-C or a quit command; returns the exit code.

    Raises RootRefused, AlreadyRunning, AddressInUse, OSError.
    """
    with (
        _prepared(config_path, is_root_allowed, is_verbose) as (directories, store),
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve_to_the_end(directories, store))
    return 0


async def _serve_to_the_end(directories: Directories, store: SettingsStore) -> None:
    """Serve until a signal or a quit command; then the process ends."""
    from tray_valet.loop_thread import end_signals_handled

    loop = asyncio.get_running_loop()
    has_come = asyncio.Event()

    def begin(valet: Wiring) -> Loops:
        async def quit_on_signal() -> None:
            await has_come.wait()
            valet.quit_requested.set()

        return {"signals": quit_on_signal}

    with end_signals_handled(lambda *_: loop.call_soon_threadsafe(has_come.set), are_last=True):
        await _serve(directories, store, begin)


def run_with_tray(
    *,
    say: Callable[[str], None],
    config_path: str | None = None,
    is_root_allowed: bool = False,
    is_verbose: bool = False,
) -> int:
    """Run the tray in this (the main) thread and the services beside it; returns the exit code.

    Where there can be no tray, `say` is told why, once, and the services run on without. Raises as
    `run_services` does.
    """
    with _prepared(config_path, is_root_allowed, is_verbose) as (directories, store):
        from tray_valet.loop_thread import EndSignals, LoopThread
        from tray_valet.tray_front import TrayFront

        signals = EndSignals()
        front = TrayFront(say)

        def begin(valet: Wiring) -> Loops:
            async def quit_on_signal() -> None:
                await signals.wait()
                valet.quit_requested.set()

            return {"signals": quit_on_signal, **front.loops(valet)}

        services = LoopThread(
            lambda: _serve(directories, store, begin), on_end=front.close, loop_factory=_loop_factory()
        )
        with signals.caught(are_last=True):
            services.start()
            try:
                front.run()
            finally:
                services.join()
    return 0


@contextlib.contextmanager
def _prepared(
    config_path: str | None, is_root_allowed: bool, is_verbose: bool
) -> Iterator[tuple[Directories, SettingsStore]]:
    """Hold the lock, with settings read and the log open."""
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
        yield directories, store
    finally:
        lock.release()


async def _serve(directories: Directories, store: SettingsStore, begin: Callable[[Wiring], Loops]) -> None:
    """Build everything and live; `begin` may add loops once it is built."""
    from tray_valet.lifecycle import Lifecycle
    from tray_valet.wiring import Wiring

    valet = Wiring(directories, store)
    try:
        await Lifecycle(valet, {**begin(valet), "collector": _spare_the_collector}).run()
    except ValetError:
        await valet.ground.fleet.close()
        raise


async def _spare_the_collector() -> None:
    """Have Python's collector pass over what is there once everything has started: it stays anyway.

    Requests leave it nothing to do, as they make no cycles; but with its own threshold (700 objects) it would
    look for some every few requests, a tenth of what a short one costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (the extra `speed`), for a quicker router; None = asyncio's own."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop
