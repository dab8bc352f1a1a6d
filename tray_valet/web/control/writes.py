"""The control API's commands: typed bodies in, one call of the valet, what was seen to happen out.

Decides: the bodies' fields and ranges, the cooldowns, and which success has which status.
Must not: do the work, or answer 200 to what did not happen (202: begun, not seen to end yet).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tray_valet.core.commands import Valet
from tray_valet.core.errors import InvalidValue
from tray_valet.core.models import check_context_length, check_model_name
from tray_valet.core.ports import Clock
from tray_valet.core.watchdog import State
from tray_valet.web.control import status_shape
from tray_valet.web.control.cooldowns import Cooldowns
from tray_valet.web.control.query_fields import provider_of
from tray_valet.web.edge.json_answer import json_answer
from tray_valet.web.edge.json_body import decode, expect_nothing, parse_object
from tray_valet.web.edge.wire_units import MIB

_MAX_TEXT = 500
_MAX_OWNER = 100
_MAX_SECONDS = 366 * 86_400.0
_MAX_INT = 2**31 - 1


class _PauseBody(msgspec.Struct, kw_only=True):
    reason: str | None = None
    for_seconds: float | None = None
    pid: int | None = None
    force: bool = False


class _LoadBody(msgspec.Struct, kw_only=True):
    model: str
    num_ctx: int | None = None
    override: bool = False


class _UnloadBody(msgspec.Struct, kw_only=True):
    model: str | None = None


class _HoldBody(msgspec.Struct, kw_only=True):
    owner: str
    reason: str | None = None
    ttl_seconds: float | None = None
    pid: int | None = None


class ControlWrites:
    """Takes commands for `valet`."""

    def __init__(self, valet: Valet, clock: Clock) -> None:
        self._valet = valet
        self._cooldowns = Cooldowns(clock)

    def routes(self) -> list[Route]:
        """The routes of all commands."""
        return [
            Route("/pause", self.pause, methods=["POST"]),
            Route("/pause/force", self.pause_force, methods=["POST"]),
            Route("/resume", self.resume, methods=["POST"]),
            Route("/load", self.load, methods=["POST"]),
            Route("/unload", self.unload, methods=["POST"]),
            Route("/holds", self.place_hold, methods=["POST"]),
            Route("/holds/{hold_id:path}", self.end_hold, methods=["DELETE"]),
            Route("/config", self.change_config, methods=["PUT"]),
            Route("/quit", self.quit, methods=["POST"]),
        ]

    async def pause(self, request: Request) -> Response:
        """`POST /pause {reason?, for_seconds?, pid?, force?}`: the user's pause."""
        return await self._pause(request, command="pause", is_forced=False)

    async def pause_force(self, request: Request) -> Response:
        """`POST /pause/force`: the same without a drain; runners are ended at once. It never cools down."""
        return await self._pause(request, command="pause/force", is_forced=True)

    async def _pause(self, request: Request, *, command: str, is_forced: bool) -> Response:
        body = decode(await request.body(), _PauseBody)
        reason = _check_text(body.reason, "reason")
        for_s = _check_seconds(body.for_seconds, "for_seconds")
        pid = _check_pid(body.pid)
        with nullcontext() if is_forced else self._cooldowns.once(command):
            state = await self._valet.pause(
                reason=reason, is_forced=is_forced or body.force, for_s=for_s, pid=pid
            )
        return self._done(command, state, State.PAUSED)

    async def resume(self, request: Request) -> Response:
        """`POST /resume`: the user's resume."""
        expect_nothing(await request.body())
        with self._cooldowns.once("resume"):
            state = await self._valet.resume()
        return self._done("resume", state, State.RUNNING)

    async def load(self, request: Request) -> Response:
        """`POST /load {model, num_ctx?, override?}`, `?provider=`: load and wait until it is ready."""
        body = decode(await request.body(), _LoadBody)
        ref, model = await self._valet.load(
            check_model_name(body.model),
            num_ctx=check_context_length(_check_int(body.num_ctx, "num_ctx")),
            provider=provider_of(request),
            override=body.override,
        )
        return json_answer(
            {
                "ok": True,
                "action": "load",
                "model": model.name,
                "provider": ref.provider,
                "size_mb": model.size_bytes // MIB,
                "vram_mb": model.vram_bytes // MIB,
                "context_length": model.context_length,
                "ttl_left_seconds": model.ttl_left_s,
                "state": self._valet.snapshot().state.value,
            }
        )

    async def unload(self, request: Request) -> Response:
        """`POST /unload {model?}`, `?provider=`: unload one model, or all."""
        body = decode(await request.body(), _UnloadBody)
        name = None if body.model is None else check_model_name(body.model)
        gone = await self._valet.unload(name, provider=provider_of(request))
        unloaded = [{"provider": ref.provider, "model": ref.model} for ref in gone]
        return json_answer({"ok": True, "action": "unload", "unloaded": unloaded})

    async def place_hold(self, request: Request) -> Response:
        """`POST /holds {owner, reason, ttl_seconds?, pid?}`: a program asks the models to step aside."""
        body = decode(await request.body(), _HoldBody)
        owner = _check_text(body.owner, "owner")
        if not owner:
            raise InvalidValue("The owner has no name.", remedy="Name the program that asks.", param="owner")
        if len(owner) > _MAX_OWNER:
            raise InvalidValue(
                "The owner's name is too long.", remedy=f"Use {_MAX_OWNER} characters at most.", param="owner"
            )
        hold = await self._valet.place_hold(
            owner=owner,
            reason=_check_text(body.reason, "reason"),
            ttl_s=_check_seconds(body.ttl_seconds, "ttl_seconds"),
            pid=_check_pid(body.pid),
        )
        state = self._valet.snapshot().state
        return json_answer({"id": hold.id, "state": state.value}, status=201)

    async def end_hold(self, request: Request) -> Response:
        """`DELETE /holds/{id}`: the program no longer needs it."""
        expect_nothing(await request.body())
        hold_id: str = request.path_params["hold_id"]
        await self._valet.end_hold(hold_id)
        return json_answer({"ok": True, "id": hold_id, "state": self._valet.snapshot().state.value})

    async def change_config(self, request: Request) -> Response:
        """`PUT /config`: some thresholds; answers all of them. Nothing is stored if one is wrong."""
        partial = parse_object(await request.body())
        settings = self._valet.settings
        if partial:
            settings = await self._valet.update_settings({"thresholds": partial})
        return json_answer(msgspec.to_builtins(settings.thresholds))

    async def quit(self, request: Request) -> Response:
        """`POST /quit`: begin the orderly end."""
        expect_nothing(await request.body())
        self._valet.request_quit()
        return json_answer({"ok": True, "action": "quit"}, status=202)

    def _done(self, command: str, state: State, wanted: State) -> Response:
        shape: dict[str, Any] = {"ok": True, "action": command, "state": state.value}
        shape["watchdog"] = status_shape.watchdog(self._valet.snapshot())
        return json_answer(shape, status=200 if state is wanted else 202)


def _check_text(text: str | None, param: str) -> str:
    value = (text or "").strip()
    if len(value) > _MAX_TEXT:
        raise InvalidValue(
            f"{param}: too long ({len(value)} characters).", remedy=f"Use {_MAX_TEXT} at most.", param=param
        )
    if not value.isprintable():
        raise InvalidValue(
            f"{param}: there are control characters in it.", remedy="Use one line of plain text.", param=param
        )
    return value


def _check_seconds(seconds: float | None, param: str) -> float | None:
    if seconds is None:
        return None
    if not math.isfinite(seconds) or not 0 < seconds <= _MAX_SECONDS:
        raise InvalidValue(
            f"{param}: {seconds:g} is not a length of time.",
            remedy=f"Use more than 0 and at most {_MAX_SECONDS:.0f} seconds.",
            param=param,
        )
    return seconds


def _check_pid(pid: int | None) -> int | None:
    if pid is not None and not 1 <= pid <= _MAX_INT:
        raise InvalidValue(f"pid: {pid} is not a process ID.", param="pid")
    return pid


def _check_int(value: int | None, param: str) -> int | None:
    if value is not None and abs(value) > _MAX_INT:
        raise InvalidValue(f"{param}: {value} is too large.", param=param)
    return value
