"""An edit of a list that is written one item a line: what stays keeps its lines and its comments.

Decides: which of the old items a new list still holds, and where new ones are written.
Must not: judge values, or write files. What cannot be done here raises `SpliceError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import yaml

from tray_valet.core.config_tree import Origin, Place, to_plain
from tray_valet.services.settings_text import parse_value

_DASH = re.compile(r" *- +")
_ITEM = Place(Origin.FILE, name="item")


class SpliceError(Exception):
    """The edit is not one that can be made in place."""


class _Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item: the comments above it, its own lines, and what stands before and behind its value."""

    value: Any
    comments: tuple[str, ...]
    lines: tuple[str, ...]
    dash: str
    tail: str


def last_line(node: yaml.Node) -> int:
    """The line on which the last character of a node stands (a block's end mark is further down)."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        pair = last if isinstance(last, tuple) else (last, last)
        return max(last_line(pair[1]), int(pair[0].start_mark.line))
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        raise SpliceError
    return int(node.end_mark.line)


def with_items(text: str, node: yaml.SequenceNode, wanted: list[Any], written: Callable[[Any], str]) -> str:
    """The text with the list `node` holding `wanted`; `written` writes a value on one line.

    Comments above an item that goes stay, since they may be about more than that item. Raises SpliceError.
    """
    lines = text.splitlines(keepends=True)
    first, items = _items(text, lines, node)
    left = dict(enumerate(items))
    new: list[tuple[int | None, tuple[str, ...]]] = []
    for value in wanted:
        at = next((i for i, item in left.items() if _is_same(item.value, value)), None)
        new.append((at, left.pop(at).lines if at is not None else ()))
    for place, (at, _) in enumerate(new):
        if at is None:
            old = left.get(place)
            is_changed = old is not None and len(wanted) == len(items)
            item = left.pop(place) if is_changed else items[0]
            tail = item.tail if is_changed else ("\r\n" if "\r\n" in text else "\n")
            new[place] = (place if is_changed else None, (f"{item.dash}{written(wanted[place])}{tail}",))
    end = last_line(node) + 1
    return "".join([*lines[:first], *_in_order(new, items), *lines[end:]])


def _in_order(new: list[tuple[int | None, tuple[str, ...]]], items: list[_Item]) -> list[str]:
    """The lines, each old item below its comments; those of an item that went stand above the next."""
    staying = {at for at, _ in new if at is not None}
    comments: dict[int | None, list[str]] = {}
    waiting: list[str] = []
    for i, item in enumerate(items):
        waiting += item.comments
        if i in staying:
            comments[i], waiting = waiting, []
    lines: list[str] = []
    for at, own in new:
        lines += comments.get(at, [])
        lines += own
    return [line if line.endswith("\n") else line + "\n" for line in [*lines, *waiting]]


def _items(text: str, lines: list[str], node: yaml.SequenceNode) -> tuple[int, list[_Item]]:
    """The line where the first item's comments begin, and the items."""
    begin = node.value[0].start_mark.line
    while begin > 0 and _is_comment(lines[begin - 1]):
        begin -= 1
    after, items = begin, []
    for child in node.value:
        line, last = child.start_mark.line, last_line(child)
        dash = lines[line][: child.start_mark.column]
        if line < after or not _DASH.fullmatch(dash) or not all(map(_is_blank, lines[after:line])):
            raise SpliceError
        items.append(
            _Item(
                value=_value(text, child),
                comments=tuple(lines[after:line]),
                lines=tuple(lines[line : last + 1]),
                dash=dash,
                tail=_tail(lines, child),
            )
        )
        after = last + 1
    return begin, items


def _value(text: str, child: yaml.Node) -> Any:
    own = " " * child.start_mark.column + text[child.start_mark.index : child.end_mark.index]
    return to_plain(parse_value(own, _ITEM))


def _tail(lines: list[str], child: yaml.Node) -> str:
    """What stands behind an item of one line: a comment perhaps, and the line's end."""
    end = child
    while isinstance(end, yaml.CollectionNode) and not end.flow_style:
        last = end.value[-1]
        end = last[1] if isinstance(last, tuple) else last
    if end.end_mark.line != child.start_mark.line:
        return "\r\n" if lines[child.start_mark.line].endswith("\r\n") else "\n"
    return lines[end.end_mark.line][end.end_mark.column :]


def _is_blank(line: str) -> bool:
    return not line.strip() or line.lstrip(" ").startswith("#")


def _is_comment(line: str) -> bool:
    return line.lstrip(" ").startswith("#")


def _is_same(one: Any, other: Any) -> bool:
    """Equal, where true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)
