"""Two ways of one request through the router: by a task, and at once, where a connection is open already.

A module that imports `is_open_already` runs each of its tests both ways.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tray_valet.web.relay.relay import Relay
from tray_valet.web.relay.upstream_client import LocalClient, address_of


class _Way:
    is_open = False


@pytest.fixture(autouse=True, params=[False, True], ids=["by a task", "at once"])
def is_open_already(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether `open_to` opens anything."""
    _Way.is_open = bool(request.param)
    yield _Way.is_open
    _Way.is_open = False


async def open_to(relay: Relay, *urls: str) -> None:
    """Open a connection to each of these engines, if the test is of that way: requests need no task then."""
    client = relay._local
    assert isinstance(client, LocalClient)
    if _Way.is_open:
        for url in urls:
            client.keep(await client._connect(address_of(url), "engine"))
