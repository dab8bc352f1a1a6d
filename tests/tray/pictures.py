"""Pictures for the tray's tests."""

from __future__ import annotations

from typing import Any

from tray_valet.core.commands import CatalogEntry
from tray_valet.core.holds import Cause, GameCause, Hold, HoldKind, UserCause
from tray_valet.core.models import LoadedModel, ModelRef, ProviderKind
from tray_valet.core.snapshot import HoldView, ProviderView, Snapshot
from tray_valet.core.tray_view import TrayPicture
from tray_valet.core.watchdog import State

GIB = 2**30


def provider(*loaded: LoadedModel, name: str = "ollama", **kwargs: Any) -> ProviderView:
    return ProviderView(
        name=name,
        kind=ProviderKind.OLLAMA,
        url="http://127.0.0.1:11434",
        is_local=kwargs.pop("is_local", True),
        state=kwargs.pop("state", "ready"),
        loaded=loaded,
        **kwargs,
    )


def model(name: str, gib: float = 10.6) -> LoadedModel:
    return LoadedModel(name=name, size_bytes=int(gib * GIB))


def installed(*names: str, provider: str = "ollama", status: str = "off") -> tuple[CatalogEntry, ...]:
    return tuple(CatalogEntry(name=n, ref=ModelRef(provider, n), status=status) for n in names)


def hold(kind: HoldKind, cause: Cause, hold_id: str = "", **kwargs: Any) -> HoldView:
    is_overridden = kwargs.pop("is_overridden", False)
    expires_in_s = kwargs.pop("expires_in_s", None)
    held = Hold(id=hold_id or kind.value, kind=kind, owner="valet", cause=cause, since=0.0, **kwargs)
    return HoldView(hold=held, is_overridden=is_overridden, text="", expires_in_s=expires_in_s)


def game(name: str = "Hades", **kwargs: Any) -> HoldView:
    return hold(HoldKind.GAME, GameCause(name=name, place=name), f"game:{name}", **kwargs)


def own_pause(**kwargs: Any) -> HoldView:
    return hold(HoldKind.USER, UserCause(), "user", **kwargs)


def snapshot(state: State = State.RUNNING, **kwargs: Any) -> Snapshot:
    values: dict[str, Any] = {
        "version": "1",
        "taken_at": 0.0,
        "since": 0.0,
        "last_reason": "",
        "title": "Running",
        "line": "1 model loaded, 10.6 GB. No game is running.",
        "providers": (provider(model("qwen2.5:14b")),),
        **kwargs,
    }
    return Snapshot(state=state, **values)


def picture(state: State = State.RUNNING, **kwargs: Any) -> TrayPicture:
    catalog = kwargs.pop("catalog", installed("llama3.1:8b", "qwen2.5:14b"))
    return TrayPicture(snapshot=snapshot(state, **kwargs), catalog=catalog)


def paused_for_game(name: str = "Hades", **kwargs: Any) -> TrayPicture:
    values: dict[str, Any] = {
        "title": f"Paused for {name}",
        "line": "Your models are out of its way: 10.6 GB freed in 0.6 s. "
        "They come back 30 s after the game ends.",
        "holds": (game(name),),
        "providers": (provider(),),
        **kwargs,
    }
    return picture(State.PAUSED, **values)
