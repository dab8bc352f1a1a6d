"""Downloads, set-up, settings, keys and tests over the wire: their forms, refusals and who may ask."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.web.wire import desks_site
from tray_valet.core.config import ControlSettings, Settings
from tray_valet.core.downloads import DownloadState
from tray_valet.core.errors import (
    AddressInUse,
    DiskFull,
    KeyNotAcknowledged,
    NotSupported,
    ProviderUnreachable,
    TimedOut,
)

SECRET = "sk-planted-4711"


async def test_a_pull_is_queued_and_listed(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, _):
        answer = await site.call("POST", "/models/pull", {"model": "hf.co/user/model:Q4"})
        assert (answer.status, answer.json["id"]) == (202, "d1")
        listed = (await site.call("GET", "/downloads")).json["downloads"]
        assert [(d["id"], d["model"], d["state"]) for d in listed] == [
            ("d1", "hf.co/user/model:Q4", "queued")
        ]
        gone = await site.call("DELETE", "/downloads/d1")
        assert (gone.status, gone.json["download"]["state"]) == (200, "cancelled")
        assert (await site.call("DELETE", "/downloads/d1")).status == 409
        assert (await site.call("DELETE", "/downloads/nobody")).status == 404


@pytest.mark.parametrize(
    ("end", "status"),
    [(DownloadState.DONE, 200), (DownloadState.FAILED, 502), (DownloadState.CANCELLED, 409)],
)
async def test_a_pull_that_is_waited_for_answers_how_it_ended(
    tmp_path: Path, end: DownloadState, status: int
) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        desks.store.when_waited = end
        answer = await site.call("POST", "/models/pull", {"model": "x", "wait": True})
        assert answer.status == status
        if status == 200:
            assert {"ok": True, "model": "x", "provider": "ollama"}.items() <= answer.json.items()


async def test_pulls_cool_down_for_five_seconds_and_failed_ones_do_not(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        desks.store.fails = DiskFull("Full.", required_bytes=5120 * 2**20, free_bytes=2**20)
        full = await site.call("POST", "/models/pull", {"model": "x"})
        assert (full.status, full.code) == (507, "insufficient_storage")
        assert (full.json["error"]["required_mb"], full.json["error"]["available_mb"]) == (5120, 1)
        desks.store.fails = None
        assert (await site.call("POST", "/models/pull", {"model": "x"})).status == 202
        site.clock.now_s += 4.9
        again = await site.call("POST", "/models/pull", {"model": "y"})
        assert (again.status, again.headers["retry-after"]) == (429, "1")
        site.clock.now_s += 0.2
        assert (await site.call("POST", "/models/pull", {"model": "y"})).status == 202


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": "a b"}, "model"),
        ({"model": "../x"}, "model"),
        ({"model": 1}, "model"),
        ({"model": "x", "wait": "yes"}, "wait"),
        ({"model": "x", "force": True}, "force"),
    ],
)
async def test_a_pull_of_what_is_no_model_is_refused(tmp_path: Path, body: Any, param: str) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        answer = await site.call("POST", "/models/pull", body)
        assert (answer.status, answer.json["error"]["param"]) == (400, param)
        assert desks.store.downloads() == ()


async def test_a_model_with_slashes_in_its_name_can_be_deleted(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        for path in ("/models/hf.co/user/model:Q4", "/models/llama3%3Alatest?provider=ollama"):
            answer = await site.call("DELETE", path)
            assert (answer.status, answer.json["ok"]) == (200, True)
        assert site.valet.models == {}
        for path, status in (
            ("/models/nobody", 404),
            ("/models/a%20b", 400),
            ("/models/..%2fetc", 400),
            ("/models/x?provider=nobody", 404),
            ("/models/pull", 405),
        ):
            assert (await site.call("DELETE", path)).status == status
        desks.store.fails = NotSupported("It cannot.", remedy="Do it yourself.")
        assert (await site.call("DELETE", "/models/x")).status == 501


async def test_the_key_is_shown_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, _):
        first = (await site.call("GET", "/setup")).json
        assert first == {"needs_setup": True, "api_key": "made-for-you"}
        assert (await site.call("POST", "/setup/acknowledge")).status == 200
        assert (await site.call("GET", "/setup")).json == {"needs_setup": False, "api_key": None}


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "192.168.1.7"},
        {"Forwarded": "for=192.168.1.7"},
        {"Via": "1.1 proxy"},
        {"Origin": "http://allowed.example"},
    ],
)
async def test_the_set_up_is_for_this_machine_alone(tmp_path: Path, header: dict[str, str | None]) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        site.valet.settings = Settings(control=ControlSettings(cors_origins=("http://allowed.example",)))
        for method, path, body in (
            ("GET", "/setup", None),
            ("POST", "/setup/acknowledge", None),
            ("POST", "/setup/apply", {"port": 1234}),
        ):
            answer = await site.call(method, path, body, headers=header)
            assert (answer.status, answer.code) == (403, "local_only")
            assert "made-for-you" not in answer.body.decode()
        assert (desks.setup.is_seen, desks.setup.port) == (False, 8765)


async def test_the_own_page_may_set_up(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, _):
        answer = await site.call("GET", "/setup", headers={"Origin": f"http://{site.host}"})
        assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"port": -1}, {"port": 65536}, {"port": "8765"}, {"port": 1.5}, {"host": ""}, {"host": 1}, {"x": 1}],
)
async def test_what_is_no_address_is_refused(tmp_path: Path, body: Any) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        assert (await site.call("POST", "/setup/apply", body)).status == 400
        assert (desks.setup.host, desks.setup.port) == ("127.0.0.1", 8765)


async def test_an_applied_address_answers_the_new_url(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        answer = await site.call("POST", "/setup/apply", {"host": "127.0.0.1", "port": 9000})
        assert (answer.status, answer.json["url"]) == (200, "http://127.0.0.1:9000")
        for error in (AddressInUse("Taken."), KeyNotAcknowledged("Note the key first.")):
            desks.setup.fails = error
            assert (await site.call("POST", "/setup/apply", {"port": 9001})).status == 409


async def test_settings_are_shown_whole_without_keys_and_with_their_origins(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("games: {grace_seconds: 7}\nrouter: {api_keys: {laptop: 'keyring:laptop'}}\n")
    async with desks_site(file) as (site, _):
        answer = await site.call("GET", "/settings")
        assert answer.json["games"]["grace_seconds"] == 7
        assert answer.json["router"]["api_keys"] == {"laptop": "keyring:laptop"}
        meta = answer.json["meta"]
        assert meta["origins"] == {"games.grace_seconds": "file", "router.api_keys.laptop": "file"}
        assert "providers.*.models.*.command" in meta["file_only"]
        assert answer.headers["etag"] == f'"{meta["version"]}"'


async def test_a_part_of_the_settings_is_changed_and_the_rest_stays(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("# mine\ngames: {grace_seconds: 7}\n")
    async with desks_site(file) as (site, _):
        answer = await site.call("PUT", "/settings", {"eviction": {"drain_seconds": 9}})
        assert (answer.status, answer.json["eviction"]["drain_seconds"]) == (200, 9)
        assert "# mine" in file.read_text()
        version = answer.json["meta"]["version"]
        newer = await site.call(
            "PUT", "/settings", {"eviction": {"drain_seconds": 8}}, {"If-Match": f'"{version}"'}
        )
        assert newer.status == 200
        older = await site.call(
            "PUT", "/settings", {"eviction": {"drain_seconds": 1}}, {"If-Match": f'"{version}"'}
        )
        assert (older.status, older.code) == (409, "settings_changed")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"games": {"grace_seconds": "soon"}}, "games.grace_seconds"),
        ({"nothing": {}}, "nothing"),
        ({"log": {"file": "/etc/passwd"}}, "log.file"),
        ({"providers": {"c": {"kind": "command", "models": {}}}}, "providers.c"),
        (
            {"providers": {"l": {"kind": "llama-server", "llama_server_path": "/bin/sh"}}},
            "providers.l.llama_server_path",
        ),
        ({"control": {"api_key": SECRET}}, "control.api_key"),
        ({"control": {"host": "0.0.0.0"}}, "control.host"),
        ({"providers": {"o": {"kind": "ollama", "url": "http://203.0.113.9:11434"}}}, "providers.o.url"),
    ],
)
async def test_a_wrong_change_names_the_path_and_stores_nothing(
    tmp_path: Path, body: Any, param: str
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("games: {grace_seconds: 7}\n")
    async with desks_site(file) as (site, _):
        answer = await site.call("PUT", "/settings", body)
        assert (answer.status, answer.json["error"]["param"]) == (400, param)
        assert SECRET not in answer.body.decode()
        assert file.read_text() == "games: {grace_seconds: 7}\n"


async def test_a_choice_for_a_game_becomes_a_rule(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    async with desks_site(file) as (site, desks):
        answer = await site.call("PUT", "/games/steam:1145360", {"action": "off"})
        assert (answer.status, answer.json["name"]) == (200, "Lantern Keep")
        [rule] = desks.settings_store.current.games.rules
        assert (rule.root, rule.action) == ("steam:1145360", "off")
        assert (await site.call("PUT", "/games/nobody", {"action": "off"})).status == 404
        for body in ({}, {"action": "maybe"}, {"action": True}, {"action": "off", "x": 1}):
            assert (await site.call("PUT", "/games/steam:1145360", body)).status == 400
        refused = await site.call("PUT", "/games/steam:1145360", {"action": "maybe"})
        assert "on, off, ask" in refused.json["error"]["message"]


async def test_c10_a_key_is_stored_and_never_seen_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with desks_site(tmp_path / "c.yaml") as (site, desks):
            kept = await site.call("PUT", "/secrets/openai", {"value": SECRET})
            assert (kept.status, kept.json["reference"]) == (200, "keyring:openai")
            assert desks.secrets.kept == {"openai": SECRET}
            bad = [
                await site.call("PUT", "/secrets/openai", {"value": f"{SECRET}\n"}),
                await site.call("PUT", "/secrets/openai", {"value": f"{SECRET} x"}),
                await site.call("PUT", "/secrets/openai", {"value": ""}),
                await site.call("PUT", "/secrets/openai", {"value": [SECRET]}),
                await site.call("PUT", "/secrets/openai", {"value": SECRET, "x": 1}),
                await site.call("PUT", "/secrets/.hidden", {"value": SECRET}),
                await site.call("PUT", "/secrets/" + "a" * 65, {"value": SECRET}),
            ]
            assert {answer.status for answer in bad} == {400}
            assert (await site.call("GET", "/secrets/openai")).status == 405
            gone = await site.call("DELETE", "/secrets/openai")
            assert gone.status == 200
            assert (await site.call("DELETE", "/secrets/openai")).status == 404
            seen = [*bad, kept, gone, await site.call("GET", "/settings")]
            assert not any(SECRET in answer.body.decode() for answer in seen)
    assert SECRET not in caplog.text


async def test_a_provider_that_answers_is_ok_and_one_that_does_not_is_an_error(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, desks):
        fine = await site.call("POST", "/providers/ollama/test")
        assert (fine.status, fine.json["ok"], fine.json["version"]) == (200, True, "0.12.0")
        assert (await site.call("POST", "/providers/nobody/test")).status == 404
        for error, status in (
            (ProviderUnreachable("Nothing answers.", remedy="Start it."), 502),
            (TimedOut("It hangs."), 504),
        ):
            desks.checks.fails = error
            answer = await site.call("POST", "/providers/ollama/test")
            assert (answer.status, answer.json["error"]["message"]) == (status, str(error))
        command = await site.call("POST", "/providers/ollama/test", {"command": ["sh", "-c", "id"]})
        assert command.status == 400


async def test_the_description_is_there_for_programs_and_people_without_a_network(tmp_path: Path) -> None:
    async with desks_site(tmp_path / "c.yaml") as (site, _):
        document = (await site.call("GET", "/openapi.json")).json
        assert document["openapi"].startswith("3.1")
        page = await site.call("GET", "/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        text = page.body.decode()
        assert "http://" not in text
        assert "https://" not in text
        for name in ("docs.js", "docs.css", "tokens.css", "theme.js"):
            assert f"/ui/{name}" in text
            assert (await site.call("GET", f"/ui/{name}")).status == 200
