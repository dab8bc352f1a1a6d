"""Keys in the keyring, else in a file of the user's own."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from tray_valet.desktop.secret_keeper import SecretKeeper
from tray_valet.desktop.secrets import Secrets


class _InMemory(keyring.backend.KeyringBackend):
    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    yield
    keyring.set_keyring(before)


def test_without_a_keyring_a_key_is_in_a_file_that_only_the_user_can_read(tmp_path: Path) -> None:
    file = tmp_path / "state" / "secrets.json"
    keeper = SecretKeeper(file)
    assert keeper.read("a") is None
    keeper.keep("a", "one")
    keeper.keep("b", "two")
    keeper.keep("a", "three")
    assert json.loads(file.read_text()) == {"a": "three", "b": "two"}
    assert keeper.read("a") == "three"
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
    assert not list(file.parent.glob("*.tmp"))


def test_with_a_keyring_there_is_no_file(tmp_path: Path) -> None:
    backend = _InMemory()
    keyring.set_keyring(backend)
    keeper = SecretKeeper(tmp_path / "secrets.json")
    keeper.keep("a", "one")
    assert (keeper.read("a"), backend.kept) == ("one", {("tray-valet", "a"): "one"})
    assert not (tmp_path / "secrets.json").exists()


def test_what_is_kept_is_found_by_those_who_need_it(tmp_path: Path) -> None:
    SecretKeeper(tmp_path / "secrets.json").keep("a", "one")
    secrets = Secrets(tmp_path / "secrets.json")
    asyncio.run(secrets.warm(["a"]))
    assert secrets.get("a") == "one"


class _Silent(_InMemory):
    """Waits for somebody to unlock it."""

    def __init__(self) -> None:
        super().__init__()
        self.unlocked = threading.Event()
        self.asked = 0

    def get_password(self, service: str, username: str) -> str | None:
        self.asked += 1
        self.unlocked.wait(60)
        return None


def test_a_keyring_that_does_not_answer_hides_no_key_and_holds_up_no_end(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    SecretKeeper(file).keep("a", "one")
    silent = _Silent()
    keyring.set_keyring(silent)
    secrets = Secrets(file, keyring_timeout_s=0.1)
    try:
        asyncio.run(secrets.warm(["a", "b"]))  # waits at its end for the threads of its own pool
        assert not silent.unlocked.is_set()
        assert (secrets.get("a"), secrets.get("b"), silent.asked) == ("one", None, 1)
    finally:
        silent.unlocked.set()


def test_a_damaged_file_is_put_aside_and_not_lost(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"other": "precious",')
    (tmp_path / "secrets.json").chmod(0o644)
    keeper = SecretKeeper(tmp_path / "secrets.json")
    assert keeper.read("a") is None
    keeper.keep("a", "one")
    assert keeper.read("a") == "one"
    aside = tmp_path / "secrets.json.damaged"
    assert aside.read_text() == '{"other": "precious",'
    if os.name == "posix":
        assert aside.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_writer_left_is_removed_with_the_next_key(tmp_path: Path) -> None:
    left = tmp_path / ".secrets.json.4242-0badcafe.tmp"
    left.write_text('{"a": "forgotten long ago"}')
    SecretKeeper(tmp_path / "secrets.json").keep("a", "one")
    assert [file.name for file in tmp_path.iterdir() if "forgotten" in file.read_text()] == []


def test_a_key_that_the_keyring_has_now_leaves_no_copy_in_the_file(tmp_path: Path) -> None:
    keeper = SecretKeeper(tmp_path / "secrets.json")
    keeper.keep("a", "old")
    keeper.keep("b", "stays")
    keyring.set_keyring(_InMemory())
    keeper.keep("a", "new")
    assert keeper.read("a") == "new"
    assert json.loads((tmp_path / "secrets.json").read_text()) == {"b": "stays"}
