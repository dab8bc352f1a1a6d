"""The generated models, read back by the reference reader of the format."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import gguf

from tray_valet.engine.tiny_model import LARGE, REPLY, ensure_demo_model, write_tiny_model


def test_the_file_is_what_the_reference_reader_expects(tiny_model: Path) -> None:
    reader = gguf.GGUFReader(tiny_model)
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["llama.context_length"].contents() == 32_768
    tensors = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    assert tensors["blk.1.ffn_down.weight"] == (256, 128)
    assert tensors["blk.0.attn_k.weight"] == (128, 64)
    assert len(tensors) == 3 + 2 * 9
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == tensors["token_embd.weight"][1] == len(set(tokens))


def test_sizes_are_as_said(tiny_model: Path, large_model: Path) -> None:
    assert 400_000 < tiny_model.stat().st_size < 900_000
    assert large_model.stat().st_size // 1_000_000 == 379


def test_the_same_seed_gives_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "again.gguf")
    write_tiny_model(tmp_path / "other.gguf", seed=2)
    assert (tmp_path / "again.gguf").read_bytes() == tiny_model.read_bytes()
    assert (tmp_path / "other.gguf").read_bytes() != tiny_model.read_bytes()


def test_no_word_of_the_answer_occurs_twice() -> None:
    assert len(set(REPLY.split())) == len(REPLY.split())


def test_the_demo_model_is_made_once(tmp_path: Path) -> None:
    first = ensure_demo_model(tmp_path / "new" / "models")
    made = first.stat().st_mtime_ns
    assert ensure_demo_model(tmp_path / "new" / "models") == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_kill_in_mid_writing_never_leaves_half_a_model(tmp_path: Path) -> None:
    """Killed at ten moments of writing a large model: the file is there whole, or not at all."""
    write = (
        "import sys; from pathlib import Path; from tray_valet.engine.tiny_model import write_large_model;"
        "print('go', flush=True); write_large_model(Path(sys.argv[1]))"
    )
    path = tmp_path / "model.gguf"
    whole_bytes = 0
    for tenth in range(10):
        path.unlink(missing_ok=True)
        root = Path(__file__).parents[2]
        with subprocess.Popen(
            [sys.executable, "-c", write, str(path)], stdout=subprocess.PIPE, cwd=root
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.15 * tenth)
            writer.kill()
        if path.exists():
            whole_bytes = whole_bytes or path.stat().st_size
            assert path.stat().st_size == whole_bytes > LARGE.layers * 20_000_000
        for unfinished in tmp_path.glob(".model.gguf.*"):
            unfinished.unlink()


def test_writing_needs_neither_numpy_nor_gguf(tmp_path: Path) -> None:
    """The valet itself writes the demo model, and numpy alone would take a third of its memory."""
    check = (
        "import sys; from pathlib import Path; from tray_valet.engine.tiny_model import ensure_demo_model;"
        "ensure_demo_model(Path(sys.argv[1])); sys.exit('numpy' in sys.modules or 'gguf' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check, str(tmp_path)], cwd=root, check=False).returncode == 0
