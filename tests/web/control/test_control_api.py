"""The control API's answers: the seeds' fields, ours beside them, and commands that say what happened."""

from __future__ import annotations

import asyncio
import os
import time

import msgspec
import pytest

from tests.web.fake_valet import FakeValet
from tests.web.wire import Site, control_site
from tray_valet.core.config import Settings
from tray_valet.core.errors import LoadFailed, ProviderUnreachable
from tray_valet.core.watchdog import State
from tray_valet.web.control import status_shape


async def test_status_has_the_seeds_fields_and_ours() -> None:
    async with control_site() as site:
        await site.call("POST", "/load", {"model": "llama3", "num_ctx": 2048})
        status = (await site.call("GET", "/status")).json
        provider = {
            "running": True,
            "model_loaded": True,
            "model_name": "llama3:latest",
            "memory_used_mb": 4096,
            "size_vram_mb": 3072,
            "loaded_context_length": 2048,
            "endpoint": "http://127.0.0.1:11434",
            "overcommit": False,
        }
        assert provider.items() <= status["provider"].items()
        assert {"name": "ollama", "kind": "ollama", "builtin_demo": False}.items() <= status[
            "provider"
        ].items()
        assert status["version"] == "1.2.3"
        assert {"lan_exposed": False, "auth_enabled": False}.items() <= status["security"].items()
        assert {"state": "running", "last_reason": ""}.items() <= status["watchdog"].items()
        assert status["models"] == [
            {
                "provider": "ollama",
                "name": "llama3:latest",
                "size_mb": 4096,
                "vram_mb": 3072,
                "context_length": 2048,
                "ttl_left_seconds": 300.0,
                "needs_gpu": True,
                "pid": None,
            }
        ]
        assert status["router_url"] == "http://127.0.0.1:8766"


async def test_a_browser_is_led_from_the_root_to_the_page_and_a_program_is_told_who_answers() -> None:
    async with control_site() as site:
        html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        led = await site.call("GET", "/", headers=html)
        assert (led.status, led.headers["location"]) == (307, "/ui/")
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            told = await site.call("GET", "/", headers=headers)
            assert (told.status, told.json["name"]) == (200, "Tray Valet")


@pytest.mark.parametrize("path", ["/status", "/metrics"])
async def test_metrics_have_the_seeds_fields_over_all_gpus(path: str) -> None:
    async with control_site() as site:
        answer = (await site.call("GET", path)).json
        metrics = answer["metrics"] if path == "/status" else answer
        assert metrics["memory"] == {
            "total_mb": 16384,
            "used_mb": 12288,
            "used_pct": 75.0,
            "pressure": "warn",
        }
        assert metrics["cpu"] == {"used_pct": 12.3, "core_count": 8}
        gpu = {
            "available": True,
            "vram_total_mb": 16384,
            "vram_used_mb": 8192,
            "vram_used_pct": 50.0,
            "compute_pct": 90.0,
        }
        assert gpu.items() <= metrics["gpu"].items()
        assert [each["vram_used_pct"] for each in metrics["gpu"]["gpus"]] == [25.0, 75.0]
        assert metrics["disk"] == {
            "path": "/models",
            "total_mb": 102400,
            "used_mb": 61440,
            "free_mb": 40960,
            "used_pct": 60.0,
        }
        assert metrics["timestamp"] > 1_000_000_000


@pytest.mark.parametrize(("pause_pct", "resume_pct", "pressure"), [(70, 60, "critical"), (95, 80, "normal")])
async def test_pressure_follows_the_thresholds(pause_pct: int, resume_pct: int, pressure: str) -> None:
    settings = msgspec.convert(
        {"thresholds": {"ram_pause_pct": pause_pct, "ram_resume_pct": resume_pct}}, Settings
    )
    async with control_site(FakeValet(settings=settings)) as site:
        assert (await site.call("GET", "/metrics")).json["memory"]["pressure"] == pressure


