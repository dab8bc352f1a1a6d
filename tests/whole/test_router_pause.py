"""Many clients through a pause and a resume: each request ends once, and everybody's books agree."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.router_crowd import Crowd, Fate
from tests.whole.router_homes import ask_runner, local, metric, pid_of, request_lines, router_url
from tests.whole.valet_process import ValetProcess, engine_pids, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")
CLIENTS = 200
TOKENS = 8


@pytest.fixture
def standin() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "big:latest=60", "--tokens-per-s", "2000") as running:
        running.set(num_parallel=8, answer_tokens=TOKENS)
        yield running


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path, standin: OllamaStandin) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    eight = ["--parallel", "8", "--ctx-size", "8192", "--metrics"]
    provider = local(home, tiny_model, {"one": eight, "cpu": eight})
    provider["models"]["cpu"]["cpu_only"] = True
    one = {"provider": "local", "model": "one"}
    settings = {
        "providers": {"local": provider, "ollama": {"kind": "ollama", "url": standin.url}},
        "eviction": {"drain_seconds": 0.2},
        "routes": {
            "falls": {"candidates": [one, {"provider": "local", "model": "cpu"}], "when_paused": "next"},
            "waits": {"candidates": [one], "when_paused": "wait", "wait_seconds": 60},
            "refuses": {"candidates": [one], "when_paused": "refuse"},
            "ollamas": {
                "candidates": [{"provider": "ollama", "model": "big"}],
                "when_paused": "wait",
                "wait_seconds": 60,
            },
        },
    }
    with ValetProcess(home, settings) as process:
        yield process
    assert engine_pids(home) == []
    assert "Traceback" not in (home / "logs" / "tray-valet.log").read_text()


ROUTES = ("falls", "waits", "refuses", "ollamas")


async def through_a_game(valet: ValetProcess) -> Crowd:
    """The crowd asks before, during and after a game."""
    crowd = Crowd(router_url(valet), tokens=TOKENS, ignore_eos=True, temperature=0)
    asking = asyncio.create_task(crowd.ask(ROUTES, CLIENTS, pause_s=0.8))
    await asyncio.sleep(1.0)
    game = await asyncio.to_thread(valet.play)
    await asyncio.to_thread(valet.wait_state, "paused")
    assert await asyncio.to_thread(pid_of, valet.home, "one") == 0
    await asyncio.to_thread(
        until, lambda: crowd.fates("refuses")[Fate.REFUSED] >= 20, "the pause has met enough of them"
    )
    valet.stop(game)
    await asyncio.to_thread(valet.wait_state, "running")
    await asyncio.sleep(0.5)
    crowd.end()
    async with asyncio.timeout(60):
        await asking
    return crowd


def by(crowd: Crowd, route: str) -> Counter[str]:
    """Which models a route's requests were answered by."""
    return Counter(ending.by for ending in crowd.endings if ending.route == route)


@pytest.mark.slow
def test_200_clients_lose_nothing_and_get_nothing_twice(valet: ValetProcess, standin: OllamaStandin) -> None:
    for model in ("one", "cpu"):
        valet.post("/load", {"model": f"local/{model}"})
    standin.load("big", keep_alive=300)
    crowd = asyncio.run(through_a_game(valet))
    asked = len(crowd.endings)
    assert asked > CLIENTS
    assert len({ending.number for ending in crowd.endings}) == asked

    # What each route promises.
    assert crowd.fates("refuses")[Fate.ANSWERED] > 0
    for route in ("falls", "waits", "ollamas"):
        assert set(crowd.fates(route, is_stream=False)) == {Fate.ANSWERED}, "nothing had gone out yet"
        assert crowd.fates(route)[Fate.REFUSED] == 0
    assert set(by(crowd, "waits")) <= {"one", ""}
    assert by(crowd, "falls")["cpu"] > 0

    # The valet's own books.
    until(lambda: len(request_lines(valet.home)) >= asked, "the log is written")
    lines = request_lines(valet.home)
    assert len(lines) == asked, "one line for each request"
    fates = Counter(ending.fate for ending in crowd.endings)
    said = Counter(line["outcome"] for line in lines)
    assert said == Counter({k: v for k, v in fates.items() if v})
    for route in ROUTES:
        mine = Counter(line["outcome"] for line in lines if line["asked"] == route)
        assert mine == Counter({k.value: v for k, v in crowd.fates(route).items() if v})
    assert metric(valet, "router_requests_total") == asked
    assert metric(valet, "router_requests_total", status="success") == fates[Fate.ANSWERED]
    assert metric(valet, "router_requests_total", status="refused") == fates[Fate.REFUSED]
    assert metric(valet, "router_requests_total", status="cut") == fates[Fate.CUT]
    assert metric(valet, "router_active_requests") == 0
    assert metric(valet, "router_queue_depth") == 0
    assert valet.get("/status")["in_flight"] == 0

    # The engine that was there all the time: it made the tokens that clients got, and no others.
    by_cpu = [line for line in lines if line.get("model") == "cpu"]
    assert {line["outcome"] for line in by_cpu} == {"answered"}, "the game does not concern it"
    seen = sum(ending.by == "cpu" for ending in crowd.endings)
    silent = sum(ending.by == "" and ending.fate is Fate.ANSWERED for ending in crowd.endings)
    assert seen <= len(by_cpu) <= seen + silent
    assert engines_own(valet, "cpu", "llamacpp:tokens_predicted_total") == TOKENS * len(by_cpu)


def test_a_provider_that_counts_its_requests_agrees(valet: ValetProcess, standin: OllamaStandin) -> None:
    standin.load("big", keep_alive=300)

    async def ask() -> Crowd:
        crowd = Crowd(router_url(valet), tokens=TOKENS)
        asking = asyncio.create_task(crowd.ask(["ollamas"], 40, pause_s=0.3))
        await asyncio.sleep(0.7)
        game = await asyncio.to_thread(valet.play)
        await asyncio.to_thread(valet.wait_state, "paused")
        before = len(standin.calls("/v1/chat/completions"))
        await asyncio.sleep(0.7)
        during = len(standin.calls("/v1/chat/completions")) - before
        valet.stop(game)
        await asyncio.to_thread(valet.wait_state, "running")
        crowd.end()
        async with asyncio.timeout(60):
            await asking
        assert during == 0, "nothing goes there in the game"
        return crowd

    crowd = asyncio.run(ask())
    times = Counter(
        int(call["body"]["messages"][0]["content"].split()[1])
        for call in standin.calls("/v1/chat/completions")
    )
    assert set(times) == {ending.number for ending in crowd.endings}
    answered = {ending.number for ending in crowd.endings if ending.fate is Fate.ANSWERED}
    twice = {number for number, n in times.items() if n > 1}
    assert max(times.values()) <= 2, "once more at most: when the game took the first try"
    assert twice <= answered
    attempts = {line["attempts"] for line in request_lines(valet.home)}
    assert attempts <= {1, 2}


def engines_own(valet: ValetProcess, model: str, name: str) -> float:
    """A figure of a runner itself."""
    text = ask_runner(valet, model, "/metrics").text
    [value] = [line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(value)
