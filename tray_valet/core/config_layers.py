"""From layers to settings: defaults < file < environment < command line.

Decides: that all mistakes of all layers are told at once, and that a `Settings` is right or not there.
Must not: read a file or the environment; layers come in parsed, with the place of every value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tray_valet.core.config import Settings
from tray_valet.core.config_checks import SettingsCheck
from tray_valet.core.config_seeds import Translation
from tray_valet.core.config_shapes import ShapeCheck
from tray_valet.core.config_tree import Node, Origin, SettingsPath, empty, lay_over
from tray_valet.core.errors import SettingsError, SettingsProblem

_MAY_STAND_EMPTY = frozenset(Settings.__struct_fields__) - {"providers"}


def build_settings(*layers: Node, changed: Iterable[SettingsPath] = ()) -> Settings:
    """Lay the layers over each other, the strongest last, and type the result.

    `changed` are the paths of a change under judgement: its fields get the blame where two values
    contradict. Raises SettingsError with every mistake there is, in the order of the file.
    """
    merged, problems = merge_layers(*layers)
    shape = ShapeCheck(merged)
    plain = shape.usable()
    settings = msgspec.convert(plain, Settings)
    problems += shape.problems
    problems += SettingsCheck(settings, merged, shape.bad, changed).run()
    if problems:
        raise SettingsError(in_order(problems))
    return settings


def merge_layers(*layers: Node) -> tuple[Node, list[SettingsProblem]]:
    """The layers as one tree in our spellings, and what contradicts itself within a layer."""
    merged = empty(Origin.FILE)
    problems: list[SettingsProblem] = []
    for layer in layers:
        if not isinstance(layer.value, dict):
            return layer, problems
        translation = Translation(_without_empty_sections(layer))
        merged = lay_over(merged, translation.run())
        problems += translation.problems
    return merged, problems


def in_order(problems: Iterable[SettingsProblem]) -> tuple[SettingsProblem, ...]:
    """Mistakes in the order of the file's lines, those from elsewhere last; each once."""
    unique: dict[Any, SettingsProblem] = {(p.path, p.message): p for p in problems}
    return tuple(sorted(unique.values(), key=lambda p: (p.line is None, p.line or 0)))


def _without_empty_sections(layer: Node) -> Node:
    """`thresholds:` with every line below it commented out says nothing; it is no mistake."""
    kept = {
        key: node
        for key, node in layer.entries.items()
        if not (node.value is None and node.place.origin is Origin.FILE and key in _MAY_STAND_EMPTY)
    }
    return Node(kept, layer.place)
