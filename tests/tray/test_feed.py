"""The feed: pictures after facts, few of them in a burst, and some without any fact."""

from __future__ import annotations

import asyncio
from typing import cast

from tests.tray import pictures as pic
from tests.tray.running_tray import NotingValet
from tray_valet.core.commands import Valet
from tray_valet.tray.bridge import PictureSlot
from tray_valet.tray.feed import feed


async def taken(slot: PictureSlot) -> str:
    picture = await asyncio.to_thread(slot.take, 40.0)
    assert picture is not None
    return picture.snapshot.title


async def test_there_is_a_picture_at_once_one_after_a_fact_and_one_after_a_while() -> None:
    slot, valet = PictureSlot(), NotingValet()
    feeding = asyncio.create_task(feed(slot, cast(Valet, valet), quiet_s=0.3))
    assert await taken(slot) == "Picture 1"
    valet.facts.put_nowait(pic.snapshot())
    assert await taken(slot) == "Picture 2"
    assert await taken(slot) == "Picture 3"  # nothing has happened since
    slot.close()
    await asyncio.wait_for(feeding, 30)


async def test_a_burst_of_facts_makes_few_pictures() -> None:
    slot, valet = PictureSlot(), NotingValet()
    feeding = asyncio.create_task(feed(slot, cast(Valet, valet)))
    for _ in range(100):
        for _ in range(20):
            valet.facts.put_nowait(pic.snapshot())
        await asyncio.sleep(0.005)
    assert valet.snapshots_taken <= 2000 // 20
    assert valet.facts.qsize() <= 20
    feeding.cancel()
    await asyncio.wait((feeding,), timeout=30)
    assert not [t for t in asyncio.all_tasks() if t.get_name() == "tray facts"]
