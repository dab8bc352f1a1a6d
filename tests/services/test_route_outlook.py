"""What would become of a request is what becomes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.services.house import FakeProvider, House
from tests.services.test_dispatcher import Client, route, until
from tests.services.test_unload_on_request import valet_over
from tray_valet.core.commands import Wish
from tray_valet.core.config import EvictionSettings
from tray_valet.core.config_providers import PoolSettings
from tray_valet.core.models import ModelRef
from tray_valet.core.processes import ProcessIdentity


async def test_of_a_pool_the_shorter_queue_is_foretold(tmp_path: Path) -> None:
    first, second = FakeProvider("fake"), FakeProvider("other", runner=ProcessIdentity(777, 1))
    house = House(tmp_path, first, EvictionSettings())
    house.providers.append(second)
    house.settings = msgspec.structs.replace(
        house.settings,
        pools={"both": PoolSettings(providers=("fake", "other"))},
        routes={"alias": route("both/a")},
    )
    for provider in (first, second):
        provider.slots = 1
        provider.put("a")
    async with house.running():
        valet = valet_over(house, tmp_path, house.settings)
        clients = [Client(house, Wish(model=model)) for model in ("fake/a", "other/a", "fake/a")]
        await until(lambda: sum(queue.waiting for queue in valet.queues()) == 1)
        assert valet.routes()[0].goes_to == ModelRef("other", "a")
        clients.append(Client(house, Wish(model="alias")))
        for client in clients:
            client.let_go.set()
        assert [await client.finish() for client in clients] == ["fake/a", "other/a", "fake/a", "other/a"]
