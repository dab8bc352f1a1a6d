"""pystray's common ground: its base icon and its menu, without a backend chosen by the package.

Decides: how a menu of ours becomes one of pystray's. Must not: draw, or choose a backend: `import pystray`
alone would try GTK and X11 on Linux, and fails without a display with an error that is no ImportError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tray_valet.core.menu import Choice, Entry

if TYPE_CHECKING:
    import PIL.Image

Drawing = Callable[[int], "PIL.Image.Image"]
"""What our icons hold where pystray's hold one image: it draws itself crisply at any size in pixels."""


def _import_base() -> Any:
    """pystray's base module, with its dummy backend, which imports on every system."""
    before = os.environ.get("PYSTRAY_BACKEND")
    os.environ["PYSTRAY_BACKEND"] = "dummy"
    try:
        from pystray import _base
    finally:
        if before is None:
            del os.environ["PYSTRAY_BACKEND"]
        else:
            os.environ["PYSTRAY_BACKEND"] = before
    return _base


_base = _import_base()
BaseIcon: Any = _base.Icon
Menu: Any = _base.Menu
MenuItem: Any = _base.MenuItem


class EntryItem(MenuItem):  # type: ignore[misc]  # pystray has no types
    """A menu item of pystray's that keeps the meaning of its entry in `key`."""

    def __init__(
        self, entry: Entry, choose: Callable[[Choice], None], label: Callable[[str], str] = str
    ) -> None:
        self.key = entry.id
        super().__init__(
            label(entry.label),
            menu_of(entry.children, choose, label) if entry.children else _action(entry, choose),
            checked=None if entry.is_checked is None else lambda _: bool(entry.is_checked),
            default=entry.is_default,
            enabled=entry.is_enabled,
        )


def menu_of(
    entries: Iterable[Entry], choose: Callable[[Choice], None], label: Callable[[str], str] = str
) -> Any:
    """Our entries as a pystray menu; `choose` gets what the user picks, `label` fits texts to a system."""
    return Menu(
        *(Menu.SEPARATOR if entry.is_separator else EntryItem(entry, choose, label) for entry in entries)
    )


def _action(entry: Entry, choose: Callable[[Choice], None]) -> Callable[[Any, Any], None]:
    def act(_icon: Any, _item: Any) -> None:
        if entry.choice is not None:
            choose(entry.choice)

    return act


def keyed(menu: Any) -> Iterator[tuple[str, Any]]:
    """The items of a pystray menu with a key each; a separator's comes from the item before it."""
    previous = ""
    for item in menu or ():
        if item is Menu.SEPARATOR:
            yield f"separator after {previous}", item
        else:
            previous = str(getattr(item, "key", item.text))
            yield previous, item
