"""Reads from a GGUF file what the memory forecast needs: the build of the model and the sizes of its tensors.

Decides: which keys and tensors count as what. Must not: read weights, or trust the file (it may be half
copied, or no model at all). A vocabulary of 250,000 words is stepped over in about 50 ms: call it in a
worker thread, once a file.

Sources: the block sizes of ggml's types from gguf-py's `GGML_QUANT_SIZES`; the keys from llama.cpp
`llama-arch.cpp` and `llama_model::load_hparams`.
"""

from __future__ import annotations

from pathlib import Path

from tray_valet.core.memory_forecast import Anatomy
from tray_valet.providers.gguf_cursor import MALFORMED, Cursor
from tray_valet.providers.gguf_header import NotGgufError, parts_of

_LAYERS_MAX = 10_000

# type → (elements in a block, bytes of a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip

Pairs = dict[str, object]


def read_anatomy(path: Path) -> Anatomy:
    """Read a model's anatomy, over all files of a split one. Raises NotGgufError, OSError."""
    sizes: dict[str, int] = {}
    pairs: Pairs = {}
    try:
        for part in parts_of(path):
            with part.open("rb") as file:
                found = _read_file(Cursor(file), sizes)
            pairs = pairs or found
        return _anatomy(pairs, sizes)
    except MALFORMED as error:
        raise NotGgufError(f"{path} is not a whole GGUF model") from error


def _read_file(cursor: Cursor, sizes: dict[str, int]) -> Pairs:
    """Return the metadata of one file and add its tensors to `sizes` (bytes by name)."""
    tensors, count = cursor.begin()
    pairs: Pairs = {}
    for _ in range(count):
        key = cursor.text()
        pairs[key] = cursor.value()
    for _ in range(tensors):
        name = cursor.text()
        (dimensions,) = cursor.numbers("I")
        shape = cursor.numbers(f"{min(dimensions, 8)}Q")
        kind, _offset = cursor.numbers("IQ")
        sizes[name] = _tensor_bytes(shape, kind)
    return pairs


def _tensor_bytes(shape: tuple[int, ...], kind: int) -> int:
    block, block_bytes = _BLOCKS[kind]
    elements = 1
    for length in shape:
        elements *= length
    return elements // block * block_bytes


def _anatomy(pairs: Pairs, sizes: dict[str, int]) -> Anatomy:
    own = _Own(pairs)
    layers = own.number("block_count")
    if not 0 < layers <= _LAYERS_MAX:
        raise ValueError("no layers")
    embedding = own.number("embedding_length")
    heads = own.each("attention.head_count", layers, 0)
    per_head = embedding // (max(heads) or 1)
    latent = own.number("attention.kv_lora_rank", 0)
    layer_bytes, input_bytes, output_bytes = _by_place(sizes, layers)
    window = pairs.get(f"{own.prefix}.attention.sliding_window_pattern")
    return Anatomy(
        architecture=own.prefix,
        context_length=own.number("context_length"),
        embedding=embedding,
        feed_forward=max(own.each("feed_forward_length", layers, 4 * embedding)),
        vocabulary=_vocabulary(pairs, own),
        kv_heads=own.each("attention.head_count_kv", layers, heads),
        key_length=own.number("attention.key_length", per_head),
        value_length=own.number("attention.value_length", per_head),
        latent_length=latent + own.number("rope.dimension_count", 64) if latent else 0,
        sliding_window=own.number("attention.sliding_window", 0),
        has_window=_windows(window, layers),
        draft_layers=min(layers, own.number("nextn_predict_layers", 0)),
        layer_bytes=layer_bytes,
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        is_tied="output.weight" not in sizes,
    )


class _Own:
    """The keys of the model's own architecture."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self.prefix = str(pairs["general.architecture"])

    def number(self, key: str, default: int | None = None) -> int:
        value = self._pairs.get(f"{self.prefix}.{key}", default)
        if isinstance(value, list):
            value = max(value)
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{key} is no number")
        return value

    def each(self, key: str, layers: int, default: int | tuple[int, ...]) -> tuple[int, ...]:
        """A number for each layer; files give one for all, or a list."""
        value = self._pairs.get(f"{self.prefix}.{key}", default)
        if isinstance(value, int):
            return (value,) * layers
        if isinstance(value, list | tuple) and len(value) >= layers:
            return tuple(int(v) for v in value[:layers])
        raise ValueError(f"{key} is not for {layers} layers")


def _vocabulary(pairs: Pairs, own: _Own) -> int:
    tokens = pairs.get("tokenizer.ggml.tokens")
    return tokens if isinstance(tokens, int) else own.number("vocab_size", 0)


def _windows(pattern: object, layers: int) -> tuple[bool, ...]:
    """Which layers have a sliding window: as a list for all, or each but every so-manieth."""
    if isinstance(pattern, list):
        return tuple(bool(p) for p in pattern)
    if isinstance(pattern, int) and pattern > 0:
        return tuple((layer + 1) % pattern != 0 for layer in range(layers))
    return ()


def _by_place(sizes: dict[str, int], layers: int) -> tuple[tuple[int, ...], int, int]:
    """(bytes of each layer, of the token embedding, of the rest)."""
    by_layer = [0] * layers
    inputs = rest = 0
    for name, n_bytes in sizes.items():
        head, _, tail = name.partition(".")
        if head == "blk":
            by_layer[int(tail.partition(".")[0])] += n_bytes
        elif head.startswith("token_embd"):
            inputs += n_bytes
        else:
            rest += n_bytes
    return tuple(by_layer), inputs, rest
