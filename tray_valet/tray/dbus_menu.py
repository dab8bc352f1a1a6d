"""The menu on D-Bus (com.canonical.dbusmenu): panels read it, show it, and tell what was clicked.

Decides: ids that last, and what to tell panels when the menu changes while it is open.
Must not: decide what is in the menu, or act beyond calling the clicked item.

Source: libdbusmenu's dbus-menu.xml (protocol version 3). An id belongs to a meaning for as long as the
tray runs and is never given to another, so a late click cannot hit the wrong item.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from tray_valet.tray.bus_object import BusObject, Method, Property, invalid_arguments
from tray_valet.tray.pystray_base import Menu, keyed

MENU_PATH = "/MenuBar"
_INTERFACE = "com.canonical.dbusmenu"
_KEPT_IDS = 512  # far more meanings than a bounded menu has; those unseen for longest are forgotten


class _Node(NamedTuple):
    """One entry as panels see it. Values are (D-Bus signature, value)."""

    properties: dict[str, tuple[str, Any]]
    children: tuple[int, ...]
    item: Any


class _Ids:
    """Numbers for meanings: the same one again for the same meaning, never one for two."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, int] = OrderedDict()
        self._last = 0  # 0 itself is the root

    def of(self, key: str) -> int:
        if key not in self._known:
            self._last += 1
            self._known[key] = self._last
            if len(self._known) > _KEPT_IDS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


class DbusMenu:
    """Serves a pystray menu. `click` gets the clicked item, on the connection's loop."""

    def __init__(self, click: Callable[[Any], None]) -> None:
        self._click = click
        self._ids = _Ids()
        self._revision = 1
        self._nodes: dict[int, _Node] = {0: _root(())}
        self.bus_object = BusObject(
            MENU_PATH,
            _INTERFACE,
            methods={
                "GetLayout": Method("iias", "u(ia{sv}av)", self._get_layout),
                "GetGroupProperties": Method("aias", "a(ia{sv})", self._get_group_properties),
                "GetProperty": Method("is", "v", self._get_property),
                "Event": Method("isvu", "", self._event),
                "EventGroup": Method("a(isvu)", "ai", self._event_group),
                "AboutToShow": Method("i", "b", self._about_to_show),
                "AboutToShowGroup": Method("ai", "aiai", self._about_to_show_group),
            },
            properties={
                "Version": Property("u", lambda: 3),
                "TextDirection": Property("s", lambda: "ltr"),
                "Status": Property("s", lambda: "normal"),
                "IconThemePath": Property("as", list),
            },
            signals={
                "ItemsPropertiesUpdated": "a(ia{sv})a(ias)",
                "LayoutUpdated": "ui",
                "ItemActivationRequested": "iu",
            },
        )

    def take(self, menu: Any) -> None:
        """Show this pystray menu from now on. Tells panels what differs, and nothing when nothing does."""
        old = self._nodes
        self._nodes = {}
        self._nodes[0] = _root(self._add(menu))
        moved = [i for i, node in self._nodes.items() if i in old and node.children != old[i].children]
        if moved:
            self._revision += 1
            self.bus_object.emit("LayoutUpdated", self._revision, moved[0] if len(moved) == 1 else 0)
        updated = [
            [i, _variants(changed)]
            for i, node in self._nodes.items()
            if i in old and (changed := _changed(old[i].properties, node.properties))
        ]
        removed = [
            [i, gone]
            for i, node in self._nodes.items()
            if i in old and (gone := [n for n in old[i].properties if n not in node.properties])
        ]
        if updated or removed:
            self.bus_object.emit("ItemsPropertiesUpdated", updated, removed)

    def _add(self, menu: Any, prefix: str = "") -> tuple[int, ...]:
        ids = []
        for key, item in keyed(menu):
            place = f"{prefix}{key}"
            node_id = self._ids.of(place)
            children = self._add(item.submenu, f"{place}/") if item.submenu else ()
            self._nodes[node_id] = _Node(_properties(item), children, item)
            ids.append(node_id)
        return tuple(ids)

    # -- what panels call ---------------------------------------------------------------------------

    def _get_layout(self, parent_id: int, depth: int, names: list[str]) -> list[Any]:
        return [self._revision, self._layout(self._node_id(parent_id), depth, names)]

    def _layout(self, node_id: int, depth: int, names: list[str]) -> list[Any]:
        from dbus_fast import Variant

        node = self._nodes[node_id]
        inside = node.children if depth else ()
        return [
            node_id,
            _variants(node.properties, names),
            [Variant("(ia{sv}av)", self._layout(child, depth - 1, names)) for child in inside],
        ]

    def _get_group_properties(self, ids: list[int], names: list[str]) -> list[Any]:
        wanted = [i for i in ids if i in self._nodes] if ids else list(self._nodes)
        return [[[i, _variants(self._nodes[i].properties, names)] for i in wanted]]

    def _get_property(self, node_id: int, name: str) -> list[Any]:
        values = _variants(self._nodes[self._node_id(node_id)].properties)
        if name not in values:
            raise invalid_arguments(f"Item {node_id} has no property {name}.")
        return [values[name]]

    def _event(self, node_id: int, event: str, _data: Any, _timestamp: int) -> list[Any]:
        node = self._nodes[self._node_id(node_id)]
        # Panels also tell of "opened", "closed" and "hovered".
        if event == "clicked" and node.item is not None and node.item.enabled and not node.children:
            self._click(node.item)
        return []

    def _event_group(self, events: list[Any]) -> list[Any]:
        missing = []
        for node_id, event, data, timestamp in events:
            if node_id in self._nodes:
                self._event(node_id, event, data, timestamp)
            else:
                missing.append(node_id)
        if events and len(missing) == len(events):
            raise invalid_arguments("None of these items is in the menu.")
        return [missing]

    def _about_to_show(self, node_id: int) -> list[Any]:
        self._node_id(node_id)
        return [False]  # the menu is always as it should be

    def _about_to_show_group(self, ids: list[int]) -> list[Any]:
        return [[], [i for i in ids if i not in self._nodes]]

    def _node_id(self, node_id: int) -> int:
        if node_id not in self._nodes:
            raise invalid_arguments(f"There is no item {node_id} in the menu.")
        return node_id


def _root(children: tuple[int, ...]) -> _Node:
    return _Node({"children-display": ("s", "submenu")}, children, None)


def _properties(item: Any) -> dict[str, tuple[str, Any]]:
    if item is Menu.SEPARATOR:
        return {"type": ("s", "separator")}
    properties: dict[str, tuple[str, Any]] = {
        "label": ("s", str(item.text).replace("_", "__")),  # a single one would mark a key
        "enabled": ("b", bool(item.enabled)),
    }
    if item.checked is not None:
        properties["toggle-type"] = ("s", "radio" if item.radio else "checkmark")
        properties["toggle-state"] = ("i", int(bool(item.checked)))
    if item.submenu:
        properties["children-display"] = ("s", "submenu")
    return properties


def _changed(old: dict[str, tuple[str, Any]], new: dict[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    return {name: value for name, value in new.items() if old.get(name) != value}


def _variants(properties: dict[str, tuple[str, Any]], names: list[str] | None = None) -> dict[str, Any]:
    """As D-Bus wants them; an empty list of names means all."""
    from dbus_fast import Variant

    return {name: Variant(*value) for name, value in properties.items() if not names or name in names}
