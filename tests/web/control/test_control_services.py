"""The commands for the providers' servers: answered at once, cooled down, refused with a remedy."""

from __future__ import annotations

import pytest

from tests.web.fake_valet import FakeValet
from tests.web.wire import control_site
from tray_valet.core.errors import NotSupported, Refused

COMMANDS = {
    "/start": ("start", "start_service", {"provider": None}),
    "/stop": ("stop", "stop_service", {"provider": None, "is_forced": False}),
    "/stop/force": ("stop/force", "stop_service", {"provider": None, "is_forced": True}),
    "/restart": ("restart", "restart_service", {"provider": None}),
}


@pytest.mark.parametrize("path", COMMANDS)
async def test_a_command_answers_at_once_as_its_clients_know_it(path: str) -> None:
    valet = FakeValet()
    action, call, arguments = COMMANDS[path]
    async with control_site(valet) as site:
        answer = await site.call("POST", path)
    assert answer.status == 200
    assert {"ok": True, "action": action, "provider": "ollama", "done": False}.items() <= answer.json.items()
    assert valet.called(call) == [arguments]


async def test_the_provider_can_be_named() -> None:
    valet = FakeValet()
    async with control_site(valet) as site:
        assert (await site.call("POST", "/start?provider=ollama")).status == 200
        unknown = await site.call("POST", "/stop?provider=nobody")
        assert (unknown.status, unknown.code, unknown.json["error"]["param"]) == (
            404,
            "not_found",
            "provider",
        )
        for query in ("?provider=", "?provider=a&provider=b", "?provider=%20"):
            assert (await site.call("POST", f"/restart{query}")).status == 400
    assert valet.called("start_service") == [{"provider": "ollama"}]


@pytest.mark.parametrize(
    ("first", "second", "is_held_back"),
    [
        ("/start", "/start", True),
        ("/stop", "/stop", True),
        ("/stop", "/stop/force", True),
        ("/stop/force", "/stop", True),
        ("/restart", "/restart", True),
        ("/start", "/stop", False),
        ("/stop", "/start", False),
        ("/start", "/restart", False),
    ],
)
async def test_the_cooldown_is_three_seconds_and_both_stops_share_one(
    first: str, second: str, is_held_back: bool
) -> None:
    valet = FakeValet()
    async with control_site(valet) as site:
        await site.call("POST", first)
        valet.clock.now_s += 2.9
        answer = await site.call("POST", second)
        assert answer.status == (429 if is_held_back else 200)
        if is_held_back:
            assert answer.headers["retry-after"] == "1"
            valet.clock.now_s += 0.2
            assert (await site.call("POST", second)).status == 200


async def test_what_cannot_be_done_says_so_with_the_remedy_and_may_be_tried_again_at_once() -> None:
    valet = FakeValet()
    valet.fails["stop_service"] = NotSupported(
        "It is a system service.", remedy="Use: sudo systemctl stop ollama"
    )
    async with control_site(valet) as site:
        for _ in range(2):
            answer = await site.call("POST", "/stop")
            assert (answer.status, answer.code) == (501, "not_supported")
            assert "sudo systemctl stop ollama" in answer.json["error"]["message"]
        valet.fails["stop_service"] = Refused("ollama is being started already.")
        assert (await site.call("POST", "/stop/force")).status == 409


async def test_the_commands_take_no_fields_and_are_no_get() -> None:
    valet = FakeValet()
    async with control_site(valet) as site:
        assert (await site.call("POST", "/start", {"force": True})).status == 400
        assert (await site.call("POST", "/start", {})).status == 200
        for path in COMMANDS:
            assert (await site.call("GET", path)).status == 405
    assert len(valet.calls) == 1
