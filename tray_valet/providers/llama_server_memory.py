"""What a model of a llama-server provider will take of memory, before it is loaded.

Decides: how files, flags and the engine become a `MemoryNeed`. Must not: decide whether that is there.
Reading a file blocks: `need` belongs in a worker thread. Files that did not change are read once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.engines import Engine, EngineKind
from tray_valet.core.memory_forecast import Anatomy, MemoryNeed, RunShape, need_of, need_of_unread
from tray_valet.providers.fit_params import ask_fit_params, fit_params_beside
from tray_valet.providers.gguf_anatomy import read_anatomy
from tray_valet.providers.gguf_header import NotGgufError
from tray_valet.providers.llama_server_files import ModelFiles
from tray_valet.providers.run_shape import run_shape
from tray_valet.providers.runner_command import runner_command

_LOG = logging.getLogger(__name__)
_KEPT_FILES = 32


class ModelMemory:
    """Forecasts by file and flags. `factor()` is the setting `models.vram_multiplier`: it scales the compute
    buffers, which are approximate, or the size of a file that cannot be read, and nothing else."""

    def __init__(self, files: ModelFiles, factor: Callable[[], float], environ: Mapping[str, str]) -> None:
        self._files = files
        self._environ = environ
        self._factor = factor
        self._anatomies: dict[tuple[Path, int, int], Anatomy | None] = {}

    def need(
        self, settings: LlamaServerSettings, alias: str, context_length: int | None, engine: Engine
    ) -> MemoryNeed:
        """What a load takes; `context_length` in tokens, None = as configured. Raises LoadFailed.

        Where llama.cpp's own estimator is there, its word counts for all that the engine may not shrink.
        """
        path, file_bytes = self._files.found(settings, alias)
        model = settings.models[alias]
        shape = run_shape(
            model.flags,
            context_length=context_length,
            default_parallel=settings.default_parallel,
            is_cpu_only=model.cpu_only,
        )
        is_on_gpu = shape.gpu_layers != 0
        anatomy = self._anatomy(path)
        if anatomy is None:
            need = need_of_unread(file_bytes, is_on_gpu=is_on_gpu, factor=self._factor())
        else:
            need = need_of(anatomy, shape, self._factor())
            if shape.context_length is not None and shape.gpu_layers is not None:
                need = self._estimated(settings, alias, shape, str(path), engine) or need
        return msgspec.structs.replace(
            need,
            gpu_devices=settings.gpu_devices,
            # The built-in engine uses the GPUs that we measure, or the memory that they share with the host.
            is_sure_of_place=engine.kind is EngineKind.EMBEDDED or not is_on_gpu,
        )

    def _estimated(
        self, settings: LlamaServerSettings, alias: str, shape: RunShape, path: str, engine: Engine
    ) -> MemoryNeed | None:
        program = fit_params_beside(engine)
        if program is None:
            return None
        command = runner_command(
            engine,
            settings,
            alias=alias,
            model_path=path,
            context_length=shape.context_length,
            port=0,
            api_key="",
            environ=self._environ,
        )
        return ask_fit_params(program, model_path=path, flags=command.flags, env=command.env)

    def _anatomy(self, path: Path) -> Anatomy | None:
        try:
            stat = path.stat()
        except OSError:
            return None
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key not in self._anatomies:
            while len(self._anatomies) >= _KEPT_FILES:
                self._anatomies.pop(next(iter(self._anatomies)))
            try:
                self._anatomies[key] = read_anatomy(path)
            except (NotGgufError, OSError) as error:
                _LOG.warning("What %s will take is guessed from its size: %s", path.name, error)
                self._anatomies[key] = None
        return self._anatomies[key]
