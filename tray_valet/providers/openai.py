"""The provider for anything that speaks the OpenAI API: a cloud service, or a server on this machine or near.

Decides: which models it has, when it is looked at, and what is the matter with it. Must not: load or unload
anything (nothing here can), or call a paid service more than it has to: a look is one list of models, at
most once a minute unless something is in doubt (`look_afresh`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from functools import lru_cache
from typing import Final

from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.dialects import OPENAI_PATHS
from tray_valet.core.downloads import PullProgress
from tray_valet.core.errors import InvalidValue, NotSupported, ProviderUnreachable, UnknownModel
from tray_valet.core.memory_forecast import MemoryNeed
from tray_valet.core.models import (
    ConditionType,
    InstalledModel,
    LoadedModel,
    LoadRequest,
    Observation,
    ProviderKind,
    Upstream,
)
from tray_valet.core.ports import Clock
from tray_valet.core.processes import ProcessIdentity
from tray_valet.providers.openai_api import OpenAiApi, ServedModels

_LOOK_EVERY_S = 60.0
_LOOK_HERE_EVERY_S = 5.0  # a server on this machine costs nothing
_LIST_AGE_S = 300.0
_FAILURES_BORNE = 1  # in a row, once it has answered; by one out there, which is not asked again soon


class OpenAiProvider:
    """`Provider` over one OpenAI-style server. Lives on the loop."""

    kind: Final = ProviderKind.OPENAI  # whoever is behind it
    can_unload: Final = False  # the API has no such call
    can_pull: Final = False
    paths: Final = OPENAI_PATHS

    def __init__(
        self,
        name: str,
        url: str,
        *,
        clock: Clock,
        models: tuple[str, ...] = (),
        is_local: bool | None = None,
        api_key: Callable[[], str | None] = lambda: None,
        key_name: str | None = None,
    ) -> None:
        """`models` are declared, () = as the server lists them. `is_local` None: local if the address is
        loopback. `api_key()` looks the key up; `key_name` is what the settings call it, None = they name
        none. Raises InvalidValue for an address that is none.
        """
        parts = split_url(url)
        if parts is None:
            raise InvalidValue(f"{url!r} is not an http address.", param=f"providers.{name}.url")
        is_here = is_loopback_host(parts.host)
        self.name: Final = name
        self.endpoint: Final = url.rstrip("/")
        self.is_local: Final = is_here if is_local is None else is_local
        self._base_url = self.endpoint.removesuffix("/v1")
        self._declared = models
        self._api_key = api_key
        self._key_name = key_name
        self._clock = clock
        self._api = OpenAiApi(self._base_url, is_loopback=is_here)
        self._served: ServedModels | None = None  # the last answer
        self._listed: tuple[str, ...] = ()
        self._listed_s = float("-inf")
        self._looked_s = float("-inf")
        self._looked_with: dict[str, str] = {}
        self._failures = 0  # in a row
        self._error = ""

    def canonical(self, model: str) -> str:
        """The name as it is: names are exact."""
        return model

    # -- looking -------------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        """Say whether it answers; what it holds in memory is not told. Raises ProviderUnreachable."""
        await self._look(_LOOK_HERE_EVERY_S if self.is_local else _LOOK_EVERY_S)
        if self._failures > (_FAILURES_BORNE if self._served is not None and not self.is_local else 0):
            raise ProviderUnreachable(self._error)
        return Observation(problems=self._problems())

    async def installed(self) -> tuple[InstalledModel, ...]:
        """The declared models, or those that it lists (at most 5 min old). Raises ProviderUnreachable."""
        if not self._declared and self._clock.monotonic_s() - self._listed_s >= _LIST_AGE_S:
            await self._look(_LOOK_HERE_EVERY_S if self.is_local else _LOOK_EVERY_S)
            if self._served is None:
                raise ProviderUnreachable(self._error)
        return tuple(InstalledModel(name=name, needs_gpu=self.is_local) for name in self._names())

    async def runners(self) -> tuple[ProcessIdentity, ...]:
        """(): whose processes they are is not told."""
        return ()

    def upstream(self, model: str) -> Upstream:
        """Where requests for a model go. Raises UnknownModel for one that it is known not to have."""
        self._check(model)
        return _upstream(self._base_url, model, self._api_key())

    def log_tail(self, model: str) -> tuple[str, ...]:
        """(): it is not our child."""
        return ()

    # -- doing ---------------------------------------------------------------------------------------

    async def load(self, request: LoadRequest) -> LoadedModel:
        """Answer at once: there is nothing to load. Raises UnknownModel, ProviderUnreachable."""
        if not self._names() and self._served is None:
            await self.installed()
        self._check(request.model)
        return LoadedModel(name=request.model, needs_gpu=self.is_local)

    async def needs(self, request: LoadRequest) -> MemoryNeed | None:
        """None: it is not ours to judge."""
        return None

    async def unload(self, model: str) -> None:
        """Raises NotSupported."""
        raise self._cannot()

    async def kill(self, model: str) -> None:
        """Raises NotSupported."""
        raise self._cannot()

    def look_afresh(self) -> None:
        """Have the next look really ask."""
        self._looked_s = self._listed_s = float("-inf")

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Raises NotSupported."""
        raise self._no_files()

    async def delete(self, model: str) -> None:
        """Raises NotSupported."""
        raise self._no_files()

    async def models_folder(self) -> str | None:
        """None: where its models lie is not told."""
        return None

    def touch(self, model: str, ttl_s: float | None = None) -> None:
        """It sees every request itself."""

    def yield_cpu(self, is_yielding: bool) -> None:
        """Its processes are not ours."""

    async def close(self) -> None:
        """Close the connection."""
        await self._api.close()

    # -- inside --------------------------------------------------------------------------------------

    async def _look(self, every_s: float) -> None:
        """Ask for the list of models, unless that was done with this key a short while ago."""
        now_s, headers = self._clock.monotonic_s(), self._headers()
        if now_s - self._looked_s < every_s and headers == self._looked_with:
            return
        self._looked_s, self._looked_with = now_s, headers
        try:
            served = await self._api.models(headers)
        except ProviderUnreachable as error:
            self._failures += 1
            self._error = str(error)
            return
        except BaseException:  # given up half-way: the next look is a real one
            self._looked_s = float("-inf")
            raise
        self._failures, self._error, self._served = 0, "", served
        if served.names is not None:
            self._listed, self._listed_s = served.names, now_s

    def _names(self) -> tuple[str, ...]:
        return self._declared or self._listed

    def _check(self, model: str) -> None:
        """Raises UnknownModel; where there is no list at all every name may be one."""
        names = self._names()
        has_no_list = self._served is not None and self._served.names is None
        if model not in names and not (has_no_list and not names):
            raise UnknownModel(f"{self.name} has no model {model}.", param="model")

    def _headers(self) -> dict[str, str]:
        return _headers_with(self._api_key())

    def _problems(self) -> Mapping[ConditionType, str]:
        problems = {}
        if self._key_name is not None and not self._api_key():
            problems[ConditionType.KEY_MISSING] = (
                f"The key {self._key_name} of {self.name} is not in the keyring. Store it there, "
                f"or correct providers.{self.name}.api_key."
            )
        elif self._served is not None and self._served.is_key_refused:
            problems[ConditionType.KEY_MISSING] = (
                f"{self.name} refuses the key. Set a valid one as providers.{self.name}.api_key."
                if self._api_key()
                else f"{self.name} asks for a key. Set providers.{self.name}.api_key."
            )
        if self.is_local:
            problems[ConditionType.CANNOT_UNLOAD] = (
                f"{self.name} cannot be told to unload. During a pause it gets no requests, "
                "but its models stay in memory; stop it yourself if they are in the way."
            )
        return problems

    def _no_files(self) -> NotSupported:
        return NotSupported(
            f"{self.name} cannot be told to download or delete a model: the OpenAI API has no such call.",
            remedy="Do it with the program that serves it.",
            param="provider",
        )

    def _cannot(self) -> NotSupported:
        return NotSupported(f"{self.name} cannot be told to unload a model: the OpenAI API has no such call.")


def _headers_with(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@lru_cache(maxsize=256)  # asked for each request
def _upstream(base_url: str, model: str, key: str | None) -> Upstream:
    return Upstream(base_url=base_url, model=model, headers=_headers_with(key), kind=ProviderKind.OPENAI)
