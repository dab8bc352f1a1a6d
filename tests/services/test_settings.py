"""The store: what is in force, and changes that lose nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tray_valet.core.config import Settings
from tray_valet.core.errors import SettingsChangedElsewhere, SettingsError, SettingsUnwritable
from tray_valet.services.settings import SettingsStore
from tray_valet.services.settings_text import parse_settings

COMMENTED = """\
# my settings
thresholds:   # limits
  ram_pause_pct: 80   # eighty

  # cpu is fine
  cpu_pause_pct: 91
games: {grace_seconds: 20,   rules: [{exe: a,  action: off}]}  # short
routes:
  big:
    candidates:
      - provider: ollama   # at home
        model: "llama3"
  small:
    candidates: [{provider: ollama, model: phi}]
    num_ctx: 4096   # enough
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def store_of(path: Path, text: str | None = None, environ: dict[str, str] | None = None) -> SettingsStore:
    if text is not None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
    store = SettingsStore(path, environ or {}, last_good_file=path.parent / "state" / "last_good.yaml")
    store.load()
    return store


def in_file(path: Path) -> Settings:
    """What the file says now; it must be without a mistake."""
    store = SettingsStore(path, {})
    settings = store.load()
    assert store.problem is None, store.problem
    return settings


def rewrite(path: Path, text: str) -> None:
    """As an editor does it: a new file in its place."""
    other = path.with_suffix(".swp")
    other.write_text(text, encoding="utf-8")
    other.chmod(0o600)
    other.replace(path)


# -- what is in force --------------------------------------------------------------------------------


def test_no_file_means_the_defaults(path: Path) -> None:
    store = store_of(path)
    assert store.current == Settings()
    assert (store.problem, store.warnings, store.version) == (None, (), "")
    assert not path.exists()


def test_defaults_file_environment_command_line(path: Path) -> None:
    path.write_text("thresholds: {ram_pause_pct: 70, cpu_pause_pct: 91, gpu_vram_pause_pct: 92}\n")
    environ = {
        "TRAY_VALET_THRESHOLDS__CPU_PAUSE_PCT": "93",
        "TRAY_VALET_THRESHOLDS__GPU_VRAM_PAUSE_PCT": "94",
    }
    store = SettingsStore(path, environ, {"thresholds.gpu_vram_pause_pct": 95, "control": {"port": 0}})
    limits = store.load().thresholds
    assert (limits.ram_pause_pct, limits.cpu_pause_pct, limits.gpu_vram_pause_pct) == (70, 93, 95)
    assert store.current.control.port == 0
    assert store.overrides == {
        "thresholds.cpu_pause_pct": "TRAY_VALET_THRESHOLDS__CPU_PAUSE_PCT",
        "thresholds.gpu_vram_pause_pct": "TRAY_VALET_THRESHOLDS__GPU_VRAM_PAUSE_PCT",
    }


def test_a_broken_file_leaves_the_last_good_settings_in_force_and_alone(path: Path) -> None:
    store = store_of(path, "thresholds: {ram_pause_pct: 70}\n")
    rewrite(path, "thresholds:\n  ram_pause_pct: eighty\n")
    assert store.reload_if_changed() is True
    assert store.current.thresholds.ram_pause_pct == 70
    assert store.problem is not None
    assert str(store.problem.problems[0]) == (
        "Line 2, thresholds.ram_pause_pct: “eighty” is not a number. Use 1 to 100, such as 85.0."
    )
    with pytest.raises(SettingsError):
        store.update({"thresholds": {"ram_pause_pct": 80}})
    assert path.read_text() == "thresholds:\n  ram_pause_pct: eighty\n"
    rewrite(path, "thresholds: {ram_pause_pct: 75}\n")
    assert store.reload_if_changed() is True
    assert (store.problem, store.current.thresholds.ram_pause_pct) == (None, 75)


def test_a_restart_with_a_broken_file_has_the_last_good_settings_too(path: Path) -> None:
    store_of(path, "thresholds: {ram_pause_pct: 70}\n")
    again = store_of(path, "thresholds: [\n")
    assert again.current.thresholds.ram_pause_pct == 70
    assert again.problem is not None


@pytest.mark.parametrize(
    "text", ["a: [", "\0", "- a", "thresholds: {ram_pause_pct: 50}", "x: &a [*a]", "port: x"]
)
def test_a_first_start_with_a_broken_file_has_the_defaults(path: Path, text: str) -> None:
    store = store_of(path, text)
    assert store.current == Settings()
    assert store.problem is not None
    assert path.read_text() == text


