"""What `tray-valet routes` says."""

from __future__ import annotations

from typing import Any

import pytest

from tray_valet.commands.routes import routes_text


@pytest.mark.parametrize(
    ("outcome", "why", "line"),
    [
        (
            "admits",
            "It goes to local/a, which is loaded first.",
            "Now: goes to local/a, which is loaded first.",
        ),
        ("waits", "It waits up to 1 min: Paused for Hades.", "Now: waits up to 1 min: Paused for Hades."),
        ("refuses", "ollama does not answer.", "Now: is refused: ollama does not answer."),
    ],
)
def test_what_would_happen_now_is_said_in_words(outcome: str, why: str, line: str) -> None:
    route: dict[str, Any] = {
        "alias": "assistant",
        "when_paused": "next",
        "candidates": [],
        "now": {"outcome": outcome, "why": why},
    }
    assert routes_text({"routes": [route]}).splitlines()[1] == line
