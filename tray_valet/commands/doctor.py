"""`tray-valet doctor`: the likeliest troubles, each really looked at, each with its remedy.

Decides: which looks there are, that they run side by side and none holds the others up, and how the
findings are told. Must not: change anything, load a model, or wake a GPU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tray_valet.commands import doctor_looks_machine as machine
from tray_valet.commands import doctor_looks_ollama as ollama
from tray_valet.commands import doctor_looks_providers as providers
from tray_valet.commands import doctor_looks_valet as valet
from tray_valet.commands.doctor_ground import Ground, lay_ground
from tray_valet.commands.failures import ExitCode
from tray_valet.commands.tables import as_json, plain
from tray_valet.core import checkup_machine, checkup_providers, checkup_valet
from tray_valet.core.checkup import Finding, FindingStatus, Topic, count_of, is_healthy, most_urgent_first

Look = Callable[[Ground], Finding]
PATIENCE_S = 2.8  # for all looks together; with the valet's answers it is less than 5 s
_MARKS = {
    FindingStatus.OK: "✓",
    FindingStatus.INFO: "·",
    FindingStatus.WARN: "!",
    FindingStatus.BAD: "✗",
    FindingStatus.UNKNOWN: "?",
}

LOOKS: tuple[tuple[Topic, Look], ...] = (
    (checkup_valet.SETTINGS, valet.settings),
    (checkup_valet.PRIVACY, valet.privacy),
    (checkup_valet.VALET, valet.valet),
    (checkup_valet.HOMES, valet.other_valets),
    (checkup_valet.PORTS, valet.ports),
    (checkup_providers.OLLAMA, providers.ollama),
    (checkup_providers.OTHER_SERVERS, providers.other_servers),
    (checkup_providers.ENGINE, providers.engine),
    (checkup_providers.CPU, providers.cpu),
    (checkup_providers.MODEL_FILES, providers.model_files),
    (checkup_providers.FIT, providers.sizes),
    (checkup_providers.CONDITIONS, providers.conditions),
    (checkup_providers.OLLAMA_RIGHTS, ollama.ollama_rights),
    (checkup_providers.OLLAMA_CLIENTS, ollama.ollama_clients),
    (checkup_providers.OLLAMA_SETTINGS, ollama.ollama_settings),
    (checkup_valet.NAMES, valet.names),
    (checkup_valet.SECRETS, valet.secrets),
    (checkup_machine.GPU, machine.gpu),
    (checkup_machine.DISK, machine.disk),
    (checkup_machine.WATCH, machine.process_watch),
    (checkup_machine.LIBRARIES, machine.libraries),
    (checkup_machine.PRESSURE, machine.pressure_notices),
    (checkup_machine.TRAY, machine.tray),
    (checkup_machine.NOTICES, machine.notifications),
    (checkup_machine.AUTOSTART, machine.autostart),
    (checkup_machine.WINDOW, machine.window),
    (checkup_valet.STATE, valet.folders),
    (checkup_valet.JOURNAL, valet.journal),
    (checkup_valet.LEFTOVERS, valet.leftovers),
    (checkup_valet.CLOCK, valet.clock),
    (checkup_valet.ROOT, valet.user),
)


def doctor(environ: Mapping[str, str], config_path: str | None, *, is_json: bool) -> int:
    """Look at everything and print it; 0 when nothing is bad, else 1."""
    ground = lay_ground(environ, config_path)
    findings = examine(ground)
    if is_json:
        print(as_json(answer_of(findings)))
    else:
        print(words_of(findings, is_valet_asked=ground.valet is not None))
    return int(ExitCode.DONE if is_healthy(findings) else ExitCode.FAILED)


def answer_of(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    """The findings for programs, in the order of looking."""
    return [dict(msgspec.to_builtins(finding)) for finding in findings]


def words_of(findings: tuple[Finding, ...], *, is_valet_asked: bool) -> str:
    """The findings for people: what is bad first, then how many."""
    lines = []
    if not is_valet_asked:
        lines.append("No valet was asked; this is what can be seen from here.")
    for finding in most_urgent_first(findings):
        lines.append(f"{_MARKS[finding.status]} {finding.title}: {plain(finding.says)}")
        if finding.remedy:
            lines.append(f"    → {plain(finding.remedy)}")
    bad, warn = (count_of(findings, status) for status in (FindingStatus.BAD, FindingStatus.WARN))
    total = f"{bad} to put right, {warn} to consider." if bad or warn else "Nothing is wrong."
    return "\n".join([*lines, "", f"{len(findings)} things looked at. {total}"])


def examine(
    ground: Ground,
    looks: tuple[tuple[Topic, Look], ...] = LOOKS,
    *,
    patience_s: float = PATIENCE_S,
) -> tuple[Finding, ...]:
    """Every look's finding, in the order of `looks`; one that does not end in time is `unknown`."""
    found: dict[str, Finding] = {}
    threads = [
        threading.Thread(
            target=_look, args=(ground, topic, look, found), name=f"look at {topic.id}", daemon=True
        )
        for topic, look in looks
    ]
    end_s = time.monotonic() + patience_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    late = "This could not be looked at in time."
    seen = dict(found)
    return tuple(seen.get(topic.id) or topic.unknown(late) for topic, _ in looks)


def _look(ground: Ground, topic: Topic, look: Look, found: dict[str, Finding]) -> None:
    try:
        found[topic.id] = look(ground)
    except Exception as error:  # noqa: BLE001  a thread's guard: one look that fails must not hide the others
        found[topic.id] = topic.unknown(f"This could not be looked at ({type(error).__name__}: {error}).")
