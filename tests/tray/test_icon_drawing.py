"""The icons: told apart by shape alone, crisp, visible on light and on dark panels."""

from __future__ import annotations

import itertools

import PIL.Image
import PIL.ImageChops
import pytest

from tray_valet.core.tray_view import Face
from tray_valet.tray.icon_drawing import PANEL_SIZES_PX, draw_app_icon, draw_face

SIZES = (*PANEL_SIZES_PX, 25, 28)


def luminance(colour: tuple[int, ...]) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def main_colour(image: PIL.Image.Image) -> tuple[int, ...]:
    solid = [(n, c) for n, c in image.getcolors(image.width**2) or [] if c[3] == 255 and c[:3] != (255,) * 3]
    return tuple(max(solid)[1][:3])


@pytest.mark.parametrize("size_px", SIZES)
@pytest.mark.parametrize("face", Face)
def test_an_icon_is_square_uses_its_room_and_leaves_the_ground_clear(face: Face, size_px: int) -> None:
    image = draw_face(face, size_px)
    assert (image.mode, image.size) == ("RGBA", (size_px, size_px))
    left, top, right, bottom = image.getbbox() or (0, 0, 0, 0)
    assert (left, right) == (0, size_px)
    assert bottom - top >= size_px * 0.7
    assert image.getpixel((0, 0)) == (0, 0, 0, 0)


@pytest.mark.parametrize("size_px", SIZES)
@pytest.mark.parametrize("face", Face)
def test_a_bell_has_whole_edges(face: Face, size_px: int) -> None:
    """The knob's top row is solid or clear: no half-covered pixel blurs a straight edge."""
    image = draw_face(face, size_px)
    _, top, _, _ = image.getbbox() or (0, 0, 0, 0)
    row = image.crop((0, top, size_px, top + 1)).getchannel("A")
    assert {alpha for _, alpha in row.getcolors() or []} == {0, 255}


@pytest.mark.parametrize("size_px", PANEL_SIZES_PX)
def test_faces_differ_by_shape_and_not_by_colour_alone(size_px: int) -> None:
    templates = {face: draw_face(face, size_px, is_template=True).getchannel("A") for face in Face}
    for one, other in itertools.combinations(Face, 2):
        differing = PIL.ImageChops.difference(templates[one], templates[other]).point(
            lambda v: v > 128 and 255
        )
        assert differing.histogram()[255] >= size_px**2 * 0.02, (one, other)


@pytest.mark.parametrize("panel", [(0xF0, 0xF1, 0xF3), (0x20, 0x23, 0x28)])
@pytest.mark.parametrize("face", Face)
def test_colours_hold_three_to_one_on_light_and_dark_panels(face: Face, panel: tuple[int, ...]) -> None:
    lighter, darker = sorted((luminance(main_colour(draw_face(face, 64))), luminance(panel)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 3.0


@pytest.mark.parametrize("face", Face)
def test_a_template_is_black_and_alpha_only(face: Face) -> None:
    image = draw_face(face, 36, is_template=True)
    assert all(colour[:3] == (0, 0, 0) for _, colour in image.getcolors(36 * 36) or [])


def test_the_app_icon_is_a_tile_with_clear_corners() -> None:
    for size_px in (16, 48, 256, 1024):
        image = draw_app_icon(size_px)
        assert image.size == (size_px, size_px)
        assert image.getpixel((0, 0))[3] == 0  # type: ignore[index]
        assert image.getpixel((size_px // 2, size_px // 2)) == (255, 255, 255, 255)
