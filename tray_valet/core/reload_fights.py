"""Reload fights: a program loads models at a provider itself, again and again, while a pause keeps them out.

Decides: when the model is set aside again, how often a program has done so, what it is called, and what
its user is told to do. Must not: see sockets, unload anything, or read a clock.

What the player wants: a model in VRAM slows the game for as long as it is there, and every load and unload
makes it stutter once. So the first reload goes at once. A program that comes straight back is met with a
pace: two evictions are at least 5, then 10, 20 and 30 s apart. The pace counts from the last eviction, not
from the reload: a program that comes back more slowly than that always finds its model set aside at once,
and only one that retries without end is let be for 30 s, since throwing it out every second would cost the
game more than the memory does. A quiet minute ends the fight.
"""

from __future__ import annotations

import msgspec

from tray_valet.core.processes import Process

_PACES_S = (5.0, 10.0, 20.0, 30.0)
_CALM_S = 60.0
_MOST_CLIENTS = 50
_SAYS_NOTHING = ("main", "__main__", "app", "server", "index", "run", "start", "cli", "launch", "bot")
_INTERPRETERS = ("python", "pythonw", "pypy", "node", "nodejs", "bun", "deno", "ruby", "perl", "php", "java",
                 "bash", "sh", "dash", "zsh", "fish", "pwsh", "powershell")  # fmt: skip
_TAKES_VALUE = ("-X", "-W", "-r", "--require", "-cp", "-classpath")  # python, node, java
UNKNOWN = ""


class Fight(msgspec.Struct, frozen=True, kw_only=True):
    """What one pause has seen. Times are monotonic seconds; `counts`: (provider, program) → reloads."""

    in_a_row: int = 0
    last_reload_s: float | None = None
    last_eviction_s: float | None = None
    counts: dict[tuple[str, str], int] = {}


def reloaded(fight: Fight, now_s: float) -> Fight:
    """A model has come in once more."""
    last_s = max(fight.last_reload_s or -_CALM_S, fight.last_eviction_s or -_CALM_S)
    is_calm = fight.last_reload_s is None or now_s - last_s >= _CALM_S
    return msgspec.structs.replace(fight, in_a_row=1 if is_calm else fight.in_a_row + 1, last_reload_s=now_s)


def evicted(fight: Fight, now_s: float) -> Fight:
    """Everything is out again."""
    return msgspec.structs.replace(fight, last_eviction_s=now_s) if fight.in_a_row else fight


def evict_at_s(fight: Fight, now_s: float) -> float:
    """When what has come in is to be set aside (monotonic seconds, not before now)."""
    if fight.in_a_row <= 1 or fight.last_eviction_s is None:
        return now_s
    pace_s = _PACES_S[min(fight.in_a_row - 2, len(_PACES_S) - 1)]
    return max(now_s, fight.last_eviction_s + pace_s)


def counted(fight: Fight, provider: str, client: str) -> tuple[Fight, int]:
    """Count a reload for a program (`UNKNOWN`: it could not be told); returns how many it has done here.

    One that is not told apart counts along with whoever was there: the same program mostly, and nobody is
    to be told of it twice.
    """
    counts = dict(fight.counts)
    if client != UNKNOWN and (provider, client) not in counts:
        counts[provider, client] = counts.pop((provider, UNKNOWN), 0)
    elif client == UNKNOWN:
        known = [key for key in counts if key[0] == provider]
        client = known[-1][1] if known else UNKNOWN
    key = (provider, client)
    counts[key] = counts.pop(key, 0) + 1  # the last one stands last
    counts = dict(list(counts.items())[-_MOST_CLIENTS:])
    return msgspec.structs.replace(fight, counts=counts), counts[key]


def program_name(process: Process) -> str:
    """What a program is called: its file's name, or the script's where that is an interpreter."""
    stem = _stem(process.exe or (process.argv[0] if process.argv else ""))
    if not _is_interpreter(stem):
        return stem
    arguments = list(process.argv[1:])
    for at, argument in enumerate(arguments):
        if argument == "-m" and at + 1 < len(arguments):
            return arguments[at + 1].partition(".")[0]
        if argument == "-jar" and at + 1 < len(arguments):
            return _stem(arguments[at + 1])
        if argument in ("-c", "-e", "--eval", "-Command"):
            return stem
        if not argument.startswith("-") and (at == 0 or arguments[at - 1] not in _TAKES_VALUE):
            return _script_name(argument, process.cwd) or stem
    return stem


def _script_name(path: str, cwd: str) -> str:
    name = _stem(path)
    if name.lower() not in _SAYS_NOTHING:
        return name
    folder = path.replace("\\", "/").rpartition("/")[0]
    # `server.py` says nothing, the folder it is in mostly does.
    return _stem(folder if folder not in ("", ".") else cwd) or name


def told(clients: tuple[str, ...]) -> str:
    """The programs that may have been it, as one name; "" when there are none, or too many to tell."""
    names = tuple(dict.fromkeys(name for name in clients if name))
    return " or ".join(names) if len(names) <= 2 else UNKNOWN


def called(client: str, pid: int = 0) -> str:
    """The program at the beginning of a sentence; `pid` 0 = which process it was is not known."""
    if client == UNKNOWN:
        return "A program"
    return f"“{client}” (process {pid})" if pid else f"“{client}”"


def remedy(client: str, router_url: str | None) -> str:
    """What the user can do about it, one sentence."""
    program = f"“{client}”" if client else "the program"
    if router_url is None:
        return f"Switch the router on (router.enabled: true) and point {program} at its address instead."
    return f"Point {program} at {router_url} instead."


def _stem(path: str) -> str:
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(" (deleted)")
    lowered = name.lower()
    for ending in (".exe", ".py", ".pyw", ".js", ".mjs", ".cjs", ".jar", ".sh", ".rb", ".ts"):
        if lowered.endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def _is_interpreter(stem: str) -> bool:
    return stem.lower().rstrip("0123456789.") in _INTERPRETERS
