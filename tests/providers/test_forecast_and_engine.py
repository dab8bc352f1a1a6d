"""The forecast against the real engine's own account of its buffers."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import threading
from pathlib import Path

import gguf
import msgspec
import pytest

from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.engines import Engine, EngineKind
from tray_valet.core.memory_forecast import Anatomy, CacheType, MemoryNeed, RunShape, forecast
from tray_valet.engine.tiny_model import TINY, ModelShape, write_tiny_model
from tray_valet.providers.gguf_anatomy import read_anatomy
from tray_valet.providers.gguf_header import NotGgufError, size_on_disk
from tray_valet.providers.llama_server_files import ModelFiles
from tray_valet.providers.llama_server_memory import ModelMemory
from tray_valet.providers.run_shape import run_shape

MIB = 2**20
EMBEDDED = Engine(kind=EngineKind.EMBEDDED, argv=("engine",), path="built-in llama.cpp")
ON_PATH = Engine(kind=EngineKind.ON_PATH, argv=("/no/llama-server",), path="/no/llama-server")
WIDE = ModelShape(
    name="wide", embedding=256, layers=3, feed_forward=512, heads=4, kv_heads=4, context_length=16_384
)
GROUPED = ModelShape(name="grouped", embedding=256, layers=5, feed_forward=320, heads=8, kv_heads=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shapes")
    for name, shape in {"tiny": TINY, "wide": WIDE, "grouped": GROUPED}.items():
        write_tiny_model(folder / f"{name}.gguf", shape)
    return {path.stem: path for path in folder.iterdir()}


def engine_log(engine: Engine, file: Path, flags: tuple[str, ...]) -> str:
    """What the engine writes until it is ready."""
    argv = [*engine.argv, "--model", str(file), "--host", "127.0.0.1", "--port", "0", *flags, "-lv", "4"]
    process = subprocess.Popen(
        argv, env=os.environ | engine.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    ends = threading.Timer(30, process.kill)
    ends.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if "all slots are idle" in line or "n_slots" in line:
                break
    finally:
        ends.cancel()
        process.kill()
        process.communicate()
    return "".join(lines)


def last_mib(log: str, what: str) -> float:
    """The engine's last word: it also tells of a trial that allocates nothing."""
    found = re.findall(rf"{what} buffer size = +([\d.]+) MiB", log)
    assert found, log
    return float(found[-1])


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("tiny", ("-c", "4096", "-np", "1")),
        ("wide", ("-c", "3000", "-np", "3")),
        ("grouped", ("-c", "8192", "-np", "2", "--kv-unified")),
        ("grouped", ("-c", "8192", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on")),
        ("wide", ("-np", "1", "-ub", "128")),
    ],
)
def test_cache_and_weights_are_exactly_what_the_engine_allocates(
    engine: Engine, files: dict[str, Path], name: str, flags: tuple[str, ...]
) -> None:
    log = engine_log(engine, files[name], (*flags, "-ngl", "0"))
    shape = run_shape(flags, context_length=None, default_parallel=1, is_cpu_only=True)
    found = forecast(read_anatomy(files[name]), shape)
    assert found.kv / MIB == pytest.approx(last_mib(log, "KV"), abs=0.006)
    assert found.weights / MIB == pytest.approx(last_mib(log, "model"), abs=0.006)
    assert found.host_compute / MIB == pytest.approx(last_mib(log, "compute"), rel=0.35, abs=2)


def test_the_block_sizes_are_those_of_the_format() -> None:
    from tray_valet.providers.gguf_anatomy import _BLOCKS

    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: sizes for kind, sizes in theirs.items() if kind in _BLOCKS} == _BLOCKS


def test_the_sizes_of_all_tensors_are_those_that_the_reference_reader_tells(files: dict[str, Path]) -> None:
    anatomy = read_anatomy(files["grouped"])
    reader = gguf.GGUFReader(files["grouped"])
    whole = sum(tensor.n_bytes for tensor in reader.tensors)
    assert sum(anatomy.layer_bytes) + anatomy.input_bytes + anatomy.output_bytes == whole


