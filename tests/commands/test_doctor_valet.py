"""The doctor's looks at the valet itself: each trouble made real, and the healthy case beside it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import keyring.backend
import keyring.errors
import msgspec
import pytest

from tests.commands.doctor_ground import NO_PROVIDERS, ground_of, listener
from tests.ports import quiet_port
from tray_valet import __version__
from tray_valet.commands import doctor_looks_valet as looks
from tray_valet.commands.client import ControlPlace, RuntimeFile
from tray_valet.commands.doctor_ground import ValetAnswers
from tray_valet.core.checkup import FindingStatus
from tray_valet.core.journal import Journal, JournalEntry

OK, INFO, WARN, BAD, UNKNOWN = (
    FindingStatus.OK,
    FindingStatus.INFO,
    FindingStatus.WARN,
    FindingStatus.BAD,
    FindingStatus.UNKNOWN,
)


def on_ports(control: int, router: int) -> dict[str, object]:
    return {"control": {"port": control}, "router": {"port": router}, "providers": {}}


def test_settings_that_are_right(tmp_path: Path) -> None:
    assert looks.settings(ground_of(tmp_path, NO_PROVIDERS)).status is OK
    assert looks.settings(ground_of(tmp_path / "none")).status is OK


def test_settings_that_are_broken_name_the_mistake_and_how_many(tmp_path: Path) -> None:
    found = looks.settings(ground_of(tmp_path, {"thresholds": {"ram_pause_pct": "eighty"}, "colour": 1}))
    assert found.status is BAD
    assert "ram_pause_pct" in found.says or "colour" in found.says
    assert "and 1 more" in found.says
    assert "config check" in found.remedy


def test_settings_that_are_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("control: [")
    assert looks.settings(ground_of(tmp_path)).status is BAD


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits say nothing there")
def test_settings_that_others_can_read(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, NO_PROVIDERS)
    assert looks.privacy(ground).status is OK
    ground.settings_file.chmod(0o644)
    found = looks.privacy(ground)
    assert (found.status, f"chmod 600 '{ground.settings_file}'" in found.remedy) == (WARN, True)


def test_a_port_that_another_program_has_is_named_with_program_and_pid(tmp_path: Path) -> None:
    with listener() as taken:
        found = looks.ports(ground_of(tmp_path, on_ports(taken, quiet_port())))
    assert found.status is BAD
    assert f"(PID {os.getpid()})" in found.says
    assert f"127.0.0.1:{taken}" in found.says
    assert "control.port" in found.remedy


def test_the_router_s_port_is_looked_at_too_unless_it_is_off(tmp_path: Path) -> None:
    with listener() as taken:
        settings = on_ports(quiet_port(), taken)
        assert "router API" in looks.ports(ground_of(tmp_path, settings)).says
        settings["router"] = {"port": taken, "enabled": False}
        assert looks.ports(ground_of(tmp_path, settings)).status is OK


def test_free_ports_and_any_ports_are_fine(tmp_path: Path) -> None:
    assert looks.ports(ground_of(tmp_path, on_ports(quiet_port(), quiet_port()))).status is OK
    assert looks.ports(ground_of(tmp_path, on_ports(0, 0))).status is OK


def test_an_address_that_is_not_this_machine_s(tmp_path: Path) -> None:
    settings = {
        "control": {"host": "192.0.2.7", "port": quiet_port(), "api_key": "keyring:x"},
        "providers": {},
    }
    found = looks.ports(ground_of(tmp_path, settings))
    assert (found.status, "no address of this machine" in found.says) == (BAD, True)


def test_looking_at_a_port_leaves_it_free(tmp_path: Path) -> None:
    port = quiet_port()
    looks.ports(ground_of(tmp_path, on_ports(port, 0)))
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_no_valet_is_worth_knowing_and_no_trouble(tmp_path: Path) -> None:
    found = looks.valet(ground_of(tmp_path, NO_PROVIDERS))
    assert (found.status, "tray-valet serve" in found.remedy) == (INFO, True)


def test_the_runtime_file_of_a_killed_valet_is_noticed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    runtime = RuntimeFile(pid=2**22 + 7, start_time=1, control=ControlPlace(url="http://127.0.0.1:1"))
    (state / "runtime.json").write_bytes(msgspec.json.encode(runtime))
    assert looks.valet(ground_of(tmp_path, NO_PROVIDERS)).status is WARN


def _answers(**by_path: object) -> ValetAnswers:
    runtime = RuntimeFile(pid=os.getpid(), start_time=1, control=ControlPlace(url="http://127.0.0.1:1"))
    return ValetAnswers(runtime=runtime, answers={f"/{path}": value for path, value in by_path.items()})


def test_a_valet_that_does_not_answer_and_one_of_another_version(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, NO_PROVIDERS)
    hung = msgspec.structs.replace(ground, valet=_answers())
    old = msgspec.structs.replace(ground, valet=_answers(status={"version": "0.0.1"}))
    same = msgspec.structs.replace(ground, valet=_answers(status={"version": __version__}))
    assert [looks.valet(each).status for each in (hung, old, same)] == [BAD, WARN, OK]


def test_another_valet_with_other_folders_is_found(tmp_path: Path) -> None:
    script = tmp_path / "tray-valet"
    script.write_text("import time\ntime.sleep(60)\n")
    other = subprocess.Popen([sys.executable, str(script), "serve"])
    try:
        ground = ground_of(tmp_path / "home", NO_PROVIDERS)
        end_s = time.monotonic() + 60
        while f"PID {other.pid}" not in looks.other_valets(ground).says:
            assert time.monotonic() < end_s
        assert looks.other_valets(ground).status is WARN
    finally:
        other.kill()
        other.wait()
    assert f"PID {other.pid}" not in looks.other_valets(ground).says


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    assert looks.folders(ground_of(tmp_path, NO_PROVIDERS)).status is OK
    (tmp_path / "state").write_text("a file in the way")
    found = looks.folders(ground_of(tmp_path, NO_PROVIDERS))
    assert (found.status, "not a folder" in found.says) == (BAD, True)


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    ground = ground_of(tmp_path / "home", None)
    (tmp_path / "home").rmdir()
    assert looks.folders(ground).status is OK
    assert not (tmp_path / "home").exists()


def test_a_damaged_journal_and_a_whole_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    file = state / "journal.json"
    ground = ground_of(tmp_path, NO_PROVIDERS)
    assert looks.journal(ground).status is OK
    file.write_text('{"version": 1, "set_aside": [{"prov')
    found = looks.journal(ground)
    assert (found.status, str(file) in found.says) == (BAD, True)
    file.write_bytes(msgspec.json.encode(Journal(set_aside=(JournalEntry(provider="p", model="qwen"),))))
    found = looks.journal(ground)
    assert (found.status, "qwen will come back" in found.says) == (INFO, True)
    file.rename(file.with_suffix(".damaged"))
    assert looks.journal(ground).status is WARN


def test_a_left_over_runner_is_named_and_left_alone(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, NO_PROVIDERS)
    assert looks.leftovers(ground).status is OK
    runner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "8085", "/m.gguf"])
    try:
        process = ground.table.describe(runner.pid)
        assert process is not None
        folder = tmp_path / "state" / "runners"
        folder.mkdir(parents=True)
        record = {
            "provider": "local",
            "model": "qwen",
            "identity": msgspec.to_builtins(process.identity),
            "port": 8085,
            "model_path": "/m.gguf",
        }
        (folder / "runners.json").write_text(json.dumps([record]))
        found = looks.leftovers(ground)
        assert (found.status, f"qwen (PID {runner.pid})" in found.says) == (WARN, True)
        assert runner.poll() is None
    finally:
        runner.kill()
        runner.wait()
    assert looks.leftovers(ground).status is OK


def test_a_clock_that_is_behind(tmp_path: Path) -> None:
    ground = ground_of(tmp_path, NO_PROVIDERS)
    assert looks.clock(ground).status is OK
    future_s = time.time() + 30 * 86_400
    os.utime(ground.settings_file, (future_s, future_s))
    assert looks.clock(ground).status is BAD


class _Keyring(keyring.backend.KeyringBackend):
    """A keyring in memory; `is_locked` makes it refuse."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise keyring.errors.KeyringLocked("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> _Keyring:
    ring = _Keyring()
    monkeypatch.setattr(keyring, "get_password", ring.get_password)
    return ring


