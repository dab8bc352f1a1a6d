"""Keys that are stored and taken away while the valet runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.errors
import pytest

from tray_valet.core.errors import NotFound, SettingsUnwritable
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

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    yield
    keyring.set_keyring(before)


async def test_a_stored_key_is_known_at_once_and_a_forgotten_one_no_more(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    secrets = Secrets(file)
    await secrets.keep("openai", "one")
    assert secrets.get("openai") == "one"
    await secrets.keep("openai", "two")
    await secrets.keep("other", "three")
    assert secrets.get("openai") == "two"
    assert file.stat().st_mode & 0o777 == 0o600
    await secrets.forget("openai")
    assert secrets.get("openai") is None
    assert json.loads(file.read_text()) == {"other": "three"}
    with pytest.raises(NotFound):
        await secrets.forget("openai")


async def test_a_key_of_an_earlier_run_can_be_forgotten(tmp_path: Path) -> None:
    await Secrets(tmp_path / "secrets.json").keep("openai", "one")
    await Secrets(tmp_path / "secrets.json").forget("openai")
    again = Secrets(tmp_path / "secrets.json")
    await again.warm(["openai"], may_be_missing=True)
    assert again.get("openai") is None


async def test_with_a_keyring_it_is_forgotten_there(tmp_path: Path) -> None:
    backend = _InMemory()
    keyring.set_keyring(backend)
    secrets = Secrets(tmp_path / "secrets.json")
    await secrets.keep("openai", "one")
    assert backend.kept == {("tray-valet", "openai"): "one"}
    await secrets.forget("openai")
    assert (backend.kept, (tmp_path / "secrets.json").exists()) == ({}, False)


@pytest.mark.skipif(os.name != "posix", reason="a folder in place of a file")
async def test_a_place_that_cannot_be_written_is_said_and_the_key_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").mkdir()
    (tmp_path / "secrets.json" / "x").touch()
    secrets = Secrets(tmp_path / "secrets.json")
    with pytest.raises(SettingsUnwritable):
        await secrets.keep("openai", "one")
    assert secrets.get("openai") is None
