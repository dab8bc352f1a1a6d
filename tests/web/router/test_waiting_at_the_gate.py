"""Who waits for the end of a pause is in every figure of those who wait, and leaves them when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

from tests.services.house import FakeProvider, House
from tests.services.test_dispatcher import Client, route, until, with_router, with_routes
from tests.web.fake_valet import FakeValet
from tests.web.wire import Site, router_site
from tray_valet.core.commands import QueueState, Wish
from tray_valet.core.config import EvictionSettings
from tray_valet.core.config_providers import WhenPaused
from tray_valet.core.errors import QueueFull
from tray_valet.core.watchdog import State
from tray_valet.web.router.metrics import MetricsStream, RouterMetrics

QUICK = EvictionSettings(drain_seconds=0.05, kill_after_seconds=0.3, confirm_seconds=0.5)


class Housed(FakeValet):
    """A valet whose queues are a real dispatcher's."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self.house = house

    def queues(self) -> tuple[QueueState, ...]:
        return self.house.dispatcher.queues()


async def figures(site: Site, valet: Housed) -> set[tuple[int, int]]:
    """(waiting, refused), as each of those says who tells them."""
    stats = (await site.call("GET", "/v1/queue/stats")).json
    line = stats["per_model"]["fake/a"]
    summary = stats["summary"]
    metrics = (await site.call("GET", "/metrics")).body.decode()
    values = dict(row.rsplit(" ", 1) for row in metrics.splitlines() if not row.startswith("#"))
    stream = MetricsStream(RouterMetrics(valet, lambda: None), valet)
    event = (await anext(stream.frames())).decode()
    requests = json.loads(next(row[6:] for row in event.splitlines() if row.startswith("data: ")))["requests"]
    assert line["current_processing"] == summary["total_processing"] == requests["active"] == 0
    return {
        (line["queue_length"], line["total_rejected"]),
        (summary["total_queued"], summary["total_rejected"]),
        (requests["queued"], requests["rejected"]),
        (
            int(float(values['router_queue_depth{model="fake/a"}'])),
            int(float(values['router_queue_rejected_total{model="fake/a"}'])),
        ),
    }


async def test_who_waits_at_the_gate_is_in_all_figures(tmp_path: Path) -> None:
    house = House(tmp_path, FakeProvider(), QUICK)
    with_router(house, max_queue_size_per_model=2)
    with_routes(house, patient=route("fake/a", when_paused=WhenPaused.WAIT))
    valet = Housed(house)
    async with house.running(), router_site(valet) as site:
        hold = house.game()
        await house.reaches(State.PAUSED)
        first, second = clients = [Client(house, Wish(model="patient")) for _ in range(2)]
        await until(lambda: sum(queue.waiting for queue in valet.queues()) == 2)
        assert await figures(site, valet) == {(2, 0)}
        third = Client(house, Wish(model="patient"))
        await until(third.task.done)
        assert isinstance(third.task.exception(), QueueFull)
        assert await figures(site, valet) == {(2, 1)}
        first.task.cancel()
        await until(first.task.done)
        assert await figures(site, valet) == {(1, 1)}
        house.holds.end(hold.id)
        assert await second.finish() == "fake/a"
        assert await figures(site, valet) == {(0, 1)}
        assert all(client.task.done() for client in clients)
