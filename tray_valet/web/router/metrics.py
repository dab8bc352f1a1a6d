"""GET /metrics in Prometheus' text (or OpenMetrics, when asked), and /metrics/stream.

Decides: the format by the Accept header, and what the stream shows. Must not: define the metrics
(`metric_families.py` does) or keep a registry for the process: each scrape reads the valet anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from tray_valet.core.commands import Valet
from tray_valet.web.edge.feed import SseFeed
from tray_valet.web.router.management import server_status
from tray_valet.web.router.metric_families import families
from tray_valet.web.router.metric_rows import Readings
from tray_valet.web.router.status_stream import frame

if TYPE_CHECKING:
    from prometheus_client import Metric

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_EVERY_S = 1.0
_HEARTBEAT_S = 30.0


class _Once:
    """A collector of families that were made for this scrape alone."""

    def __init__(self, made: list[Metric]) -> None:
        self._made = made

    def collect(self) -> Iterable[Metric]:
        return self._made


class RouterMetrics:
    """Makes the text. `resident_bytes`: memory of this process, None where it cannot be told."""

    def __init__(self, valet: Valet, resident_bytes: Callable[[], int | None]) -> None:
        self._valet = valet
        self._resident_bytes = resident_bytes

    async def read(self) -> Readings:
        """Take everything that a scrape is made of."""
        sample = await self._valet.sample()
        resident_bytes = await asyncio.to_thread(self._resident_bytes)
        states = self._valet.model_states()
        return Readings(
            traffic=self._valet.traffic(),
            tally=self._valet.tally(),
            states=states,
            names={str(state.ref): state.name for state in states},
            queues=self._valet.queues(),
            snapshot=self._valet.snapshot(),
            sample=sample,
            resident_bytes=resident_bytes,
        )

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics now, and their content type."""
        is_openmetrics = "application/openmetrics-text" in accept
        text = await asyncio.to_thread(_rendered, await self.read(), is_openmetrics)
        return text, OPENMETRICS_TYPE if is_openmetrics else TEXT_TYPE


def _rendered(readings: Readings, is_openmetrics: bool) -> bytes:
    """In a worker thread: many models make a long text, and answers stream meanwhile."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.openmetrics import exposition as openmetrics

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(families(readings))))
    if is_openmetrics:
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text
    return generate_latest(registry)


class MetricsStream(SseFeed):
    """GET /metrics/stream: the main figures once a second, as `metrics` events."""

    def __init__(self, metrics: RouterMetrics, valet: Valet, *, every_s: float = _EVERY_S) -> None:
        super().__init__(what="the metrics", heartbeat_s=_HEARTBEAT_S)
        self._metrics = metrics
        self._valet = valet
        self._every_s = every_s

    async def frames(self) -> AsyncIterator[bytes]:
        """One event a second; a slow reader gets fewer."""
        while True:
            yield frame("metrics", _main_figures(await self._metrics.read(), self._valet))
            await asyncio.sleep(self._every_s)


def _main_figures(now: Readings, valet: Valet) -> dict[str, Any]:
    host = now.sample.host if now.sample is not None else None
    return {
        "timestamp": now.snapshot.taken_at,
        "server": server_status(valet),
        "requests": {
            "total": now.traffic.requests_total,
            "active": sum(queue.in_flight for queue in now.queues),
            "queued": sum(queue.waiting for queue in now.queues),
            "rejected": sum(queue.rejected_total for queue in now.queues),
            "by_outcome": {outcome.value: n for outcome, n in now.traffic.outcomes.items()},
            "p50_seconds": round(now.traffic.recent.p50_s, 4),
            "p95_seconds": round(now.traffic.recent.p95_s, 4),
        },
        "models": {
            state.name: {"status": state.status, "vram_bytes": state.vram_bytes} for state in now.states
        },
        "gpus": [
            {
                "index": gpu.index,
                "vram_used_bytes": gpu.vram_used_bytes,
                "vram_total_bytes": gpu.vram_total_bytes,
                "utilization_percent": gpu.utilization_pct,
                "temperature_celsius": gpu.temperature_c,
                "power_watts": gpu.power_w,
            }
            for gpu in (now.sample.gpus if now.sample is not None else ())
        ],
        "ram_percent": None if host is None else round(host.ram_pct, 1),
        "cpu_percent": None if host is None else round(host.cpu_pct, 1),
        "resident_bytes": now.resident_bytes,
    }
