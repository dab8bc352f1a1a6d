"""A process with a tray on its main thread and a loop thread, told by lines on stdin what to show.

Lines: `burst COUNT SECONDS` · `paused NAME` · `running` · `open MARK` is printed by a left click ·
`measure`. It ends with stdin, and prints one JSON line per answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any, cast

from tests.tray import pictures as pic
from tests.tray.running_tray import NotingValet, resident_bytes
from tray_valet.core.commands import Valet
from tray_valet.core.processes import System
from tray_valet.core.tray_view import TrayPicture
from tray_valet.core.watchdog import State
from tray_valet.tray.bridge import Balloons, CommandSender, PictureSlot
from tray_valet.tray.no_tray import NoTray
from tray_valet.tray.run import run_tray


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


class TellingValet(NotingValet):
    """Prints what it is asked."""

    async def pause(self, *, for_s: float | None = None) -> None:
        say(asked="pause", for_s=for_s)

    async def resume(self) -> None:
        say(asked="resume")

    def request_quit(self) -> None:
        say(asked="quit")


async def opened() -> None:
    say(asked="open")


def changing(number: int) -> TrayPicture:
    """Pictures that all differ: state, texts, and a list of models that is never the same."""
    states = (State.RUNNING, State.PAUSING, State.PAUSED, State.RESUMING)
    names = [f"model-{number}-{i}" for i in range(number % 7)]
    return pic.picture(
        states[number % 4], title=f"Change {number}", line=f"Line {number}", catalog=pic.installed(*names)
    )


def burst(slot: PictureSlot, count: int, seconds: float) -> None:
    begin = time.monotonic()
    for number in range(1, count + 1):
        slot.put(changing(number))
        time.sleep(max(0.0, begin + number * seconds / count - time.monotonic()))
    say(done=count, took_s=time.monotonic() - begin)


def obey(slot: PictureSlot) -> None:
    for line in sys.stdin:
        match line.split():
            case ["burst", count, seconds]:
                burst(slot, int(count), float(seconds))
            case ["paused", name]:
                slot.put(pic.paused_for_game(name))
            case ["running"]:
                slot.put(pic.picture())
            case ["measure"]:
                say(rss_bytes=resident_bytes("self"), threads=threading.active_count())
    slot.close()


def main() -> None:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
    slot = PictureSlot()
    threading.Thread(target=obey, args=(slot,), name="stdin", daemon=True).start()
    sender = CommandSender(
        loop, cast(Valet, TellingValet()), open_window=opened, report=lambda text: say(failed=text)
    )
    try:
        run_tray(
            slot,
            sender,
            system=System.LINUX,
            balloons=Balloons(),
            report_missing=lambda missing: say(missing=missing.message),
        )
    except NoTray as error:
        say(no_tray=error.reason)
    finally:
        loop.call_soon_threadsafe(loop.stop)


if __name__ == "__main__":
    main()
