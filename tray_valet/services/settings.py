"""The settings in force: read, watched, changed.

Decides: which layers are in force when some of them are broken, and when a change may be written.
Must not: judge values (`core/config_*.py` do), or write what came from the environment or the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tray_valet.core.config import Settings
from tray_valet.core.config_changes import apply_edits, edits_of, read_change
from tray_valet.core.config_environment import environment_layer
from tray_valet.core.config_layers import build_settings, in_order
from tray_valet.core.config_tree import (
    Node,
    Origin,
    Place,
    SettingsPath,
    dotted,
    empty,
    from_plain,
    leaves,
    nested,
    to_plain,
)
from tray_valet.core.errors import SettingsChangedElsewhere, SettingsError
from tray_valet.desktop.file_lock import locked
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.settings_reading import Reading, Signature, read_file, signature_of
from tray_valet.services.settings_text import parse_value
from tray_valet.services.settings_writing import rewritten, saving

_LOG = logging.getLogger(__name__)
WATCH_INTERVAL_S = 2.0
_LOCK_TIMEOUT_S = 5.0


class SettingsStore:
    """The settings of one file under one environment and command line.

    `load`, `reload_if_changed` and `update` read and write files: call them in a worker thread once the
    loop runs. They may be called from several threads. `last_good_file` keeps the last settings that were
    right, so that a start with a broken file has them too.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        command_line: Mapping[str, Any] | None = None,
        *,
        last_good_file: Path | None = None,
    ) -> None:
        self.path = path
        self._environ = dict(environ)
        self._command_line = from_plain(nested(command_line or {}), Place(Origin.COMMAND_LINE))
        self._last_good_file = last_good_file
        self._lock = threading.Lock()
        self._signature: Signature | None = None
        self._has_been_missing = False
        self._read = Reading()
        self._is_file_broken = False
        self._good_tree: Node | None = None
        self._overrides: dict[str, str] = {}
        self._revision = 0
        self._changed: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self.current = Settings()
        self.problem: SettingsError | None = None
        self.warnings: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Of the file as it was last read; `update` takes it as `base_version`. "" without a file."""
        return self._read.version

    @property
    def overrides(self) -> dict[str, str]:
        """Settings that the environment sets, dotted, and the variable; saving does not change those."""
        return dict(self._overrides)

    @property
    def written(self) -> tuple[str, ...]:
        """Settings that the file in force says something of, dotted, in our spellings."""
        tree = self._good_tree
        return tuple(dotted(path) for path, _ in leaves(tree) if path) if tree is not None else ()

    def load(self) -> Settings:
        """Read the file and put it in force; where it is broken, what was right last.

        Never raises for what is in the file or the environment: `problem` and `warnings` say it. They
        are not logged here, for the log itself is set up by these settings.
        """
        with self._lock:
            self._load(self._signature_now(), is_logged=False)
            return self.current

    def reload_if_changed(self) -> bool:
        """Read the file again if it is another than last time; whether settings or problem changed."""
        with self._lock:
            now = self._signature_now()
            if now == self._signature:
                return False
            if now is None and not self._has_been_missing:
                # Many editors save by removing the file and making a new one.
                self._has_been_missing = True
                return False
            before = self._revision
            self._load(now)
            return self._revision != before

    async def watch(self, on_change: Callable[[Settings], Awaitable[None] | None]) -> None:
        """Call `on_change` after every change of `current` or `problem`, from the file or by `update`.

        Runs on the loop until it is cancelled; looks at the file every 2 s, which costs one `stat`.
        """
        changed = asyncio.Event()
        self._changed = (asyncio.get_running_loop(), changed)
        seen = self._revision
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), WATCH_INTERVAL_S)
            changed.clear()
            if self._signature_now() != self._signature:
                await asyncio.to_thread(self.reload_if_changed)
            if seen != self._revision:
                seen = self._revision
                answer = on_change(self.current)
                if answer is not None:
                    await answer

    def update(self, partial: Mapping[str, Any], *, base_version: str | None = None) -> Settings:
        """Write a partial change into the file and put it in force; returns the settings then in force.

        Everything else in the file stays as it is, comments included. With `base_version` the file must
        still be that version; without, only the values that are changed must be as they were last read.
        Raises SettingsError (nothing stored) if the result would be wrong or the file is broken,
        SettingsChangedElsewhere (nothing stored, the new file is in force), TimedOut, SettingsUnwritable.
        """
        with saving(self.path), self._lock, self._file_lock():
            if not self._revision:
                self._load(self._signature_now())
            self._refuse_if_changed_elsewhere(partial, base_version)
            if self._is_file_broken and self.problem is not None:
                raise self.problem
            change = read_change(partial)
            edits = edits_of(self._read.tree, change)
            wanted = apply_edits(self._read.tree, edits)
            # With a problem in force some layers are left out; a change is judged with those that are not.
            touched = tuple(path for path, _ in leaves(change))
            settings = self._built(wanted, self._active_layers(wanted), touched)
            if edits:
                data = rewritten(self._read.data, edits, wanted, name=self.path.name)
                if self._signature_now() != self._signature:
                    self._load(self._signature_now())
                    raise _changed_elsewhere()
                write_atomically(self.path, data)
                self._load(self._signature_now())
                settings = self.current
            return settings

    # -- reading ---------------------------------------------------------------------------------

    def _signature_now(self) -> Signature | None:
        return signature_of(self.path)

    def _load(self, signature: Signature | None, *, is_logged: bool = True) -> None:
        self._signature = signature
        self._has_been_missing = False
        self._read = read_file(self.path)
        settings, problem = self._in_force()
        warnings, told = self.warnings, str(self.problem or "")
        self._warn_if_readable_by_others()
        self._accept(settings, problem)
        if is_logged:
            self._log_what_is_new(warnings, told)
        if problem is None and self._read.exists:
            self._keep_as_last_good(self._read.data)

    def _in_force(self) -> tuple[Settings, SettingsError | None]:
        """The first combination of layers that is right, and all that is wrong with the best one."""
        found = list(self._read.error.problems) if self._read.error is not None else []
        trees = [] if self._read.error is not None else [self._read.tree]
        for tree in (*trees, *self._good_trees(), empty(Origin.FILE)):
            is_file = bool(trees) and tree is self._read.tree
            for has_environment in (True, False):
                try:
                    settings = self._built(tree, self._layers(tree, has_environment))
                except SettingsError as error:
                    found += error.problems if is_file else ()
                    continue
                self._is_file_broken, self._good_tree = not is_file, tree
                return settings, SettingsError(in_order(found)) if found else None
        # Only a wrong command line leads here.
        settings = build_settings(empty(Origin.FILE))
        return settings, SettingsError(in_order(found))

    def _good_trees(self) -> Iterator[Node]:
        """What was right last: in this process, or on the disk since an earlier one."""
        if self._good_tree is not None:
            yield self._good_tree
        if self._last_good_file is None:
            return
        reading = read_file(self._last_good_file)
        if reading.exists and reading.error is None:
            yield reading.tree

    def _layers(self, tree: Node, has_environment: bool) -> list[Node]:
        if not has_environment:
            self._overrides = {}
            return [self._command_line]
        environment = environment_layer(self._environ, tree, parse_value)
        self._overrides = {dotted(path): node.place.name for path, node in leaves(environment) if path}
        return [environment, self._command_line]

    def _active_layers(self, tree: Node) -> list[Node]:
        try:
            return self._layers(tree, True)
        except SettingsError:
            return self._layers(tree, False)

    def _built(self, tree: Node, above: list[Node], changed: tuple[SettingsPath, ...] = ()) -> Settings:
        return build_settings(tree, *above, changed=changed)

    def _accept(self, settings: Settings, problem: SettingsError | None) -> None:
        is_same = settings == self.current and str(problem or "") == str(self.problem or "")
        self.current, self.problem = settings, problem
        if is_same and self._revision:
            return
        self._revision += 1
        if self._changed is not None:
            loop, event = self._changed
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)

    def _keep_as_last_good(self, data: bytes) -> None:
        if self._last_good_file is None:
            return
        try:
            if self._last_good_file.exists() and self._last_good_file.read_bytes() == data:
                return
            write_atomically(self._last_good_file, data)
        except OSError as error:
            _LOG.warning("the last good settings cannot be kept: %s", error)

    def _warn_if_readable_by_others(self) -> None:
        if not hasattr(os, "geteuid") or not self._read.exists:
            return  # without POSIX's owners and modes, st_mode says nothing about others
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(os.stat(self.path).st_mode)
            text = f"{self.path} can be read by others. Run: chmod 600 {self.path}"
            if mode & (stat.S_IRGRP | stat.S_IROTH) and text not in self.warnings:
                self.warnings = (*self.warnings, text)

    def _log_what_is_new(self, warnings: tuple[str, ...], told: str) -> None:
        for warning in self.warnings[len(warnings) :]:
            _LOG.warning("%s", warning)
        if self.problem is not None and str(self.problem) != told:
            _LOG.error("settings have a mistake; the last good ones stay in use: %s", self.problem)
        elif self.problem is None and told:
            _LOG.info("settings are right again")

    # -- writing ---------------------------------------------------------------------------------

    def _file_lock(self) -> contextlib.AbstractContextManager[None]:
        real = Path(os.path.realpath(self.path))
        return locked(real.with_name(f".{real.name}.lock"), timeout_s=_LOCK_TIMEOUT_S)

    def _refuse_if_changed_elsewhere(self, partial: Mapping[str, Any], base_version: str | None) -> None:
        """Look at the file as it is now; it becomes the one that is changed."""
        before = self._read
        now = self._signature_now()
        if now != self._signature:
            self._load(now)
        if base_version is not None and base_version != self._read.version:
            raise _changed_elsewhere()
        if before.data == self._read.data or self._read.error is not None or before.error is not None:
            return
        for path, _ in leaves(read_change(partial)):
            old, new = before.tree.at(path), self._read.tree.at(path)
            if (None if old is None else to_plain(old)) != (None if new is None else to_plain(new)):
                raise _changed_elsewhere(dotted(path))


def _changed_elsewhere(param: str | None = None) -> SettingsChangedElsewhere:
    return SettingsChangedElsewhere(
        "Not saved: the settings file was changed elsewhere.",
        remedy="Look at the new values and save again.",
        param=param,
    )
