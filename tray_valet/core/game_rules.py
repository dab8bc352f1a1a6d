"""The user's own rules about programs: which processes they mean and what they make of them.

Decides: whether a rule matches a process, and the verdict and action that then hold.
Must not: know the built-in rules; the user's are asked first and the first that matches wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from tray_valet.core.errors import InvalidValue
from tray_valet.core.game_subject import Subject
from tray_valet.core.game_verdict import Action, BuiltInRule, Classification, Verdict
from tray_valet.core.paths import (
    file_name,
    ignores_case,
    is_inside,
    is_windows_path,
    normal_path,
    path_key,
    posix_path,
    wine_path,
)
from tray_valet.core.processes import Process, System

ARGV_SEARCHED_CHARS = 4096  # a user's pattern never meets more of a command line than this
REGEX_MAX_CHARS = 1000
_INSTANCE_ID = re.compile(r"[a-z][a-z0-9_-]+:[^/\\].*")  # steam:1145360; a drive is one letter
_UNSHAKEN = frozenset({BuiltInRule.HELPER, BuiltInRule.SYSTEM, BuiltInRule.STEAM_SETUP})


class GameRule(msgspec.Struct, frozen=True, kw_only=True):
    """A user's word on some processes; every matcher that is given must match.

    `exe`: a file name, or a full path. `name`: what the valet calls the game, or its folder. `appid`: the
    store's id. `root`: a folder, or a running game's id (`steam:1145360`). `argv_regex` is searched for in
    the command line, words joined by one space, its first 4096 characters.
    """

    exe: str | None = None
    name: str | None = None
    appid: int | str | None = None
    root: str | None = None
    argv_regex: str | None = None
    verdict: Verdict | None = None
    action: Action | None = None


class CompiledRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule ready to be applied often. `number` counts from 1, as users count lines."""

    number: int
    verdict: Verdict | None
    action: Action | None
    exe: str = ""
    name: str = ""
    appid: str = ""
    root: str = ""
    pattern: re.Pattern[str] | None = None

    @property
    def names_the_program_itself(self) -> bool:
        """Whether the user pointed at one program and not at a whole game."""
        return bool(self.exe or self.pattern)


def compile_rules(rules: Iterable[GameRule], *, home: str = "") -> tuple[CompiledRule, ...]:
    """Check the rules and make them fast; `~/` stands for `home`.

    Raises InvalidValue, naming `games.rules.N…` (N from 0, as the settings count), for a rule without a
    matcher, without a verdict and an action, or with a pattern that does not compile.
    """
    return tuple(_compiled(rule, number, home) for number, rule in enumerate(rules, 1))


def apply_rules(
    rules: tuple[CompiledRule, ...], found: Classification, subject: Subject, process: Process
) -> Classification:
    """Return what the user's first matching rule makes of a finding, or the finding itself."""
    for rule in rules:
        if _is_match(rule, found, subject, process):
            return _changed(found, rule, subject)
    return found


def _compiled(rule: GameRule, number: int, home: str) -> CompiledRule:
    place = f"games.rules.{number - 1}"
    appid = "" if rule.appid is None else str(rule.appid).strip()
    texts = {
        "exe": (rule.exe or "").strip(),
        "name": (rule.name or "").strip(),
        "appid": appid,
        "root": (rule.root or "").strip(),
    }
    if not any(texts.values()) and not rule.argv_regex:
        raise InvalidValue(
            f"Rule {number} names no program.",
            remedy="Give exe, name, appid, root or argv_regex.",
            param=place,
        )
    if rule.verdict is None and rule.action is None:
        raise InvalidValue(
            f"Rule {number} says nothing about its program.",
            remedy="Give action: on, off or ask, or a verdict.",
            param=place,
        )
    for key in ("exe", "root"):
        if home and texts[key].startswith("~/"):
            texts[key] = home.rstrip("/\\") + texts[key][1:]
    return CompiledRule(
        number=number,
        verdict=rule.verdict,
        action=rule.action,
        pattern=compile_pattern(rule.argv_regex, param=f"{place}.argv_regex") if rule.argv_regex else None,
        **texts,
    )


