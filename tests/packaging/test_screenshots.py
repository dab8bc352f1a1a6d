"""The README's screenshots: there, of the right size, small, and what is missing for them is said."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 150_000


@pytest.fixture
def screenshots(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    yield importlib.import_module("screenshots")
    sys.modules.pop("screenshots", None)


@pytest.mark.parametrize("name", ["window-light.png", "window-dark.png", "tray.png"])
def test_a_stored_picture_is_small_and_shown_in_the_readme(name: str) -> None:
    assert (ROOT / "assets" / name).stat().st_size < LIMIT_BYTES
    assert f"(assets/{name})" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("scheme", "is_bright"), [("light", True), ("dark", False)])
def test_the_windows_pictures_have_its_size_and_their_scheme(
    screenshots: ModuleType, scheme: str, is_bright: bool
) -> None:
    with PIL.Image.open(ROOT / "assets" / f"window-{scheme}.png") as picture:
        assert picture.size == (screenshots.WINDOW_WIDTH_PX, screenshots.WINDOW_HEIGHT_PX)
        counts = picture.convert("L").histogram()
    assert (sum(counts[128:]) > sum(counts[:128])) is is_bright


def test_the_trays_picture_has_the_icon_in_its_colour(screenshots: ModuleType) -> None:
    with PIL.Image.open(ROOT / "assets" / "tray.png") as picture:
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
    wanted = tuple(bytes.fromhex(screenshots.ICON_COLOUR.removeprefix("#")))
    assert wanted in {colour for _, colour in colours or ()}


def test_without_a_needed_program_it_says_which_and_takes_nothing(
    screenshots: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "Xvfb" else f"/bin/{program}")
    assert screenshots.main([str(tmp_path / "pictures")]) == 1
    assert "Xvfb" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()
