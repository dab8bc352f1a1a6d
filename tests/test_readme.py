"""The documents are true: their diagram, commands, settings, paths and dependencies are those of the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import yaml

from tray_valet.commands import grammar
from tray_valet.core import config_providers, errors
from tray_valet.core.config import Settings
from tray_valet.core.config_providers import CandidateSettings, LlamaServerModelSettings, Section
from tray_valet.core.dialects import LLAMA_SERVER_PATHS, OLLAMA_PATHS, OPENAI_PATHS, OPERATIONS, Dialect
from tray_valet.core.models import ProviderKind
from tray_valet.core.traffic import Exchanged, Outcome
from tray_valet.core.watchdog import mermaid_diagram
from tray_valet.services.clock import SystemClock
from tray_valet.services.request_log import RequestLog
from tray_valet.services.settings import SettingsStore
from tray_valet.web.control.api import ControlApi
from tray_valet.web.edge.errors import STATUS_OF, EdgeCode
from tray_valet.web.router.metric_families import FAMILIES
from tray_valet.web.router.openapi import document as router_document

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")
REQUIRED = "required"


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of that language."""
    return [
        block for name, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if name == language
    ]


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def section(heading: str) -> str:
    """What stands under a heading, down to the next of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", README, re.M | re.S)
    assert found is not None, f"there is no section {heading}"
    return found[1]


def tables(text: str) -> list[list[list[str]]]:
    """The tables in it: rows of cells, without the heads."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, re.M)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().split("\n")[2:]]
        for table in found
    ]


def code_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# -- diagram -----------------------------------------------------------------------------------------


def test_the_state_diagram_is_the_one_generated_from_the_table() -> None:
    assert blocks(README, "mermaid") == [mermaid_diagram() + "\n"]


# -- commands ----------------------------------------------------------------------------------------


def command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of every `tray-valet …` and `dev.py run …` in a document."""
    in_blocks = "\n".join(blocks(text)).replace("\\\n", " ").split("\n")
    for line in (*in_blocks, *code_in(without_blocks(text).replace("\n", " "))):
        words = shlex.split(line, comments=True) if re.search(r"tray-valet|dev\.py", line) else []
        words = words[1:] if words[:1] == ["$"] else words
        if words[:1] and words[0].rpartition("/")[2] == "tray-valet":
            yield words[1:]
        elif words[:3] == ["python3", "packaging/dev.py", "run"]:
            yield words[3:]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_line_in_the_documents_can_be_typed(document: str) -> None:
    lines = list(command_lines(text_of(document)))
    assert lines
    for arguments in lines:
        grammar.parse(arguments)  # raises WrongUsage


def test_every_command_is_in_the_readmes_table() -> None:
    lines = [code_in(row[0])[0].split() for row in tables(section("Commands"))[0]]
    assert ["tray-valet"] in lines, "what it does without a command"
    named = {words[1] for words in lines if len(words) > 1}
    usage = grammar._parser().format_help()
    assert named - {"--version"} == set(re.findall(r"^    ([a-z]+)  ", usage, re.M))


def test_every_command_of_the_set_up_script_exists() -> None:
    usage = text_of("packaging/dev.py").partition('USAGE = """')[2].partition('"""')[0]
    known = set(re.findall(r"^  ([a-z]+) ", usage, re.M))
    for document in DOCUMENTS:
        assert set(re.findall(r"packaging/dev\.py ([a-z]+)", text_of(document))) <= known


# -- settings ----------------------------------------------------------------------------------------


def rows_of(heading: str, number: int = 0) -> list[list[str]]:
    return tables(section(f"`{heading}`"))[number]


def told(rows: list[list[str]]) -> dict[str, Any]:
    """Key → default, as the README tells them."""
    return {
        code_in(key)[0]: REQUIRED if default == REQUIRED else yaml.safe_load(code_in(default)[0])
        for key, default, *_ in rows
    }


def true_defaults(cls: type[Section]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        value = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            value = field.default_factory()
        defaults[field.name] = REQUIRED if value is msgspec.NODEFAULT else msgspec.to_builtins(value)
    return defaults


SECTIONS: dict[str, type[Section]] = {
    field.name: type(field.default)
    for field in msgspec.structs.fields(Settings)
    if isinstance(field.default, Section)
} | {"pools": config_providers.PoolSettings, "routes": config_providers.RouteSettings}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_settings_table_has_every_key_of_a_section_with_its_default(name: str) -> None:
    rows = rows_of(name)
    assert told(rows) == _plain(true_defaults(SECTIONS[name]))
    # 85 and 85.0 are equal, but a user should see what `config show` prints.
    assert {k: repr(v) for k, v in told(rows).items()} == {
        k: repr(v) for k, v in _plain(true_defaults(SECTIONS[name])).items()
    }


def _plain(value: Any) -> Any:
    """Tuples as the lists that YAML has."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


