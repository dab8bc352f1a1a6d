"""Whether a window could be seen: a screen is named, and somebody answers there.

Decides: that, before anything is started. Must not: say no where it cannot be sure: a wrong no costs the
window, a wrong yes only an attempt. (`xdg-open` does not tell: it has started a browser, and that is all.)

Sources: X(7) on DISPLAY; libxcb's `_xcb_open`, which for `:N` tries the abstract socket, the one in
/tmp/.X11-unix and TCP port 6000 + N; wl_display_connect(3) on WAYLAND_DISPLAY and XDG_RUNTIME_DIR.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_LOOK_S = 0.5
_X_FIRST_PORT = 6000
_LOCAL_X_DISPLAY = re.compile(r":(?P<number>\d{1,5})(?:\.\d+)?")


def is_display_there(environ: Mapping[str, str]) -> bool:
    """Whether a screen that the environment names answers; always so on Windows and macOS.

    A screen of another computer is taken for one that does. Takes no time as a rule, 2 s at most.
    """
    if sys.platform in ("win32", "darwin"):
        return True
    return any(_answers(place) for place in _places(environ))


def _places(environ: Mapping[str, str]) -> Iterator[str | tuple[str, int] | None]:
    """The sockets to try; None where nothing is known of the screen."""
    display = environ.get("DISPLAY", "")
    if local := _LOCAL_X_DISPLAY.fullmatch(display):
        number = int(local["number"])
        yield f"\0/tmp/.X11-unix/X{number}"
        yield f"/tmp/.X11-unix/X{number}"  # the X server's own place
        yield ("127.0.0.1", _X_FIRST_PORT + number)
    elif display:
        yield None
    if wayland := environ.get("WAYLAND_DISPLAY", ""):
        folder = environ.get("XDG_RUNTIME_DIR", "")
        yield str(Path(folder, wayland)) if folder or os.path.isabs(wayland) else None


def _answers(place: str | tuple[str, int] | None) -> bool:
    if place is None:
        return True
    family = socket.AF_INET if isinstance(place, tuple) else socket.AF_UNIX
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(_LOOK_S)
            probe.connect(place)
    except TimeoutError:
        return True  # busy, but there
    except (OSError, OverflowError, ValueError):
        return False
    return True