def test_a_bad_variable_is_told_and_the_file_holds(path: Path) -> None:
    environ = {"TRAY_VALET_THRESHOLDS__CPU_PAUSE_PCT": "abc"}
    store = store_of(path, "thresholds: {ram_pause_pct: 70}\n", environ)
    assert store.current.thresholds.ram_pause_pct == 70
    assert store.problem is not None
    assert [problem.path for problem in store.problem.problems] == ["TRAY_VALET_THRESHOLDS__CPU_PAUSE_PCT"]
    store.update({"thresholds": {"ram_pause_pct": 71}})
    assert store.current.thresholds.ram_pause_pct == 71


def test_mistakes_of_file_and_environment_are_told_together(path: Path) -> None:
    store = store_of(path, "thresholds: {ram_pause_pct: x}\n", {"LLM_VALET_PORT": "y"})
    assert store.problem is not None
    assert {problem.path for problem in store.problem.problems} == {
        "thresholds.ram_pause_pct",
        "LLM_VALET_PORT",
    }


def test_unreadable_things_are_told(path: Path) -> None:
    path.mkdir()
    store = store_of(path)
    assert store.problem is not None
    with pytest.raises(SettingsError):
        store.update({"log": {"level": "debug"}})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_its_place_does_not_hang(path: Path) -> None:
    os.mkfifo(path)
    assert store_of(path).problem is not None


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_file_that_others_can_read_is_warned_about_once(path: Path) -> None:
    path.write_text("log: {level: debug}\n")
    path.chmod(0o644)
    store = store_of(path)
    store.load()
    assert len(store.warnings) == 1
    assert f"chmod 600 {path}" in store.warnings[0]


def test_nothing_changed_is_nothing_to_do(path: Path) -> None:
    store = store_of(path, COMMENTED)
    assert store.reload_if_changed() is False
    os.utime(path)
    assert store.reload_if_changed() is False  # read again, and the same


def test_a_file_away_for_a_moment_is_not_gone(path: Path) -> None:
    store = store_of(path, "log: {level: debug}\n")
    path.unlink()
    assert store.reload_if_changed() is False
    assert store.current.log.level == "debug"
    assert store.reload_if_changed() is True
    assert store.current == Settings()


async def test_v11_a_changed_interval_acts_at_once(path: Path) -> None:
    store = store_of(path, "thresholds: {check_interval_seconds: 10}\n")
    seen: asyncio.Queue[Settings] = asyncio.Queue()
    watch = asyncio.create_task(store.watch(seen.put_nowait), name="watch")
    try:
        await asyncio.sleep(0)
        await asyncio.to_thread(store.update, {"thresholds": {"check_interval_seconds": 1}})
        settings = await asyncio.wait_for(seen.get(), 10)
        assert settings.thresholds.check_interval_seconds == 1
        rewrite(path, "thresholds: {check_interval_seconds: 2}\n")
        settings = await asyncio.wait_for(seen.get(), 10)
        assert settings.thresholds.check_interval_seconds == 2
        rewrite(path, "thresholds: {check_interval_seconds: 0}\n")
        settings = await asyncio.wait_for(seen.get(), 10)
        assert settings.thresholds.check_interval_seconds == 2
        assert store.problem is not None
    finally:
        watch.cancel()


# -- changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partial", "old", "new"),
    [
        ({"thresholds": {"ram_pause_pct": 82.5}}, "ram_pause_pct: 80 ", "ram_pause_pct: 82.5 "),
        (
            {"thresholds": {"ram_resume_pct": 50}},
            "cpu_pause_pct: 91\n",
            "cpu_pause_pct: 91\n  ram_resume_pct: 50\n",
        ),
        ({"games": {"grace_seconds": 5}}, "grace_seconds: 20", "grace_seconds: 5"),
        ({"games": {"enabled": False}}, "off}]}", "off}], enabled: false}"),
        ({"games": {"rules": []}}, "[{exe: a,  action: off}]", "[]"),
        ({"power": {"on_battery": "evict"}}, "# enough\n", "# enough\npower:\n  on_battery: evict\n"),
        ({"log": {"file": "a: b #c"}}, "# enough\n", '# enough\nlog:\n  file: "a: b #c"\n'),
        ({"routes": {"small": {"priority": "low"}}}, "# enough\n", "# enough\n    priority: low\n"),
        ({"routes": {"small": {"num_ctx": None}}}, "num_ctx: 4096", "num_ctx: null"),
        (
            {"routes": {"small": None}},
            "  small:\n    candidates: [{provider: ollama, model: phi}]\n    num_ctx: 4096   # enough\n",
            "",
        ),
        (
            {"games": {"rules": [{"exe": "b", "action": "on"}]}},
            "[{exe: a,  action: off}]",
            '[{exe: b, action: "on"}]',
        ),
    ],
)
def test_a_change_touches_its_own_characters_only(
    path: Path, partial: dict[str, Any], old: str, new: str
) -> None:
    store = store_of(path, COMMENTED)
    store.update(partial)
    assert path.read_text() == COMMENTED.replace(old, new)
    assert store.problem is None


