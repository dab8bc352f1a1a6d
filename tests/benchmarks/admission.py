"""What it costs to admit a request to a ready model and to let it go again; no network, one thread.

    python tests/benchmarks/admission.py [--requests 5000] [--rounds 7]

The real dispatcher, fleet, loader and gate over a provider in memory with 50 models. The best round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
TARGET_US = 15.0


async def measure(requests: int, rounds: int) -> dict[str, float]:
    """Microseconds for an admission and its end, by name asked for; and for one of 500 through 4 places."""
    from tests.services.house import FakeProvider, House
    from tray_valet.core.commands import Wish
    from tray_valet.core.config import EvictionSettings
    from tray_valet.core.config_providers import CandidateSettings, RouteSettings

    provider = FakeProvider(models=tuple(f"m{number}" for number in range(50)))
    provider.slots = 4
    for model in ("m0", "m1", "m2"):
        provider.put(model)
    house = House(Path(tempfile.mkdtemp()), provider, EvictionSettings())
    candidates = tuple(CandidateSettings(provider="fake", model=model) for model in ("m2", "m3"))
    routes = {"alias": RouteSettings(candidates=candidates)}
    house.settings = msgspec.structs.replace(house.settings, routes=routes)
    found: dict[str, float] = {}
    async with house.running():
        for name in ("m2", "alias"):
            wish = Wish(model=name)
            times_s = []
            for _ in range(rounds + 1):  # the first one is for the plan
                begun_s = time.perf_counter()
                for _ in range(requests):
                    async with house.dispatcher.admit(wish):
                        pass
                times_s.append(time.perf_counter() - begun_s)
            found[f"ready, asked for as {name}"] = min(times_s) / requests * 1e6

        async def queue() -> None:
            async with house.dispatcher.admit(Wish(model="m2")):
                await asyncio.sleep(0)

        begun_s = time.perf_counter()
        await asyncio.gather(*(queue() for _ in range(500)))
        found["one of 500 that queue for 4 places"] = (time.perf_counter() - begun_s) / 500 * 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    logging.disable()
    sys.path.insert(0, str(ROOT))
    for what, cost_us in asyncio.run(measure(options.requests, options.rounds)).items():
        target = f"  (target {TARGET_US:g})" if what.startswith("ready") else ""
        print(f"{what:40} {cost_us:7.1f} µs{target}")


if __name__ == "__main__":
    main()
