"""The demo's valet: a real `tray-valet serve` in a process of its own, and its runners.

Decides: how it is started, asked and ended, and what its runners hold. Must not: judge what it sees.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from tray_valet.commands.client import Client, read_runtime_file
from tray_valet.commands.demo_home import DemoHome
from tray_valet.commands.interruption import EndingSignals
from tray_valet.core.errors import ValetError
from tray_valet.core.ports import ChildTie

_START_TIMEOUT_S = 30.0
_QUIT_TIMEOUT_S = 8.0
_KILL_TIMEOUT_S = 5.0
_CHAT_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.01
_TAIL_LINES = 25
_Seen = TypeVar("_Seen")


class NotSeen(ValetError):
    """What should have happened was not seen to happen."""


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the router answered. `text` is the model's answer, or the refusal's sentence."""

    status: int
    text: str
    code: str = ""
    retry_after_s: int | None = None


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of the valet's runners, and what is free on the machine."""

    pids: tuple[int, ...]
    runners_bytes: int
    available_bytes: int


def wait_until(look: Callable[[], _Seen | None], what: str, timeout_s: float) -> _Seen:
    """Look again and again until there is something to return. Raises NotSeen after `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen is not None:
            return seen
        if time.monotonic() >= end_s:
            raise NotSeen(f"Not seen within {timeout_s:.0f} s: {what}.")
        time.sleep(_LOOK_EVERY_S)


class DemoValet:
    """One `serve` process on a demo home. `start`, then `client`; `end` leaves no process behind."""

    def __init__(
        self,
        home: DemoHome,
        tie: ChildTie,
        environ: Mapping[str, str],
        signals: EndingSignals | None = None,
    ) -> None:
        """`signals`: those that would cut off `start`; None where nobody raises any."""
        self._home = home
        self._tie = tie
        self._signals = signals or EndingSignals()
        self._environ = home.environment(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._runners: dict[int, Any] = {}  # every psutil.Process that was ever seen below the valet
        self.client: Client | None = None
        self.router_url = ""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> Client:
        """Start it and wait until its API answers. Raises NotSeen."""
        from tray_valet.desktop.paths import directories_of

        command = [sys.executable, *([] if getattr(sys, "frozen", False) else ["-m", "tray_valet"])]
        command += ["--config", str(self._home.config), "serve"]
        self._output = self._home.output.open("wb")
        command = self._tie.wrap(command)
        with self._signals.held():  # a process that we did not know of would write into the folder
            # A session of its own: Ctrl-C is ours alone, and the valet is ended in good order afterwards.
            self._process = subprocess.Popen(
                command,
                env=self._environ,
                cwd=self._home.folder,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._tie.adopt(self._process.pid)
        runtime_file = directories_of(self._environ).runtime_file
        self.client = wait_until(lambda: self._answering(runtime_file), "the valet's API", _START_TIMEOUT_S)
        self.router_url = str(self.client.get("/status").get("router_url") or "")
        return self.client

    def _answering(self, runtime_file: Path) -> Client | None:
        if self._process is not None and self._process.poll() is not None:
            raise NotSeen(f"The valet ended by itself with exit code {self._process.returncode}.")
        found = read_runtime_file(runtime_file)
        if found is None:
            return None
        client = Client(found)
        try:
            client.get("/status")
        except ValetError:
            return None
        return client

    def ask(self, model: str, question: str) -> ChatAnswer:
        """Ask a model through the router. Raises NotSeen if there is no answer at all."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 64,
        }
        address = urlsplit(self.router_url)
        connection = http.client.HTTPConnection(
            address.hostname or "127.0.0.1", address.port or 80, timeout=_CHAT_TIMEOUT_S
        )
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
            response = connection.getresponse()
            return _read_chat(response.status, response.headers.get("Retry-After"), response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotSeen(f"The router gave no answer ({error or type(error).__name__}).") from None
        finally:
            connection.close()

    def holding(self) -> Holding:
        """What the runners hold now: resident memory of every process below the valet."""
        import psutil

        try:
            below = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            below = []
        total_bytes, pids = 0, []
        for process in below:
            self._runners.setdefault(process.pid, process)
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    total_bytes += process.memory_info().rss
                    pids.append(process.pid)
            except psutil.Error:
                continue  # it has just ended
        available_bytes = psutil.virtual_memory().available
        return Holding(pids=tuple(pids), runners_bytes=total_bytes, available_bytes=available_bytes)

    def end(self) -> None:
        """End it in good order, else by force, and its runners too. Safe to call at any time, again too."""
        if self._process is not None:
            self.holding()
            if self._process.poll() is None:
                self._ask_to_quit()
            if not _has_ended(self._process, _QUIT_TIMEOUT_S):
                self._process.kill()
                _has_ended(self._process, _KILL_TIMEOUT_S)
        for runner in self.left_runners():
            runner.kill()
        if self._output is not None:
            self._output.close()

    def _ask_to_quit(self) -> None:
        process = self._process
        try:
            if self.client is not None:
                self.client.post("/quit")
                return
        except ValetError:
            pass  # then by a signal
        if process is not None:
            process.terminate()

    @property
    def exit_code(self) -> int | None:
        """What the valet ended with; None while it runs."""
        return self._process.poll() if self._process else None

    def left_runners(self) -> list[Any]:
        """Processes (psutil) that were once below the valet and still live."""
        return [runner for runner in self._runners.values() if _lives(runner)]

    def log_tail(self) -> list[str]:
        """The last lines that the valet wrote, to its output and to its log."""
        files = [self._home.output, *sorted(self._home.valet_home.glob("logs/*"))]
        lines: list[str] = []
        for file in files:
            if file.is_file():
                lines += file.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return lines[-2 * _TAIL_LINES :]


class Game:
    """The real process that counts as a game."""

    def __init__(self, argv: tuple[str, ...], env: Mapping[str, str], tie: ChildTie) -> None:
        self.started_s = time.monotonic()
        self._process = subprocess.Popen(
            tie.wrap(argv),
            env={**os.environ, **env},
            cwd=Path(argv[0]).parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        tie.adopt(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """End it at once. Safe to call again."""
        if self._process.poll() is None:
            self._process.kill()
        _has_ended(self._process, _KILL_TIMEOUT_S)


def _lives(process: Any) -> bool:
    """Whether this very process (psutil) still runs; one whose end nobody has noticed yet does not."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _has_ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _read_chat(status: int, retry_after: str | None, payload: bytes) -> ChatAnswer:
    answer = json.loads(payload)
    if status == 200:
        return ChatAnswer(status=status, text=str(answer["choices"][0]["message"]["content"]).strip())
    error = answer.get("error") or {}
    seconds = int(retry_after) if retry_after and retry_after.isdigit() else None
    return ChatAnswer(
        status=status, text=str(error.get("message")), code=str(error.get("code")), retry_after_s=seconds
    )