async def test_a_model_larger_than_the_pause_limit_is_an_overcommit() -> None:
    settings = msgspec.convert({"thresholds": {"ram_pause_pct": 20, "ram_resume_pct": 10}}, Settings)
    async with control_site(FakeValet(settings=settings)) as site:
        assert (await site.call("GET", "/status")).json["provider"]["overcommit"] is False
        await site.call("POST", "/load", {"model": "llama3"})
        assert (await site.call("GET", "/status")).json["provider"]["overcommit"] is True


@pytest.mark.parametrize(
    ("changes", "security"),
    [
        ({"control": {"host": "0.0.0.0", "api_key": "k"}}, {"lan_exposed": True, "auth_enabled": True}),
        ({"router": {"host": "192.168.1.2"}}, {"lan_exposed": True, "auth_enabled": False}),
        ({}, {"lan_exposed": False, "auth_enabled": False}),
        ({"control": {"local_access": "token"}}, {"lan_exposed": False, "auth_enabled": True}),
    ],
)
def test_status_says_who_can_reach_us(changes: dict[str, object], security: dict[str, bool]) -> None:
    shape = status_shape.security(msgspec.convert(changes, Settings))
    assert security.items() <= shape.items()


async def test_v14_status_answers_quickly_to_five_clients() -> None:
    async with control_site() as site:

        async def ask(times: list[float]) -> None:
            for _ in range(30):
                start_s = time.perf_counter()
                assert (await site.call("GET", "/status")).status == 200
                times.append(time.perf_counter() - start_s)

        times: list[float] = []
        await asyncio.gather(*(ask(times) for _ in range(5)))
        times.sort()
        # The seed took 3 to 6 s here; the figure in milliseconds is the benchmark's.
        assert times[int(len(times) * 0.99)] < 2.5


async def test_the_lists_have_their_shapes() -> None:
    async with control_site() as site:
        await site.call("POST", "/load", {"model": "llama3"})
        site.valet.start_game()
        models = (await site.call("GET", "/models")).json["models"]
        assert (
            models[0].items()
            >= {
                "name": "llama3:latest",
                "size_mb": 4096,
                "context_length": 8192,
                "provider": "ollama",
                "loaded": False,
            }.items()
        )
        games = (await site.call("GET", "/games")).json
        assert [game["name"] for game in games["known"]] == ["Lantern Keep"]
        assert games["running"][0]["pids"] == [4321]
        [hold] = (await site.call("GET", "/holds")).json["holds"]
        assert (hold["id"], hold["kind"], hold["overridden"]) == ("game:steam:1145360", "game", False)
        assert hold["reason"] == "game detected — steamapps/common/Lantern Keep"
        [provider] = (await site.call("GET", "/providers")).json["providers"]
        assert set(provider["models"][0]) == {
            *("name", "model", "modifiedAt", "size", "digest", "details", "contextLength"),
            *("canChat", "canEmbed", "canPrompt", "canStream", "loaded"),
        }
        assert set(provider["conditions"][0]) == {"type", "status", "reason", "since"}
        explain = (await site.call("GET", "/explain")).json
        signal = {"signal": "ram", "raw_pct": 75.0, "ours_pct": 25.0, "others_pct": 50.0, "counts": False}
        assert signal.items() <= explain["signals"][0].items()
        assert explain["process_source"] == "poll 4 Hz"
        activity = (await site.call("GET", "/activity?limit=1")).json["activity"]
        assert [(entry["kind"], entry["problem"]) for entry in activity] == [("game_started", False)]
        back = (await site.call("GET", "/status")).json["to_bring_back"]
        assert (
            back[0].items() >= {"provider": "ollama", "name": "llama3:latest", "context_length": 4096}.items()
        )


