"""Every metric moves when its subject does, and none is without a row in the table that proves it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.web.fake_valet import FakeValet
from tests.web.wire import router_site
from tray_valet.core import events as ev
from tray_valet.core.commands import ModelState, QueueState
from tray_valet.core.metrics import GpuSample, MachineSample
from tray_valet.core.models import ModelRef
from tray_valet.core.traffic import Exchanged, Outcome
from tray_valet.core.watchdog import State
from tray_valet.web.router.answers import RouterAnswers
from tray_valet.web.router.metric_families import FAMILIES
from tray_valet.web.router.metrics import OPENMETRICS_TYPE, TEXT_TYPE, RouterMetrics

NAME = "llama3:latest"
LLAMA = ModelRef("ollama", NAME)
METRIC_NAMES = frozenset(family.name for family in FAMILIES)
SEEDS_NAMES = {
    "router_requests_total",
    "router_request_duration_seconds",
    "router_active_requests",
    "router_queue_depth",
    "router_queue_wait_seconds",
    "router_queue_rejected_total",
    "router_gpu_vram_used_bytes",
    "router_gpu_vram_free_bytes",
    "router_gpu_vram_total_bytes",
    "router_gpu_utilization_percent",
    "router_gpu_temperature_celsius",
    "router_gpu_power_watts",
    "router_model_vram_bytes",
    "router_model_status",
    "router_model_load_duration_seconds",
    "router_model_loads_total",
    "router_model_ejects_total",
    "router_models_loaded_total",
    "router_tokens_generated_total",
    "router_tokens_per_second",
}


class World(FakeValet):
    """A valet whose machine and memory a test can change."""

    def __init__(self) -> None:
        super().__init__()
        self.gpu: dict[str, Any] = {"temperature_c": 40.0, "power_w": 30.0, "utilization_pct": 1.0}
        self.vram_used_bytes = 2**30
        self.vram_total_bytes = 8 * 2**30
        self.resident_bytes = 50 * 2**20
        self.version = "1.2.3"

    async def sample(self) -> MachineSample:
        gpu = GpuSample(
            index=0,
            uuid="GPU-0",
            name="First",
            vram_total_bytes=self.vram_total_bytes,
            vram_used_bytes=self.vram_used_bytes,
            **self.gpu,
        )
        return msgspec.structs.replace(await super().sample(), gpus=(gpu,))

    def snapshot(self) -> Any:
        return msgspec.structs.replace(super().snapshot(), version=self.version)

    def exchange(self, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "at": 1.0,
            "asked": "llama3",
            "path": "/v1/chat/completions",
            "provider": "ollama",
            "model": NAME,
            "status": 200,
            "queue_s": 0.4,
            "first_byte_s": 0.7,
            "total_s": 2.0,
            "is_stream": True,
            "prompt_tokens": 11,
            "completion_tokens": 26,
        }
        self.note_exchange(Exchanged(**(fields | changes)))

    def queue(self, **fields: int) -> None:
        self.lines = (QueueState(ref=LLAMA, **fields),)

    def pause(self) -> Any:  # type: ignore[override]
        self.start_game("Hades")
        self.recorder.record(ev.StateChanged(before=State.RUNNING, after=State.PAUSED, reason="Hades"))

    def change_state(self, after: State) -> None:
        self.state = after
        self.recorder.record(ev.StateChanged(before=State.PAUSED, after=after, reason=""))

    def spend_a_minute_paused(self) -> None:
        self.pause()
        self.clock.now_s += 60.0

    def tell(self, fact: ev.Fact) -> None:
        self.recorder.record(fact)

    def load(self) -> Any:  # type: ignore[override]
        from tray_valet.core.models import LoadedModel

        self.loaded[NAME] = LoadedModel(name=NAME, size_bytes=4 * 2**30, vram_bytes=3 * 2**30)


ASIDE = ev.ModelsSetAside(models=(NAME,), freed_bytes=5 * 2**30, took_s=0.8, cause="Hades")
CRASH = ev.RunnerCrashed(provider="ollama", model=NAME, message="It was killed.")
READY = ev.ModelReady(provider="ollama", model=NAME, took_s=7.0)
GONE = ev.ModelGone(provider="ollama", model=NAME)
M = {"model": NAME}
G = {"gpu": "0"}
P = {"provider": "ollama"}

# metric: (what happens, sample, labels, the value after it)
MOVES: dict[str, tuple[Callable[[World], Any], str, dict[str, str], float]] = {
    "router_requests_total": (lambda w: w.exchange(), "", M | {"status": "success"}, 1),
    "router_request_duration_seconds": (lambda w: w.exchange(), "_bucket", M | {"le": "2.5"}, 1),
    "router_active_requests": (lambda w: w.queue(in_flight=2), "", M, 2),
    "router_queue_depth": (lambda w: w.queue(waiting=4), "", M, 4),
    "router_queue_wait_seconds": (lambda w: w.exchange(), "_bucket", M | {"le": "0.5"}, 1),
    "router_queue_rejected_total": (lambda w: w.queue(rejected_total=3), "", M, 3),
    "router_gpu_vram_used_bytes": (lambda w: setattr(w, "vram_used_bytes", 5), "", G, 5),
    "router_gpu_vram_free_bytes": (lambda w: setattr(w, "vram_used_bytes", 2**33 - 7), "", G, 7),
    "router_gpu_vram_total_bytes": (lambda w: setattr(w, "vram_total_bytes", 2**34), "", G, 2**34),
    "router_gpu_utilization_percent": (lambda w: w.gpu.update(utilization_pct=88.0), "", G, 88),
    "router_gpu_temperature_celsius": (lambda w: w.gpu.update(temperature_c=71.0), "", G, 71),
    "router_gpu_power_watts": (lambda w: w.gpu.update(power_w=210.5), "", G, 210.5),
    "router_model_vram_bytes": (lambda w: w.load(), "", M, 3 * 2**30),
    "router_model_status": (lambda w: w.load(), "", M | {"status": "ready"}, 1),
    "router_model_load_duration_seconds": (lambda w: w.tell(READY), "_sum", M, 7),
    "router_model_loads_total": (lambda w: w.tell(READY), "", M, 1),
    "router_model_ejects_total": (lambda w: w.tell(GONE), "", M, 1),
    "router_models_loaded_total": (lambda w: w.load(), "", {}, 1),
    "router_tokens_generated_total": (lambda w: w.exchange(), "", M, 26),
    "router_tokens_prompt_total": (lambda w: w.exchange(), "", M, 11),
    "router_tokens_per_second": (lambda w: w.exchange(), "", M, 20),
    "valet_time_to_first_byte_seconds": (lambda w: w.exchange(), "_bucket", M | {"le": "1.0"}, 1),
    "valet_requests_rerouted_total": (lambda w: w.exchange(reason="fallback: paused"), "", {}, 1),
    "valet_answers_ended_total": (lambda w: w.tell(ev.AnswersEnded(count=2)), "", {}, 2),
    "valet_state": (lambda w: w.change_state(State.RESUMING), "", {"state": "resuming"}, 1),
    "valet_holds": (lambda w: w.pause(), "", {}, 1),
    "valet_pauses_total": (lambda w: w.pause(), "", {"cause": "game"}, 1),
    "valet_paused_seconds_total": (lambda w: w.spend_a_minute_paused(), "", {}, 60),
    "valet_pause_seconds": (lambda w: w.tell(ASIDE), "_bucket", {"le": "1.0"}, 1),
    "valet_freed_bytes_total": (lambda w: w.tell(ASIDE), "", {}, 5 * 2**30),
    "valet_runner_crashes_total": (lambda w: w.tell(CRASH), "", M, 1),
    "valet_provider_up": (lambda w: setattr(w, "provider_state", "unreachable"), "", P, 0),
    "valet_process_resident_bytes": (lambda w: setattr(w, "resident_bytes", 9), "", {}, 9),
    "valet_build_info": (lambda w: setattr(w, "version", "9.9"), "", {"version": "9.9"}, 1),
}  # fmt: skip


async def _sample(world: World, name: str, labels: dict[str, str]) -> float | None:
    metrics = RouterMetrics(world, lambda: world.resident_bytes)
    text, _ = await metrics.text("")
    found = [
        sample.value
        for family in parse_text(text.decode())
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) <= 1, found
    return found[0] if found else None


@pytest.mark.parametrize("name", sorted(MOVES))
async def test_every_metric_moves_when_its_subject_does(name: str) -> None:
    happen, suffix, labels, after = MOVES[name]
    world = World()
    before = await _sample(world, name + suffix, labels)
    happen(world)
    assert before != after
    assert await _sample(world, name + suffix, labels) == after


def test_no_metric_is_without_a_row_here() -> None:
    assert set(MOVES) == METRIC_NAMES
    assert len(METRIC_NAMES) == len(FAMILIES)


def test_the_seeds_names_are_all_there() -> None:
    assert SEEDS_NAMES <= METRIC_NAMES


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_every_way_to_end_has_a_status(outcome: Outcome) -> None:
    world = World()
    world.exchange(outcome=outcome)
    status = "success" if outcome is Outcome.ANSWERED else outcome.value
    assert await _sample(world, "router_requests_total", M | {"status": status}) == 1


async def test_r15_unknown_names_make_no_new_series() -> None:
    world = World()
    for number in range(1000):
        world.exchange(provider="", model="", asked=f"name-{number}", outcome=Outcome.REFUSED, status=404)
    text, _ = await RouterMetrics(world, lambda: None).text("")
    assert b"name-" not in text
    assert await _sample(world, "router_requests_total", {"model": "", "status": "refused"}) == 1000


async def test_two_models_of_one_name_have_two_labels() -> None:
    world = World()
    world.requests._is_known = lambda _: True
    world.exchange()
    world.exchange(provider="local", model=NAME)
    assert await _sample(world, "router_requests_total", M | {"status": "success"}) == 1
    other = {"model": f"local/{NAME}", "status": "success"}
    assert await _sample(world, "router_requests_total", other) == 1


async def test_crashes_of_models_that_are_told_apart_by_state() -> None:
    world = World()
    world.troubles[NAME] = ModelState(name=NAME, ref=LLAMA, status="crashed", error="Killed.", attempts=1)
    assert await _sample(world, "router_model_status", M | {"status": "crashed"}) == 1
    assert await _sample(world, "router_model_status", M | {"status": "ready"}) == 0


async def test_without_a_gpu_its_metrics_have_no_samples() -> None:
    class Bare(World):
        async def sample(self) -> MachineSample:
            return msgspec.structs.replace(await super().sample(), gpus=())

    assert await _sample(Bare(), "router_gpu_vram_used_bytes", G) is None


async def test_the_text_is_prometheus_or_openmetrics_as_asked() -> None:
    world = World()
    for happen, *_ in MOVES.values():
        happen(world)
    async with router_site(world) as site:
        site.api._answers = RouterAnswers(world, resident_bytes=lambda: 1)
        plain = await site.call("GET", "/metrics")
        assert plain.headers["content-type"] == TEXT_TYPE
        names = {sample.name for family in parse_text(plain.body.decode()) for sample in family.samples}
        for family in FAMILIES:
            shown = f"{family.name}_count" if family.kind == "histogram" else family.name
            assert shown in names
        accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
        modern = await site.call("GET", "/metrics", headers=accept)
        assert modern.headers["content-type"] == OPENMETRICS_TYPE
        assert modern.body.endswith(b"# EOF\n")
        assert len(list(parse_openmetrics(modern.body.decode()))) == len(FAMILIES)


async def test_help_and_type_are_there_as_the_seeds_show_them() -> None:
    world = World()
    world.exchange()
    text = (await RouterMetrics(world, lambda: None).text(""))[0].decode()
    assert "# TYPE router_requests_total counter" in text
    assert f'router_requests_total{{model="{NAME}",status="success"}} 1.0' in text
    assert "# TYPE router_model_vram_bytes gauge" in text


def test_the_dashboard_reads_only_what_there_is_by_labels_that_it_has() -> None:
    root = Path(__file__).parents[3]
    text = (root / "packaging/monitoring/grafana/dashboards/tray-valet.json").read_text("utf-8")
    labels = {family.name: set(family.labels) for family in FAMILIES}
    expressions = [
        target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", ())
    ]
    assert expressions
    for expr in expressions:
        bare = re.sub(r"\{[^}]*\}", "", expr)
        names = set(re.findall(r"\b(?:router|valet)_[a-z0-9_]+", bare))
        families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
        assert families <= METRIC_NAMES, expr
        grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expr) for label in by.split(",")}
        assert grouped <= {"instance", "job", "le"}.union(*(labels[name] for name in families)), expr
