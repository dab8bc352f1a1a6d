"""Keeping a key: in the system's keyring, else in a file that only the user can read.

Decides: where a key is put and looked for. Must not: log or show one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tray_valet.desktop.file_lock import locked

_LOG = logging.getLogger(__name__)
_SERVICE = "tray-valet"
_TIMEOUT_S = 10.0


class SecretKeeper:
    """Reads and keeps keys by name; `file` is used where there is no keyring. Blocks up to 10 s a call."""

    def __init__(self, file: Path, *, keyring_timeout_s: float = _TIMEOUT_S) -> None:
        self._file = file
        self._keyring_timeout_s = keyring_timeout_s

    def read(self, name: str) -> str | None:
        """The key of that name; None if it is nowhere."""
        return self.read_all((name,)).get(name)

    def read_all(self, names: Sequence[str]) -> dict[str, str]:
        """The keys of those names, without those that are nowhere."""
        found: dict[str, str] = {}

        def ask() -> None:
            for name in names:
                if key := _from_keyring(name):
                    found[name] = key

        self._in_time(ask)
        in_file = {name: key for name, key in self._stored().items() if name in names}
        return {**in_file, **found}

    def keep(self, name: str, secret: str) -> None:
        """Put a key under that name, over the one that is there. Raises OSError."""
        if self._in_time(lambda: _into_keyring(name, secret)):
            self._drop(name)  # an older one, from when there was no keyring, is not left readable
            return
        with self._locked():
            self._put_aside_if_damaged()
            self._write({**self._stored(), name: secret})

    def forget(self, name: str) -> None:
        """Take a key away, wherever it is; one that is nowhere: fine. Raises OSError."""
        self._in_time(lambda: _out_of_keyring(name))
        self._drop(name)

    def _in_time(self, ask: Callable[[], str | None]) -> str | None:
        """The answer; None where the keyring (which may wait for the user) takes longer.

        In a thread that keeps nobody from ending: an event loop waits at its end for those of its own pool.
        """
        answers: list[str | None] = []
        thread = threading.Thread(target=lambda: answers.append(ask()), name="keyring", daemon=True)
        thread.start()
        thread.join(self._keyring_timeout_s)
        if thread.is_alive():
            _LOG.warning("The keyring did not answer in %.0f s", self._keyring_timeout_s)
        return answers[0] if answers else None

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self._file.with_name(f".{self._file.name}.lock"), timeout_s=_TIMEOUT_S)

    def _drop(self, name: str) -> None:
        if name in self._stored():
            with self._locked():
                self._write({other: key for other, key in self._stored().items() if other != name})

    def _put_aside_if_damaged(self) -> None:
        """A file that cannot be read may still hold keys that a person can find in it."""
        try:
            is_whole = isinstance(json.loads(self._file.read_bytes()), dict)
        except FileNotFoundError:
            return
        except ValueError:
            is_whole = False
        if not is_whole:
            os.chmod(self._file, 0o600)
            os.replace(self._file, self._file.with_name(f"{self._file.name}.damaged"))

    def _stored(self) -> dict[str, str]:
        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(stored, dict):
            return {}
        return {name: value for name, value in stored.items() if isinstance(value, str)}

    def _write(self, stored: dict[str, str]) -> None:
        """Replace the file, the lock held: an unfinished one is then a killed writer's, and holds keys."""
        for leftover in self._file.parent.glob(f".{self._file.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(stored, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _from_keyring(name: str) -> str | None:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    try:
        return keyring.get_password(_SERVICE, name)
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        return None


def _into_keyring(name: str, secret: str) -> str | None:
    """Returns the key where the keyring has it now, None where it could not be put there."""
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    try:
        keyring.set_password(_SERVICE, name, secret)
        return keyring.get_password(_SERVICE, name)
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        return None


def _out_of_keyring(name: str) -> None:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return
    with contextlib.suppress(keyring.errors.KeyringError, RuntimeError, OSError):
        keyring.delete_password(_SERVICE, name)  # it may not be there, or there is no keyring
