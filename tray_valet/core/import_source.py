"""Whose settings a file holds, told by what is in it.

Decides: which program a document belongs to. Must not: read files, or go by a file's name.
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet.core import import_llama_swap, import_llm_valet, import_router_model_custom
from tray_valet.core.config_tree import Node
from tray_valet.core.errors import InvalidValue
from tray_valet.core.import_report import Findings, Ground, ImportSource

_READERS: dict[ImportSource, Callable[[Node, Ground], Findings]] = {
    ImportSource.LLM_VALET: import_llm_valet.read_llm_valet,
    ImportSource.ROUTER_MODEL_CUSTOM: import_router_model_custom.read_router_model_custom,
    ImportSource.LLAMA_SWAP: import_llama_swap.read_llama_swap,
}
_KEYS = {
    ImportSource.LLAMA_SWAP: import_llama_swap.KEYS,
    ImportSource.ROUTER_MODEL_CUSTOM: import_router_model_custom.KEYS,
    ImportSource.LLM_VALET: import_llm_valet.KEYS,
}
# Sections of ours that none of the three has; and, since `models` alone says nothing, what stands in one.
_OURS = frozenset(
    {"control", "router", "games", "eviction", "power", "providers", "pools", "routes", "desktop", "log"}
)
_MODEL_KEYS = {
    ImportSource.LLAMA_SWAP: ("cmd", "proxy"),
    ImportSource.ROUTER_MODEL_CUSTOM: ("model_path", "params", "flags"),
}
_MODEL_WEIGHT = 10


def source_of(document: Node) -> ImportSource:
    """The program whose settings these are. Raises InvalidValue if it is none of the three."""
    entries = document.entries
    if _OURS & entries.keys():
        raise InvalidValue(
            "These are Tray Valet's own settings already.",
            remedy="Use them as they are with --config, or copy them over your own.",
        )
    models = entries["models"].entries.values() if "models" in entries else ()
    weights = {source: len((known & entries.keys()) - {"models"}) for source, known in _KEYS.items()}
    for source, keys in _MODEL_KEYS.items():
        weights[source] += _MODEL_WEIGHT * any(key in model.entries for model in models for key in keys)
    source = max(weights, key=lambda one: weights[one])
    if not weights[source]:
        raise InvalidValue(
            "These are not the settings of llm-valet, RouterModelCustom or llama-swap.",
            remedy="Name the config.yaml or config.json of one of them.",
        )
    return source


def read_document(source: ImportSource, document: Node, ground: Ground) -> Findings:
    """Find what the document says."""
    return _READERS[source](document, ground)