def write_metadata(path: Path, architecture: str, **keys: object) -> Path:
    """A file with metadata and one tensor a layer, written by the reference writer."""
    import numpy as np

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        name = f"{architecture}.{key.replace('__', '.')}"
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, int(str(value)))
    writer.add_array("tokenizer.ggml.tokens", [f"word {n}" for n in range(70_000)])
    for layer in range(int(str(keys["block_count"]))):
        writer.add_tensor(f"blk.{layer}.x.weight", np.zeros((4, 32), dtype=np.float16))
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_windows_heads_by_layer_and_a_tied_output_are_read(tmp_path: Path) -> None:
    path = write_metadata(
        tmp_path / "x.gguf",
        "gemma3",
        block_count=3,
        embedding_length=64,
        context_length=32768,
        attention__head_count=[4, 4, 2],
        attention__head_count_kv=[2, 2, 1],
        attention__key_length=32,
        attention__value_length=32,
        attention__sliding_window=1024,
        attention__sliding_window_pattern=[True, True, False],
    )
    found = read_anatomy(path)
    assert found.kv_heads == (2, 2, 1)
    assert found.has_window == (True, True, False)
    assert found.sliding_window == 1024
    assert found.vocabulary == 70_000
    assert found.is_tied
    assert found.layer_bytes == (256, 256, 256)
    assert found.input_bytes == 512
    assert found.feed_forward == 256, "four times the embedding where the file does not say"


def test_a_latent_cache_is_read(tmp_path: Path) -> None:
    keys = {"block_count": 1, "embedding_length": 64, "context_length": 4096, "attention__head_count": 2}
    latent = {"attention__kv_lora_rank": 512, "rope__dimension_count": 64}
    assert (
        read_anatomy(write_metadata(tmp_path / "x.gguf", "deepseek2", **keys, **latent)).latent_length == 576
    )


@pytest.mark.parametrize("keep", [0, 3, 20, 200, 2_000])
def test_half_a_file_is_no_model(files: dict[str, Path], tmp_path: Path, keep: int) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(files["tiny"].read_bytes()[:keep])
    with pytest.raises(NotGgufError):
        read_anatomy(half)


def test_a_header_with_absurd_counts_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "absurd.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 2**60))
    with pytest.raises(NotGgufError):
        read_anatomy(path)


def test_the_tensors_of_a_split_model_are_added_up(files: dict[str, Path], tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(files["tiny"].read_bytes())
    whole = read_anatomy(tmp_path / "m-00001-of-00002.gguf")
    assert whole == read_anatomy(files["tiny"]), "the same tensors again are not counted twice"
    assert size_on_disk(tmp_path / "m-00001-of-00002.gguf") == 2 * files["tiny"].stat().st_size


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), RunShape(parallel=2)),
        (("-c", "0"), RunShape(parallel=2)),
        (("-ngl", "99", "-np", "4"), RunShape(gpu_layers=99, parallel=4)),
        (("-ngl", "auto"), RunShape(parallel=2)),
        (("-ngl", "-1"), RunShape(parallel=2)),
        (("--n-gpu-layers", "all"), RunShape(gpu_layers=1 << 20, parallel=2)),
        (("--device", "none", "-ngl", "99"), RunShape(gpu_layers=0, parallel=2)),
        (("-np", "-1"), RunShape(parallel=4, is_kv_unified=True)),
        (("-c", "4096", "-c", "8192"), RunShape(context_length=8192, parallel=2)),
        (
            ("-ctk", "q8_0", "--cache-type-v", "q4_0"),
            RunShape(type_k=CacheType.Q8_0, type_v=CacheType.Q4_0, parallel=2),
        ),
        (("-ctk", "no-such"), RunShape(parallel=2)),
        (("-fit", "off"), RunShape(may_shrink=False, parallel=2)),
        (
            ("-nkvo", "--swa-full", "-ub", "64"),
            RunShape(keeps_kv_on_host=True, has_full_window_cache=True, ubatch=64, parallel=2),
        ),
    ],
)
def test_flags_are_read_as_the_engine_reads_them(flags: tuple[str, ...], expected: RunShape) -> None:
    assert run_shape(flags, context_length=None, default_parallel=2, is_cpu_only=False) == expected


def test_a_requests_context_goes_before_the_flag_and_cpu_only_before_layers() -> None:
    shape = run_shape(("-c", "4096", "-ngl", "9"), context_length=512, default_parallel=1, is_cpu_only=True)
    assert (shape.context_length, shape.gpu_layers) == (512, 0)