def test_comments_survive_where_the_text_has_to_be_written_anew(path: Path) -> None:
    store = store_of(path, COMMENTED)
    candidates = [{"provider": "local", "model": "q"}]
    store.update({"routes": {"big": {"candidates": candidates}}})
    text = path.read_text()
    for comment in ("# my settings", "# limits", "# eighty", "# cpu is fine", "# short", "# enough"):
        assert comment in text
    assert store.current.routes["big"].candidates[0].provider == "local"
    assert list(store.current.routes) == ["big", "small"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "thresholds:\n  ram_pause_pct: 81\n"),
        ("# only words", "# only words\nthresholds:\n  ram_pause_pct: 81\n"),
        ("null\n", "\nthresholds:\n  ram_pause_pct: 81\n"),
        ("thresholds:\n", "thresholds: {ram_pause_pct: 81}\n"),
        ("thresholds: {}", "thresholds: {ram_pause_pct: 81}"),
        ("log: {}\r\n", "log: {}\r\nthresholds:\r\n  ram_pause_pct: 81\r\n"),
        ("{}", '{"thresholds": {"ram_pause_pct": 81}}'),
        ('{"log": {}}\n', '{"log": {}, "thresholds": {"ram_pause_pct": 81}}\n'),
        ("--- \nlog: {}\n", "--- \nlog: {}\nthresholds:\n  ram_pause_pct: 81\n"),
    ],
)
def test_a_change_of_a_file_that_says_little(path: Path, text: str, expected: str) -> None:
    path.write_bytes(text.encode())
    store = store_of(path)
    store.update({"thresholds": {"ram_pause_pct": 81}})
    assert path.read_bytes().decode() == expected


def test_the_first_change_makes_the_file(path: Path) -> None:
    store = store_of(path)
    store.update({"log": {"level": "debug"}})
    assert path.read_text() == "log:\n  level: debug\n"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "partial", "expected"),
    [
        ("port: 9000 # mine\n", {"control": {"port": 9001}}, "port: 9001 # mine\n"),
        (
            "system:\n  max_concurrent_models: 2 # two\n",
            {"models": {"max_concurrent": 4}},
            "system:\n  max_concurrent_models: 4 # two\n",
        ),
        (
            "ollama_url: http://127.0.0.1:1 # at home\n",
            {"providers": {"ollama": {"url": "http://127.0.0.1:2"}}},
            'ollama_url: "http://127.0.0.1:2" # at home\n',
        ),
        (
            "enable_idle_timeout: false # never\nport: 9000\n",
            {"models": {"idle_timeout_seconds": 60}},
            "port: 9000\nmodels:\n  idle_timeout_seconds: 60\n",
        ),
    ],
)
def test_the_seeds_spellings_stay_where_they_can(
    path: Path, text: str, partial: dict[str, Any], expected: str
) -> None:
    store = store_of(path, text)
    store.update(partial)
    assert store.problem is None
    found = path.read_text()
    assert found.replace(" # never", "") == expected or found == expected