KEYED = {"providers": {"cloud": {"kind": "openai", "api_key": "keyring:openai"}}}


def test_keys_that_are_there_missing_and_locked_away(tmp_path: Path, ring: _Keyring) -> None:
    ground = ground_of(tmp_path, KEYED)
    found = looks.secrets(ground)
    assert (found.status, "keyring:openai" in found.says) == (BAD, True)
    assert "keyring set tray-valet openai" in found.remedy
    ring.set_password("tray-valet", "openai", "sk-1234")
    assert looks.secrets(ground).status is OK
    ring.is_locked = True
    found = looks.secrets(ground)
    assert (found.status, "locked" in found.says) == (BAD, True)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "secrets.json").write_text('{"openai": "sk-1234"}')
    found = looks.secrets(ground)
    assert (found.status, "sk-1234" in str(found)) == (WARN, False)


def test_without_keys_the_keyring_is_not_asked(tmp_path: Path, ring: _Keyring) -> None:
    ring.is_locked = True
    assert looks.secrets(ground_of(tmp_path, NO_PROVIDERS)).status is OK


def _local(files: dict[str, str], **more: object) -> dict[str, object]:
    served = {name: {"model_path": path} for name, path in files.items()}
    return {"providers": {"local": {"kind": "llama-server", "models": served}}, **more}


