"""What imported llama-server models have in common, whichever program they come from.

Decides: where a model's file lies, which flags are the valet's own, which provider a model belongs to.
Must not: read any program's file, or look at the disk: paths are only text here.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Collection, Sequence

import msgspec

from tray_valet.core.config_tree import Node, SettingsPath, to_plain
from tray_valet.core.import_report import Findings, Ground
from tray_valet.core.models import ProviderKind

ENGINE_NAME = "local"
# What a runner serves, where and to whom is the valet's to say (llama.cpp, common/arg.cpp); all take a value.
_OWN = {
    **dict.fromkeys(("-m", "--model"), "The model's file is model_path."),
    **dict.fromkeys(("--host", "--port"), "The valet gives each runner its address."),
    **dict.fromkeys(("-a", "--alias"), "The runner's name is the model's name here."),
    **dict.fromkeys(
        ("--api-key", "--api-key-file"),
        "Each runner gets a key of its own; the clients' keys belong in router.api_keys.",
    ),
    **dict.fromkeys(
        ("-hft", "--hf-token"),
        "A key is not kept in the settings; set HF_TOKEN in the valet's environment instead.",
    ),
    **dict.fromkeys(
        ("--api-prefix", "--ssl-key-file", "--ssl-cert-file"), "Only the valet talks to a runner."
    ),
}
_KEY_NAME = re.compile(r"(?:api[-_]?key|token|secret|password)$", re.IGNORECASE)
MODEL_FLAGS = ("-m", "--model")


class Flags(msgspec.Struct, frozen=True):
    """A command line's flags without the valet's own: `model` is the value of -m, None without one."""

    words: tuple[str, ...]
    model: str | None
    own: tuple[str, ...]  # the valet's own that were there, -m aside


def split_flags(words: Sequence[str]) -> Flags:
    """Tell the user's flags from those that are the valet's (`--port 1` and `--port=1` alike)."""
    kept: list[str] = []
    own: list[str] = []
    model: str | None = None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, is_joined, value = word.partition("=")
        if name not in _OWN:
            kept.append(word)
            continue
        if not is_joined:
            value = rest.pop(0) if rest else ""
        if name in MODEL_FLAGS:
            model = value
        else:
            own.append(name)
    return Flags(tuple(kept), model, tuple(own))


def program_path(folder: str, path: str) -> str:
    """The path of a program: a name alone is looked up on PATH, a relative path is from `folder`."""
    has_folder = "/" in path or "\\" in path
    return joined(folder, path) if has_folder else path


def leave_own_flags(found: Findings, source: str, flags: Flags) -> None:
    """Say of each of the valet's own flags why it is not taken."""
    for name in dict.fromkeys(flags.own):
        found.leave(f"{source} {name}", _OWN[name])


def without_keys(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A program's words without keys and the flags that name them, and those flags."""
    kept: list[str] = []
    dropped: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, is_joined, _ = word.partition("=")
        if not name.startswith("-") or not _KEY_NAME.search(name):
            kept.append(word)
            continue
        dropped.append(name)
        if not is_joined and rest and not rest[0].startswith("-"):
            rest.pop(0)
    return kept, dropped


def is_key_name(name: str) -> bool:
    """Whether a variable of that name holds a key, a token or a password."""
    return _KEY_NAME.search(name) is not None


def is_absolute(path: str) -> bool:
    """Whether the path means the same wherever it is read: absolute on some system, or in the home."""
    return posixpath.isabs(path) or bool(ntpath.splitdrive(path)[0]) or path.startswith(("~", "\\", "$", "%"))


def joined(folder: str, path: str) -> str:
    """The path below a folder, in the folder's own way of writing; an absolute one stays."""
    if not folder or is_absolute(path):
        return path
    if "\\" in folder and "/" not in folder:
        return ntpath.normpath(ntpath.join(folder, path))
    return posixpath.normpath(posixpath.join(folder, path))


def engine_path(name: str) -> SettingsPath:
    """Where a llama-server provider of that name stands."""
    return ("providers", name)


class Wanted(msgspec.Struct, frozen=True):
    """A llama-server provider as an import wants it: program (None = the default one), GPUs, models."""

    program: str | None
    devices: tuple[int, ...] | None
    models: tuple[str, ...]


def engine_for(ground: Ground, taken: Collection[str], wanted: Wanted) -> str:
    """The name of the llama-server provider for what is wanted; `taken` are names given away already.

    The one that has such a model already, else the one that runs the same, else the first that is free.
    """
    names = [name for name in _names() if name not in taken]
    providers = ground.current.at(("providers",))
    for name, there in providers.entries.items() if providers is not None else ():
        models = there.at(("models",))
        known = models.entries if models is not None else {}
        if name not in taken and _is_engine(there) and any(model in known for model in wanted.models):
            return name
    same = [name for name in names if _runs(ground.current.at(engine_path(name)), wanted)]
    free = [name for name in names if ground.current.at(engine_path(name)) is None]
    first = ground.current.at(engine_path(ENGINE_NAME))
    if same:
        return same[0]
    if ENGINE_NAME in names and (first is None or _is_engine(first)):
        return ENGINE_NAME
    return free[0] if free else names[-1]


def _names() -> list[str]:
    return [ENGINE_NAME, *(f"{ENGINE_NAME}-{number}" for number in range(2, 100))]


def _runs(there: Node | None, wanted: Wanted) -> bool:
    if there is None or not _is_engine(there):
        return False
    path, devices = there.at(("llama_server_path",)), there.at(("gpu_devices",))
    is_same_program = (path.value if path is not None else None) == wanted.program
    present = to_plain(devices) if devices is not None else None
    return is_same_program and present == (None if wanted.devices is None else list(wanted.devices))


def _is_engine(there: Node) -> bool:
    kind = there.at(("kind",))
    return kind is not None and kind.value == ProviderKind.LLAMA_SERVER
