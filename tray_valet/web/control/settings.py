"""The control API's settings: GET and PUT /settings, PUT /games/{id}, PUT and DELETE /secrets/{name}.

Decides: the bodies' form, and that a stored key is never answered. Must not: judge settings.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.commands import Valet
from tray_valet.core.desks import SecretStore, SettingsDesk
from tray_valet.core.errors import InvalidValue
from tray_valet.core.game_choice import GameChoice, rules_with
from tray_valet.core.game_verdict import Action
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import decode, expect_nothing, parse_object

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_SECRET = 4096


class GameBody(msgspec.Struct, kw_only=True):
    """`PUT /games/{id}`."""

    action: Action


class SecretBody(msgspec.Struct, kw_only=True):
    """`PUT /secrets/{name}`."""

    value: str


class ControlSettings:
    """Shows and changes settings and keys."""

    def __init__(self, valet: Valet, desk: SettingsDesk, secrets: SecretStore) -> None:
        self._valet = valet
        self._desk = desk
        self._secrets = secrets

    def routes(self) -> list[Route]:
        """The routes of settings and keys."""
        return [
            Route("/settings", self.show, methods=["GET"]),
            Route("/settings", self.change, methods=["PUT"]),
            Route("/games/{id:path}", self.choose, methods=["PUT"]),
            Route("/secrets/{name}", self.keep, methods=["PUT"]),
            Route("/secrets/{name}", self.forget, methods=["DELETE"]),
        ]

    async def show(self, request: Request) -> Response:
        """`GET /settings`: every section, keys hidden; `meta` says where values come from."""
        return self._shown()

    async def change(self, request: Request) -> Response:
        """`PUT /settings`: a part of them; answers all. With `If-Match` only over that version."""
        partial = parse_object(await request.body())
        wanted = request.headers.get("if-match", "").strip().removeprefix("W/").strip('"')
        if partial:
            await self._desk.change(partial, base_version=wanted if wanted not in ("", "*") else None)
        return self._shown()

    async def choose(self, request: Request) -> Response:
        """`PUT /games/{id} {action}`: whether the models step aside for this game; kept as a rule."""
        body = decode(await request.body(), GameBody)
        choice = GameChoice(request.path_params["id"], body.action)
        running = self._valet.snapshot().games
        known = self._valet.known_games()
        rules, game = rules_with(self._valet.settings.games.rules, choice, known, running)
        await self._desk.change({"games": {"rules": rules}})
        return json_answer({"ok": True, "key": game.key, "name": game.name, "action": body.action.value})

    async def keep(self, request: Request) -> Response:
        """`PUT /secrets/{name} {value}`: store a key. It is never given back."""
        name = _checked_name(request)
        await self._secrets.keep(name, _checked_value(decode(await request.body(), SecretBody).value))
        return json_answer({"ok": True, "name": name, "reference": f"keyring:{name}"})

    async def forget(self, request: Request) -> Response:
        """`DELETE /secrets/{name}`: take a key away."""
        expect_nothing(await request.body())
        name = _checked_name(request)
        await self._secrets.forget(name)
        return json_answer({"ok": True, "name": name})

    def _shown(self) -> Response:
        view = self._desk.view()
        meta: dict[str, Any] = {
            "path": view.path,
            "version": view.version,
            "origins": view.origins,
            "variables": view.variables,
            "file_only": list(view.file_only),
            "problem": view.problem,
        }
        return json_answer({**view.settings, "meta": meta}, headers={"etag": f'"{view.version}"'})


def _checked_name(request: Request) -> str:
    name: str = request.path_params["name"]
    if not _NAME.fullmatch(name):
        raise InvalidValue(
            f"“{name[:40]}” is not a name for a key.",
            remedy="Use letters, digits and . _ - (64 at most), beginning with a letter or digit.",
            param="name",
        )
    return name


def _checked_value(value: str) -> str:
    """A key is sent in a header, so it is printable ASCII. What it is never gets into a message."""
    if not 1 <= len(value) <= _MAX_SECRET or not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidValue(
            "That cannot be a key.",
            remedy=f"Use 1 to {_MAX_SECRET} printable ASCII characters without spaces.",
            param="value",
        )
    return value
