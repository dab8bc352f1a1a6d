"""Writes small, real GGUF models, so that there is something to load where no model was downloaded.

Decides: the weights, the vocabulary and the one sentence (`REPLY`) that every chat is answered with.
Must not: download anything, import numpy (the valet itself may run this), or leave half a file behind.

How the sentence comes about: all but one channel of the token embeddings are random directions, and the
output row of each word points along the embedding of the word before it. The one channel left is constant
and pushes every other token down, so any sampler that is not told otherwise picks the next word. The
attention and feed-forward layers hold small random weights: they cost real memory and real time, and are
too weak to change the choice.

Sources: tensor names and metadata keys of the llama architecture from gguf-py's `constants.py`; token
types from llama.h (`llama_token_type`).
"""

from __future__ import annotations

import itertools
import math
import os
import random
import struct
import tempfile
from pathlib import Path

import msgspec

from tray_valet.engine.gguf_file import MetadataValue, Tensor, TensorType, Uint32, write_gguf

REPLY = "Tiny demo model here: I step aside for games and come back exactly as before."
DEMO_FILE_NAME = "demo.gguf"

_UNKNOWN, _START, _ASSISTANT, _END_OF_TURN = 0, 1, 5, 6
_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_TYPE_NORMAL, _TYPE_UNKNOWN, _TYPE_CONTROL, _TYPE_BYTE = 1, 2, 3, 6
_SPACE = "\u2581"  # how SentencePiece writes the space before a word
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
_FILE_TYPE_MOSTLY_F16 = 1
_CONSTANT_CHANNEL = 8.0
_NEXT_WORD_PULL = 0.5
_START_AGAIN_PULL = 0.25  # weaker than the end of the turn: only `ignore_eos` streams go round

Rows = list[list[float]]


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The dimensions of a llama model. `context_length` in tokens is what it claims to be trained for."""

    name: str
    embedding: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    context_length: int = 32_768


TINY = ModelShape(name="tiny-demo", embedding=128, layers=2, feed_forward=256, heads=2, kv_heads=1)
LARGE = ModelShape(name="large-demo", embedding=1024, layers=16, feed_forward=2816, heads=16, kv_heads=8)


def write_tiny_model(path: Path, shape: ModelShape = TINY, *, seed: int = 1) -> None:
    """Write a model that answers every chat with `REPLY`; about 0.6 MB for the default shape.

    The same shape and seed give the same bytes. The file appears whole or not at all. Raises OSError.
    """
    rng = random.Random(seed)
    tokens = _tokens()
    embeddings = _embeddings(rng, len(tokens), shape.embedding)
    tensors = [
        _matrix("token_embd.weight", embeddings),
        _matrix("output.weight", _output_rows(tokens, embeddings)),
        _ones("output_norm.weight", shape.embedding),
        *_layers(rng, shape),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write_gguf(file, _metadata(shape, tokens), tensors)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def write_large_model(path: Path, *, seed: int = 1) -> None:
    """Write the same model with 379 MB of weights, so that memory visibly moves. Raises OSError."""
    write_tiny_model(path, LARGE, seed=seed)


def ensure_demo_model(directory: Path) -> Path:
    """Return the tiny model's file in `directory`; make both if they are missing (about 0.2 s).

    Blocks: call it in a worker thread. Raises OSError.
    """
    path = directory / DEMO_FILE_NAME
    if not path.is_file():
        write_tiny_model(path)
    return path


def _tokens() -> list[str]:
    """The vocabulary: special tokens, every byte, printable characters, the words of the answer."""
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    characters = [*map(chr, range(0x21, 0x7F)), _SPACE]
    return [*_SPECIAL_TOKENS, *byte_tokens, *characters, *_words()]


def _words() -> list[str]:
    """The answer's words as tokens. One token has one follower, so no word may occur twice."""
    first, *rest = REPLY.split()
    return [first, *(_SPACE + word for word in rest)]


def _followers(tokens: list[str]) -> list[tuple[int, int, float]]:
    """Which token follows which, and how strongly: (token, its follower, pull)."""
    answer = [tokens.index(word) for word in _words()]
    chain = [_END_OF_TURN, *answer, _END_OF_TURN]
    return [
        (_ASSISTANT, answer[0], _NEXT_WORD_PULL),
        *((before, after, _NEXT_WORD_PULL) for before, after in itertools.pairwise(chain)),
        (answer[-1], answer[0], _START_AGAIN_PULL),
    ]


def _embeddings(rng: random.Random, count: int, width: int) -> Rows:
    """A row for each token: the constant channel, then a random direction of length √width."""
    rows = []
    for _ in range(count):
        direction = [rng.gauss(0.0, 1.0) for _ in range(width - 1)]
        scale = math.sqrt(width / sum(value * value for value in direction))
        rows.append([_CONSTANT_CHANNEL, *(value * scale for value in direction)])
    return rows


