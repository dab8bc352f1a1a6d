"""The provider for OpenAI-style servers, over a small real one."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.providers.provider_contract import ServedElsewhereContract
from tray_valet.core.dialects import OPENAI_PATHS
from tray_valet.core.errors import InvalidValue, ProviderUnreachable, UnknownModel
from tray_valet.core.models import ConditionType, LoadRequest
from tray_valet.providers.openai import OpenAiProvider


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


class Cloud:
    """A server that wants a key. `status` other than 200 is what /v1/models is answered with."""

    def __init__(self) -> None:
        self.key = "sk-right"
        self.status = 200
        self.body: bytes | None = None
        self.asked: list[str] = []
        self.models = ["gpt-small", "gpt-large"]
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(lambda: {"object": "list", "data": [{"id": name} for name in cloud.models]})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self._answer(lambda: {"choices": [{"message": {"content": "Hello."}}]})

            def _answer(self, made: Callable[[], dict[str, Any]]) -> None:
                cloud.asked.append(self.path)
                status = cloud.status
                if cloud.key and self.headers["authorization"] != f"Bearer {cloud.key}":
                    status = 401
                body = cloud.body or json.dumps(made() if status == 200 else {"error": {}}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @property
    def looks(self) -> int:
        return self.asked.count("/v1/models")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud()
    thread = threading.Thread(target=cloud.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield cloud
    cloud.server.shutdown()
    cloud.server.server_close()
    thread.join()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


Make = Callable[..., OpenAiProvider]


@pytest.fixture
async def make(cloud: Cloud, clock: HandClock) -> AsyncIterator[Make]:
    made: list[OpenAiProvider] = []

    def make(url: str = cloud.url, **changes: Any) -> OpenAiProvider:
        options = {
            "clock": clock,
            "is_local": False,
            "api_key": lambda: "sk-right",
            "key_name": "keyring:cloud",
        }
        provider = OpenAiProvider("cloud", url, **options | changes)
        made.append(provider)
        return provider

    yield make
    for provider in made:
        await provider.close()


class TestCloud(ServedElsewhereContract):
    """The contract, with models as listed."""

    @pytest.fixture
    def provider(self, make: Make) -> OpenAiProvider:
        return make()

    @pytest.fixture
    def model_names(self) -> tuple[str, str]:
        return "gpt-small", "gpt-large"


class TestServerHere(ServedElsewhereContract):
    """The contract, with a server on this machine and declared models."""

    @pytest.fixture
    def provider(self, make: Make) -> OpenAiProvider:
        return make(is_local=None, models=("mine", "yours"))

    @pytest.fixture
    def model_names(self) -> tuple[str, str]:
        return "mine", "yours"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api"),
        ("http://192.168.1.5:8000", "http://192.168.1.5:8000"),
        ("http://127.0.0.1:1234/v1", "http://127.0.0.1:1234"),
    ],
)
def test_requests_go_to_the_address_without_its_version(make: Make, url: str, base: str) -> None:
    upstream = make(url, models=("m",)).upstream("m")
    assert upstream.base_url == base
    assert upstream.headers == {"Authorization": "Bearer sk-right"}
    assert upstream.model == "m"
    assert make(url).paths == OPENAI_PATHS


@pytest.mark.parametrize(
    ("url", "wish", "is_local"),
    [
        ("http://127.0.0.1:1/v1", None, True),
        ("http://127.0.0.1:1/v1", False, False),
        ("http://10.0.0.2:1/v1", None, False),
        ("http://10.0.0.2:1/v1", True, True),
        ("https://api.openai.com/v1", None, False),
    ],
)
def test_it_is_local_if_its_host_is_or_the_settings_say_so(
    make: Make, url: str, wish: bool | None, is_local: bool
) -> None:
    assert make(url, is_local=wish).is_local is is_local


async def test_a_paid_service_is_looked_at_once_a_minute_at_most(
    make: Make, cloud: Cloud, clock: HandClock
) -> None:
    provider = make()
    for _ in range(60):
        await provider.observe()
        await provider.installed()
        clock.now_s += 1
    assert cloud.looks == 1
    clock.now_s += 1
    await provider.observe()
    assert cloud.looks == 2
    assert set(cloud.asked) == {"/v1/models"}


async def test_declared_models_need_no_list(make: Make, cloud: Cloud) -> None:
    provider = make(models=("gpt-mine",))
    assert [m.name for m in await provider.installed()] == ["gpt-mine"]
    assert cloud.looks == 0
    with pytest.raises(UnknownModel):
        provider.upstream("gpt-small")


async def test_one_failure_is_borne_and_the_second_is_told(
    make: Make, cloud: Cloud, clock: HandClock
) -> None:
    provider = make()
    await provider.observe()
    cloud.status = 503
    clock.now_s += 61
    await provider.observe()
    clock.now_s += 61
    with pytest.raises(ProviderUnreachable, match="503"):
        await provider.observe()
    with pytest.raises(ProviderUnreachable):
        await provider.observe()
    assert cloud.looks == 3
    assert [m.name for m in await provider.installed()] == ["gpt-small", "gpt-large"], "as last listed"
    cloud.status = 200
    clock.now_s += 61
    await provider.observe()


async def test_a_server_here_has_no_failure_borne(make: Make, cloud: Cloud, clock: HandClock) -> None:
    provider = make(is_local=True)
    await provider.observe()
    cloud.status = 503
    clock.now_s += 10
    with pytest.raises(ProviderUnreachable, match="503"):
        await provider.observe()


async def test_one_that_never_answered_is_away(make: Make, cloud: Cloud) -> None:
    cloud.status = 500
    provider = make()
    for call in (provider.observe, provider.installed):
        with pytest.raises(ProviderUnreachable):
            await call()
    with pytest.raises(ProviderUnreachable):
        await provider.load(LoadRequest(model="gpt-small"))


async def test_nothing_at_the_address_is_said(make: Make) -> None:
    with pytest.raises(ProviderUnreachable, match="Nothing answers"):
        await make("http://127.0.0.1:1/v1").observe()


async def test_a_key_that_is_nowhere_is_a_condition_with_a_remedy(make: Make) -> None:
    provider = make(api_key=lambda: None)
    problem = (await provider.observe()).problems[ConditionType.KEY_MISSING]
    assert "keyring:cloud" in problem
    assert "providers.cloud.api_key" in problem


async def test_a_key_that_is_found_later_is_used_at_once(make: Make) -> None:
    keys: list[str] = []
    provider = make(api_key=lambda: keys[0] if keys else None)
    await provider.observe()
    keys.append("sk-right")
    assert (await provider.observe()).problems == {}
    assert (await provider.installed())[0].name == "gpt-small"


async def test_a_key_that_is_refused_is_a_condition_and_the_key_is_not_in_it(make: Make) -> None:
    provider = make(api_key=lambda: "sk-wrong")
    problem = (await provider.observe()).problems[ConditionType.KEY_MISSING]
    assert "refuses the key" in problem
    assert "sk-wrong" not in problem


async def test_without_a_key_in_the_settings_none_is_missed(make: Make, cloud: Cloud) -> None:
    cloud.key = ""
    provider = make(api_key=lambda: None, key_name=None)
    assert (await provider.observe()).problems == {}
    assert provider.upstream("gpt-small").headers == {}


async def test_a_server_here_that_cannot_unload_says_so(make: Make) -> None:
    problems = (await make(is_local=True).observe()).problems
    assert "cannot be told to unload" in problems[ConditionType.CANNOT_UNLOAD]


@pytest.mark.parametrize("body", [b"<html>", b'{"data": 5}', b"[]"])
async def test_a_server_without_such_a_list_may_have_any_model(make: Make, cloud: Cloud, body: bytes) -> None:
    cloud.body = body
    provider = make()
    assert (await provider.observe()).problems == {}
    assert await provider.installed() == ()
    assert (await provider.load(LoadRequest(model="whatever"))).name == "whatever"


def test_an_address_that_is_none_is_refused(make: Make) -> None:
    with pytest.raises(InvalidValue, match="http address"):
        make("not an address")
