"""llama-server's command line as far as settings turn into it.

Decides: which flags RouterModelCustom's `params` mean, and when two flags are the same one.
Must not: know any other flag; they are passed through as they are.
"""

from __future__ import annotations

from tray_valet.core.config_tree import Node, Place, SettingsPath, dotted, shown
from tray_valet.core.errors import SettingsProblem

# Spellings of one flag, as `llama-server --help` lists them.
_SAME = (
    ("-ngl", "--gpu-layers", "--n-gpu-layers"),
    ("--ctx-size", "-c"),
    ("--embedding", "--embeddings"),
    ("--cache-type-k", "-ctk"),
    ("--cache-type-v", "-ctv"),
    ("--threads", "-t"),
    ("--flash-attn", "-fa"),
)
_CANONICAL = {spelling: names[0] for names in _SAME for spelling in names}
_PARAMS = ("n_gpu_layers", "n_ctx", "embedding", "type_k", "type_v")


def flags_from_params(params: Node, path: SettingsPath) -> tuple[list[Node], bool, list[SettingsProblem]]:
    """The flags that `params` mean, whether they mean “without a GPU”, and what is wrong in them."""
    flags: list[Node] = []
    problems: list[SettingsProblem] = []
    if not isinstance(params.value, dict):
        message = f"{shown(params.value)} stands where keys and values belong, such as n_ctx: 8192."
        return [], False, [_problem(path, message, params)]
    for key, node in params.entries.items():
        words, wrong = _flag(key, node)
        flags += [Node(word, node.place) for word in words]
        if wrong:
            problems.append(_problem((*path, key), wrong, node))
    layers = params.entries.get("n_gpu_layers")
    # RouterModelCustom: “-1 for CPU-only inference”; today's llama-server takes -1 for “as many as fit”.
    return flags, layers is not None and layers.value == -1, problems


def _flag(key: str, node: Node) -> tuple[list[str], str]:
    value = node.value
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    match key:
        case "n_gpu_layers" if is_whole and value >= -1:
            return ["-ngl", str(max(value, 0))], ""
        case "n_ctx" if is_whole and value >= 0:
            return ["--ctx-size", str(value)], ""
        case "embedding" if isinstance(value, bool):
            return (["--embedding"] if value else []), ""
        case "type_k" | "type_v" if isinstance(value, str) and value:
            return [f"--cache-type-{key[-1]}", value], ""
        case "n_gpu_layers" | "n_ctx":
            return (
                [],
                f"{shown(value)} is not a whole number. Use one such as {99 if key != 'n_ctx' else 8192}.",
            )
        case "embedding":
            return [], f"{shown(value)} is neither true nor false."
        case "type_k" | "type_v":
            return [], f"{shown(value)} is not a cache type. Use one such as q8_0."
        case _:
            return [], f"Unknown key “{key}”. Known here: {', '.join(_PARAMS)}."


def with_flags(flags: Node | None, more: list[Node], place: Place) -> tuple[Node, list[str]]:
    """`flags` with those of `more` that are not among them, and the flags that both set differently."""
    if flags is not None and not isinstance(flags.value, list):
        return flags, []  # of a wrong type, which is said elsewhere
    present = list(flags.value) if flags is not None else []
    values = _values(present)
    contradicted: list[str] = []
    for name, words in _grouped(more):
        canonical = _CANONICAL.get(name, name)
        if canonical not in values:
            present += words
        elif values[canonical] != [str(word.value) for word in words[1:]]:
            contradicted.append(name)
    return Node(present, flags.place if flags is not None else place), contradicted


def _grouped(words: list[Node]) -> list[tuple[str, list[Node]]]:
    groups: list[tuple[str, list[Node]]] = []
    for word in words:
        text = str(word.value)
        if text.startswith("-") and not text[1:].isdigit():
            groups.append((text, [word]))
        elif groups:
            groups[-1][1].append(word)
    return groups


def _values(words: list[Node]) -> dict[str, list[str]]:
    return {
        _CANONICAL.get(name, name): [str(word.value) for word in group[1:]] for name, group in _grouped(words)
    }


def _problem(path: SettingsPath, message: str, node: Node) -> SettingsProblem:
    return SettingsProblem(path=dotted(path), message=message, line=node.place.line)
