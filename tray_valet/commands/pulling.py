"""Downloading models: `pull` with its progress, and the list of downloads.

Decides: what is asked for and how progress is drawn. Must not: download: the valet does, and goes on
when this command is ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from tray_valet.commands.client import Client
from tray_valet.commands.failures import CommandError, WrongUsage
from tray_valet.commands.holding import check_load_arguments
from tray_valet.commands.tables import NOTHING, as_json, plain, table
from tray_valet.core.wording import duration, size

_LOOK_S = 0.25
_BEGIN_S = 60.0
_PLAIN_STEP_PCT = 10
_BAR = 24
_ENDED = frozenset({"done", "failed", "cancelled"})
Sleep = Callable[[float], None]


def pull(
    client: Client,
    model: str,
    *,
    provider: str | None,
    is_json: bool,
    out: TextIO | None = None,
    sleep: Sleep = time.sleep,
) -> None:
    """Have a model downloaded and follow it to its end. Ctrl-C stops the watching, not the download.

    Raises WrongUsage for a name that is none, ApiError, CommandError when the download fails.
    """
    check_load_arguments(model, None)
    out = out or sys.stdout
    begun = client.post("/models/pull", {"model": model}, timeout_s=_BEGIN_S, provider=provider)
    drawing: _Drawing = _Silent() if is_json else _Bar(out) if out.isatty() else _Lines(out)
    try:
        ended = _follow(client, begun["download"], drawing, sleep)
    except KeyboardInterrupt:
        if not is_json:
            cancel = f"tray-valet downloads --cancel {begun['id']}"
            print(f"The download goes on. Cancel it with: {cancel}", file=sys.stderr)
        raise
    if ended["state"] != "done":
        why = "it was cancelled." if ended["state"] == "cancelled" else plain(ended.get("error"))
        raise CommandError(f"{plain(ended['model'])} could not be downloaded: {why}")
    if is_json:
        print(as_json(ended), file=out)
        return
    print(f"{plain(ended['model'])} is there ({_size(ended['completed_bytes'])}).", file=out)


def downloads(client: Client, *, cancel: str | None, is_json: bool) -> None:
    """List the downloads, or take one back for good."""
    if cancel is not None:
        _cancel(client, cancel, is_json=is_json)
        return
    answer = client.get("/downloads")
    print(as_json(answer) if is_json else downloads_text(answer))


def remove(
    client: Client,
    model: str,
    *,
    provider: str | None,
    is_sure: bool,
    is_json: bool,
    ask: Callable[[str], str] | None = None,
) -> None:
    """Delete a model from the disk; a terminal is asked first, unless `is_sure`.

    Raises WrongUsage where nobody can be asked, CommandError if the answer is no, ApiError.
    """
    check_load_arguments(model, None)
    if not is_sure:
        _confirm(model, ask)
    answer = client.delete(f"/models/{model}", timeout_s=_BEGIN_S, provider=provider)
    if is_json:
        print(as_json(answer))
        return
    print(f"{plain(answer['model'])} was deleted from {plain(answer['provider'])}.")


def downloads_text(answer: dict[str, Any]) -> str:
    """The answer of /downloads as a table, and what is the matter with those that failed."""
    every = list(answer.get("downloads") or [])
    if not every:
        return "No downloads. Begin one with: tray-valet pull MODEL"
    rows = [(d["id"], d["model"], d["provider"], d["state"], _how_far(d)) for d in every]
    blocks = [table(("ID", "MODEL", "PROVIDER", "STATE", "DONE"), rows, right=("DONE",))]
    blocks += [f"{plain(d['model'])}: {plain(d['error'])}{_again(d)}" for d in every if d.get("error")]
    blocks += [
        f"{plain(d['model'])}: {plain(d['status'])}"
        for d in every
        if _waits_for_something(d) and not d.get("error")
    ]
    if any(d["state"] == "paused" for d in every):
        blocks.append("Downloads wait while a game runs.")
    return "\n\n".join(blocks)


def _confirm(model: str, ask: Callable[[str], str] | None) -> None:
    if ask is None:
        if not sys.stdin.isatty():
            raise WrongUsage("A deletion must be confirmed.", remedy=f"Use: tray-valet rm -y {model}")
        ask = input
    try:
        answer = ask(f"Delete {model} from the disk? [y/N] ")
    except EOFError:  # Ctrl-D
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was deleted.")


def _cancel(client: Client, download_id: str, *, is_json: bool) -> None:
    answer = client.delete(f"/downloads/{download_id}")
    if is_json:
        print(as_json(answer))
        return
    print(f"The download of {plain(answer['download']['model'])} is cancelled.")


def _follow(client: Client, begun: dict[str, Any], drawing: _Drawing, sleep: Sleep) -> dict[str, Any]:
    now = begun
    try:
        while now["state"] not in _ENDED:
            drawing.show(now)
            sleep(_LOOK_S)
            found = [d for d in client.get("/downloads")["downloads"] if d["id"] == begun["id"]]
            if not found:
                raise CommandError("The download is no longer listed.", remedy="See: tray-valet models")
            now = found[0]
        drawing.show(now)
    finally:
        drawing.end()
    return now


class _Drawing(Protocol):
    """How progress is shown."""

    def show(self, download: dict[str, Any]) -> None: ...

    def end(self) -> None:
        """Leave the terminal in order."""
        ...


class _Silent:
    """For programs: only the end is of interest."""

    def show(self, download: dict[str, Any]) -> None:
        return

    def end(self) -> None:
        return


class _Lines:
    """A line for every tenth, for logs and pipes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._said = ""

    def show(self, download: dict[str, Any]) -> None:
        pct = download.get("percent")
        step = "" if pct is None else f" {int(pct // _PLAIN_STEP_PCT) * _PLAIN_STEP_PCT}%"
        line = f"{plain(download['model'])}: {_state(download)}{step}"
        if line != self._said:
            print(line, file=self._out, flush=True)
        self._said = line

    def end(self) -> None:
        return


