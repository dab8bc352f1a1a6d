"""When a model that was loaded past the router goes again, and who is named for it."""

from __future__ import annotations

import pytest

from tray_valet.core import reload_fights as rules
from tray_valet.core.processes import Process, ProcessIdentity
from tray_valet.core.reload_fights import Fight


def waits(reloads_after_s: list[float], eviction_s: float = 0.0) -> list[float]:
    """Seconds that each reload stays, when each comes so long after the eviction before it."""
    fight, now_s, waited = Fight(), 1000.0, []
    for after_s in reloads_after_s:
        now_s += after_s
        fight = rules.reloaded(fight, now_s)
        out_s = rules.evict_at_s(fight, now_s)
        waited.append(out_s - now_s)
        now_s = out_s + eviction_s
        fight = rules.evicted(fight, now_s)
    return waited


@pytest.mark.parametrize(
    ("reloads_after_s", "stays_s"),
    [
        ([0.5], [0.0]),
        ([0.5] * 7, [0.0, 4.5, 9.5, 19.5, 29.5, 29.5, 29.5]),  # it retries without end: paced
        ([40.0] * 5, [0.0] * 5),  # slower than the pace: out at once, every time
        ([6.0, 6.0, 6.0, 6.0], [0.0, 0.0, 4.0, 14.0]),
        ([0.5, 0.5, 0.5, 70.0, 0.5], [0.0, 4.5, 9.5, 0.0, 4.5]),  # a quiet minute ends the fight
    ],
)
def test_the_first_goes_at_once_and_a_fight_has_a_pace(
    reloads_after_s: list[float], stays_s: list[float]
) -> None:
    assert waits(reloads_after_s) == pytest.approx(stays_s)


def test_the_pause_itself_begins_no_pace() -> None:
    fight = rules.reloaded(rules.evicted(Fight(), 1000.0), 1000.1)
    assert rules.evict_at_s(fight, 1000.1) == 1000.1


def test_programs_are_counted_each_for_itself() -> None:
    fight, counts = Fight(), []
    for provider, client in (("o", "a"), ("o", "b"), ("o", "a"), ("p", "a")):
        fight, times = rules.counted(fight, provider, client)
        counts.append(times)
    assert counts == [1, 1, 2, 1]


def test_one_that_could_not_be_told_counts_along_with_whoever_is_known() -> None:
    fight, counts = Fight(), []
    for client in ("", "", "webui", "", "webui", "other"):
        fight, times = rules.counted(fight, "o", client)
        counts.append(times)
    assert counts == [1, 2, 3, 4, 5, 1]


def test_a_flood_of_names_is_bounded() -> None:
    fight = Fight()
    for n in range(1000):
        fight, _ = rules.counted(fight, "o", f"client {n}")
    assert len(fight.counts) <= 50


def process(exe: str, *argv: str, cwd: str = "") -> Process:
    return Process(identity=ProcessIdentity(1, 1), exe=exe, argv=(exe, *argv), cwd=cwd)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (process("/usr/bin/curl", "http://127.0.0.1:11434"), "curl"),
        (process("C:\\Program Files\\Jan\\Jan.exe"), "Jan"),
        (process("/opt/Open WebUI/open-webui", "--port", "1"), "open-webui"),
        (process("/usr/bin/python3.12", "/home/me/bin/summarise.py", "--fast"), "summarise"),
        (process("/usr/bin/python3.12", "-u", "-X", "dev", "/srv/agent.py"), "agent"),
        (process("/usr/bin/python3", "-m", "open_webui.main", "serve"), "open_webui"),
        (process("/usr/bin/python3", "-c", "import ollama"), "python3"),
        (process("/usr/bin/python3"), "python3"),
        (process("/usr/bin/node", "/srv/librechat/server.js"), "librechat"),
        (process("/usr/bin/python3", "main.py", cwd="/home/me/aider"), "aider"),
        (process("/usr/bin/python3", "main.py"), "main"),
        (process("/usr/bin/java", "-jar", "/opt/chat.jar"), "chat"),
        (process("/usr/bin/bash", "/usr/local/bin/nightly.sh"), "nightly"),
        (process("/usr/bin/foo (deleted)"), "foo"),
        (Process(identity=ProcessIdentity(1, 1), argv=("ollama", "run", "x")), "ollama"),
        (Process(identity=ProcessIdentity(1, 1)), ""),
    ],
)
def test_a_program_is_called_by_its_file_or_its_script(told: Process, name: str) -> None:
    assert rules.program_name(told) == name


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a",), "a"), (("a", "a"), "a"), (("a", "b"), "a or b"), (("a", "b", "c"), ""), ((), ""), (("",), "")],
)
def test_nobody_is_named_when_too_many_may_have_been_it(names: tuple[str, ...], said: str) -> None:
    assert rules.told(names) == said


def test_the_remedy_names_the_address_or_how_to_get_one() -> None:
    assert rules.remedy("Foo", "http://127.0.0.1:8766") == "Point “Foo” at http://127.0.0.1:8766 instead."
    assert "router.enabled" in rules.remedy("", None)
