"""The doctor's looks at what runs models: each trouble made real, and the healthy case beside it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.commands.doctor_ground import NO_PROVIDERS, ground_of, web_server
from tests.ports import quiet_port
from tests.standins.ollama import OllamaStandin
from tray_valet.commands import doctor_looks_ollama as outside
from tray_valet.commands import doctor_looks_providers as looks
from tray_valet.commands.client import ControlPlace, RuntimeFile
from tray_valet.commands.doctor_ground import Ground, ValetAnswers
from tray_valet.core import checkup_providers as rules
from tray_valet.core.checkup import FindingStatus
from tray_valet.core.checkup_providers import OllamaProcessSeen, RoomSeen, SizeSeen

OK, INFO, WARN, BAD, UNKNOWN = (
    FindingStatus.OK,
    FindingStatus.INFO,
    FindingStatus.WARN,
    FindingStatus.BAD,
    FindingStatus.UNKNOWN,
)
GB = 2**30
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


def ollama_at(url: str, **more: Any) -> dict[str, Any]:
    return {"providers": {"ollama": {"kind": "ollama", "url": url}}, **more}


def local(**models: Any) -> dict[str, Any]:
    served = {name: {"model_path": str(path)} for name, path in models.items()}
    return {"providers": {"local": {"kind": "llama-server", "models": served}}}


@pytest.fixture
def ollama() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "llama3:latest=8") as standin:
        yield standin


# -- servers -----------------------------------------------------------------------------------------


def test_an_ollama_that_answers(tmp_path: Path, ollama: OllamaStandin) -> None:
    found = looks.ollama(ground_of(tmp_path, ollama_at(ollama.url)))
    assert (found.status, ollama.url in found.says) == (OK, True)


def test_looking_loads_no_model(tmp_path: Path, ollama: OllamaStandin) -> None:
    ground = ground_of(tmp_path, ollama_at(ollama.url))
    for look in (
        looks.ollama,
        looks.sizes,
        outside.ollama_clients,
        outside.ollama_rights,
        looks.known_models,
    ):
        look(ground)
    assert {call["method"] for call in ollama.calls()} <= {"GET"}
    assert ollama.loaded() == {}


def test_an_ollama_that_does_not_answer_and_one_that_is_not_installed(tmp_path: Path) -> None:
    settings = ollama_at(f"http://127.0.0.1:{quiet_port()}")
    programs = tmp_path / "bin"
    programs.mkdir()
    nowhere = looks.ollama(ground_of(tmp_path / "a", settings, environ={"PATH": str(programs)}))
    assert (nowhere.status, "https://ollama.com/download" in nowhere.remedy) == (BAD, True)
    (programs / "ollama").write_text("#!/bin/sh\n")
    (programs / "ollama").chmod(0o755)
    silent = looks.ollama(ground_of(tmp_path / "b", settings, environ={"PATH": str(programs)}))
    assert (silent.status, "service start" in silent.remedy) == (BAD, True)


def test_an_ollama_that_hangs_costs_little_time(tmp_path: Path, ollama: OllamaStandin) -> None:
    ollama.set(hang=["/api/version"])
    assert looks.ollama(ground_of(tmp_path, ollama_at(ollama.url))).status is BAD


def test_something_else_at_ollama_s_address(tmp_path: Path) -> None:
    with web_server({}) as url:
        found = looks.ollama(ground_of(tmp_path, ollama_at(url)))
    assert (found.status, "not Ollama" in found.says) == (BAD, True)


@pytest.mark.parametrize(
    ("version", "status"),
    [("0.5.7", WARN), ("0.9.6", WARN), ("0.10.0", OK), ("0.33.0-rc1", OK), ("0.0.0", OK), ("1.0.0", OK)],
)
def test_an_old_ollama(tmp_path: Path, version: str, status: FindingStatus) -> None:
    with web_server({"/api/version": {"version": version}}) as url:
        assert looks.ollama(ground_of(tmp_path, ollama_at(url))).status is status


def test_another_server_that_answers_and_one_that_does_not(tmp_path: Path) -> None:
    def studio(url: str) -> Ground:
        return ground_of(tmp_path, {"providers": {"studio": {"kind": "lm-studio", "url": url}}})

    with web_server({}) as url:
        assert looks.other_servers(studio(url)).status is OK
    found = looks.other_servers(studio(f"http://127.0.0.1:{quiet_port()}"))
    assert (found.status, "providers.studio.url" in found.remedy) == (BAD, True)


def test_a_cloud_is_not_asked(tmp_path: Path) -> None:
    settings = {"providers": {"cloud": {"kind": "openai", "url": "https://api.example.invalid/v1"}}}
    assert looks.other_servers(ground_of(tmp_path, settings)).status is OK


# -- engines and files -------------------------------------------------------------------------------


def test_engines_that_are_missing_or_may_not_be_run(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"

    def ground() -> Ground:
        wish = {"kind": "llama-server", "llama_server_path": str(program)}
        return ground_of(tmp_path, {"providers": {"local": wish}})

    missing = looks.engine(ground())
    assert (missing.status, "does not exist" in missing.says) == (BAD, True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    closed = looks.engine(ground())
    assert (closed.status, "is not executable" in closed.says) == (BAD, True)
    program.chmod(0o755)
    assert looks.engine(ground()).status is OK


def test_a_command_whose_program_is_missing(tmp_path: Path) -> None:
    def ground(program: str) -> Ground:
        wish = {"kind": "command", "models": {"comfy": {"command": [program, "main.py"]}}}
        return ground_of(tmp_path, {"providers": {"comfy": wish}})

    assert looks.engine(ground("no-such-program-here")).status is BAD
    assert looks.engine(ground("sh")).status is OK


@linux_only
@pytest.mark.parametrize(("flags", "status"), [("fpu avx avx2", OK), ("fpu avx", BAD)])
def test_a_processor_without_avx2(tmp_path: Path, flags: str, status: FindingStatus) -> None:
    pytest.importorskip("xllamacpp")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    empty = {"PATH": str(tmp_path)}
    ground = ground_of(tmp_path / "home", local(qwen="q.gguf"), environ=empty, proc=proc)
    assert looks.cpu(ground).status is status
    other = ground_of(tmp_path / "other", NO_PROVIDERS, proc=proc)
    assert looks.cpu(other).status is (OK if status is OK else INFO)


def test_model_files_of_every_kind(tmp_path: Path, tiny_model: Path) -> None:
    def look(path: object) -> Any:
        return looks.model_files(ground_of(tmp_path, local(qwen=path)))

    assert look(tiny_model).status is OK
    gone = look(tmp_path / "gone.gguf")
    assert (gone.status, str(tmp_path / "gone.gguf") in gone.says) == (BAD, True)
    (tmp_path / "page.gguf").write_text("<html>")
    assert (look(tmp_path / "page.gguf").status, "GGUF" in look(tmp_path / "page.gguf").says) == (BAD, True)
    (tmp_path / "half.gguf").write_bytes(tiny_model.read_bytes()[:30])
    assert look(tmp_path / "half.gguf").status is BAD
    (tmp_path / "folder.gguf").mkdir()
    assert (look(tmp_path / "folder.gguf").status, "folder" in look(tmp_path / "folder.gguf").says) == (
        BAD,
        True,
    )
    relative = look("models/qwen.gguf")
    assert (relative.status, "base_models_path" in relative.remedy) == (BAD, True)
    assert looks.model_files(ground_of(tmp_path, NO_PROVIDERS)).status is OK


def test_a_split_model_with_a_part_missing(tmp_path: Path, tiny_model: Path) -> None:
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(tiny_model.read_bytes())
    found = looks.model_files(ground_of(tmp_path, local(m=first)))
    assert (found.status, "m-00002-of-00002.gguf is missing" in found.says) == (BAD, True)


def test_a_model_that_is_larger_than_the_machine(tmp_path: Path, tiny_model: Path) -> None:
    assert looks.sizes(ground_of(tmp_path, local(tiny=tiny_model))).status is OK
    huge = tmp_path / "huge.gguf"
    huge.write_bytes(tiny_model.read_bytes())
    with huge.open("r+b") as file:  # sparse: it takes no room
        file.truncate(psutil.virtual_memory().total * 40)
    found = looks.sizes(ground_of(tmp_path, local(huge=huge)))
    assert (found.status, "huge" in found.says) == (BAD, True)


def test_a_model_of_ollama_that_is_larger_than_the_machine(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total * 40
    tags = {"models": [{"name": "giant:latest", "size": total}]}
    with web_server({"/api/tags": tags, "/api/version": {"version": "0.33.0"}}) as url:
        found = looks.sizes(ground_of(tmp_path, ollama_at(url)))
    assert (found.status, "giant:latest" in found.says) == (BAD, True)


@pytest.mark.parametrize(
    ("size_gb", "is_cpu_only", "vram_gb", "status"),
    [
        (10, False, 0, OK),
        (14, False, 0, WARN),  # fits, and is pressure by itself
        (20, False, 0, BAD),
        (20, False, 24, OK),
        (30, False, 24, WARN),
        (20, True, 24, BAD),  # what runs on the CPU does not use VRAM
        (20, False, None, WARN),  # a GPU that sleeps: nobody knows what it has
    ],
)
def test_sizes_against_ram_and_vram(
    size_gb: int, is_cpu_only: bool, vram_gb: int | None, status: FindingStatus
) -> None:
    room = RoomSeen(ram_bytes=16 * GB, vram_bytes=None if vram_gb is None else vram_gb * GB)
    models = (SizeSeen("small", GB), SizeSeen("qwen", size_gb * GB, is_cpu_only))
    assert rules.of_sizes(models, room).status is status


# -- Ollama from outside -----------------------------------------------------------------------------


@linux_only
def test_an_ollama_of_ours_may_be_ended(tmp_path: Path, ollama: OllamaStandin) -> None:
    found = outside.ollama_rights(ground_of(tmp_path, ollama_at(ollama.url)))
    assert (found.status, f"PID {ollama.pid}" in found.says) == (OK, True)


def test_an_ollama_of_another_user_is_said_with_its_remedy() -> None:
    seen = OllamaProcessSeen(pid=7, owner="ollama", is_ours=False)
    found = rules.of_ollama_rights(seen, is_root=False)
    assert (found.status, "belongs to ollama" in found.says) == (WARN, True)
    assert "systemctl restart ollama" in found.remedy
    assert rules.of_ollama_rights(seen, is_root=True).status is OK
    assert rules.of_ollama_rights(OllamaProcessSeen(), is_root=False).status is OK


@linux_only
def test_a_program_that_talks_to_ollama_directly_is_named(tmp_path: Path, ollama: OllamaStandin) -> None:
    ground = ground_of(tmp_path, ollama_at(ollama.url))
    assert outside.ollama_clients(ground).status is OK
    script = (
        f"import socket,sys; s=socket.create_connection(('127.0.0.1',{ollama.port}));"
        "print(1,flush=True); sys.stdin.read()"
    )
    client = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None
        client.stdout.readline()
        found = outside.ollama_clients(ground)
        assert (found.status, f"(PID {client.pid})" in found.says) == (WARN, True)
        assert "http://127.0.0.1:8766" in found.remedy
    finally:
        client.communicate(timeout=60)
    assert outside.ollama_clients(ground).status is OK


@linux_only
def test_the_valet_s_own_connections_do_not_count(tmp_path: Path, ollama: OllamaStandin) -> None:
    ground = ground_of(tmp_path, ollama_at(ollama.url))
    with socket.create_connection(("127.0.0.1", ollama.port)):  # ours
        assert outside.ollama_clients(ground).status is OK


@linux_only
@pytest.mark.parametrize(
    ("variable", "value", "status"),
    [
        ("OLLAMA_KEEP_ALIVE", "-1", WARN),
        ("OLLAMA_KEEP_ALIVE", "-1m", WARN),
        ("OLLAMA_KEEP_ALIVE", "5m", OK),
        ("OLLAMA_NUM_PARALLEL", "16", WARN),
        ("OLLAMA_NUM_PARALLEL", "2", OK),
        ("OLLAMA_HOST", "0.0.0.0:11434", WARN),
        ("OLLAMA_HOST", "127.0.0.1:11434", OK),
    ],
)
def test_variables_that_ollama_was_started_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    status: FindingStatus,
) -> None:
    monkeypatch.setenv(variable, value)
    with OllamaStandin("--model", "llama3:latest=8") as standin:
        monkeypatch.delenv(variable)
        found = outside.ollama_settings(ground_of(tmp_path, ollama_at(standin.url)))
    assert found.status is status, found


def test_an_ollama_host_of_the_user_that_means_another_place(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{quiet_port()}"

    def look(host: str) -> Any:
        return outside.ollama_settings(ground_of(tmp_path, ollama_at(url), environ={"OLLAMA_HOST": host}))

    assert look("192.168.1.9:11434").status is WARN
    assert look(url.removeprefix("http://")).status is OK
    assert look(url.replace("127.0.0.1", "localhost")).status is OK


def test_settings_of_another_user_s_ollama_are_unknown() -> None:
    seen = OllamaProcessSeen(pid=7, owner="ollama", is_ours=False, environment=None)
    assert rules.of_ollama_settings(seen, (), None).status is UNKNOWN


# -- what the running valet tells --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("reloaded", WARN),
        ("given_up", BAD),
        ("key_missing", BAD),
        ("cannot_kill", WARN),
        ("built_in_demo", OK),
    ],
)
def test_the_valet_s_conditions_are_told(tmp_path: Path, kind: str, status: FindingStatus) -> None:
    told = {"conditions": [{"provider": "ollama", "type": kind, "status": True, "reason": "It is so."}]}
    runtime = RuntimeFile(pid=1, start_time=1, control=ControlPlace(url="http://127.0.0.1:1"))
    ground = ground_of(tmp_path, NO_PROVIDERS)
    assert looks.conditions(ground).status is INFO
    asked = msgspec.structs.replace(ground, valet=ValetAnswers(runtime=runtime, answers={"/status": told}))
    found = looks.conditions(asked)
    assert (found.status, status is OK or "It is so." in found.says) == (status, True)
