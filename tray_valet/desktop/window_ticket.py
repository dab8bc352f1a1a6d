"""What may stand on a browser's command line: the page's address, or a file that leads there.

Decides: how a one-time code reaches a browser. Other users can read command lines, but not a 0600 file in
a folder of ours; the file sends the browser on, with the code in the fragment that no server logs.
"""

from __future__ import annotations

import html
import os
from pathlib import Path

from tray_valet.desktop.window_opener import WindowPage

_FILE_NAME = "open.html"
_PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="referrer" content="no-referrer">
<title>Tray Valet</title><meta http-equiv="refresh" content="0;url={address}">
<p><a href="{address}">Tray Valet</a></p>
"""


def address_for_argv(page: WindowPage, folder: Path) -> str:
    """The page's address; where the page needs its code, that of a file in `folder` (private, or is made
    so). Raises OSError.
    """
    if not page.is_code_needed:
        return page.url
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / _FILE_NAME
    path.unlink(missing_ok=True)  # never into a file that somebody else made
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_PAGE.format(address=html.escape(f"{page.url}#code={page.code}", quote=True)))
    return path.resolve().as_uri()
