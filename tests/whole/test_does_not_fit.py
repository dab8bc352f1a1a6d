"""A model that does not fit, in a real valet: refused at once with the numbers, and nothing is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, engine_pids

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


def test_r18_it_is_refused_with_required_and_available_and_the_others_stay(
    tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "home"
    provider = local_provider(home, tiny_model, "one", "huge")
    # 2 layers × 2 × 64 × 2 bytes a token: 2 TB of cache.
    provider["models"]["huge"] |= {"flags": ["--ctx-size", "4000000000"], "cpu_only": True}
    with ValetProcess(home, {"providers": {"local": provider}}) as valet:
        assert valet.chat("one").status_code == 200
        before = engine_pids(home)
        answer = valet.chat("huge")
        assert answer.status_code == 503, answer.text
        error = answer.json()["error"]
        assert error["code"] == "vram_exhausted"
        assert "huge needs" in error["message"]
        assert engine_pids(home) == before
        assert valet.chat("one").status_code == 200
