"""Who needs which key: callers from this machine and from elsewhere, at both APIs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.web.wire import SECRETS, TOKEN
from tray_valet.core.config import Settings
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys, RouterKeys
from tray_valet.web.edge.policies import control_policy, router_policy
from tray_valet.web.edge.requests import CLIENT_KEY

LAN = "192.168.1.7"


async def _call(
    guard: Guard, client: str | None, headers: dict[str, str], body: bytes = b"", host: str = "127.0.0.1"
) -> tuple[int, dict[str, Any]]:
    """One request by a client at that address, handed to the guard as a server would."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/status",
        "scheme": "http",
        "client": (client, 5555) if client else None,
        "server": ("192.168.1.2", 8765),
        "headers": [(b"host", host.encode())]
        + [(n.lower().encode(), v.encode()) for n, v in headers.items()],
    }
    sent: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


async def _who(scope: Any, receive: Any, send: Any) -> None:
    body = json.dumps({"client": scope[CLIENT_KEY]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def _control(**control: Any) -> Guard:
    settings = msgspec.convert({"control": control}, Settings)
    keys = ControlKeys(lambda: settings, token=lambda: TOKEN, resolve_secret=SECRETS.get)
    return Guard(_who, policy=lambda: control_policy(settings), keys=keys)


def _router(**router: Any) -> Guard:
    settings = msgspec.convert({"router": router}, Settings)
    keys = RouterKeys(lambda: settings, resolve_secret=SECRETS.get)
    return Guard(_who, policy=lambda: router_policy(settings), keys=keys)


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_from_loopback_no_key_is_needed(client: str) -> None:
    assert (await _call(_control(), client, {}))[0] == 200


@pytest.mark.parametrize(
    ("headers", "key", "status", "code"),
    [
        ({}, None, 403, "no_api_key_configured"),
        ({"X-API-Key": "anything"}, None, 403, "no_api_key_configured"),
        ({"X-API-Key": ""}, None, 403, "no_api_key_configured"),
        ({}, "keyring:control", 401, "missing_api_key"),
        ({"X-API-Key": "wrong"}, "keyring:control", 401, "invalid_api_key"),
        ({"X-API-Key": ""}, "keyring:control", 401, "invalid_api_key"),
        ({"X-API-Key": "keyring:control"}, "keyring:control", 401, "invalid_api_key"),
        ({"X-API-Key": "correct horsé"}, "keyring:control", 401, "invalid_api_key"),
        ({"X-API-Key": TOKEN}, "keyring:control", 401, "invalid_api_key"),
        ({"X-API-Key": "anything"}, "keyring:gone", 403, "no_api_key_configured"),
    ],
)
async def test_from_elsewhere_a_key_must_be_configured_and_right(
    headers: dict[str, str], key: str | None, status: int, code: str
) -> None:
    got, answer = await _call(_control(api_key=key), LAN, headers)
    assert (got, answer["error"]["code"]) == (status, code)


@pytest.mark.parametrize("key", ["keyring:control", "correct horse"])
async def test_from_elsewhere_the_right_key_opens(key: str) -> None:
    assert (await _call(_control(api_key=key), LAN, {"X-API-Key": "correct horse"}))[0] == 200


async def test_a_forwarded_address_is_not_believed() -> None:
    headers = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Real-IP": "127.0.0.1"}
    assert (await _call(_control(), LAN, headers))[0] == 403


async def test_a_caller_without_an_address_is_not_local() -> None:
    assert (await _call(_control(), None, {}))[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bearer {TOKEN}"}, 200),
        ({"X-API-Key": TOKEN}, 200),
    ],
)
async def test_with_local_access_token_loopback_needs_the_runtime_files_token(
    headers: dict[str, str], status: int
) -> None:
    assert (await _call(_control(local_access="token"), "127.0.0.1", headers))[0] == status


async def test_the_token_does_not_open_from_elsewhere() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-API-Key": TOKEN}
    assert (await _call(_control(local_access="token"), LAN, headers))[0] == 403


async def test_an_oversized_body_is_413_before_the_key_is_looked_at() -> None:
    guard = _control(api_key="keyring:control", max_body_bytes=10)
    status, answer = await _call(guard, LAN, {"Transfer-Encoding": "chunked"}, body=b"x" * 11)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


async def test_bound_to_every_address_the_one_it_came_in_by_is_a_host() -> None:
    headers = {"X-API-Key": "correct horse"}
    everywhere = _control(host="0.0.0.0", api_key="keyring:control")
    assert (await _call(everywhere, LAN, headers, host="192.168.1.2:8765"))[0] == 200
    assert (await _call(everywhere, LAN, headers, host="192.168.1.9:8765"))[0] == 400
    assert (await _call(everywhere, LAN, headers, host="rebound.example:8765"))[0] == 400


ROUTER_KEYS = {"laptop": "keyring:laptop", "phone": "keyring:phone", "lost": "keyring:lost"}


@pytest.mark.parametrize(
    ("headers", "status", "client"),
    [
        ({}, 401, None),
        ({"Authorization": "Bearer sk-none"}, 401, None),
        ({"Authorization": "Bearer "}, 401, None),
        ({"Authorization": "Bearer keyring:laptop"}, 401, None),
        ({"Authorization": "Bearer sk-laptop"}, 200, "laptop"),
        ({"x-api-key": "sk-phone"}, 200, "phone"),
        ({"Authorization": "Bearer wrong", "x-api-key": "sk-phone"}, 200, "phone"),
    ],
)
@pytest.mark.parametrize("address", ["127.0.0.1", LAN])
async def test_the_router_takes_any_of_its_keys_and_names_the_client(
    address: str, headers: dict[str, str], status: int, client: str | None
) -> None:
    got, answer = await _call(_router(api_keys=ROUTER_KEYS), address, headers)
    assert got == status
    if client is not None:
        assert answer == {"client": client}


async def test_without_keys_the_router_is_open_to_this_machine_only() -> None:
    assert (await _call(_router(), "127.0.0.1", {"Authorization": "Bearer whatever"}))[0] == 200
    assert (await _call(_router(), LAN, {}))[0] == 403


async def test_no_key_is_ever_returned_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    _, answer = await _call(_router(api_keys=ROUTER_KEYS), LAN, {"Authorization": "Bearer sk-guess"})
    seen = json.dumps(answer) + caplog.text
    assert not [word for word in (*SECRETS.values(), "sk-guess", TOKEN) if word in seen]
