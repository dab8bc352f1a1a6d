"""What the watch over processes is put together from, as Protocols.

Decides: how a source of process starts or exits and the watch speak to each other, all on the loop thread.
Must not: know any system; each source has a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tray_valet.core.processes import ProcessIdentity


class StartListener(Protocol):
    """What a source tells, on the loop thread."""

    def heard(self, pids: Iterable[int]) -> None:
        """These processes started something."""
        ...

    def suspected(self, pids: Iterable[int]) -> None:
        """It is these processes' turn for a look at their exe."""
        ...

    def missed_some(self) -> None:
        """News were lost: everything must be looked at."""
        ...

    def lost(self, reason: str) -> None:
        """The source works no more."""
        ...


class StartSource(Protocol):
    """Something that notices process starts."""

    @property
    def name(self) -> str: ...

    @property
    def relook_ages_s(self) -> Sequence[float]:
        """When to look at a process again, seconds after its image was reported, rising."""
        ...

    async def open(self, listener: StartListener) -> None:
        """Begin to tell. Raises NotSupported with the reason where it cannot work here."""
        ...

    async def check(self) -> None:
        """Make sure that it still works. Raises NotSupported with the reason."""
        ...

    def close(self) -> None: ...


class ExitSource(Protocol):
    """Something that notices the exits of followed processes."""

    def open(self, report: Callable[[ProcessIdentity], None]) -> None: ...

    def follow(self, identity: ProcessIdentity) -> None:
        """Report its exit once, at once if it is gone already."""
        ...

    def close(self) -> None: ...
