"""The ledger in sentences.

Decides: how a game's record is said, and why it was slow. Must not: compute what is in it.
"""

from __future__ import annotations

from tray_valet.core.ledger import GameRecord, Slowness, SlowPart
from tray_valet.core.wording import count, duration, size

_WHY = {
    SlowPart.ANSWER: "an answer was still being written",
    SlowPart.RUNNER: "a model's process did not let go and was ended",
    SlowPart.MEMORY: "the memory was not free although the model was gone",
    SlowPart.PASSES: "not everything could be got out at the first try",
    SlowPart.UNLOAD: "unloading itself took that long",
}


def why(slow: Slowness) -> str:
    """`3 s of it: an answer was still being written`."""
    return f"{duration(slow.took_s)} of it: {_WHY[slow.part]}"


def cause(part: SlowPart) -> str:
    """The same without its seconds."""
    return _WHY[part]


def summary(record: GameRecord) -> str:
    """How it went with one game, in a few sentences."""
    said = (_stepped_aside(record), _slow(record), _came_back(record), _reloaded(record))
    return " ".join(part for part in said if part)


def _stepped_aside(record: GameRecord) -> str:
    if record.median_s is None or record.worst is None:
        return "No model was loaded when it ran."
    times = _times(record.times)
    most = f" {size(record.most_freed_bytes)} were freed at most." if record.most_freed_bytes else ""
    if record.times == 1:
        return f"Your models stepped aside {times}, in {duration(record.worst.took_s)}.{most}"
    return (
        f"Your models stepped aside {times}, in {duration(record.median_s)} mostly and "
        f"{duration(record.worst.took_s)} at worst.{most}"
    )


def _slow(record: GameRecord) -> str:
    if not record.slow_times or record.worst is None or record.worst.slow is None:
        return ""
    slowest = f"the slowest took {duration(record.worst.took_s)}, {why(record.worst.slow)}"
    return f"It was slow {_times(record.slow_times)}; {slowest}."


def _came_back(record: GameRecord) -> str:
    said = ""
    if record.median_restore_s is not None:
        worst = (
            f", {duration(record.worst_restore_s)} at worst"
            if record.worst_restore_s >= record.median_restore_s + 0.1
            else ""
        )
        said = f"They came back in {duration(record.median_restore_s)}{worst}."
    if record.restore_failures:
        said += f" {count(record.restore_failures, 'model')} could not be brought back."
    return said.strip()


def _reloaded(record: GameRecord) -> str:
    if not record.reloads:
        return ""
    return f"Programs loaded models past Tray Valet {_times(record.reloads)} while it ran."


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")
