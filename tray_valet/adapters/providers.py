"""Which provider a setting means."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import (
    LlamaServerModelSettings,
    LlamaServerSettings,
    OllamaSettings,
    OpenAiSettings,
    ProviderSettings,
    is_local,
)
from tray_valet.core.engines import Engine
from tray_valet.core.errors import ProviderUnreachable
from tray_valet.core.models import LoadRequest, ModelRef
from tray_valet.core.ports import ChildTie, Clock, ProcessTable, Provider
from tray_valet.core.revival import Crash
from tray_valet.desktop.child_tie import system_child_tie
from tray_valet.desktop.cpu_priority import system_cpu_priority
from tray_valet.desktop.paths import Directories
from tray_valet.engine.locate import embedded_engine, is_embedded_installed, locate_engine
from tray_valet.providers.llama_server import LlamaServerProvider
from tray_valet.providers.ollama import OllamaProvider
from tray_valet.providers.openai import OpenAiProvider
from tray_valet.providers.runner import RunnerExit
from tray_valet.providers.runner_records import RunnerRecords
from tray_valet.services.provider_set import DEMO, FOUND_OLLAMA

_OLLAMA_LOOK_S = 1.0
_KEYRING = "keyring:"


class ProviderBuilder:
    """Builds providers of the kinds that this version serves."""

    def __init__(
        self,
        *,
        clock: Clock,
        table: ProcessTable,
        directories: Directories,
        base_dir: Path,
        on_crash: Callable[[Crash], None],
        secret: Callable[[str], str | None],
        vram_multiplier: Callable[[], float],
    ) -> None:
        """`on_crash` is told of runners that ended by themselves; `secret(name)` looks a key up."""
        self._clock = clock
        self._table = table
        self._directories = directories
        self._base_dir = base_dir
        self._on_crash = on_crash
        self._secret = secret
        self._vram_multiplier = vram_multiplier
        self._tie: ChildTie = system_child_tie()
        self.records = RunnerRecords(directories.runners_dir / "runners.json")

    def build(
        self, name: str, wish: ProviderSettings, settings: Settings, before: Provider | None
    ) -> Provider | None:
        """A provider for these settings; the one there was, if it can take them over."""
        if isinstance(wish, OllamaSettings):
            return OllamaProvider(
                name, wish.url, clock=self._clock, processes=self._table, is_local=is_local(wish)
            )
        if isinstance(wish, LlamaServerSettings):
            if isinstance(before, LlamaServerProvider):
                before.reconfigure(wish)
                return before
            return self._llama_server(name, wish, settings)
        if isinstance(wish, OpenAiSettings):
            return self._openai(name, wish)
        return None

    async def build_demo(self, settings: Settings) -> Provider:
        """The built-in demo model; it is made on first use. Raises EngineMissing, OSError."""
        from tray_valet.engine.tiny_model import ensure_demo_model

        _demo_engine(None)
        file = await asyncio.to_thread(ensure_demo_model, self._directories.demo_dir)
        wish = LlamaServerSettings(models={DEMO: LlamaServerModelSettings(model_path=str(file))})
        return self._llama_server(DEMO, wish, settings, locate=_demo_engine)

    async def is_ollama_there(self) -> bool:
        """Whether an Ollama answers at its default address."""
        provider = OllamaProvider(FOUND_OLLAMA, OllamaSettings().url, clock=self._clock)
        try:
            async with asyncio.timeout(_OLLAMA_LOOK_S):
                await provider.observe()
        except (TimeoutError, ProviderUnreachable):
            return False
        finally:
            await provider.close()
        return True

    def _llama_server(
        self,
        name: str,
        wish: LlamaServerSettings,
        settings: Settings,
        locate: Callable[[str | None], Engine] = lambda configured: locate_engine(configured, os.environ),
    ) -> LlamaServerProvider:
        idle_s = float(settings.models.idle_timeout_seconds)
        return LlamaServerProvider(
            name,
            wish,
            locate=locate,
            base_dir=self._base_dir,
            environ=os.environ,
            table=self._table,
            tie=self._tie,
            records=self.records,
            clock=self._clock,
            default_ttl_s=idle_s if idle_s > 0 else float("inf"),
            on_crash=lambda notice: self._note_crash(name, notice),
            priority=system_cpu_priority(),
            vram_multiplier=self._vram_multiplier,
        )

    def _openai(self, name: str, wish: OpenAiSettings) -> OpenAiProvider:
        return OpenAiProvider(
            name,
            wish.url,
            clock=self._clock,
            models=wish.models,
            is_local=is_local(wish),
            api_key=lambda: self._key(wish.api_key),
            key_name=wish.api_key if wish.api_key and wish.api_key.startswith(_KEYRING) else None,
        )

    def _key(self, reference: str | None) -> str | None:
        """The key that a reference means; a value that is no reference came from the environment."""
        if reference and reference.startswith(_KEYRING):
            return self._secret(reference.removeprefix(_KEYRING))
        return reference or None

    def _note_crash(self, name: str, notice: RunnerExit) -> None:
        self._on_crash(
            Crash(
                ref=ModelRef(name, notice.model),
                reason=notice.reason,
                request=notice.request or LoadRequest(model=notice.model),
                log_tail=notice.log_tail,
            )
        )


def _demo_engine(_configured: str | None) -> Engine:
    """The engine of the built-in model: the one that came with us, since it is known to fit."""
    return embedded_engine(os.environ) if is_embedded_installed() else locate_engine(None, os.environ)


def secret_names(settings: Settings) -> Iterable[str]:
    """The names of all secrets that the settings refer to."""
    references = [settings.control.api_key, *settings.router.api_keys.values()]
    for provider in (settings.providers or {}).values():
        references.append(getattr(provider, "api_key", None))
    return [r.removeprefix(_KEYRING) for r in references if r and r.startswith(_KEYRING)]
