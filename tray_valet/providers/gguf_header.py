"""Reads what a GGUF file says of itself, without numpy and without reading its tensors.

Decides: which metadata is of interest, and which files are one model. Must not: read on behind that.
Source: the names of split files from llama.cpp `llama_split_path`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

import msgspec

from tray_valet.providers.gguf_cursor import MALFORMED, Cursor

_KEYS_MAX = 4_096
_MAX_BYTES = 64 << 20
_CHUNK_BYTES = 16 << 10
_SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

# From llama.h, `llama_ftype`; the usual ones.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """`context_length` in tokens is what the model was trained for; "" and None = the file doesn't say."""

    name: str = ""
    architecture: str = ""
    quantization: str = ""
    context_length: int | None = None


class NotGgufError(ValueError):
    """The file is no GGUF file, or not a whole one."""


def read_header(path: Path) -> GgufHeader:
    """Read the header; about 0.1 ms, since it stops at the vocabulary. Raises NotGgufError, OSError."""
    try:
        with path.open("rb") as file:
            return _header(_interesting(file))
    except MALFORMED as error:
        raise NotGgufError(f"{path} is not a whole GGUF file") from error


def size_on_disk(path: Path) -> int:
    """Return the bytes of the file, or of all files of a split model. Raises OSError."""
    if _SPLIT_NAME.fullmatch(path.name) is None:
        return path.stat().st_size
    return sum(part.stat().st_size for part in parts_of(path) if part.exists())


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files of a split model, of which `path` is one; else the file alone."""
    split = _SPLIT_NAME.fullmatch(path.name)
    if split is None:
        return (path,)
    count = int(split["count"])
    return tuple(
        path.with_name(f"{split['stem']}-{number:05}-of-{split['count']}.gguf")
        for number in range(1, count + 1)
    )


def _header(found: dict[str, object]) -> GgufHeader:
    architecture = str(found.get("general.architecture", ""))
    context = found.get(f"{architecture}.context_length")
    file_type = found.get("general.file_type")
    return GgufHeader(
        name=str(found.get("general.name", "")),
        architecture=architecture,
        quantization=_FILE_TYPES.get(file_type, "") if isinstance(file_type, int) else "",
        context_length=context if isinstance(context, int) else None,
    )


def _interesting(file: BinaryIO) -> dict[str, object]:
    """All metadata up to the tokenizer's, which writers put after the model's own."""
    cursor = Cursor(file, max_bytes=_MAX_BYTES, chunk_bytes=_CHUNK_BYTES)
    _tensors, keys = cursor.begin()
    found: dict[str, object] = {}
    for _ in range(min(keys, _KEYS_MAX)):
        key = cursor.text()
        if key.startswith("tokenizer.") and "general.architecture" in found:
            break
        found[key] = cursor.value()
    return found