def compile_pattern(text: str, *, param: str) -> re.Pattern[str]:
    """Compile a user's pattern for command lines; raise InvalidValue naming `param`."""
    if len(text) > REGEX_MAX_CHARS:
        raise InvalidValue(
            f"The pattern has {len(text)} characters.", remedy=f"Use {REGEX_MAX_CHARS} at most.", param=param
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidValue(
            f"{text!r} is not a valid pattern: {error}.",
            remedy="Put a backslash before characters such as ( [ + * ? that are meant literally.",
            param=param,
        ) from error


def _is_match(rule: CompiledRule, found: Classification, subject: Subject, process: Process) -> bool:
    if rule.exe and not _is_exe(rule.exe, subject):
        return False
    if rule.name and rule.name.casefold() not in _names_of(found, subject):
        return False
    if rule.appid and rule.appid not in (found.appid, subject.steam_id):
        return False
    if rule.root and not _is_in_root(rule.root, found, subject):
        return False
    if rule.pattern is not None:
        line = " ".join(process.argv[:ARGV_SEARCHED_CHARS])[:ARGV_SEARCHED_CHARS]
        return rule.pattern.search(line) is not None
    return True


def _changed(found: Classification, rule: CompiledRule, subject: Subject) -> Classification:
    """`off` alone makes it no game, `on` alone makes it one, `ask` alone leaves the verdict."""
    verdict = rule.verdict
    if verdict is None:
        verdict = found.verdict
        if rule.action is Action.OFF:
            verdict = Verdict.NOT
        elif rule.action is Action.ON:
            # "This game: on" is not said of the crash reporter in its folder.
            is_only_near = found.rule in _UNSHAKEN and not rule.names_the_program_itself
            verdict = Verdict.NOT if is_only_near else Verdict.GAME
    return msgspec.structs.replace(
        found,
        verdict=verdict,
        action=rule.action or Action.ON,
        rule=f"user rule {rule.number}",
        name=found.name or subject.name,
        root=found.root or subject.path or subject.own_path,
        place=found.place or subject.path or subject.own_path,
    )


def _is_exe(text: str, subject: Subject) -> bool:
    is_windows = is_windows_path(text)
    if not is_windows and "/" not in text and "\\" not in text:
        return any(_is_same_name(text, path, subject) for path in (subject.path, subject.own_path) if path)
    for path, ignore_case in _paths_of(subject):
        wanted = wine_path(text) if is_windows else normal_path(text, subject.system)
        if path_key(path, ignore_case=ignore_case) == path_key(wanted, ignore_case=ignore_case):
            return True
    return False


def _is_same_name(text: str, path: str, subject: Subject) -> bool:
    name = file_name(path)
    is_own = path == subject.own_path and subject.own_path != subject.path
    if not (ignores_case(subject.system) if is_own else subject.ignore_case):
        return text == name
    return text.casefold().removesuffix(".exe") == name.casefold().removesuffix(".exe")


def _names_of(found: Classification, subject: Subject) -> set[str]:
    names = {found.name.casefold(), subject.name.casefold(), subject.name.casefold().removesuffix(".exe")}
    return names | {alias.rsplit(":", 1)[-1] for alias in found.aliases if ":dir:" in alias}


def _is_in_root(text: str, found: Classification, subject: Subject) -> bool:
    if _INSTANCE_ID.fullmatch(text):
        return text in found.keys
    for path, ignore_case in _paths_of(subject):
        folder = wine_path(text) if is_windows_path(text) else _folder(text, subject)
        if is_inside(path_key(path, ignore_case=ignore_case), path_key(folder, ignore_case=ignore_case)):
            return True
    return False


def _folder(text: str, subject: Subject) -> str:
    return normal_path(text, subject.system) if subject.system is System.WINDOWS else posix_path(text)


def _paths_of(subject: Subject) -> list[tuple[str, bool]]:
    """What the process may be meant by: the program it runs and its own file, each with its case rule."""
    paths = [(subject.path, subject.ignore_case)] if subject.path else []
    if subject.own_path and subject.own_path != subject.path:
        paths.append((subject.own_path, ignores_case(subject.system)))
    return paths