class TestNeed:
    """`ModelMemory`: files, flags and engine together."""

    def settings(self, folder: Path, *, cpu_only: bool = False) -> LlamaServerSettings:
        model = LlamaServerModelSettings(
            model_path="m.gguf", flags=("-ngl", "99", "-c", "1024"), cpu_only=cpu_only
        )
        return LlamaServerSettings(base_models_path=str(folder), models={"m": model}, gpu_devices=(1,))

    def test_what_cannot_be_read_is_guessed(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").write_bytes(b"x" * 1_000)
        memory = ModelMemory(ModelFiles(tmp_path), lambda: 1.5, {})
        need = memory.need(self.settings(tmp_path), "m", None, EMBEDDED)
        assert need.vram_bytes == 1_500
        assert need.gpu_devices == (1,)

    def test_a_file_that_changes_is_read_again(self, tmp_path: Path, files: dict[str, Path]) -> None:
        path = tmp_path / "m.gguf"
        path.write_bytes(files["tiny"].read_bytes())
        memory = ModelMemory(ModelFiles(tmp_path), lambda: 1.0, {})
        before = memory.need(self.settings(tmp_path), "m", None, EMBEDDED)
        path.write_bytes(files["wide"].read_bytes())
        after = memory.need(self.settings(tmp_path), "m", None, EMBEDDED)
        assert after.vram_bytes > before.vram_bytes

    def test_a_model_for_the_cpu_needs_no_vram_whatever_its_flags_say(
        self, tmp_path: Path, files: dict[str, Path]
    ) -> None:
        (tmp_path / "m.gguf").write_bytes(files["tiny"].read_bytes())
        memory = ModelMemory(ModelFiles(tmp_path), lambda: 1.0, {})
        need = memory.need(self.settings(tmp_path, cpu_only=True), "m", None, ON_PATH)
        assert need.vram_bytes == 0
        assert need.ram_bytes > 700_000
        assert need.is_sure_of_place

    def test_where_an_engine_may_use_gpus_unknown_to_us_ram_says_little(
        self, tmp_path: Path, files: dict[str, Path]
    ) -> None:
        (tmp_path / "m.gguf").write_bytes(files["tiny"].read_bytes())
        memory = ModelMemory(ModelFiles(tmp_path), lambda: 1.0, {})
        assert not memory.need(self.settings(tmp_path), "m", None, ON_PATH).is_sure_of_place
        assert memory.need(self.settings(tmp_path), "m", None, EMBEDDED).is_sure_of_place


class TestTheEnginesOwnEstimator:
    """`llama-fit-params`, played by a script: it is not on this machine."""

    def engine(self, folder: Path, script: str) -> Engine:
        for name, text in {"llama-server": "", "llama-fit-params": script}.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        server = str(folder / "llama-server")
        return Engine(kind=EngineKind.ON_PATH, argv=(server,), path=server)

    def need(self, folder: Path, files: dict[str, Path], engine: Engine) -> MemoryNeed:
        (folder / "m.gguf").write_bytes(files["tiny"].read_bytes())
        model = LlamaServerModelSettings(model_path="m.gguf", flags=("-ngl", "9", "-c", "1024", "-fit", "on"))
        settings = LlamaServerSettings(base_models_path=str(folder), models={"m": model})
        memory = ModelMemory(ModelFiles(folder), lambda: 1.0, os.environ)
        return memory.need(settings, "m", 2048, engine)

    def test_its_word_counts(self, tmp_path: Path, files: dict[str, Path]) -> None:
        script = f'echo "$@" > {tmp_path}/asked; echo "0.00 I main: printing estimated memory in MiB ..."; '
        engine = self.engine(tmp_path, script + "echo 'CUDA0 7401 814 517 '; echo 'Host 1280 0 154'")
        need = self.need(tmp_path, files, engine)
        assert need.vram_bytes == need.least_vram_bytes == (7401 + 814 + 517) * MIB
        assert need.ram_bytes == (1280 + 154) * MIB
        asked = (tmp_path / "asked").read_text()
        assert asked.startswith(f"--model {tmp_path}/m.gguf -ngl 9 ")
        assert "--fit off --fit-print on" in asked
        assert "-fit on" not in asked
        assert "--ctx-size 2048" in asked
        assert "--api-key" not in asked

    @pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "kill -9 $$", "echo 'CUDA0 1 2 3'"])
    def test_without_an_answer_our_own_stands(
        self, tmp_path: Path, files: dict[str, Path], script: str
    ) -> None:
        need = self.need(tmp_path, files, self.engine(tmp_path, script))
        assert 0 < need.vram_bytes < 64 * MIB


def test_anatomies_are_values(files: dict[str, Path]) -> None:
    anatomy = read_anatomy(files["tiny"])
    assert isinstance(anatomy, Anatomy)
    assert msgspec.json.decode(msgspec.json.encode(anatomy), type=Anatomy) == anatomy
