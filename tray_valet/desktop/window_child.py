"""The window's child process, seen from the valet: started, asked to come to the front, ended.

Decides: when the child counts as open (its page is there) or failed. Must not: choose between ways.
The child ends with its stdin, so it never outlives us, however we end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tray_valet.desktop.window_opener import WindowFailed, WindowPage

_PAINT_S = 15.0  # the first time, from a slow disk
_FOCUS_S = 2.0
_END_S = 2.0
_LINE_LIMIT_BYTES = 2**16


class WindowChild:
    """One running child. Make it with `start_child`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._seen: dict[str, asyncio.Event] = {"painted": asyncio.Event(), "focused": asyncio.Event()}
        self._reason = ""
        self._reading = asyncio.create_task(self._read(), name="window: what it says")

    @property
    def is_open(self) -> bool:
        """Whether the process lives."""
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process's ID."""
        return self._process.pid

    async def show(self, page: WindowPage, *, paint_s: float = _PAINT_S) -> None:
        """Tell it what to show and wait until that is seen. Raises WindowFailed; then it is ended."""
        order = {"url": page.url, "code": page.code, "title": "Tray Valet", "background": page.background}
        try:
            await self._tell(json.dumps(order))
            await self._wait_for("painted", paint_s)
        except BaseException:
            await asyncio.shield(self.close())
            raise

    async def focus(self) -> bool:
        """Bring the window to the front; False if it does not do so within 2 s."""
        self._seen["focused"].clear()
        try:
            await self._tell("focus")
            await self._wait_for("focused", _FOCUS_S)
        except WindowFailed:
            return False
        return True

    async def close(self) -> None:
        """End it: kindly for 2 s, then not."""
        if self.is_open:
            with contextlib.suppress(WindowFailed):
                await self._tell("quit")
            try:
                async with asyncio.timeout(_END_S):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._process.wait()
        self._reading.cancel()
        await asyncio.wait({self._reading}, timeout=1.0)

    async def _tell(self, line: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            async with asyncio.timeout(1.0):
                stdin.write(line.encode() + b"\n")
                await stdin.drain()
        except (OSError, TimeoutError) as error:
            raise WindowFailed(self._reason or "its process takes no orders") from error

    async def _wait_for(self, event: str, limit_s: float) -> None:
        seen = asyncio.create_task(self._seen[event].wait(), name=f"window: {event}")
        await asyncio.wait({seen, self._reading}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        seen.cancel()
        if self._seen[event].is_set():
            return
        if self._reading.done():
            raise WindowFailed(self._reason or await self._end_of_talk())
        raise WindowFailed(f"nothing was drawn within {limit_s:.0f} s")

    async def _end_of_talk(self) -> str:
        try:
            async with asyncio.timeout(1.0):
                return f"its process ended with {await self._process.wait()}"
        except TimeoutError:
            return "its process says nothing any more"

    async def _read(self) -> None:
        """Note what the child says until its stdout ends, which is when it does."""
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            try:
                line = await stdout.readline()
            except ValueError:
                continue  # some library's chatter, longer than any line of ours
            if not line:
                return
            told = _decoded(line)
            event = told.get("event", "")
            if event == "no_web_view":
                self._reason = told.get("reason", "")[:300]
                return
            if event in self._seen:
                self._seen[event].set()


async def start_child(argv: Sequence[str], *, environ: Mapping[str, str], cwd: Path) -> WindowChild:
    """Start the child; it waits for its order (`show`). Raises WindowFailed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environ),
            cwd=cwd,
            limit=_LINE_LIMIT_BYTES,
        )
    except OSError as error:
        raise WindowFailed(f"{argv[0]} cannot be started ({error.strerror or error})") from error
    return WindowChild(process)


def _decoded(line: bytes) -> dict[str, str]:
    """A line of the child's; {} for what is not one (libraries print, too)."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}
