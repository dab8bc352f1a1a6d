"""The check-up of the valet itself: settings, ports, folders, keys, names.

Decides: what the observations mean and what helps. Must not: look at anything.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tray_valet.core.checkup import Finding, Topic

SETTINGS = Topic("settings", "Settings")
PRIVACY = Topic("privacy", "Private files")
PORTS = Topic("ports", "Ports")
VALET = Topic("valet", "The valet")
HOMES = Topic("other_valets", "Other valets")
ROOT = Topic("root", "User")
STATE = Topic("state", "State folder")
JOURNAL = Topic("journal", "Journal")
LEFTOVERS = Topic("leftovers", "Left-over runners")
CLOCK = Topic("clock", "Clock")
SECRETS = Topic("secrets", "Keys")
NAMES = Topic("names", "Names of models")

_DAY_S = 86_400.0


def of_settings(path: str, *, exists: bool, problems: tuple[str, ...]) -> Finding:
    """`problems`: every mistake as a sentence, with its place."""
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        return SETTINGS.bad(
            f"{path} has a mistake, and the last good settings are used: {problems[0]}{more}",
            "Correct it; `tray-valet config check` lists every mistake.",
        )
    if not exists:
        return SETTINGS.ok(f"There is no {path}, so the defaults are in force.")
    return SETTINGS.ok(f"{path} is all right.")


def of_privacy(exposed: tuple[str, ...]) -> Finding:
    """`exposed`: private files that other users can read or change."""
    if not exposed:
        return PRIVACY.ok("Only you can read the settings and keys.")
    names = ", ".join(exposed)
    quoted = " ".join(f"'{name}'" for name in exposed)
    return PRIVACY.warn(f"Other users of this machine can read {names}.", f"Use: chmod 600 {quoted}")


class PortHolder(StrEnum):
    """Who is at a port of ours."""

    NOBODY = "nobody"
    THIS_VALET = "this_valet"
    OTHER_VALET = "other_valet"
    OTHER = "other"
    FORBIDDEN = "forbidden"  # the system does not let us listen there
    NO_ADDRESS = "no_address"  # the host is no address of this machine


class PortSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One of our ports. `who`: the other program's name and PID, "" where the system does not tell."""

    name: str  # control | router
    host: str
    port: int
    holder: PortHolder
    who: str = ""


def of_ports(ports: tuple[PortSeen, ...]) -> Finding:
    """The worst of our ports."""
    for seen in ports:
        place = f"{seen.host}:{seen.port}"
        if seen.holder is PortHolder.OTHER:
            who = seen.who or "a program of another user"
            return PORTS.bad(
                f"{who} listens at {place}, the {seen.name} API's place.",
                f"End that program, or set {seen.name}.port to a free port.",
            )
        if seen.holder is PortHolder.OTHER_VALET:
            return PORTS.bad(
                f"Another Tray Valet ({seen.who}) listens at {place}, the {seen.name} API's place.",
                f"End it, or give this one another {seen.name}.port.",
            )
        if seen.holder is PortHolder.FORBIDDEN:
            return PORTS.bad(
                f"The system does not let you listen at {place}.", f"Set {seen.name}.port to 1024 or more."
            )
        if seen.holder is PortHolder.NO_ADDRESS:
            return PORTS.bad(
                f"{seen.host} is no address of this machine.", f"Set {seen.name}.host to 127.0.0.1."
            )
    if any(seen.holder is PortHolder.THIS_VALET for seen in ports):
        return PORTS.ok(f"The valet listens at {' and '.join(f'{p.host}:{p.port}' for p in ports)}.")
    if not ports:
        return PORTS.ok("Any free ports will be used.")
    return PORTS.ok(f"Free: {' and '.join(f'{p.host}:{p.port}' for p in ports)}.")


class ValetSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The running valet of these folders. `pid` None = none runs; `version` None = it does not answer."""

    pid: int | None = None
    version: str | None = None
    is_leftover: bool = False  # the runtime file of one that was killed
    our_version: str = ""


def of_valet(seen: ValetSeen) -> Finding:
    """Whether one runs, answers, and is of our version."""
    if seen.pid is None:
        if seen.is_leftover:
            return VALET.warn(
                "No valet is running; the last one ended without its usual clean-up.",
                "Start it again: tray-valet serve",
            )
        return VALET.info(
            "No valet is running, so everything was looked at from here.", "Start one with: tray-valet serve"
        )
    if seen.version is None:
        return VALET.bad(
            f"The valet (PID {seen.pid}) does not answer.",
            "End that process and start it anew: tray-valet serve",
        )
    if seen.version != seen.our_version:
        return VALET.warn(
            f"The valet that runs (PID {seen.pid}) is version {seen.version}, this command "
            f"{seen.our_version}.",
            "Restart it: tray-valet quit, then start it again.",
        )
    return VALET.ok(f"Version {seen.version} runs (PID {seen.pid}) and was asked.")


def of_other_valets(pids: tuple[int, ...], home: str) -> Finding:
    """`pids`: valets of this user that use other folders than `home`."""
    if not pids:
        return HOMES.ok("No other valet of yours runs.")
    named = ", ".join(f"PID {pid}" for pid in pids)
    return HOMES.warn(
        f"Another valet of yours runs with other folders than {home} ({named}); both watch the same models.",
        "End one of them, or set TRAY_VALET_HOME to the folder of the one that you mean.",
    )


def of_user(*, is_root: bool) -> Finding:
    """Whether this is root."""
    if is_root:
        return ROOT.warn(
            "This is root, whose games, desktop and settings are not the player's.",
            "Run Tray Valet as the user who plays.",
        )
    return ROOT.ok("Not root.")


class FolderSeen(msgspec.Struct, frozen=True):
    """A folder of ours, and why it cannot be written to ("" = it can)."""

    path: str
    problem: str = ""


def of_folders(folders: tuple[FolderSeen, ...]) -> Finding:
    """The folders that the valet writes to."""
    for folder in folders:
        if folder.problem:
            return STATE.bad(
                f"{folder.path} cannot be written to ({folder.problem}), so what was set aside would be "
                "forgotten.",
                "Make it a folder that belongs to you, or set TRAY_VALET_HOME to one.",
            )
    return STATE.ok(f"{folders[0].path if folders else 'It'} can be written to.")


class JournalSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The files of the state folder. `damaged`: those that are not whole; `owed`: models set aside."""

    damaged: tuple[str, ...] = ()
    kept_aside: tuple[str, ...] = ()  # damaged ones that an earlier start has put aside
    owed: tuple[str, ...] = ()
    is_valet_running: bool = False