PROVIDERS_TABLES = [
    (0, config_providers.OllamaSettings),
    (1, config_providers.LlamaServerSettings),
    (2, LlamaServerModelSettings),
    (3, config_providers.OpenAiSettings),
]


@pytest.mark.parametrize(("number", "cls"), PROVIDERS_TABLES)
def test_the_providers_tables_have_every_key_with_its_default(number: int, cls: type[Section]) -> None:
    assert told(rows_of("providers", number)) == _plain(true_defaults(cls))


def test_every_section_kind_and_candidates_key_is_named() -> None:
    headings = set(re.findall(r"^#### `(\w+)`$", README, re.M))
    assert headings == {field.name for field in msgspec.structs.fields(Settings)}
    assert {kind.value for kind in ProviderKind} <= set(code_in(section("`providers`")))
    candidates = next(row for row in rows_of("routes") if "candidates" in row[0])
    for field in msgspec.structs.fields(CandidateSettings):
        assert re.search(rf"\b{field.name}\b", candidates[-1])


def test_settings_that_are_said_to_be_out_of_use_are_read_by_no_code() -> None:
    sources = [
        path
        for path in (ROOT / "tray_valet").rglob("*.py")
        if not (path.parent.name == "core" and path.name.startswith("config"))
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    for name in SECTIONS:
        owner = {"pools": "pool", "routes": "route"}.get(name, rf"(?:{name}|settings)(?:\(\))?")
        for key, _, _, in_use, _ in rows_of(name):
            assert in_use in ("yes", "no", "partly")
            attribute = rf"\b{owner}\.{code_in(key)[0]}\b"
            if in_use == "no":
                assert not re.search(attribute, code), f"{name}.{key} is read now: correct the README"


def test_the_readmes_settings_file_is_right(tmp_path: Path) -> None:
    (example,) = blocks(README, "yaml")
    file = tmp_path / "config.yaml"
    file.write_text(example, encoding="utf-8")
    file.chmod(0o600)
    store = SettingsStore(file, {})
    store.load()
    assert store.problem is None
    assert store.warnings == ()


# -- API ---------------------------------------------------------------------------------------------


def test_the_control_apis_table_has_exactly_its_routes() -> None:
    nothing = typing.cast("Any", None)  # the routes are made without asking it anything
    opener = typing.cast("Any", object())  # without one there is no /open
    desks = typing.cast(
        "Any", SimpleNamespace(store=None, setup=None, settings=None, secrets=None, checks=None)
    )
    routes = ControlApi(nothing, clock=SystemClock(), open_window=opener, desks=desks).routes
    real = {
        f"{method} {route.path.replace(':path', '').replace('{hold_id}', '{id}')}"
        for route in routes
        for method in route.methods or ()
        if method != "HEAD"
    }
    named = [code_in(row[0])[0] for row in tables(section("Control API, http://127.0.0.1:8765"))[0]]
    assert sorted(named) == sorted(real)


ROUTER = "Router API, http://127.0.0.1:8766"


def test_the_router_apis_tables_have_exactly_its_paths() -> None:
    real = [
        f"{method.upper()} {path}" for path, item in router_document()["paths"].items() for method in item
    ]
    named = [code for table in tables(section(ROUTER)) for row in table for code in code_in(row[0])]
    assert sorted(named) == sorted(real)


def test_the_router_apis_table_says_which_kind_of_provider_has_which_path() -> None:
    paths_of = {"llama-server": LLAMA_SERVER_PATHS, "ollama": OLLAMA_PATHS, "openai": OPENAI_PATHS}
    names = {Dialect.OPENAI: "OpenAI", Dialect.ANTHROPIC: "Anthropic", Dialect.OLLAMA: "Ollama"}
    for row_paths, dialect, kinds in tables(section(ROUTER))[0]:
        for path in (code.partition(" ")[2] for code in code_in(row_paths)):
            if path not in OPERATIONS:
                continue  # Ollama's commands for its disk
            assert dialect.startswith(names[OPERATIONS[path].dialect])
            told = set(code_in(kinds)) or set(paths_of)  # “every kind of provider”
            assert told == {kind for kind, paths in paths_of.items() if path in paths}, path


def test_the_metrics_table_has_exactly_the_families() -> None:
    rows = tables(section("Monitoring"))[0]
    named = [(code_in(name)[0], kind, tuple(code_in(labels))) for name, kind, labels, _ in rows]
    assert named == [(family.name, family.kind, family.labels) for family in FAMILIES]


async def test_the_request_logs_line_has_the_fields_of_a_real_one(tmp_path: Path) -> None:
    (line,) = blocks(section("Monitoring"))
    shown = msgspec.json.decode(line, type=dict[str, Any])
    unset = {"client", "error_code"}  # told in words
    assert list(shown) == [
        "time",
        *(name for name in Exchanged.__struct_fields__ if name != "at" and name not in unset),
    ]
    said = {name: value for name, value in shown.items() if name != "time"}
    record = Exchanged(at=0.0, **(said | {"outcome": Outcome(shown["outcome"])}))
    log = RequestLog(tmp_path / "requests.jsonl")
    log.note(record)
    await log.close()
    written = json.loads((tmp_path / "requests.jsonl").read_text(encoding="utf-8"))
    assert written | {"time": shown["time"]} == shown
    prose = without_blocks(section("Monitoring"))
    assert {outcome.value for outcome in Outcome} | unset <= set(code_in(prose))


def test_the_errors_table_has_every_code_with_its_status() -> None:
    status_of_code = {str(error.code): status for error, (status, _) in STATUS_OF.items()}
    wire_codes = {code.value for code in EdgeCode}
    named: set[str] = set()
    for status, codes, _ in tables(section("Errors"))[0]:
        named |= set(code_in(codes))
        for code in code_in(codes):
            assert code in wire_codes or status_of_code[code] == int(status), code
    # Root is refused at the start, before anything listens.
    on_the_wire = wire_codes | {str(error.code) for error in STATUS_OF if error is not errors.RootRefused}
    assert named == on_the_wire


# -- paths, links, dependencies ------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = text_of(document)
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", without_blocks(text), re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_that_are_named_exist(document: str) -> None:
    named = re.findall(r"`((?:tray_valet|tests|packaging|assets)/[\w./-]*)`", text_of(document))
    for path in named:
        assert "NAME" in path or (ROOT / path).exists(), path


def test_the_house_map_has_every_folder_and_module_of_the_package() -> None:
    named = {path for row in tables(section("The house"))[0] for path in code_in(row[0])}
    package = ROOT / "tray_valet"
    found = [*package.glob("*/__init__.py"), *package.glob("*/*/__init__.py")]
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in found}
    modules = {f"tray_valet/{path.name}" for path in package.glob("*.py") if path.name != "__init__.py"}
    assert {path for path in named if path.startswith("tray_valet/")} == folders | modules


