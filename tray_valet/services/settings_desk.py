"""The settings as a whole, shown and changed (`core.desks.SettingsDesk`).

Decides: what is said of where a value comes from. Must not: show a secret, or change commands and secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tray_valet.core.config_changes import FILE_ONLY_PLACES, check_api_change
from tray_valet.core.config_redaction import public_settings
from tray_valet.core.desks import SettingsView
from tray_valet.services.settings import SettingsStore


class SettingsShown:
    """Implements `core.desks.SettingsDesk` over the one store."""

    def __init__(self, store: SettingsStore) -> None:
        self._store = store

    def view(self) -> SettingsView:
        problem = self._store.problem
        variables = self._store.overrides
        from_file = {path: "file" for path in self._store.written if path not in variables}
        return SettingsView(
            settings=public_settings(self._store.current),
            origins={**from_file, **dict.fromkeys(variables, "environment")},
            variables=variables,
            file_only=FILE_ONLY_PLACES,
            path=str(self._store.path),
            version=self._store.version,
            problem=str(problem) if problem is not None else None,
        )

    async def change(self, partial: Mapping[str, Any], *, base_version: str | None = None) -> None:
        check_api_change(partial, self._store.current)
        await asyncio.to_thread(lambda: self._store.update(dict(partial), base_version=base_version))
