"""The icon files in assets/ are what the drawing makes today, in every size that systems ask for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import PIL.Image
import pytest

from tray_valet.tray.icon_drawing import draw_app_icon

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets" / "icons"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("app_icons", ROOT / "packaging" / "app_icons.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stored_pngs_are_the_drawing_of_today(script: ModuleType) -> None:
    for size_px in script.PNG_SIZES_PX:
        with PIL.Image.open(ASSETS / f"tray-valet-{size_px}.png") as stored:
            assert stored.tobytes() == draw_app_icon(size_px).tobytes()


def test_the_windows_icon_has_each_size_as_it_is_drawn(script: ModuleType) -> None:
    with PIL.Image.open(ASSETS / "tray-valet.ico") as stored:
        assert stored.info["sizes"] == {(s, s) for s in script.ICO_SIZES_PX}
        for size_px in script.ICO_SIZES_PX:
            frame = stored.ico.getimage((size_px, size_px)).convert("RGBA")
            assert frame.tobytes() == draw_app_icon(size_px).tobytes()


def test_the_macos_icon_goes_up_to_1024_pixels() -> None:
    with PIL.Image.open(ASSETS / "tray-valet.icns") as stored:
        assert max(wide * scale for wide, _, scale in stored.info["sizes"]) == 1024
