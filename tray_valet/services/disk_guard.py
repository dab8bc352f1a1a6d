"""The disk guard: whether the volume that holds a provider's models has room for another one.

Decides: which folder counts, and how much has to be free. Must not: delete anything to make room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tray_valet.core.errors import DiskFull
from tray_valet.core.metrics import DiskSample
from tray_valet.core.ports import Provider
from tray_valet.core.wording import size

LEAST_FREE_BYTES = 5120 * 2**20
_MEASURE_S = 3.0


class DiskGuard:
    """Measures in worker threads. `own_folder` is where our own models lie, when a provider tells of none.

    `disk(path)` measures the volume of a path (which need not exist), or answers None.
    """

    def __init__(self, disk: Callable[[str], DiskSample | None], own_folder: Callable[[], str]) -> None:
        self._disk = disk
        self._own_folder = own_folder

    async def check(self, provider: Provider) -> None:
        """Raise DiskFull, naming the volume and how much is free, where less than 5 GB are left.

        A disk on another machine, or one that cannot be measured, is not ours to judge.
        """
        if not provider.is_local:
            return
        folder = await provider.models_folder() or self._own_folder()
        try:
            async with asyncio.timeout(_MEASURE_S):
                found = await asyncio.to_thread(self._disk, folder)
        except TimeoutError:
            return
        if found is not None and found.free_bytes < LEAST_FREE_BYTES:
            raise DiskFull(
                f"Only {size(found.free_bytes)} are free where {provider.name} keeps its models ({folder}, "
                f"on the volume of {found.path}); a download needs {size(LEAST_FREE_BYTES)} free.",
                required_bytes=LEAST_FREE_BYTES,
                free_bytes=found.free_bytes,
                remedy="Delete models that you do not need (tray-valet rm MODEL), or make room there.",
            )