async def test_watchdog_says_state_and_reason_and_config_all_thresholds() -> None:
    async with control_site() as site:
        assert (await site.call("GET", "/watchdog")).json["state"] == "running"
        await site.call("POST", "/pause")
        watchdog = (await site.call("GET", "/watchdog")).json
        assert (watchdog["state"], watchdog["last_reason"]) == ("paused", "manual pause")
        config = (await site.call("GET", "/config")).json
        assert config == msgspec.to_builtins(Settings().thresholds)


async def test_pause_and_resume_say_what_was_seen() -> None:
    async with control_site() as site:
        body = {"reason": "a film", "for_seconds": 7200, "pid": os.getpid()}
        reply = await site.call("POST", "/pause", body)
        assert (reply.status, reply.json["ok"], reply.json["state"]) == (200, True, "paused")
        wanted = {"reason": "a film", "is_forced": False, "for_s": 7200, "pid": os.getpid()}
        assert site.valet.called("pause") == [wanted]
        reply = await site.call("POST", "/resume")
        assert (reply.status, reply.json["state"]) == (200, "running")


async def test_what_has_begun_but_not_ended_is_a_202() -> None:
    valet = FakeValet()
    valet.state_after_pause = State.PAUSING
    async with control_site(valet) as site:
        reply = await site.call("POST", "/pause")
        assert (reply.status, reply.json["state"]) == (202, "pausing")


@pytest.mark.parametrize(("path", "body"), [("/pause/force", None), ("/pause", {"force": True})])
async def test_a_forced_pause_is_forced(path: str, body: object) -> None:
    async with control_site() as site:
        assert (await site.call("POST", path, body)).status == 200
        assert site.valet.called("pause")[0]["is_forced"] is True


@pytest.mark.parametrize("path", ["/pause", "/resume"])
async def test_a_command_given_again_within_two_seconds_is_429(path: str) -> None:
    async with control_site() as site:
        assert (await site.call("POST", path)).status == 200
        site.clock.now_s += 1.5
        reply = await site.call("POST", path)
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (429, "cooldown", "1")
        site.clock.now_s += 0.6
        assert (await site.call("POST", path)).status == 200


async def test_a_forced_pause_never_cools_down() -> None:
    async with control_site() as site:
        for path in ("/pause", "/pause/force", "/pause/force"):
            assert (await site.call("POST", path)).status == 200


async def test_each_command_cools_down_for_itself() -> None:
    async with control_site() as site:
        for path in ("/pause", "/resume", "/pause/force"):
            assert (await site.call("POST", path)).status == 200


async def test_a_command_that_failed_may_be_given_again_at_once() -> None:
    async with control_site() as site:
        site.valet.fails["resume"] = ProviderUnreachable("ollama does not answer.")
        reply = await site.call("POST", "/resume")
        assert (reply.status, reply.code) == (502, "provider_unreachable")
        assert (await site.call("POST", "/resume", {"x": 1})).status == 400
        del site.valet.fails["resume"]
        assert (await site.call("POST", "/resume")).status == 200


async def test_load_passes_everything_on_and_says_what_is_loaded() -> None:
    async with control_site() as site:
        body = {"model": "hf.co/user/model:Q4", "num_ctx": 512, "override": True}
        reply = await site.call("POST", "/load?provider=ollama", body)
        assert reply.status == 200
        loaded = {"ok": True, "model": "hf.co/user/model:Q4", "provider": "ollama", "context_length": 512}
        assert loaded.items() <= reply.json.items()
        wanted = {"model": "hf.co/user/model:Q4", "num_ctx": 512, "provider": "ollama", "override": True}
        assert site.valet.called("load") == [wanted]


async def test_load_of_an_unknown_model_is_404_and_during_a_game_409() -> None:
    async with control_site() as site:
        reply = await site.call("POST", "/load", {"model": "nothing"})
        assert (reply.status, reply.code) == (404, "model_not_found")
        site.valet.start_game()
        reply = await site.call("POST", "/load", {"model": "llama3"})
        assert (reply.status, reply.code) == (409, "game_running")
        assert "Lantern Keep" in reply.json["error"]["message"]
        assert (await site.call("POST", "/load", {"model": "llama3", "override": True})).status == 200


