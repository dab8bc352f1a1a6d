"""The words for durations and facts: short, never a figure that sounds more exact than it is."""

from __future__ import annotations

import pytest

from tray_valet.core import events as ev
from tray_valet.core.fact_sentences import sentence
from tray_valet.core.wording import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.02, "under 0.1 s"),
        (0.6, "0.6 s"),
        (2.0, "2 s"),
        (9.96, "10 s"),
        (18.4, "18 s"),
        (119.4, "119 s"),
        (119.9, "2 min"),
        (180, "3 min"),
        (7199.9, "2 h"),
        (25_200, "7 h"),
    ],
)
def test_a_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (ev.LoadRefused, "qwen could not be loaded: the file is damaged."),
        (ev.RestoreFailed, "qwen could not be brought back: the file is damaged."),
    ],
)
def test_what_the_loader_says_already_is_not_said_twice(
    fact: type[ev.LoadRefused] | type[ev.RestoreFailed], text: str
) -> None:
    assert sentence(fact(model="qwen", message="qwen could not be loaded: the file is damaged.")) == text


@pytest.mark.parametrize(
    ("client", "pid", "who"),
    [("agent", 12, "“agent” (process 12)"), ("agent", 0, "“agent”"), ("", 0, "A program")],
)
def test_a_process_is_named_only_where_it_is_known(client: str, pid: int, who: str) -> None:
    fact = ev.ModelReloadedDuringPause(provider="ollama", model="qwen", times=1, client=client, pid=pid)
    assert sentence(fact).startswith(f"{who} loaded qwen at ollama itself during the pause.")