def of_journal(seen: JournalSeen) -> Finding:
    """Whether what was noted down is whole, and what it says."""
    if seen.damaged:
        return JOURNAL.bad(
            f"{', '.join(seen.damaged)} is damaged; what it noted down cannot come back by itself.",
            "Remove the file, and load the models by hand with: tray-valet load MODEL",
        )
    if seen.owed and not seen.is_valet_running:
        return JOURNAL.info(
            f"{', '.join(seen.owed)} will come back when a valet starts.", "Start one with: tray-valet serve"
        )
    if seen.kept_aside:
        return JOURNAL.warn(
            f"A damaged journal was put aside as {', '.join(seen.kept_aside)}.",
            "Check that the disk is sound, and remove that file.",
        )
    return JOURNAL.ok("Nothing is damaged.")


def of_leftovers(left: tuple[str, ...]) -> Finding:
    """`left`: runners (model and PID) that outlived the valet which had started them."""
    if left:
        return LEFTOVERS.warn(
            f"A runner of a valet that was killed still holds memory: {', '.join(left)}.",
            "Start the valet, which ends it: tray-valet serve",
        )
    return LEFTOVERS.ok("None.")


def of_clock(now_s: float, newest_s: float, oldest_plausible_s: float) -> Finding:
    """`newest_s`: when our newest file was written; `oldest_plausible_s`: the program is no older."""
    if now_s < oldest_plausible_s or newest_s > now_s + _DAY_S:
        return CLOCK.bad(
            "The clock is behind: files of the valet are from the future.",
            "Set date and time, or let the system do it (timedatectl set-ntp true).",
        )
    return CLOCK.ok("The time is plausible.")


class SecretsSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that the settings name, which of them are missing, and what is the matter with the keyring."""

    names: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    keyring_problem: str = ""


def of_secrets(seen: SecretsSeen) -> Finding:
    """Whether every key that the settings name is there."""
    why = f" ({seen.keyring_problem})" if seen.keyring_problem else ""
    if seen.missing:
        first = seen.missing[0]
        named = ", ".join(f"keyring:{name}" for name in seen.missing)
        if seen.keyring_problem:
            remedy = "Unlock the keyring, or store the key again: tray-valet open, Settings."
        else:
            remedy = f"Store it: keyring set tray-valet {first}"
        return SECRETS.bad(f"The settings name {named}, which was not found{why}.", remedy)
    if not seen.names:
        return SECRETS.ok("The settings name no key.")
    if seen.keyring_problem:
        return SECRETS.warn(
            f"The keyring cannot be used{why}; the keys were found in the file beside it.",
            "Unlock the keyring, or leave it so: the file is private.",
        )
    return SECRETS.ok(f"All {len(seen.names)} found.")


class NameSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the settings name at `place`. `is_there` None = its provider could not be asked."""

    place: str
    name: str
    is_there: bool | None
    route: str = ""  # the alias, where it is one's candidate
    too_long: tuple[int, int] | None = None  # the route's context and the most that the model was made for


def of_names(names: tuple[NameSeen, ...]) -> Finding:
    """Whether the settings name models that exist, with a context that they have."""
    missing = [seen for seen in names if seen.is_there is False]
    routes = {seen.route for seen in names if seen.route}
    dead = [route for route in sorted(routes) if all(s.is_there is False for s in names if s.route == route)]
    if dead:
        return NAMES.bad(
            f"The alias {dead[0]} has no candidate that exists.",
            f"Correct routes.{dead[0]}, or get the model: tray-valet pull MODEL",
        )
    if missing:
        first = missing[0]
        return NAMES.warn(
            f"{first.place} names {first.name}, which its provider does not have.",
            "Correct the name (see: tray-valet models), or get it: tray-valet pull MODEL",
        )
    for seen in names:
        if seen.too_long is not None:
            asked, most = seen.too_long
            return NAMES.warn(
                f"{seen.place} asks for a context of {asked} tokens; {seen.name} was made for {most}.",
                f"Set num_ctx to {most} or less.",
            )
    if any(seen.is_there is None for seen in names):
        return NAMES.unknown("Some models that the settings name could not be checked: nobody answers there.")
    return NAMES.ok("Every model that the settings name is there.")
