"""Preloading: the models that the settings want in memory from the start.

Decides: when it is time (nothing is set aside, nothing is being brought back). Must not: hold up the start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tray_valet.core.errors import Paused, ValetError
from tray_valet.core.models import LoadRequest
from tray_valet.core.watchdog import State
from tray_valet.services.fleet import Fleet
from tray_valet.services.loader import Loader
from tray_valet.services.watchdog import Watchdog

_LOG = logging.getLogger(__name__)
_DAY_S = 86400.0
_EVERYTHING = "*"


async def preload(
    fleet: Fleet, loader: Loader, watchdog: Watchdog, names: Callable[[], Sequence[str]]
) -> None:
    """Load the named models one after the other, once; `*` is every installed one."""
    if not names():
        return
    await _calm(watchdog)
    wanted = list(names())
    if _EVERYTHING in wanted:
        wanted = [f"{slot.name}/{model.name}" for slot, model in await fleet.installed()]
    for name in wanted:
        while not await _is_settled(fleet, loader, name):
            await _calm(watchdog)


async def _calm(watchdog: Watchdog) -> None:
    while await watchdog.settled(frozenset({State.RUNNING}), _DAY_S) is not State.RUNNING:
        continue


async def _is_settled(fleet: Fleet, loader: Loader, name: str) -> bool:
    """Load one; False when a pause came in between, so that it has to be tried again after it."""
    try:
        slot, model = await fleet.resolve(name)
        await loader.ensure(slot, LoadRequest(model=model))
    except Paused as refusal:
        _LOG.info("Preloading %s waits: %s", name, refusal)
        return False
    except ValetError as error:
        _LOG.error("%s could not be preloaded: %s", name, error)
    return True