async def test_a_failed_load_is_not_a_200() -> None:
    async with control_site() as site:
        site.valet.fails["load"] = LoadFailed("The file is broken.", log_tail=("bad magic",))
        reply = await site.call("POST", "/load", {"model": "llama3"})
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "load_failed", "30")
        assert reply.json["error"]["log_tail"] == ["bad magic"]


async def test_unload_takes_one_model_or_all() -> None:
    async with control_site() as site:
        for model in ("llama3", "hf.co/user/model:Q4"):
            await site.call("POST", "/load", {"model": model})
        reply = await site.call("POST", "/unload", {"model": "llama3"})
        assert reply.json["unloaded"] == [{"provider": "ollama", "model": "llama3:latest"}]
        reply = await site.call("POST", "/unload")
        assert reply.json["unloaded"] == [{"provider": "ollama", "model": "hf.co/user/model:Q4"}]
        assert (await site.call("POST", "/unload", {"model": "nothing"})).status == 404


async def test_a_programs_hold_is_placed_and_ended_by_its_id() -> None:
    async with control_site() as site:
        body = {"owner": "Blender", "reason": "rendering", "ttl_seconds": 60, "pid": os.getpid()}
        reply = await site.call("POST", "/holds", body)
        assert reply.status == 201
        hold_id = reply.json["id"]
        wanted = {"owner": "Blender", "reason": "rendering", "ttl_s": 60, "pid": os.getpid()}
        assert site.valet.called("place_hold") == [wanted]
        [hold] = (await site.call("GET", "/holds")).json["holds"]
        assert (hold["id"], hold["owner"], hold["expires_in_seconds"]) == (hold_id, "Blender", 60.0)
        assert (await site.call("DELETE", f"/holds/{hold_id}")).status == 200
        assert (await site.call("GET", "/holds")).json["holds"] == []
        assert (await site.call("DELETE", f"/holds/{hold_id}")).status == 404


async def test_a_hold_of_a_game_cannot_be_ended_by_its_id() -> None:
    async with control_site() as site:
        site.valet.start_game()
        assert (await site.call("DELETE", "/holds/game%3Asteam%3A1145360")).status == 409
        assert len(site.valet.holds.active) == 1


async def test_thresholds_change_in_part_and_come_back_whole() -> None:
    async with control_site() as site:
        reply = await site.call("PUT", "/config", {"ram_pause_pct": 80, "check_interval_seconds": 1})
        assert reply.status == 200
        assert reply.json == {
            **msgspec.to_builtins(Settings().thresholds),
            "ram_pause_pct": 80,
            "check_interval_seconds": 1,
        }
        assert (await site.call("GET", "/config")).json == reply.json
        assert (await site.call("PUT", "/config", {})).json == reply.json
        assert len(site.valet.called("update_settings")) == 1


async def test_quit_is_taken() -> None:
    async with control_site() as site:
        assert (await site.call("POST", "/quit")).status == 202
        assert site.valet.quit_requested


async def _many(site: Site, method: str, path: str, count: int) -> list[int]:
    replies = await asyncio.gather(*(site.call(method, path) for _ in range(count)))
    return sorted(reply.status for reply in replies)


async def test_of_many_pauses_at_once_one_is_done() -> None:
    async with control_site() as site:
        assert await _many(site, "POST", "/pause", 5) == [200, 429, 429, 429, 429]
        assert len(site.valet.called("pause")) == 1


async def test_requests_on_one_connection_are_answered_in_order() -> None:
    async with control_site() as site:
        request = site.request_bytes("GET", "/watchdog", headers={"Connection": "keep-alive"})
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(request + request + site.request_bytes("GET", "/nothing"))
        answers = (await asyncio.wait_for(reader.read(), 30)).split(b"HTTP/1.1 ")[1:]
        writer.close()
        assert [answer[:3] for answer in answers] == [b"200", b"200", b"404"]
