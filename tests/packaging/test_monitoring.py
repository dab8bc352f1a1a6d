"""The monitoring files fit the router and each other: metrics, panels, mounts, names, keys."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tray_valet.core.config import Settings
from tray_valet.core.watchdog import State

FOLDER = Path(__file__).resolve().parents[2] / "packaging" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads(
    (FOLDER / "grafana" / "dashboards" / "tray-valet.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [
    pytest.param(panel, target, id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
COMPOSE_FILES = ("compose.yaml", "compose.host.yaml")
# What the router tells, with the labels that the dashboard may use. Prometheus adds `instance` and `job`,
# and `le` to histograms.
LABELS: dict[str, set[str]] = {
    "router_requests_total": {"model", "status"},
    "router_request_duration_seconds": {"model"},
    "router_active_requests": {"model"},
    "router_queue_depth": {"model"},
    "router_queue_wait_seconds": {"model"},
    "router_queue_rejected_total": {"model"},
    "router_gpu_vram_used_bytes": {"gpu"},
    "router_gpu_vram_free_bytes": {"gpu"},
    "router_gpu_vram_total_bytes": {"gpu"},
    "router_gpu_utilization_percent": {"gpu"},
    "router_gpu_temperature_celsius": {"gpu"},
    "router_gpu_power_watts": {"gpu"},
    "router_model_vram_bytes": {"model"},
    "router_model_load_duration_seconds": {"model"},
    "router_model_loads_total": {"model"},
    "router_model_ejects_total": {"model"},
    "router_models_loaded_total": set(),
    "router_tokens_generated_total": {"model"},
    "router_tokens_per_second": {"model"},
    "valet_state": {"state"},
    "valet_holds": set(),
    "valet_pauses_total": {"cause"},
    "valet_freed_bytes_total": set(),
    "valet_time_to_first_byte_seconds": {"model"},
    "valet_requests_rerouted_total": {"model"},
    "valet_runner_crashes_total": {"model"},
    "valet_provider_up": {"provider"},
    "valet_process_resident_bytes": set(),
    "valet_build_info": {"version"},
}
HISTOGRAMS = {name for name in LABELS if name.endswith("_seconds")}
UNITS = {"none", "short", "s", "bytes", "percent", "celsius", "watt", "reqps", "suffix: tok/s"}


def yaml_of(path: str) -> Any:
    return yaml.safe_load((FOLDER / path).read_text(encoding="utf-8"))


def service(file: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml_of(file)["services"][name]
    return found


def mounts(file: str, name: str) -> dict[str, str]:
    """Where in the container → what is there."""
    return {parts[1]: parts[0] for parts in (text.split(":") for text in service(file, name)["volumes"])}


def metrics_in(expr: str) -> set[str]:
    """The metrics that an expression reads: names outside of braces and quotes."""
    bare = re.sub(r"\{[^}]*\}", "{}", expr)
    return set(re.findall(r"\b(?:router|valet)_[a-z0-9_]+", bare))


def family(sample: str) -> str:
    """A histogram's samples carry endings; all else is called what it is called."""
    base = re.sub(r"_(bucket|sum|count)$", "", sample)
    return base if base in HISTOGRAMS else sample


