"""What is read from a model's file, against files that the reference writer made."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from tray_valet.providers.gguf_header import GgufHeader, NotGgufError, read_header, size_on_disk


def test_a_tiny_model_tells_what_it_is(tiny_model: Path) -> None:
    assert read_header(tiny_model) == GgufHeader(
        name="tiny-demo", architecture="llama", quantization="F16", context_length=32_768
    )


def test_every_kind_of_value_before_the_interesting_one_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_array("general.tags", ["a", "b"])
    writer.add_array("general.numbers", [1.5, 2.5])
    writer.add_bool("general.flag", True)
    writer.add_uint64("general.big", 1 << 40)
    writer.add_int8("general.small", -1)
    writer.add_float64("general.exact", 1.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_context_length(40_960)
    writer.add_tensor("t", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_header(path) == GgufHeader(architecture="qwen3", quantization="Q4_K_M", context_length=40_960)


@pytest.mark.parametrize("length", [0, 3, 8, 20, 24, 40, 200])
def test_a_file_that_is_cut_off_is_no_gguf_file(length: int, tiny_model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model.read_bytes()[:length])
    with pytest.raises(NotGgufError):
        read_header(cut)


START = b"GGUF" + b"\x03\0\0\0" + bytes(8)  # version 3, no tensors
ONE_PAIR = START + b"\x01" + bytes(7) + b"\x01" + bytes(7) + b"k"  # whose key is “k”


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04" + bytes(100),
        START + b"\xff" * 8,  # more pairs than there can be
        START + b"\x01" + bytes(7) + b"\xff" * 8,  # a key longer than the file
        ONE_PAIR + b"\x63\0\0\0",  # a type that does not exist
        ONE_PAIR + b"\x09\0\0\0\x08\0\0\0" + b"\xff" * 8,  # an array of endless strings
        ONE_PAIR + b"\x09\0\0\0\x04\0\0\0" + b"\xff" * 8,  # an array of endless numbers
    ],
)
def test_a_hostile_file_is_refused_in_bounded_time(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(NotGgufError):
        read_header(path)


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"big-{number:05}-of-00003.gguf").write_bytes(bytes(number * 10))
    assert size_on_disk(tmp_path / "big-00001-of-00003.gguf") == 60
    single = tmp_path / "single.gguf"
    single.write_bytes(bytes(7))
    assert size_on_disk(single) == 7
