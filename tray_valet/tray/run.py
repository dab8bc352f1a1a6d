"""The tray's life on the main thread: the right backend for the system, until the slot is closed.

Decides: which backend. Must not: import one that is not used, or end before the slot is closed unless
there can be no tray.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from tray_valet.core.processes import System
from tray_valet.tray.bridge import Balloons, CommandSender, PictureSlot
from tray_valet.tray.no_tray import NoTray

NAME = "tray-valet"
PATIENCE_S = 3.0


def run_tray(
    slot: PictureSlot,
    sender: CommandSender,
    *,
    system: System,
    balloons: Balloons,
    report_missing: Callable[[NoTray], None],
    patience_s: float = PATIENCE_S,
) -> None:
    """Show the tray on this thread, the main one, until `slot` is closed.

    Raises NoTray when there can be none, or no longer; the slot is closed then too. `report_missing` is
    called once, on this thread, when no panel has shown the icon after `patience_s` seconds (Linux).
    """
    if slot.is_closed:
        return
    try:
        if system is System.LINUX:
            _run_linux(slot, sender, report_missing, patience_s)
        else:
            _run_portable(slot, sender, system, balloons)
    finally:
        slot.close()  # lets the painter's thread end, however the tray has


def _run_linux(
    slot: PictureSlot,
    sender: CommandSender,
    report_missing: Callable[[NoTray], None],
    patience_s: float,
) -> None:
    from tray_valet.tray.icon_drawing import draw_face
    from tray_valet.tray.linux_sni import SniIcon, session_bus_address
    from tray_valet.tray.painter import Painter

    session_bus_address(os.environ)
    painter = Painter(
        slot,
        sender.choose,
        drawing=lambda face: partial(draw_face, face),
        tooltip=lambda view: f"{view.title}\n{view.line}",
    )
    icon = SniIcon(
        NAME,
        environment=os.environ,
        report_missing=report_missing,
        patience_s=patience_s,
        **painter.first_look(),
    )
    icon.run(setup=painter.run)


def _run_portable(slot: PictureSlot, sender: CommandSender, system: System, balloons: Balloons) -> None:
    from tray_valet.tray.painter import Painter
    from tray_valet.tray.portable import drawing_for, icon_class, label_for, tooltip_for

    make_icon = icon_class(system)
    painter = Painter(
        slot,
        sender.choose,
        drawing=drawing_for(system),
        tooltip=tooltip_for(system),
        label=label_for(system),
    )
    icon = make_icon(NAME, **painter.first_look())
    if system is System.WINDOWS:
        balloons.attach(lambda title, text: icon.notify(text, title))
    try:
        icon.run(setup=painter.run)
    finally:
        balloons.attach(None)
