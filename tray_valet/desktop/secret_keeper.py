"""Keeping a key: in the system's keyring, else in a file that only the user can read.

Decides: where a key is put. Must not: log or show one. What is kept here is found by `secrets.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tray_valet.desktop.file_lock import locked

_SERVICE = "tray-valet"
_TIMEOUT_S = 10.0


class SecretKeeper:
    """Reads and keeps keys by name; `file` is used where there is no keyring. Blocks up to 10 s a call."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, name: str) -> str | None:
        """The key of that name; None if it is nowhere."""
        answer = _in_time(lambda: _from_keyring(name))
        return answer or self._stored().get(name)

    def keep(self, name: str, secret: str) -> None:
        """Put a key under that name, over the one that is there. Raises OSError."""
        if _in_time(lambda: _into_keyring(name, secret)):
            self._drop(name)  # an older one, from when there was no keyring, is not left readable
            return
        with self._locked():
            self._put_aside_if_damaged()
            self._write({**self._stored(), name: secret})

    def forget(self, name: str) -> None:
        """Take a key away, wherever it is; one that is nowhere: fine. Raises OSError."""
        _in_time(lambda: _out_of_keyring(name))
        self._drop(name)

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


def _out_of_keyring(name: str) -> str | None:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    with contextlib.suppress(keyring.errors.KeyringError, RuntimeError, OSError):
        keyring.delete_password(_SERVICE, name)  # it may not be there, or there is no keyring
    return None


def _in_time(ask: Callable[[], str | None]) -> str | None:
    """The answer, or None where the keyring (which may wait for the user) takes longer than 10 s."""
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), name="keyring", daemon=True)
    thread.start()
    thread.join(_TIMEOUT_S)
    return answers[0] if answers else None
