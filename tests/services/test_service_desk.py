"""The desk: which provider is meant, one action at a time, and done is what was seen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.services.house import FakeProvider, House
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import CannotKill, NotFound, NotSupported, Refused
from tray_valet.core.events_providers import (
    ProviderBack,
    ProviderLost,
    ServiceFailed,
    ServiceStarted,
    ServiceStopped,
)
from tray_valet.core.fact_sentences import sentence
from tray_valet.core.models import ConditionType, LoadRequest, ProviderKind
from tray_valet.core.processes import ProcessIdentity, System
from tray_valet.core.service_plan import ServerSeen, ServiceAction, ServiceRefused, ServiceSite, Way
from tray_valet.core.watchdog import State
from tray_valet.services.clock import SystemClock
from tray_valet.services.runner_service import RunnerService
from tray_valet.services.server_end import ServerEnd
from tray_valet.services.service_desk import ServiceDesk

START, STOP, RESTART = ServiceAction.START, ServiceAction.STOP, ServiceAction.RESTART
SERVER, RUNNER = ProcessIdentity(100, 1), ProcessIdentity(101, 1)


class Table:
    """Processes that end as they are told to; `ignores_requests`: only by force; `immortal`: not at all."""

    def __init__(self) -> None:
        self.alive: set[ProcessIdentity] = set()
        self.sent: list[tuple[str, int]] = []
        self.ignores_requests = False
        self.immortal = False
        self.refusal: CannotKill | None = None

    def is_alive(self, identity: ProcessIdentity) -> bool:
        return identity in self.alive

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        return (RUNNER,) if pid == SERVER.pid and RUNNER in self.alive else ()

    def terminate(self, identity: ProcessIdentity) -> None:
        self.sent.append(("ask", identity.pid))
        if not self.ignores_requests:
            self.alive.discard(identity)

    def kill(self, identity: ProcessIdentity) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(("kill", identity.pid))
        if not self.immortal:
            self.alive.discard(identity)


class Service:
    """A service in memory: starting it brings the provider up."""

    def __init__(self, provider: FakeProvider, table: Table) -> None:
        self.provider = provider
        self.table = table
        self.way = Way.PROGRAM
        self.asked: list[tuple[str, str]] = []
        self.refusal: Exception | None = None
        self.starts_up = True
        self.ended = ""
        self.gate = threading.Event()  # `run` waits for it
        self.gate.set()

    def look(self) -> ServiceSite:
        is_up = SERVER in self.table.alive
        seen = ServerSeen(identity=SERVER, name="ollama", is_ollama=True, is_ours=True, kept_by=self.way)
        return ServiceSite(
            system=System.LINUX,
            installed=(self.way,),
            server=seen if is_up else None,
            runners=(RUNNER,) if RUNNER in self.table.alive else (),
        )

    def run(self, action: ServiceAction, way: Way) -> None:
        assert self.gate.wait(10)
        self.asked.append((action.value, way.value))
        if self.refusal is not None:
            raise self.refusal
        if action is not STOP and self.starts_up:
            self.table.alive.add(SERVER)
            self.provider.is_away = False

    def why_ended(self) -> str:
        return self.ended


class Desk:
    """A house with a desk, around one Ollama whose server is a value."""

    def __init__(self, folder: Path, *more: FakeProvider) -> None:
        self.ollama = FakeProvider("ollama")
        self.house = House(folder, self.ollama, EvictionSettings())
        self.house.providers.extend(more)
        self.table = Table()
        self.service = Service(self.ollama, self.table)
        self.unloaded: list[str] = []
        self.is_sought = False
        self.found: Callable[[], bool] = lambda: False
        fleet, clock = self.house.fleet, SystemClock()
        self.desk = ServiceDesk(
            fleet,
            clock,
            self.house.facts.append,
            ServerEnd(self.table, clock, asked_s=0.3),  # type: ignore[arg-type]
            RunnerService(fleet, self.house.loader, clock, self._unload),
            service_of=lambda kind, _url: self.service if kind is ProviderKind.OLLAMA else None,
            is_ollama_sought=lambda: self.is_sought,
            finds_ollama=self._finds,
        )

    async def _unload(self, provider: str) -> None:
        self.unloaded.append(provider)
        slot = self.house.fleet.slot(provider)
        for model in slot.loaded:
            await self.house.loader.unload(slot, model.name)

    async def _finds(self) -> bool:
        return self.found()

    def is_up(self, *, is_up: bool = True) -> None:
        self.ollama.is_away = not is_up
        self.table.alive = {SERVER, RUNNER} if is_up else set()

    async def fact(self) -> ev.Fact:
        """The next fact of a service."""
        kinds = (ServiceStarted, ServiceStopped, ServiceFailed)
        async with asyncio.timeout(30):
            while True:
                for fact in self.house.facts:
                    if isinstance(fact, kinds):
                        self.house.facts.remove(fact)
                        return fact
                await asyncio.sleep(0.005)


@pytest.fixture
def at(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@asynccontextmanager
async def running(at: Desk, *, is_up: bool = True) -> AsyncIterator[Desk]:
    """The house runs, and a server that ends is a provider that is away."""

    async def follow() -> None:
        while True:
            if SERVER not in at.table.alive:
                at.ollama.is_away = True
            await asyncio.sleep(0.005)

    at.is_up(is_up=is_up)
    async with at.house.running():
        follower = asyncio.create_task(follow())
        try:
            yield at
        finally:
            await at.desk.close()
            follower.cancel()


async def test_a_start_is_done_when_it_answers(at: Desk) -> None:
    async with running(at, is_up=False):
        begun = await at.desk.begin(START, None)
        assert (begun.provider, begun.is_done) == ("ollama", False)
        fact = await at.fact()
        assert isinstance(fact, ServiceStarted)
        assert at.service.asked == [("start", "ollama serve")]
        assert not at.house.fleet.slot("ollama").is_down
        assert at.house.seen(ProviderBack) == []


async def test_a_stop_is_no_crash(at: Desk) -> None:
    async with running(at):
        at.ollama.put("a")
        await at.house.fleet.refresh()
        await at.desk.begin(STOP, "ollama")
        fact = await at.fact()
        assert isinstance(fact, ServiceStopped)
        assert not fact.was_killed
        assert at.table.sent == [("ask", 100), ("kill", 101)]  # this server left its runner behind
        slot = at.house.fleet.slot("ollama")
        assert (slot.is_down, slot.is_stopped, slot.loaded) == (True, True, ())
        assert slot.conditions[ConditionType.UNREACHABLE].reason.startswith("Stopped by you.")
        await at.house.reaches(State.PROVIDER_DOWN)
        assert at.house.watchdog.reason == "provider ollama stopped by you"
        for _ in range(5):  # looks that fail are no news
            await at.house.fleet.refresh()
        assert at.house.seen(ProviderLost) == []
        assert at.house.journal.missing == ()
        assert slot.conditions[ConditionType.UNREACHABLE].reason.startswith("Stopped by you.")


async def test_one_that_others_start_again_is_back(at: Desk) -> None:
    async with running(at):
        await at.desk.begin(STOP, None)
        await at.fact()
        at.is_up()
        await at.house.fleet.refresh()
        slot = at.house.fleet.slot("ollama")
        assert (slot.is_down, slot.is_stopped, slot.conditions) == (False, False, {})
        assert at.house.seen(ProviderBack) == [ProviderBack(provider="ollama")]


async def test_v16_a_server_is_asked_waited_for_and_then_killed_with_its_runners(at: Desk) -> None:
    at.table.ignores_requests = True
    async with running(at):
        await at.desk.begin(STOP, None)
        fact = await at.fact()
        assert isinstance(fact, ServiceStopped)
        assert fact.was_killed
        assert 0.3 <= fact.took_s < 30
        assert at.table.sent[0] == ("ask", 100)
        assert set(at.table.sent[1:]) == {("kill", 100), ("kill", 101)}
        assert "did not end when it was asked" in sentence(fact)


async def test_a_forced_stop_kills_the_runners_before_anything_else(at: Desk) -> None:
    async with running(at):
        await at.desk.begin(STOP, None, is_forced=True)
        assert isinstance(await at.fact(), ServiceStopped)
        assert at.table.sent == [("kill", 101), ("ask", 100)]


@pytest.mark.parametrize("way", [Way.USER_UNIT, Way.WINDOWS_SERVICE, Way.LAUNCH_AGENT, Way.MAC_APP])
async def test_what_a_service_keeps_is_told_to_it_first(at: Desk, way: Way) -> None:
    at.service.way = way
    at.table.ignores_requests = True
    async with running(at):
        await at.desk.begin(STOP, None)
        assert isinstance(await at.fact(), ServiceStopped)
        assert at.service.asked == [("stop", way.value)]
        assert at.table.sent[0] == ("ask", 100)


async def test_a_restart_by_one_command_and_one_by_hand(at: Desk) -> None:
    async with running(at):
        await at.desk.begin(RESTART, None)
        fact = await at.fact()
        assert isinstance(fact, ServiceStarted)
        assert fact.is_restart
        assert at.service.asked == [("stop", "ollama serve"), ("start", "ollama serve")]
        at.service.way, at.service.asked = Way.USER_UNIT, []
        await at.desk.begin(RESTART, None)
        assert isinstance(await at.fact(), ServiceStarted)
        assert at.service.asked == [("restart", "systemd user unit")]


async def test_a_restart_of_what_is_down_starts_it(at: Desk) -> None:
    async with running(at, is_up=False):
        await at.desk.begin(RESTART, None)
        assert isinstance(await at.fact(), ServiceStarted)
        assert at.table.sent == []


async def test_what_is_so_already_is_done_at_once(at: Desk) -> None:
    async with running(at):
        begun = await at.desk.begin(START, None)
        assert (begun.is_done, begun.message) == (True, "ollama is running already.")
        at.is_up(is_up=False)
        begun = await at.desk.begin(STOP, None)
        assert (begun.is_done, begun.message) == (True, "ollama is not running.")
        assert (at.service.asked, at.table.sent) == ([], [])


async def test_v24_there_is_one_action_at_a_time(at: Desk) -> None:
    async with running(at, is_up=False):
        at.service.gate.clear()
        await at.desk.begin(START, None)
        for action in ServiceAction:
            with pytest.raises(Refused, match="ollama is being started already"):
                await at.desk.begin(action, "ollama")
        at.service.gate.set()
        await at.fact()
        await at.desk.begin(STOP, None)
        await at.fact()


def _is_refused(at: Desk) -> None:
    at.service.refusal = ServiceRefused("systemctl refused: no.", remedy="Look.")


def _ends_at_once(at: Desk) -> None:
    at.service.starts_up, at.service.ended = False, "It ended with 1."


def _is_another_users(at: Desk) -> None:
    at.table.ignores_requests = True
    at.table.refusal = CannotKill("It is another user's.", remedy="With sudo.")


def _cannot_be_killed(at: Desk) -> None:
    at.table.ignores_requests = at.table.immortal = True


def _has_a_mistake(at: Desk) -> None:
    at.service.refusal = ZeroDivisionError()


@pytest.mark.parametrize(
    ("action", "spoil", "says"),
    [
        (START, _is_refused, "ollama could not be started: systemctl refused: no. Look."),
        (START, _ends_at_once, "ollama could not be started: It ended with 1. What it wrote is in ollama-"),
        (STOP, _is_another_users, "ollama could not be stopped: It is another user's. With sudo."),
        (RESTART, _cannot_be_killed, "ollama could not be restarted: Processes of the server did not end"),
        (START, _has_a_mistake, "ollama could not be started: Something went wrong inside Tray Valet"),
    ],
)
async def test_a_failure_is_a_fact_with_its_reason(
    at: Desk, action: ServiceAction, spoil: Callable[[Desk], None], says: str
) -> None:
    spoil(at)
    async with running(at, is_up=action is not START):
        await at.desk.begin(action, None)
        fact = await at.fact()
        assert isinstance(fact, ServiceFailed)
        assert sentence(fact).startswith(says)
        assert not at.house.fleet.slot("ollama").is_stopped
        at.table.refusal = None
        begun = await at.desk.begin(action, None)  # it is not busy any more
        assert not begun.is_done


async def test_something_that_answers_again_at_once_is_told(at: Desk) -> None:
    async with at.house.running():  # nobody makes the provider go away here
        at.is_up()
        await at.desk.begin(STOP, None)
        fact = await at.fact()
        assert isinstance(fact, ServiceFailed)
        assert "something answers at" in fact.message
        assert not at.house.fleet.slot("ollama").is_stopped


async def test_an_unknown_provider_is_named_as_such(at: Desk) -> None:
    async with running(at):
        with pytest.raises(NotFound, match="nobody"):
            await at.desk.begin(START, "nobody")


class Runners(FakeProvider):
    """A provider that starts its runners itself."""

    kind = ProviderKind.LLAMA_SERVER


class Cloud(FakeProvider):
    """One that is elsewhere."""

    kind = ProviderKind.OPENAI
    endpoint = "https://api.example.com/v1"
    is_local = False


class Studio(FakeProvider):
    """One with a window of its own."""

    kind = ProviderKind.LM_STUDIO


async def test_what_runs_elsewhere_says_where_to_do_it(tmp_path: Path) -> None:
    at = Desk(tmp_path, Cloud("cloud"), Studio("studio"))
    async with running(at):
        for action in ServiceAction:
            with pytest.raises(NotSupported, match=r"https://api\.example\.com/v1") as error:
                await at.desk.begin(action, "cloud")
            assert error.value.remedy == f"{action.value.capitalize()} it where it runs."
            with pytest.raises(NotSupported, match="lms server"):
                await at.desk.begin(action, "studio")


async def test_without_a_name_the_one_with_a_service_is_meant(tmp_path: Path) -> None:
    at = Desk(tmp_path)
    at.house.providers[:] = [Cloud("cloud"), Runners("local"), at.ollama]
    async with running(at):
        assert (await at.desk.begin(START, None)).provider == "ollama"
    at.house.providers[:] = [Cloud("cloud"), Runners("local")]
    async with running(at):
        assert (await at.desk.begin(START, None)).provider == "local"
    at.house.providers[:] = []
    async with running(at):
        with pytest.raises(NotSupported, match="There is no provider"):
            await at.desk.begin(START, None)


async def test_an_ollama_that_was_not_found_yet_can_be_started(tmp_path: Path) -> None:
    at = Desk(tmp_path)
    at.house.providers[:] = [Runners("demo")]
    at.is_sought = True
    looks = 0

    def found() -> bool:
        nonlocal looks
        looks += 1
        return looks > 2

    at.found = found
    async with running(at, is_up=False):
        begun = await at.desk.begin(START, None)
        assert begun.provider == "ollama"
        assert isinstance(await at.fact(), ServiceStarted)
        assert looks == 3
        at.is_up(is_up=False)
        assert (await at.desk.begin(START, "demo")).is_done
        # What runs is what a stop is about.
        assert (await at.desk.begin(STOP, None)).provider == "demo"
        assert (await at.desk.begin(STOP, "ollama")).message == "ollama is not running."


async def test_runners_have_nothing_to_start_stop_by_unloading_and_restart_as_they_were(
    tmp_path: Path,
) -> None:
    local = Runners("local", models=("a", "b", "c"))
    at = Desk(tmp_path, local)
    async with running(at):
        begun = await at.desk.begin(START, "local")
        assert begun.is_done
        assert "nothing to start" in begun.message
        for action in (STOP, RESTART):
            assert (await at.desk.begin(action, "local")).is_done

        local.put("a", context_length=2048, ttl_left_s=None)
        local.put("b", context_length=4096, ttl_left_s=60.0)
        local.put("c", ttl_left_s=0.0)  # in use past its end
        await at.house.fleet.refresh()
        await at.desk.begin(RESTART, "local")
        fact = await at.fact()
        assert isinstance(fact, ServiceStarted)
        assert fact.is_restart
        assert local.requests == [
            LoadRequest(model="a", context_length=2048, ttl_s=float("inf")),
            LoadRequest(model="b", context_length=4096, ttl_s=60.0),
            LoadRequest(model="c", context_length=4096, ttl_s=None),  # the usual time, not none at all
        ]
        await at.desk.begin(STOP, "local")
        assert isinstance(await at.fact(), ServiceStopped)
        assert at.unloaded == ["local", "local"]  # the user's unload, which lets answers finish
        assert local.loaded == {}
        slot = at.house.fleet.slot("local")
        assert (slot.is_down, slot.is_stopped) == (False, False)  # it starts them when they are asked for


async def test_a_forced_stop_of_runners_kills_them(tmp_path: Path) -> None:
    local = Runners("local")
    at = Desk(tmp_path, local)
    async with running(at):
        local.put("a")
        await at.house.fleet.refresh()
        await at.desk.begin(STOP, "local", is_forced=True)
        assert isinstance(await at.fact(), ServiceStopped)
        assert local.calls[0] == ("kill", "a")


async def test_an_end_of_the_valet_leaves_servers_as_they_are(at: Desk) -> None:
    at.service.starts_up = False
    async with running(at, is_up=False):
        await at.desk.begin(START, None)
        async with asyncio.timeout(2):
            await at.desk.close()
        assert at.table.sent == []