def _output_rows(tokens: list[str], embeddings: Rows) -> Rows:
    """Rows that pull each follower up when its forerunner was last, and push every other token down."""
    width = len(embeddings[0])
    rows = [[-1.0] + [0.0] * (width - 1) for _ in tokens]
    for before, after, pull in _followers(tokens):
        sums = zip(rows[after][1:], embeddings[before][1:], strict=True)
        rows[after] = [0.0, *(value + pull * direction for value, direction in sums)]
    return rows


def _layers(rng: random.Random, shape: ModelShape) -> list[Tensor]:
    """All layers; they share one set of random weights, so that a large model is made in little memory."""
    kv_width = shape.embedding // shape.heads * shape.kv_heads
    shapes = {  # name: (columns, rows)
        "attn_q": (shape.embedding, shape.embedding),
        "attn_k": (shape.embedding, kv_width),
        "attn_v": (shape.embedding, kv_width),
        "attn_output": (shape.embedding, shape.embedding),
        "ffn_gate": (shape.embedding, shape.feed_forward),
        "ffn_up": (shape.embedding, shape.feed_forward),
        "ffn_down": (shape.feed_forward, shape.embedding),
    }
    weights = {name: _noise(rng, *size) for name, size in shapes.items()}
    for name in ("attn_output", "ffn_down"):  # what these write to channel 0 must not move it
        row_bytes = 2 * shapes[name][0]
        weights[name] = bytes(row_bytes) + weights[name][row_bytes:]
    tensors = []
    for layer in range(shape.layers):
        for name, size in shapes.items():
            label = f"blk.{layer}.{name}.weight"
            tensors.append(Tensor(name=label, shape=size, type=TensorType.F16, data=weights[name]))
        tensors += [
            _ones(f"blk.{layer}.{norm}.weight", shape.embedding) for norm in ("attn_norm", "ffn_norm")
        ]
    return tensors


def _noise(rng: random.Random, columns: int, rows: int) -> bytes:
    """Random half floats of both signs, with magnitudes of about 0.3 ÷ columns.

    Made from random bytes: of each number the sign and the mantissa are random, the exponent is fixed.
    """
    exponent = 15 + math.floor(math.log2(0.3 / columns))  # biased, as the format stores it
    high_byte = bytes((value & 0x80) | (exponent << 2) | (value & 0x03) for value in range(256))
    noise = bytearray(rng.randbytes(2 * columns * rows))
    noise[1::2] = noise[1::2].translate(high_byte)
    return bytes(noise)


def _matrix(name: str, rows: Rows) -> Tensor:
    width = len(rows[0])
    data = b"".join(struct.pack(f"<{width}e", *row) for row in rows)
    return Tensor(name=name, shape=(width, len(rows)), type=TensorType.F16, data=data)


def _ones(name: str, width: int) -> Tensor:
    return Tensor(name=name, shape=(width,), type=TensorType.F32, data=struct.pack("<f", 1.0) * width)


def _metadata(shape: ModelShape, tokens: list[str]) -> dict[str, MetadataValue]:
    special = len(_SPECIAL_TOKENS)
    plain = len(tokens) - special - 256
    return {
        "general.architecture": "llama",
        "general.name": shape.name,
        "general.file_type": Uint32(_FILE_TYPE_MOSTLY_F16),
        "llama.vocab_size": Uint32(len(tokens)),
        "llama.context_length": Uint32(shape.context_length),
        "llama.embedding_length": Uint32(shape.embedding),
        "llama.block_count": Uint32(shape.layers),
        "llama.feed_forward_length": Uint32(shape.feed_forward),
        "llama.attention.head_count": Uint32(shape.heads),
        "llama.attention.head_count_kv": Uint32(shape.kv_heads),
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": Uint32(shape.embedding // shape.heads),
        "llama.rope.freq_base": 10_000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        # A high score is merged first: of all plain tokens the words come last, so that user text stays text.
        "tokenizer.ggml.scores": [0.0] * (special + 256) + [-100.0 - rank for rank in range(plain)],
        "tokenizer.ggml.token_type": [
            _TYPE_UNKNOWN,
            *[_TYPE_CONTROL] * (special - 1),
            *[_TYPE_BYTE] * 256,
            *[_TYPE_NORMAL] * plain,
        ],
        "tokenizer.ggml.unknown_token_id": Uint32(_UNKNOWN),
        "tokenizer.ggml.bos_token_id": Uint32(_START),
        "tokenizer.ggml.eos_token_id": Uint32(_END_OF_TURN),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.chat_template": _CHAT_TEMPLATE,
    }