class _Bar:
    """One line that is drawn over."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._begun: tuple[float, int] | None = None
        self._is_drawn = False

    def show(self, download: dict[str, Any]) -> None:
        pct = download.get("percent") or 0.0
        full = int(_BAR * pct / 100)
        bar = "█" * full + "░" * (_BAR - full)
        text = (
            f"{plain(download['model'])[:40]} {bar} {pct:3.0f}% {_how_far(download)} {self._rest(download)}"
        )
        self._out.write(f"\r\x1b[2K{text}")
        self._out.flush()
        self._is_drawn = True

    def end(self) -> None:
        if self._is_drawn:
            self._out.write("\n")

    def _rest(self, download: dict[str, Any]) -> str:
        if download["state"] != "running":
            return _state(download)
        done, total = download["completed_bytes"], download.get("total_bytes")
        now_s = time.monotonic()
        if self._begun is None or not done:
            self._begun = (now_s, done)
            return plain(download.get("status"))
        took_s, got = now_s - self._begun[0], done - self._begun[1]
        if not total or got <= 0 or took_s < 1:
            return plain(download.get("status"))
        per_s = got / took_s
        left = "" if total <= done else f", {plain(duration((total - done) / per_s))} left"
        return f"{_size(int(per_s))}/s{left}"


def _state(download: dict[str, Any]) -> str:
    words = {
        "queued": "waiting for its turn",
        "running": "downloading",
        "paused": "waiting until the game ends",
        "done": "done",
        "failed": "failed",
        "cancelled": "cancelled",
    }
    state = words.get(download["state"], plain(download["state"]))
    if _is_retried(download):
        return f"trying again soon ({plain(download['error'])})"
    return plain(download["status"]) if _waits_for_something(download) else state


def _waits_for_something(download: dict[str, Any]) -> bool:
    return download["state"] == "queued" and bool(download.get("status"))


def _is_retried(download: dict[str, Any]) -> bool:
    return download["state"] == "queued" and bool(download.get("error"))


def _again(download: dict[str, Any]) -> str:
    return " It is tried again." if _is_retried(download) else ""


def _how_far(download: dict[str, Any]) -> str:
    done, total = download["completed_bytes"], download.get("total_bytes")
    if not total:
        return NOTHING
    return _size(total) if done >= total else f"{_size(done)} of {_size(total)}"


def _size(n_bytes: int) -> str:
    return plain(size(n_bytes))