def test_every_benchmark_is_in_the_table() -> None:
    named = {code_in(row[0])[0] for row in tables(section("Benchmarks"))[0]}
    assert named == {f"tests/benchmarks/{path.name}" for path in (ROOT / "tests/benchmarks").glob("[!_]*.py")}


def test_the_dependency_table_names_what_is_installed_with_the_product() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["engine"], *extras["speed"]]
    names = [re.match(r"[\w.-]+", requirement) for requirement in needed]
    listed = [code_in(row[0])[0] for row in tables(section("Dependencies"))[0]]
    assert sorted(listed) == sorted(name[0] for name in names if name)


MODULES_OF_PACKAGES = {
    "nvidia-ml-py": "pynvml",
    "pyyaml": "yaml",
    "ruamel.yaml": "ruamel",
    "pillow": "PIL",
    "pywebview": "webview",
    "dbus-fast": "dbus_fast",
    "prometheus-client": "prometheus_client",
}
# Not imported by us: the tests of model files read them with these.
NOT_IMPORTED = {"gguf", "numpy"}


def test_every_package_in_the_dependency_table_is_in_use() -> None:
    imported = set()
    for path in (ROOT / "tray_valet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    named = {code_in(row[0])[0] for row in tables(section("Dependencies"))[0]}
    unused = {name for name in named if MODULES_OF_PACKAGES.get(name, name) not in imported}
    assert unused == NOT_IMPORTED
    assert "later version" not in section("Dependencies")