@pytest.mark.parametrize(
    "partial",
    [
        {"thresholds": {"cpu_sustained_seconds": "abc"}},
        {"thresholds": {"ram_pause_pct": "80"}},
        {"thresholds": {"ram_pause_pct": 60}},
        {"thresholds": {"ram_pause_pct": None}},
        {"thresholds": {"nonsense": 1}},
        {"thresholds": None},
        {"thresholds": []},
        {"nonsense": {}},
        {"control": {"host": "0.0.0.0"}},
        {"control": {"api_key": "hunter2"}},
        {"providers": {"x": {"kind": "ollama", "url": "http://evil.com"}}},
        {"games": {"rules": [{"exe": "a", "action": "on"}, {"argv_regex": "("}]}},
    ],
)
def test_v12_a_bad_change_stores_nothing(path: Path, partial: dict[str, Any]) -> None:
    store = store_of(path, COMMENTED)
    before = store.current
    with pytest.raises(SettingsError) as caught:
        store.update(partial)
    assert caught.value.param
    assert path.read_text() == COMMENTED
    assert (store.current, store.problem) == (before, None)


def test_a_change_says_which_field_it_is_about(path: Path) -> None:
    store = store_of(path, "thresholds: {ram_pause_pct: 80, ram_resume_pct: 60}\n")
    with pytest.raises(SettingsError) as caught:
        store.update({"thresholds": {"ram_resume_pct": 90}})
    assert caught.value.param == "thresholds.ram_resume_pct"


def test_what_is_so_already_is_not_written(path: Path) -> None:
    store = store_of(path, COMMENTED)
    before = path.stat()
    store.update({"thresholds": {"ram_pause_pct": 80.0}, "routes": {"none": None}})
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_that_cannot_be_written_is_told_and_nothing_changes(path: Path) -> None:
    path.write_text("log: {level: debug}\n")
    path.with_name(f".{path.name}.lock").mkdir()  # what nobody can write to, root neither
    store = SettingsStore(path, {})
    before = store.load()
    with pytest.raises(SettingsUnwritable, match=r"config\.yaml cannot be written"):
        store.update({"thresholds": {"ram_pause_pct": 81}})
    assert store.current == before
    assert path.read_text() == "log: {level: debug}\n"


def test_v17_environment_and_command_line_never_reach_the_file(path: Path) -> None:
    path.write_text("log: {level: debug}\n")
    environ = {
        "LLM_VALET_API_KEY": "hunter2",
        "API_KEY": "hunter3",
        "TRAY_VALET_EVICTION__DRAIN_SECONDS": "9",
    }
    last_good = path.parent / "last_good.yaml"
    store = SettingsStore(path, environ, {"control": {"port": 0}}, last_good_file=last_good)
    store.load()
    store.update({"thresholds": {"ram_pause_pct": 81}})
    assert path.read_text() == "log: {level: debug}\nthresholds:\n  ram_pause_pct: 81\n"
    assert last_good.read_text() == path.read_text()
    assert store.current.control.api_key == "hunter2"
    assert store.current.control.port == 0


def test_two_writers_lose_nothing_of_each_other(path: Path) -> None:
    first, second = store_of(path, COMMENTED), store_of(path)
    first.update({"thresholds": {"ram_pause_pct": 81}})
    second.update({"thresholds": {"cpu_pause_pct": 92}})
    assert second.current.thresholds.ram_pause_pct == 81
    with pytest.raises(SettingsChangedElsewhere) as caught:
        first.update({"thresholds": {"cpu_pause_pct": 93}})
    assert caught.value.param == "thresholds.cpu_pause_pct"
    assert first.current.thresholds.cpu_pause_pct == 92  # the new values are in force, and shown
    first.update({"thresholds": {"cpu_pause_pct": 93}})
    assert in_file(path).thresholds.cpu_pause_pct == 93


def test_a_base_version_must_still_be_the_files(path: Path) -> None:
    store = store_of(path, COMMENTED)
    version = store.version
    store.update({"log": {"level": "debug"}}, base_version=version)
    with pytest.raises(SettingsChangedElsewhere):
        store.update({"log": {"level": "error"}}, base_version=version)
    assert store.current.log.level == "debug"