def test_an_alias_that_leads_nowhere_and_one_that_leads_half_way(tmp_path: Path) -> None:
    def routed(*models: str) -> dict[str, object]:
        candidates = [{"provider": "local", "model": model} for model in models]
        return _local({"qwen": "qwen.gguf"}, routes={"assistant": {"candidates": candidates}})

    assert looks.names(ground_of(tmp_path, routed("qwen"))).status is OK
    half = looks.names(ground_of(tmp_path, routed("qwen", "gone")))
    assert (half.status, "local/gone" in half.says) == (WARN, True)
    dead = looks.names(ground_of(tmp_path, routed("gone")))
    assert (dead.status, "alias assistant" in dead.says) == (BAD, True)


def test_a_default_model_that_nobody_has(tmp_path: Path) -> None:
    good = _local({"qwen": "q.gguf"}, models={"default": "qwen", "preload": ["local/qwen", "*"]})
    assert looks.names(ground_of(tmp_path, good)).status is OK
    found = looks.names(ground_of(tmp_path, _local({"qwen": "q.gguf"}, models={"default": "llama"})))
    assert (found.status, "models.default" in found.says) == (WARN, True)


def test_a_provider_that_cannot_be_asked_is_no_proof_of_a_missing_model(tmp_path: Path) -> None:
    settings = {
        "providers": {"ollama": {"kind": "ollama", "url": f"http://127.0.0.1:{quiet_port()}"}},
        "models": {"default": "llama3"},
    }
    assert looks.names(ground_of(tmp_path, settings)).status is UNKNOWN


def test_a_context_that_the_model_was_not_made_for(tmp_path: Path, tiny_model: Path) -> None:
    def routed(num_ctx: int) -> dict[str, object]:
        route = {"candidates": [{"provider": "local", "model": "tiny"}], "num_ctx": num_ctx}
        return _local({"tiny": str(tiny_model)}, routes={"a": route})

    assert looks.names(ground_of(tmp_path, routed(512))).status is OK
    found = looks.names(ground_of(tmp_path, routed(10_000_000)))
    assert (found.status, "10000000 tokens" in found.says) == (WARN, True)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there is no root")
def test_root_is_said(tmp_path: Path) -> None:
    expected = WARN if os.geteuid() == 0 else OK
    assert looks.user(ground_of(tmp_path, NO_PROVIDERS)).status is expected
