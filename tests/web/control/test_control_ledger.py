"""`/ledger` and `/history` over the wire."""

from __future__ import annotations

import pytest

from tests.web.fake_valet import FakeValet
from tests.web.wire import control_site
from tray_valet.core import ledger as rules
from tray_valet.core.ledger import Ledger, Slowness, SlowPart, SteppedAside

GB = 2**30


def remembered() -> Ledger:
    ledger = Ledger()
    for n, name in enumerate(("Hades", "Doom Eternal")):
        ledger = rules.opened(ledger, f"steam:{n}", name, 1_700_000_000.0 + n)
        slow = Slowness(part=SlowPart.ANSWER, took_s=3.0) if n == 0 else None
        step = SteppedAside(
            at=1_700_000_000.0 + n, took_s=3.4 if n == 0 else 0.6, freed_bytes=4 * GB, slow=slow
        )
        ledger = rules.stepped_aside(ledger, f"steam:{n}", step)
    return ledger


async def test_each_game_the_latest_first_with_its_totals() -> None:
    valet = FakeValet()
    valet.remembered = rules.restored(remembered(), "steam:0", 4.1)
    async with control_site(valet) as site:
        answer = (await site.call("GET", "/ledger")).json
    assert [game["name"] for game in answer["games"]] == ["Doom Eternal", "Hades"]
    assert (answer["times"], answer["freed_mb"]) == (2, 8192)
    hades = answer["games"][1]
    assert hades["key"] == "steam:0"
    assert (hades["times"], hades["median_seconds"], hades["worst_seconds"]) == (1, 3.4, 3.4)
    assert (hades["freed_mb"], hades["most_freed_mb"]) == (4096, 4096)
    assert hades["last"]["slow_part"] == "answer"
    assert "an answer was still being written" in hades["last"]["why"]
    assert hades["slow"] == [{"part": "answer", "times": 1, "text": "an answer was still being written"}]
    assert (hades["restores"], hades["restore_median_seconds"], hades["restore_worst_seconds"]) == (
        1,
        4.1,
        4.1,
    )
    assert hades["text"].startswith("Your models stepped aside once")
    doom = answer["games"][0]
    assert (doom["slow"], doom["last"]["why"], doom["restore_median_seconds"]) == ([], None, None)


async def test_an_empty_ledger_is_an_answer() -> None:
    async with control_site() as site:
        assert (await site.call("GET", "/ledger")).json == {"games": [], "times": 0, "freed_mb": 0}


@pytest.mark.parametrize(
    ("query", "left"),
    [("?game=Hades", 1), ("?game=steam:0", 1), ("?game=doom%20eternal", 1), ("", 0)],
)
async def test_one_game_or_all_can_be_forgotten(query: str, left: int) -> None:
    valet = FakeValet()
    valet.remembered = remembered()
    async with control_site(valet) as site:
        answer = await site.call("DELETE", f"/ledger{query}")
        assert (answer.status, answer.json) == (200, {"forgotten": 2 - left})
        assert len((await site.call("GET", "/ledger")).json["games"]) == left


async def test_a_game_that_is_not_there_is_404_and_nothing_is_forgotten() -> None:
    valet = FakeValet()
    valet.remembered = remembered()
    async with control_site(valet) as site:
        answer = await site.call("DELETE", "/ledger?game=Had")
        assert (answer.status, answer.code, answer.json["error"]["param"]) == (404, "not_found", "game")
    assert len(valet.remembered.games) == 2


@pytest.mark.parametrize("query", ["?game=", "?game=%20", "?game=Hades&game=Doom"])
async def test_a_slip_does_not_forget_everything(query: str) -> None:
    valet = FakeValet()
    valet.remembered = remembered()
    async with control_site(valet) as site:
        answer = await site.call("DELETE", f"/ledger{query}")
        assert (answer.status, answer.json["error"]["param"]) == (400, "game")
    assert len(valet.remembered.games) == 2


async def test_other_methods_are_told_what_there_is() -> None:
    async with control_site() as site:
        answer = await site.call("POST", "/ledger")
        assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD")


async def test_the_history_is_in_per_cents_with_the_state() -> None:
    valet = FakeValet()
    async with control_site(valet) as site:
        assert (await site.call("GET", "/history")).json == {
            "minutes": 60,
            "interval_seconds": 60.0,
            "samples": [],
        }
        for _ in range(3):
            valet.past.note(await valet.sample())
            valet.clock.now_s += 60
        answer = (await site.call("GET", "/history?minutes=5")).json
        assert (answer["minutes"], answer["interval_seconds"], len(answer["samples"])) == (5, 10.0, 3)
        sample = answer["samples"][0]
        assert set(sample) == {
            "at",
            "ram_pct",
            "cpu_pct",
            "vram_pct",
            "ours_ram_pct",
            "ours_vram_pct",
            "state",
        }
        assert sample["state"] == "running"
        assert 0 < sample["ram_pct"] <= 100
        assert (await site.call("GET", "/history?minutes=1440")).json["interval_seconds"] == 60.0


@pytest.mark.parametrize("minutes", ["0", "1441", "-1", "1.5", "x", "", "９", "99999999999999999999"])
async def test_bad_minutes_are_400_and_named(minutes: str) -> None:
    from urllib.parse import quote

    async with control_site() as site:
        answer = await site.call("GET", f"/history?minutes={quote(minutes)}")
        assert (answer.status, answer.json["error"]["param"]) == (400, "minutes")
        assert "1440" in answer.json["error"]["message"]
