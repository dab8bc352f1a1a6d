"""Notices: what a notification says, which choices it offers, and how it is cut to what a system shows.

Decides: the form in which notifications reach every system, and that nothing from outside (a game's
name) can break it. Must not: know when one is due (`notice_book.py`) or word it (`notice_words.py`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tray_valet.core.events import Fact
from tray_valet.core.short_text import cut, one_line


class Subject(StrEnum):
    """What a notice is about. There is one notice of a subject at a time: a newer one replaces it."""

    MODELS = "models"
    RESTORE_FAILED = "restore failed"
    MEMORY_HELD = "memory held"
    PAUSE_TAKES_LONG = "pause takes long"
    RELOADED = "reloaded"
    PROVIDER = "provider"
    CRASH = "crash"
    LOAD_FAILED = "load failed"
    DOWNLOAD = "download"
    SETTINGS = "settings"
    ATTENTION = "attention"
    QUESTION = "question"


class ChoiceKind(StrEnum):
    """What the user can answer. `OPEN` is a click on the notification itself."""

    OPEN = "open"
    KEEP_RUNNING = "keep_running"
    TRY_AGAIN = "try_again"
    STEP_ASIDE = "step_aside"
    NOT_THIS_TIME = "not_this_time"


class Choice(msgspec.Struct, frozen=True):
    """A button. `label` is what it says."""

    kind: ChoiceKind
    label: str


OPEN = Choice(ChoiceKind.OPEN, "Open")


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One notification. `about`: the facts it tells of; `hold_ids`: the holds that a choice is about."""

    subject: Subject
    title: str
    text: str
    is_problem: bool = False
    choices: tuple[Choice, ...] = ()
    about: tuple[Fact, ...] = ()
    hold_ids: tuple[str, ...] = ()


class TextLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a system shows or takes, in UTF-16 units."""

    title: int
    text: int


def fitted(notice: Notice, limits: TextLimits) -> Notice:
    """The notice in clean lines, cut with an ellipsis to the system's limits.

    Names come from files and processes; a NUL or a lone surrogate would spoil a whole message.
    """
    return msgspec.structs.replace(
        notice,
        title=cut(one_line(notice.title).strip(), limits.title),
        text=cut(one_line(notice.text).strip(), limits.text),
    )
