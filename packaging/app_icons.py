"""Makes the program's icon files in assets/ from the geometry of the tray's icons.

Decides: which sizes and formats each system's package takes. Must not: draw anything of its own.
Run it when the drawing changes: `.venv/bin/python packaging/app_icons.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PNG_SIZES_PX = (16, 22, 24, 32, 48, 64, 128, 256, 512)  # the freedesktop icon theme's usual ones
ICO_SIZES_PX = (16, 20, 24, 32, 40, 48, 64, 256)  # Windows at 100 to 250 %
ICNS_SIZES_PX = (16, 32, 64, 128, 256, 512, 1024)


def write_icons(folder: Path) -> None:
    """Write tray-valet-SIZE.png, tray-valet.ico and tray-valet.icns into `folder`."""
    from tray_valet.tray.icon_drawing import draw_app_icon

    folder.mkdir(parents=True, exist_ok=True)
    for size_px in PNG_SIZES_PX:
        draw_app_icon(size_px).save(folder / f"tray-valet-{size_px}.png", optimize=True)
    windows = [draw_app_icon(size_px) for size_px in ICO_SIZES_PX]
    windows[-1].save(
        folder / "tray-valet.ico",
        sizes=[image.size for image in windows],
        append_images=windows[:-1],
    )
    macos = [draw_app_icon(size_px) for size_px in ICNS_SIZES_PX]
    macos[-1].save(folder / "tray-valet.icns", append_images=macos[:-1])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write_icons(ROOT / "assets" / "icons")