def test_many_threads_and_stores_lose_no_change(path: Path) -> None:
    store_of(path, "# start\n")
    names = [f"r{i}" for i in range(12)]

    def save(name: str, store: SettingsStore) -> None:
        store.update({"routes": {name: {"candidates": [{"provider": "x", "model": name}]}}})

    shared = SettingsStore(path, {})
    stores = [shared if i % 2 else SettingsStore(path, {}) for i in range(len(names))]
    threads = [threading.Thread(target=save, args=pair) for pair in zip(names, stores, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(in_file(path).routes) == sorted(names)
    assert path.read_text().startswith("# start\n")


SAVER = """
import sys
from pathlib import Path
from tray_valet.services.settings import SettingsStore
store = SettingsStore(Path(sys.argv[1]), {})
store.load()
i = 0
while True:
    i += 1
    store.update({"thresholds": {"ram_pause_pct": 70 + i % 20}})
    if i == 1:
        print("saving", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_v17_kill_9_in_the_middle_of_saves_never_breaks_the_file(path: Path) -> None:
    store_of(path, COMMENTED)
    for i in range(8):
        with subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE) as saver:
            assert saver.stdout is not None
            assert saver.stdout.readline() == b"saving\n"
            time.sleep(0.004 * i)  # the moment of the kill is the point
            saver.send_signal(signal.SIGKILL)
        settings = in_file(path)
        assert 70 <= settings.thresholds.ram_pause_pct < 90
        assert path.read_text().count("#") == COMMENTED.count("#")
    # A lock whose holder was killed is free.
    store_of(path).update({"thresholds": {"ram_pause_pct": 99}})


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.yaml"
    real.write_text(COMMENTED)
    path.symlink_to(real)
    store = store_of(path)
    store.update({"thresholds": {"ram_pause_pct": 81}})
    assert path.is_symlink()
    assert real.read_text() == COMMENTED.replace("80", "81")


@pytest.mark.parametrize(
    "make",
    [
        lambda i: {"thresholds": {"ram_pause_pct": 70 + i}},
        lambda i: {"routes": {f"r{i}": {"candidates": [{"provider": "x", "model": "m:1"}]}}},
        lambda i: {
            "providers": {name: {"kind": "ollama", "models": [f"a:{i}"]} for name in ("ollama", f"p-{i}")}
        },
        lambda i: {
            "models": {"groups": {f"g{i}": {"mode": "swap", "models": [f"on{i}", "yes"][: 1 + (i == 0)]}}}
        },
        lambda i: {"games": {"rules": [{"exe": f"ü '{i}\" \\", "action": "off"}]}},
    ],
)
def test_any_file_says_the_change_and_the_rest_afterwards(path: Path, make: Callable[[int], Any]) -> None:
    for text in (
        COMMENTED,
        "",
        '{"log": {"level": "debug"}}',
        "host: 127.0.0.1\nthresholds: &t\n  ram_pause_pct: 77\n",
    ):
        store = store_of(path, text)
        for i in range(4):
            store.update(make(i))
        tree = parse_settings(path.read_bytes())
        assert store.problem is None
        assert tree.entries


RULES = """\
games:
  grace_seconds: 60
  rules:   # the first that matches wins
    # ours
    - {exe: blender, verdict: game} # step aside for Blender, too

    # never these
    - {name: Factorio, action: off} # too small
    - root: /opt/tools
      verdict: not   # no game here
log: {level: info}
"""
BLENDER = {"exe": "blender", "verdict": "game"}
FACTORIO = {"name": "Factorio", "action": "off"}
TOOLS = {"root": "/opt/tools", "verdict": "not"}
HADES = {"root": "steam:1145360", "action": "off"}


@pytest.mark.parametrize(
    ("rules", "old", "new"),
    [
        (
            [HADES, BLENDER, FACTORIO, TOOLS],
            "    # ours\n",
            '    - {root: "steam:1145360", action: "off"}\n    # ours\n',
        ),
        (
            [BLENDER, FACTORIO, TOOLS, HADES],
            "# no game here\n",
            '# no game here\n    - {root: "steam:1145360", action: "off"}\n',
        ),
        ([BLENDER, TOOLS], "    - {name: Factorio, action: off} # too small\n", ""),
        (
            [BLENDER, {**FACTORIO, "action": "ask"}, TOOLS],
            "{name: Factorio, action: off}",
            "{name: Factorio, action: ask}",
        ),
        ([BLENDER, FACTORIO], "    - root: /opt/tools\n      verdict: not   # no game here\n", ""),
        (
            [BLENDER, FACTORIO, {**TOOLS, "verdict": "game"}],
            "    - root: /opt/tools\n      verdict: not   # no game here\n",
            '    - {root: "/opt/tools", verdict: game}\n',
        ),
    ],
)
def test_a_change_of_a_list_leaves_the_other_items_and_their_comments(
    path: Path, rules: list[dict[str, Any]], old: str, new: str
) -> None:
    store = store_of(path, RULES)
    store.update({"games": {"rules": rules}})
    assert path.read_text() == RULES.replace(old, new)
    assert len(store.current.games.rules) == len(rules)
