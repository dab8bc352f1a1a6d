"""Writes the GGUF container: header, metadata, tensor table, tensor data.

Decides: the byte layout. Must not: know what a model is made of.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import BinaryIO

import msgspec

_ALIGNMENT = 32  # bytes; the format's default, so it need not be said in the metadata
_VERSION = 3


class TensorType(IntEnum):
    """ggml_type numbers of the types written here."""

    F32 = 0
    F16 = 1


class Uint32(int):
    """A metadata number stored as an unsigned 32-bit integer, as llama.cpp expects its sizes."""


MetadataValue = Uint32 | float | bool | str | list[str] | list[float] | list[int]


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor. `shape` as ggml has it: the fastest-running dimension first (columns, rows)."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    data: bytes


def write_gguf(file: BinaryIO, metadata: Mapping[str, MetadataValue], tensors: Sequence[Tensor]) -> None:
    """Write a whole GGUF file at the current position of `file`, which must be its start. Raises OSError."""
    head = bytearray(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + _typed(value)
    offset = 0
    for tensor in tensors:
        head += _string(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        head += struct.pack("<IQ", tensor.type, offset)
        offset += len(tensor.data) + _padding(len(tensor.data))
    file.write(head + bytes(_padding(len(head))))
    for tensor in tensors:
        file.write(tensor.data)
        file.write(bytes(_padding(len(tensor.data))))


def _padding(length_bytes: int) -> int:
    return -length_bytes % _ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: MetadataValue) -> bytes:
    """A value with its type number before it (gguf_metadata_value_type)."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, Uint32):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    return struct.pack("<I", 9) + _array(value)


def _array(items: list[str] | list[float] | list[int]) -> bytes:
    first = items[0] if items else 0
    if isinstance(first, str):
        return struct.pack("<IQ", 8, len(items)) + b"".join(_string(str(item)) for item in items)
    if isinstance(first, float):
        return struct.pack(f"<IQ{len(items)}f", 6, len(items), *items)
    return struct.pack(f"<IQ{len(items)}i", 5, len(items), *items)
