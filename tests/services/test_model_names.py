"""Which model a name means where several could be meant, and that the list says the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.services.house import FakeProvider, House
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import UnknownModel
from tray_valet.core.models import Observation
from tray_valet.providers.ollama_names import canonical_name
from tray_valet.services.catalog import Catalog

QUICK = EvictionSettings(drain_seconds=0.2, kill_after_seconds=0.3, confirm_seconds=0.5)


class Tagging(FakeProvider):
    """One that spells names as Ollama does."""

    canonical = staticmethod(canonical_name)


MakeHouse = Callable[..., House]


@pytest.fixture
def house_of(tmp_path: Path) -> MakeHouse:
    def make(first: FakeProvider, *others: FakeProvider) -> House:
        house = House(tmp_path, first, QUICK)
        house.providers.extend(others)
        return house

    return make


def catalog_of(house: House) -> Catalog:
    return Catalog(house.fleet, house.loader, lambda: house.settings, house.clock)


async def test_who_is_called_exactly_so_comes_before_who_is_called_so_with_latest(
    house_of: MakeHouse,
) -> None:
    house = house_of(Tagging("first", ("llama3:latest", "llama3:8b")), FakeProvider("second", ("llama3",)))
    async with house.running():
        await house.fleet.installed()
        for name, meant in (
            ("llama3", "second/llama3"),
            ("llama3:latest", "first/llama3:latest"),
            ("first/llama3", "first/llama3:latest"),
            ("second/llama3", "second/llama3"),
            ("llama3:8b", "first/llama3:8b"),
        ):
            assert str(house.fleet.find(name)) == meant, name
        assert house.fleet.find("llama3:7b") is None
        assert house.fleet.find("second/llama3:latest") is None


async def test_without_such_a_namesake_a_bare_name_means_latest(house_of: MakeHouse) -> None:
    house = house_of(FakeProvider("first", ("a",)), Tagging("second", ("llama3:latest",)))
    async with house.running():
        await house.fleet.installed()
        assert str(house.fleet.find("llama3")) == "second/llama3:latest"


async def test_provider_slash_model_means_that_provider_even_if_another_has_a_model_of_that_name(
    house_of: MakeHouse,
) -> None:
    house = house_of(
        FakeProvider("reseller", ("openai/gpt", "openai/only")), FakeProvider("openai", ("gpt",))
    )
    async with house.running():
        await house.fleet.installed()
        assert str(house.fleet.find("openai/gpt")) == "openai/gpt"
        assert str(house.fleet.find("reseller/openai/gpt")) == "reseller/openai/gpt"
        assert str(house.fleet.find("openai/only")) == "reseller/openai/only"
        assert str(house.fleet.find("openai/gpt", "reseller")) == "reseller/openai/gpt"


@pytest.mark.parametrize(
    "providers",
    [
        [("first", ("llama3:latest", "b")), ("second", ("llama3", "llama3:latest"))],
        [("reseller", ("openai/gpt", "gpt", "openai/only")), ("openai", ("gpt",))],
    ],
)
async def test_every_listed_name_means_the_model_that_it_is_listed_for(
    house_of: MakeHouse, providers: list[tuple[str, tuple[str, ...]]]
) -> None:
    house = house_of(*(Tagging(n, m) if n == "first" else FakeProvider(n, m) for n, m in providers))
    async with house.running():
        await house.fleet.installed()
        entries = catalog_of(house).entries()
        assert len(entries) == sum(len(models) for _, models in providers)
        for entry in entries:
            assert house.fleet.find(entry.name) == entry.ref, entry.name


class Misplaced(FakeProvider):
    """One whose settings name a file that is not there."""

    async def observe(self) -> Observation:
        seen = await super().observe()
        why = "lost cannot be loaded: there is no readable file /models/lost.gguf."
        return msgspec.structs.replace(seen, unloadable={"lost": why})


async def test_who_asks_for_a_model_whose_file_is_missing_is_told_so(house_of: MakeHouse) -> None:
    house = house_of(FakeProvider("first", ("last",)), Misplaced("second", ()))
    async with house.running():
        await house.fleet.refresh()
        for name, provider in (("lost", None), ("second/lost", None), ("lost", "second")):
            with pytest.raises(UnknownModel, match=r"/models/lost\.gguf.*providers\.second"):
                await house.fleet.resolve(name, provider)
        for name, provider in (("first/lost", None), ("lost", "first"), ("lose", None)):
            assert "lost.gguf" not in str(house.fleet.unknown(name, provider))


async def test_who_names_the_wrong_provider_is_told_who_has_the_model(house_of: MakeHouse) -> None:
    house = house_of(FakeProvider("first", ("only",)), FakeProvider("second", ("other",)))
    async with house.running():
        await house.fleet.installed()
        said = str(house.fleet.unknown("only", "second"))
        assert said == "second has no model called “only”. first has one."
        assert str(house.fleet.unknown("othre", "second")).endswith("Did you mean other?")
        assert str(house.fleet.unknown("onyl", "second")) == "second has no model called “onyl”."
