"""How many requests an Ollama model works on at once."""

from __future__ import annotations

import pytest

from tests.providers.ollama_bench import provider_at
from tests.standins.ollama import OllamaStandin
from tray_valet.core.models import LoadRequest
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import Process, ProcessIdentity
from tray_valet.providers.ollama_processes import slots_of
from tray_valet.services.clock import SystemClock


@pytest.mark.parametrize(
    ("argv", "slots"),
    [
        (("llama-server", "--model", "x", "-np", "3"), 3),
        (("ollama", "runner", "--model", "x", "--parallel", "4"), 4),
        (("ollama", "runner", "--model", "x"), None),
        (("llama-server", "--model", "x", "-np", "auto"), None),
        (("llama-server", "-np"), None),
        ((), None),
    ],
)
def test_a_runners_slots_are_told_by_its_arguments(argv: tuple[str, ...], slots: int | None) -> None:
    assert slots_of(Process(identity=ProcessIdentity(1, 1), argv=argv)) == slots


async def test_a_loaded_model_tells_how_many_requests_its_runner_works_on(
    standin: OllamaStandin, process_table: ProcessTable
) -> None:
    provider = provider_at(standin.url, clock=SystemClock(), processes=process_table)
    name = next(m.name for m in await provider.installed() if m.needs_gpu)
    loaded = await provider.load(LoadRequest(model=name))
    assert loaded.slots == 1
    [seen] = (await provider.observe()).loaded
    assert seen.slots == 1
    await provider.close()
