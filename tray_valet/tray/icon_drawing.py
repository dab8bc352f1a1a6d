"""Draws the icons by geometry: a service bell whose colour, fill and badge tell the state.

Decides: shapes and colours. Must not: know panels, files, themes or what a state means.

Every length that makes an edge is a whole number of pixels of the wanted size, so that small icons are
crisp; the colours are mid-tones that hold 3:1 on light and on dark panels, so one set serves both.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tray_valet.core.tray_view import Face

if TYPE_CHECKING:
    import PIL.Image

PANEL_SIZES_PX = (16, 20, 22, 24, 32, 48, 64)
_OVERSAMPLE = 8
_CLEAR = (0, 0, 0, 0)
_WHITE = "#ffffff"
_BLACK = "#000000"
_ACCENT = "#1f66cc"
_Ink = str | tuple[int, int, int, int]


class Badge(StrEnum):
    """The sign in the disc at the lower right."""

    HALF = "half"
    BARS = "bars"
    EXCLAMATION = "exclamation"


_COLOURS = {
    Face.RUNNING: "#0d8f95",
    Face.MOVING: "#8a6fe0",
    Face.PAUSED: "#b67a08",
    Face.EMPTY: "#7e8794",
    Face.ATTENTION: "#d8425f",
}
_BADGES = {Face.MOVING: Badge.HALF, Face.PAUSED: Badge.BARS, Face.ATTENTION: Badge.EXCLAMATION}


def draw_face(face: Face, size_px: int, *, is_template: bool = False) -> PIL.Image.Image:
    """The tray icon of a state as a square RGBA image, `size_px` 8 to 256.

    `is_template`: black with signs cut out, for macOS, which colours by the alpha channel alone.
    """
    colour, sign = (_BLACK, _CLEAR) if is_template else (_COLOURS[face], _WHITE)
    sheet = _Sheet(size_px, _OVERSAMPLE)
    _draw_bell(sheet, colour, is_hollow=face is Face.EMPTY)
    badge = _BADGES.get(face)
    if badge is not None:
        _draw_badge(sheet, badge, colour, sign)
    return sheet.finished()


def draw_app_icon(size_px: int) -> PIL.Image.Image:
    """The program's own icon as a square RGBA image, `size_px` 16 to 1024: a white bell on a blue tile."""
    import PIL.Image

    tile = _Sheet(size_px, 4)
    margin = size_px * 0.06
    tile.rounded(margin, margin, size_px - margin, size_px - margin, size_px * 0.2, _ACCENT)
    icon = tile.finished()
    bell_px = _same_parity(size_px * 0.64, size_px)
    bell = _Sheet(bell_px, _OVERSAMPLE if bell_px <= 256 else 2)
    _draw_bell(bell, _WHITE, is_hollow=False)
    layer = PIL.Image.new("RGBA", icon.size)
    layer.paste(bell.finished(), ((size_px - bell_px) // 2,) * 2)
    return PIL.Image.alpha_composite(icon, layer)


class _Sheet:
    """A square to draw on in pixels of the wanted size, kept larger so that curves come out smooth."""

    def __init__(self, size_px: int, oversample: int) -> None:
        import PIL.Image
        import PIL.ImageDraw

        self.size_px = size_px
        self._scale = oversample
        self._image = PIL.Image.new("RGBA", (size_px * oversample,) * 2)
        self._pen = PIL.ImageDraw.Draw(self._image)

    def block(self, left: float, top: float, right: float, bottom: float, ink: _Ink) -> None:
        self._pen.rectangle(self._box(left, top, right, bottom), ink)

    def rounded(self, left: float, top: float, right: float, bottom: float, radius: float, ink: _Ink) -> None:
        self._pen.rounded_rectangle(self._box(left, top, right, bottom), radius * self._scale, ink)

    def dome(self, left: float, top: float, right: float, height: float, ink: _Ink) -> None:
        """The upper half of an ellipse."""
        self._pen.pieslice(self._box(left, top, right, top + 2 * height), 180, 360, ink)

    def disc(self, centre: float, radius: float, ink: _Ink, start: int = 0, end: int = 360) -> None:
        """A disc, or the part of it from `start` to `end` degrees, on the falling diagonal."""
        box = self._box(centre - radius, centre - radius, centre + radius, centre + radius)
        self._pen.pieslice(box, start, end, ink)

    def finished(self) -> PIL.Image.Image:
        import PIL.Image

        return self._image.resize((self.size_px, self.size_px), PIL.Image.Resampling.BOX)

    def _box(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        # PIL includes the last row and column.
        scale = self._scale
        return left * scale, top * scale, right * scale - 1, bottom * scale - 1


def _draw_bell(sheet: _Sheet, colour: str, *, is_hollow: bool) -> None:
    """Knob, stem, dome and tray, on a grid of sixteen rows."""
    px = sheet.size_px
    knob_high, stem_high, dome_high, gap, tray_high = (_whole(rows * px / 16) for rows in (1, 1, 7, 1, 2))
    top = (px - knob_high - stem_high - dome_high - gap - tray_high) // 2
    knob_wide = _same_parity(px / 4, px)
    stem_wide = _same_parity(knob_wide / 2, px)
    sheet.block((px - knob_wide) / 2, top, (px + knob_wide) / 2, top + knob_high, colour)
    top += knob_high
    # One pixel into the dome, whose top is thin.
    sheet.block((px - stem_wide) / 2, top, (px + stem_wide) / 2, top + stem_high + 1, colour)
    top += stem_high
    inset, wall = _whole(px / 16), _whole(px * 0.11)
    sheet.dome(inset, top, px - inset, dome_high, colour)
    if is_hollow:
        sheet.dome(inset + wall, top + wall, px - inset - wall, dome_high - 2 * wall, _CLEAR)
    top += dome_high + gap
    sheet.rounded(0, top, px, top + tray_high, tray_high / 2, colour)


def _draw_badge(sheet: _Sheet, badge: Badge, colour: str, sign: _Ink) -> None:
    """A disc at the lower right, set off from the bell by a clear rim, with its sign."""
    px = sheet.size_px
    is_odd = badge is Badge.BARS  # so that the gap between two equal bars is whole
    across = _same_parity(px * 0.62, 1 if is_odd else 2)
    centre = px - across / 2
    sheet.disc(centre, across / 2 + _whole(px / 20), _CLEAR)
    sheet.disc(centre, across / 2, colour)
    if badge is Badge.HALF:
        _draw_half(sheet, centre, across, colour, sign)
    elif badge is Badge.BARS:
        _draw_bars(sheet, centre, across, sign)
    else:
        _draw_exclamation(sheet, centre, across, sign)


def _draw_half(sheet: _Sheet, centre: float, across: int, colour: str, sign: _Ink) -> None:
    radius = across / 2 - max(1.5, across * 0.12)
    sheet.disc(centre, radius, sign)
    sheet.disc(centre, radius - _whole(across * 0.09), colour, 90, 270)


def _draw_bars(sheet: _Sheet, centre: float, across: int, sign: _Ink) -> None:
    gap = _same_parity(across * 0.09, 1)
    wide = max(2, round(across * 0.18))
    high = _same_parity(across * 0.48, 1)
    top, bottom = centre - high / 2, centre + high / 2
    sheet.block(centre - gap / 2 - wide, top, centre - gap / 2, bottom, sign)
    sheet.block(centre + gap / 2, top, centre + gap / 2 + wide, bottom, sign)


def _draw_exclamation(sheet: _Sheet, centre: float, across: int, sign: _Ink) -> None:
    wide = _same_parity(across * 0.17, 2)
    high = _same_parity(across * 0.7, 2)
    left, right, top, bottom = centre - wide / 2, centre + wide / 2, centre - high / 2, centre + high / 2
    sheet.block(left, top, right, bottom - wide - _whole(across * 0.09), sign)
    sheet.block(left, bottom - wide, right, bottom, sign)


def _whole(value: float) -> int:
    return max(1, round(value))


def _same_parity(value: float, like: int) -> int:
    """The whole number nearest to `value` that is odd or even as `like` is; centred, it has whole edges."""
    odd = like % 2
    return max(2 - odd, 2 * round((value - odd) / 2) + odd)