# -- the dashboard -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_every_expression_reads_metrics_that_the_router_tells(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    names = metrics_in(target["expr"])
    assert names, "an expression without a metric shows nothing"
    assert {family(name) for name in names} <= set(LABELS)
    for name in names:
        assert (family(name) in HISTOGRAMS) == name.endswith("_bucket"), f"{name} is told as another kind"


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_every_label_of_an_expression_is_one_of_its_metrics(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    expr, legend = target["expr"], target["legendFormat"]
    known = {"instance"}.union(*(LABELS[family(name)] for name in metrics_in(expr)))
    known |= {"le"} if "_bucket" in expr else set()
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expr) for label in by.split(",")}
    matched = {
        label for braces in re.findall(r"\{([^}]*)\}", expr) for label in re.findall(r"(\w+)=", braces)
    }
    assert grouped | matched <= known
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped, "the legend names what was summed away"


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_counters_are_shown_as_rates_and_histograms_as_quantiles(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    expr = target["expr"]
    is_counter = any(
        name.endswith(("_total", "_bucket")) and name != "router_models_loaded_total"
        for name in metrics_in(expr)
    )
    assert is_counter == bool(re.search(r"\b(rate|increase)\(", expr))
    assert ("[$__rate_interval]" in expr) == is_counter
    assert ("_bucket" in expr) == expr.startswith("histogram_quantile(")


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_every_expression_asks_for_the_chosen_machines_alone(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    expr = target["expr"]
    assert expr.count('{instance=~"$instance"') == len(re.findall(r"\b(?:router|valet)_[a-z0-9_]+\{", expr))
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["instance"]


def test_every_metric_of_the_table_is_on_the_dashboard() -> None:
    shown = {family(name) for panel in PANELS for t in panel["targets"] for name in metrics_in(t["expr"])}
    assert shown == set(LABELS)


@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel["title"]) for panel in PANELS])
def test_every_panel_has_a_title_a_unit_a_description_and_the_datasource(panel: dict[str, Any]) -> None:
    [source] = yaml_of("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    expected = {"type": source["type"], "uid": source["uid"]}
    assert panel["title"].strip()
    assert panel["description"].strip()
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == expected
    assert all(target["datasource"] == expected for target in panel["targets"])
    letters = [target["refId"] for target in panel["targets"]]
    assert letters
    assert len(set(letters)) == len(letters)


def test_the_datasource_of_the_machines_list_is_the_provisioned_one() -> None:
    [source] = yaml_of("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert DASHBOARD["templating"]["list"][0]["datasource"] == {"type": "prometheus", "uid": source["uid"]}


def test_ids_are_unique_and_titles_too() -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(set(values)) == len(values)


def test_panels_do_not_overlap_and_stay_within_the_grid() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["y"] >= 0
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_beside or is_below, (one, other)


def test_the_state_panels_know_every_state_of_the_watchdog() -> None:
    panels = [panel for panel in PANELS if "valet_state" in panel["targets"][0]["expr"]]
    assert {panel["type"] for panel in panels} == {"stat", "state-timeline"}
    for panel in panels:
        asked = re.findall(r'state="(\w+)"', panel["targets"][0]["expr"])
        assert set(asked) == {state.value for state in State}
        assert len(asked) == len(set(asked))
        [mapping] = panel["fieldConfig"]["defaults"]["mappings"]
        assert sorted(map(int, mapping["options"])) == list(range(1, len(asked) + 1))


def test_the_dashboard_carries_nothing_of_the_machine_it_was_drawn_on() -> None:
    text = json.dumps(DASHBOARD)
    assert DASHBOARD.get("id") is None
    assert DASHBOARD["uid"] == "tray-valet"
    assert "localhost" not in text
    assert "127.0.0.1" not in text


# -- Prometheus --------------------------------------------------------------------------------------


def test_prometheus_asks_the_routers_metrics_with_the_key_from_its_file() -> None:
    [job] = yaml_of("prometheus.yml")["scrape_configs"]
    assert job["job_name"] == "tray-valet"
    assert job["metrics_path"] == "/metrics"
    [group] = job["static_configs"]
    assert group["targets"] == [f"host.docker.internal:{Settings().router.port}"]
    [secret] = yaml_of("compose.yaml")["secrets"]
    assert job["authorization"] == {"type": "Bearer", "credentials_file": f"/run/secrets/{secret}"}


def test_rates_are_taken_over_the_interval_that_prometheus_scrapes_at() -> None:
    [source] = yaml_of("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["jsonData"]["timeInterval"] == yaml_of("prometheus.yml")["global"]["scrape_interval"]


# -- Compose -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_the_mounts_lead_from_files_that_exist_to_where_the_programs_look(file: str) -> None:
    grafana, prometheus = mounts(file, "grafana"), mounts(file, "prometheus")
    for source in (*grafana.values(), *prometheus.values()):
        assert source in yaml_of(file)["volumes"] or (FOLDER / source).exists(), source
    assert prometheus["/etc/prometheus/prometheus.yml"] == "./prometheus.yml"
    assert "--config.file=/etc/prometheus/prometheus.yml" in service(file, "prometheus")["command"]
    assert grafana["/etc/grafana/provisioning"] == "./grafana/provisioning"
    [provider] = yaml_of("grafana/provisioning/dashboards/dashboards.yaml")["providers"]
    assert grafana[provider["options"]["path"]] == "./grafana/dashboards"
    home = service(file, "grafana")["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder, _, name = home.rpartition("/")
    assert (FOLDER / grafana[folder] / name).is_file()


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_what_is_the_users_own_is_mounted_read_only(file: str) -> None:
    for name in ("grafana", "prometheus"):
        for text in service(file, name)["volumes"]:
            assert text.endswith(":ro") == text.startswith("./"), text


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_image_versions_are_fixed_and_the_same_everywhere(file: str) -> None:
    for name in ("grafana", "prometheus"):
        image = service(file, name)["image"]
        assert re.fullmatch(r"(prom/prometheus:v|grafana/grafana:)\d+\.\d+\.\d+", image), image
        assert image == service("compose.yaml", name)["image"]


def test_both_programs_are_open_to_this_machine_alone() -> None:
    for name, port in (("grafana", 3000), ("prometheus", 9090)):
        assert service("compose.yaml", name)["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert "network_mode" not in service("compose.yaml", name)
        assert service("compose.host.yaml", name)["network_mode"] == "host"
        assert "ports" not in service("compose.host.yaml", name), "it has no meaning on the host's network"
    assert service("compose.host.yaml", "grafana")["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert "--web.listen-address=127.0.0.1:9090" in service("compose.host.yaml", "prometheus")["command"]


def test_the_names_in_the_files_lead_to_the_right_machines() -> None:
    [source] = yaml_of("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090", "the service's name is its address"
    assert service("compose.yaml", "prometheus")["extra_hosts"] == ["host.docker.internal:host-gateway"]
    assert service("compose.host.yaml", "prometheus")["extra_hosts"] == ["host.docker.internal:127.0.0.1"]
    assert service("compose.host.yaml", "grafana")["extra_hosts"] == ["prometheus:127.0.0.1"]


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_nobody_gets_into_grafana_without_the_password_of_the_environment(file: str) -> None:
    environment = service(file, "grafana")["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_prometheus_gets_the_key_as_a_secret_and_nobody_else_does(file: str) -> None:
    assert yaml_of(file)["secrets"] == {"router-key": {"environment": "TRAY_VALET_ROUTER_KEY"}}
    assert service(file, "prometheus")["secrets"] == ["router-key"]
    assert "secrets" not in service(file, "grafana")
    assert "TRAY_VALET_ROUTER_KEY" not in json.dumps(yaml_of(file)["services"])


def test_the_files_with_the_keys_stay_out_of_git() -> None:
    assert ".env" in (FOLDER / ".gitignore").read_text(encoding="utf-8").split("\n")


def test_the_readme_names_every_file_and_every_variable() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in ("prometheus.yml", *COMPOSE_FILES, "grafana/dashboards/tray-valet.json"):
        assert f"`{name}`" in text
    variables = set(re.findall(r"\$\{(\w+):\?", (FOLDER / "compose.yaml").read_text(encoding="utf-8")))
    for variable in (*variables, "TRAY_VALET_ROUTER_KEY"):
        assert f"{variable}=%s" in text
