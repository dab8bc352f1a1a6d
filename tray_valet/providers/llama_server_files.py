"""The model files of a llama-server provider.

Decides: where a configured model lies, and how an installed one is described.
Must not: load anything; reads of headers block, so they are called from worker threads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.errors import LoadFailed
from tray_valet.core.models import ConditionType, InstalledModel
from tray_valet.providers.gguf_header import GgufHeader, NotGgufError, read_header, size_on_disk
from tray_valet.providers.runner_command import configured_context, is_for_embeddings

_LOG = logging.getLogger(__name__)


class ModelFiles:
    """Finds and describes them; remembers the headers of files that did not change."""

    def __init__(self, base_dir: Path) -> None:
        """`base_dir` is what relative paths are relative to where the settings do not say."""
        self._base_dir = base_dir
        self._headers: dict[Path, tuple[tuple[int, int], GgufHeader]] = {}  # with when and how long it was

    def path_of(self, settings: LlamaServerSettings, alias: str) -> Path:
        """Return the absolute path that the settings mean; the file may be missing."""
        base = self._base_dir / _expanded(settings.base_models_path or "")
        return base / _expanded(settings.models[alias].model_path)

    def found(self, settings: LlamaServerSettings, alias: str) -> tuple[Path, int]:
        """Return the path and the size in bytes. Raises LoadFailed where there is no such file."""
        path = self.path_of(settings, alias)
        try:
            if not path.is_file():
                raise FileNotFoundError(path)
            return path, size_on_disk(path)
        except OSError as error:
            raise LoadFailed(
                f"{alias} could not be loaded: there is no readable file {path}.",
                remedy="Correct model_path or base_models_path in the settings.",
            ) from error

    def installed(self, settings: LlamaServerSettings) -> tuple[InstalledModel, ...]:
        """Describe the configured models whose files are there."""
        described = (self._described(settings, alias) for alias in settings.models)
        return tuple(model for model in described if model is not None)

    def missing(self, settings: LlamaServerSettings) -> dict[str, str]:
        """Return the configured models whose files are not there, each with a sentence that says so."""
        paths = {alias: self.path_of(settings, alias) for alias in settings.models}
        return {
            alias: f"{alias} cannot be loaded: there is no readable file {path}."
            for alias, path in paths.items()
            if not _is_file(path)
        }

    def _described(self, settings: LlamaServerSettings, alias: str) -> InstalledModel | None:
        model, path = settings.models[alias], self.path_of(settings, alias)
        try:
            if not path.is_file():
                return None
            stat, size_bytes = path.stat(), size_on_disk(path)
            header = self._header(path, stat.st_mtime_ns, stat.st_size)
        except OSError:
            return None
        embeds = is_for_embeddings(model.flags)
        details = {
            "format": "gguf",
            "family": header.architecture,
            "quantization_level": header.quantization,
        }
        return InstalledModel(
            name=alias,
            size_bytes=size_bytes,
            context_length=configured_context(model.flags) or header.context_length,
            modified_at=datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(),
            details={key: value for key, value in details.items() if value},
            can_chat=not embeds,
            can_embed=embeds,
            can_prompt=not embeds,
            can_stream=not embeds,
            needs_gpu=not model.cpu_only,
        )

    def _header(self, path: Path, modified_ns: int, size_bytes: int) -> GgufHeader:
        state = (modified_ns, size_bytes)
        known = self._headers.get(path)
        if known is not None and known[0] == state:
            return known[1]
        try:
            header = read_header(path)
        except NotGgufError as error:
            _LOG.warning("%s", error)
            header = GgufHeader()
        self._headers[path] = (state, header)
        return header


def missing_problem(missing: Mapping[str, str]) -> dict[ConditionType, str]:
    """Say the first of what `ModelFiles.missing` found as a condition, and how many more there are."""
    if not missing:
        return {}
    first, more = next(iter(missing.values())), len(missing) - 1
    others = f" So it is with {more} more." if more else ""
    return {ConditionType.FILE_MISSING: f"{first}{others} Correct model_path or base_models_path."}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _expanded(path: str) -> str:
    return os.path.expanduser(os.path.expandvars(path))
