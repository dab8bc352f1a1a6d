"""The new bytes of the settings file after a change.

Decides: that what is written says exactly what was asked for and nothing else was touched; it is read again
before it is written.
Must not: write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tray_valet.core.config_changes import Edit
from tray_valet.core.config_layers import merge_layers
from tray_valet.core.config_tree import Node, dotted, to_plain
from tray_valet.core.errors import SettingsError, SettingsProblem, SettingsUnwritable
from tray_valet.services.settings_edit import spliced
from tray_valet.services.settings_list_edit import SpliceError
from tray_valet.services.settings_reflow import reflowed
from tray_valet.services.settings_text import parse_settings


@contextmanager
def saving(file: Path) -> Iterator[None]:
    """Around a save: what the system refuses (a full disk, a folder of others) becomes SettingsUnwritable."""
    try:
        yield
    except OSError as error:
        raise SettingsUnwritable(
            f"Not saved: {file} cannot be written ({error.strerror or error}).",
            remedy="Look at the disk's free space and at who owns the folder.",
        ) from error


def rewritten(data: bytes, edits: list[Edit], wanted: Node, *, name: str) -> bytes:
    """The file's new content: edited in place where that can be done, else written anew.

    `wanted` is the whole file, in our spellings, as it is to be. Raises SettingsError where neither way
    leads to exactly that; the file has to be edited by hand then.
    """
    text = data.decode("utf-8-sig")
    is_json = _is_json(text)
    ways: tuple[Callable[[], str], ...] = (
        lambda: spliced(text, edits, is_json=is_json),
        lambda: reflowed(text, edits, wanted, is_json=is_json),
    )
    for way in ways:
        new = _attempted(way)
        if new is not None and _says(new, wanted, name) and (not is_json or _is_json(new)):
            return new.encode()
    path = dotted(edits[0].path)
    message = "This cannot be changed from here as the file is written. Edit it in the settings file."
    raise SettingsError((SettingsProblem(path=path, message=message),))


def _attempted(way: Callable[[], str]) -> str | None:
    try:
        return way()
    except (SpliceError, RecursionError, ValueError, LookupError, TypeError, AttributeError):
        return None
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("yaml", "ruamel"):
            return None
        raise


def _says(text: str, wanted: Node, name: str) -> bool:
    try:
        tree, problems = merge_layers(parse_settings(text.encode(), name=name))
    except SettingsError:
        return False
    wanted_tree, _ = merge_layers(wanted)
    return not problems and _exactly(to_plain(tree)) == _exactly(to_plain(wanted_tree))


def _exactly(plain: object) -> str:
    """A form in which true differs from 1, and 80 does not differ from 80.0."""
    if isinstance(plain, dict):
        return "{" + ",".join(f"{key!r}:{_exactly(plain[key])}" for key in sorted(plain)) + "}"
    if isinstance(plain, list):
        return "[" + ",".join(map(_exactly, plain)) + "]"
    if isinstance(plain, int | float) and not isinstance(plain, bool):
        return repr(float(plain))
    return repr(plain)


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] != "{":
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
