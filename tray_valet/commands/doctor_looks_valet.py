"""The doctor's looks at the valet itself: settings, ports, folders, keys, names.

Decides: how each is looked at. Must not: judge (`core/checkup_valet.py` does), or change anything.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from tray_valet import __version__
from tray_valet.commands.doctor_ground import Ground
from tray_valet.core import checkup_valet as rules
from tray_valet.core.checkup import Finding
from tray_valet.core.checkup_valet import FolderSeen, JournalSeen, PortHolder, PortSeen, ValetSeen
from tray_valet.core.journal import Journal
from tray_valet.core.processes import Process

_OLDEST_CLOCK_S = 1_735_689_600.0  # 2025-01-01, before the first version


def settings(ground: Ground) -> Finding:
    """Whether the settings file is right."""
    return rules.of_settings(
        str(ground.settings_file), exists=ground.settings_exist, problems=ground.settings_problems
    )


def privacy(ground: Ground) -> Finding:
    """Whether others can read what is private."""
    files = (ground.settings_file, ground.directories.secrets_file, ground.directories.runtime_file)
    return rules.of_privacy(tuple(str(file) for file in files if _is_exposed(file)))


def _is_exposed(file: Path) -> bool:
    if sys.platform == "win32":  # its permission bits say nothing there
        return False
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


# -- ports and processes ---------------------------------------------------------------------------------


def ports(ground: Ground) -> Finding:
    """Who is at our ports."""
    settings = ground.settings
    places = [("control", settings.control.host, settings.control.port)]
    if settings.router.enabled:
        places.append(("router", settings.router.host, settings.router.port))
    return rules.of_ports(tuple(_port(ground, *place) for place in places if place[2]))


def _port(ground: Ground, name: str, host: str, port: int) -> PortSeen:
    found = ground.table.listening_on(port)
    process = ground.table.describe(found.pid) if found else None
    if process is not None:
        if ground.valet is not None and process.identity.pid == ground.valet.runtime.pid:
            return PortSeen(name=name, host=host, port=port, holder=PortHolder.THIS_VALET)
        is_valet = _is_serving(process)
        pid = process.identity.pid
        who = f"PID {pid}" if is_valet else f"{_name_of(process)} (PID {pid})"
        holder = PortHolder.OTHER_VALET if is_valet else PortHolder.OTHER
        return PortSeen(name=name, host=host, port=port, holder=holder, who=who)
    return PortSeen(name=name, host=host, port=port, holder=_try_port(host, port))


def _try_port(host: str, port: int) -> PortHolder:
    """Take the port for a moment without listening, as a server would."""
    import errno

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            if error.errno == errno.EACCES:
                return PortHolder.FORBIDDEN
            if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                return PortHolder.NO_ADDRESS
            return PortHolder.OTHER
    return PortHolder.NOBODY


def valet(ground: Ground) -> Finding:
    """Whether a valet runs."""
    if ground.valet is None:
        return rules.of_valet(ValetSeen(is_leftover=ground.is_leftover, our_version=__version__))
    version = ground.valet.of("/").get("version") or ground.valet.of("/status").get("version")
    return rules.of_valet(ValetSeen(pid=ground.valet.runtime.pid, version=version, our_version=__version__))


def other_valets(ground: Ground) -> Finding:
    """Whether valets of this user run with other folders."""
    import psutil

    ours = {os.getpid(), ground.valet.runtime.pid if ground.valet else 0}
    found = []
    for pid in ground.table.all_pids():
        if pid in ours:
            continue
        process = ground.table.describe(pid)
        if process is None or not _is_serving(process):
            continue
        try:
            if psutil.Process(pid).username() == psutil.Process().username():
                found.append(pid)
        except psutil.Error:
            continue
    return rules.of_other_valets(tuple(found), str(ground.settings_file.parent))


def _is_serving(process: Process) -> bool:
    """Whether that is a valet that serves (not one of its commands, windows or engines)."""
    words = list(process.argv)
    for at, word in enumerate(words[:4]):
        name = os.path.basename(word).lower().removesuffix(".exe")
        if name == "tray-valet" or (word == "tray_valet" and at and words[at - 1] == "-m"):
            rest = words[at + 1 :]
            command = [each for each in rest if not each.startswith("-")]
            return not command or "serve" in command or (rest[0] == "--config" and len(command) == 1)
    return False


def _name_of(process: Process) -> str:
    return os.path.basename(process.exe) or (process.argv[0] if process.argv else "a program")


def user(ground: Ground) -> Finding:
    """Whether this is root."""
    from tray_valet.desktop.system import is_root

    return rules.of_user(is_root=is_root())


# -- folders and their files -------------------------------------------------------------------------


def folders(ground: Ground) -> Finding:
    """Whether the folders of the valet can be written to."""
    each = (ground.directories.state_dir, ground.directories.log_dir, ground.directories.config_dir)
    return rules.of_folders(tuple(FolderSeen(str(folder), _why_not_writable(folder)) for folder in each))


def _why_not_writable(folder: Path) -> str:
    """Asked of the folder, or of the nearest one above where it is to be made. Nothing is written."""
    for place in (folder, *folder.parents):
        if not os.path.lexists(place):
            continue
        if not place.is_dir():
            return f"{place} is not a folder"
        if hasattr(os, "statvfs") and os.statvfs(place).f_flag & getattr(os, "ST_RDONLY", 1):
            return "the disk is read-only"
        return "" if os.access(place, os.W_OK | os.X_OK) else "it is not yours to write"
    return "it is nowhere"


def journal(ground: Ground) -> Finding:
    """Whether the files of the state folder are whole."""
    damaged: list[str] = []
    owed: tuple[str, ...] = ()
    places = ground.directories
    for file in (places.journal_file, places.downloads_file, places.ledger_file):
        try:
            raw = file.read_bytes()
            if file == places.journal_file:
                owed = tuple(entry.model for entry in msgspec.json.decode(raw, type=Journal).set_aside)
            else:
                msgspec.json.decode(raw)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            continue  # told by `folders`
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            damaged.append(str(file))
    aside = places.journal_file.with_suffix(".damaged")
    return rules.of_journal(
        JournalSeen(
            damaged=tuple(damaged),
            kept_aside=(str(aside),) if aside.exists() else (),
            owed=owed,
            is_valet_running=ground.valet is not None,
        )
    )


def leftovers(ground: Ground) -> Finding:
    """Whether runners outlived their valet."""
    from tray_valet.providers.runner_records import RunnerRecord, is_that_runner

    if ground.valet is not None:  # it has ended what was left, and those of now are its own
        return rules.of_leftovers(())
    try:
        raw = (ground.directories.runners_dir / "runners.json").read_bytes()
        records = msgspec.json.decode(raw, type=tuple[RunnerRecord, ...])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return rules.of_leftovers(())
    table = ground.table
    left = [r for r in records if table.is_alive(r.identity) and is_that_runner(table, r)]
    return rules.of_leftovers(tuple(f"{r.model} (PID {r.identity.pid})" for r in left))


def clock(ground: Ground) -> Finding:
    """Whether the clock is behind our own files."""
    places = ground.directories
    files = (places.journal_file, places.runtime_file, places.log_file, ground.settings_file, Path(__file__))
    newest_s = max((_modified_s(file) for file in files), default=0.0)
    return rules.of_clock(time.time(), newest_s, _OLDEST_CLOCK_S)


def _modified_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


# -- keys and names ----------------------------------------------------------------------------------


def secrets(ground: Ground) -> Finding:
    """Whether the keys that the settings name are there. The keyring is asked for those only."""
    from tray_valet.adapters.providers import secret_names

    names = tuple(sorted(set(secret_names(ground.settings))))
    stored = _stored_names(ground.directories.secrets_file)
    missing, problem = [], ""
    for name in names:
        is_there, trouble = _is_in_keyring(name)
        problem = problem or trouble
        if not is_there and name not in stored:
            missing.append(name)
    return rules.of_secrets(rules.SecretsSeen(names=names, missing=tuple(missing), keyring_problem=problem))


def _stored_names(file: Path) -> frozenset[str]:
    try:
        stored = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return frozenset()
    return frozenset(stored) if isinstance(stored, dict) else frozenset()


def _is_in_keyring(name: str) -> tuple[bool, str]:
    """Whether the keyring has that key, and why it could not be asked. The key itself is not kept."""
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return False, "no keyring is installed"
    try:
        return keyring.get_password("tray-valet", name) is not None, ""
    except keyring.errors.NoKeyringError:
        return False, "this system has no keyring"
    except (keyring.errors.KeyringError, RuntimeError, OSError) as error:
        return False, f"the keyring is locked or does not answer: {type(error).__name__}"


def names(ground: Ground) -> Finding:
    """Whether the models that the settings name exist."""
    from tray_valet.commands.doctor_looks_providers import known_models

    models = known_models(ground)
    return rules.of_names(tuple(_names(ground, models)))


def _names(ground: Ground, models: dict[str, dict[str, int | None] | None]) -> Iterator[rules.NameSeen]:
    settings = ground.settings
    for alias, route in settings.routes.items():
        for number, candidate in enumerate(route.candidates):
            pool = settings.pools.get(candidate.provider)
            providers = pool.providers if pool is not None else (candidate.provider,)
            is_there = _is_at(candidate.model, providers, models)
            limits = [_limit(candidate.model, models.get(provider)) for provider in providers]
            most = next((limit for limit in limits if limit), None)
            is_long = route.num_ctx is not None and most is not None and route.num_ctx > most
            yield rules.NameSeen(
                place=f"routes.{alias}.candidates.{number}",
                name=f"{candidate.provider}/{candidate.model}",
                is_there=is_there,
                route=alias,
                too_long=(route.num_ctx or 0, most or 0) if is_long else None,
            )
    wanted = [("models.default", settings.models.default)]
    wanted += [(f"models.preload.{i}", name) for i, name in enumerate(settings.models.preload)]
    for group, members in settings.models.groups.items():
        wanted += [(f"models.groups.{group}", name) for name in members.models]
    for place, name in wanted:
        if name and name != "*" and name not in settings.routes:
            yield rules.NameSeen(place=place, name=name, is_there=_is_anywhere(name, models))


def _is_at(
    model: str, providers: Iterable[str], models: dict[str, dict[str, int | None] | None]
) -> bool | None:
    lists = [models.get(provider) for provider in providers]
    if any(each is not None and _find(model, each) is not None for each in lists):
        return True
    return None if any(each is None for each in lists) else False


def _is_anywhere(name: str, models: dict[str, dict[str, int | None] | None]) -> bool | None:
    provider, _, rest = name.partition("/")
    if rest and provider in models and (found := _is_at(rest, (provider,), models)) is not False:
        return found
    return _is_at(name, models, models)


def _find(model: str, names: dict[str, int | None]) -> str | None:
    return next((name for name in (model, f"{model}:latest") if name in names), None)


def _limit(model: str, names: dict[str, int | None] | None) -> int | None:
    found = _find(model, names) if names else None
    return names[found] if names and found else None
