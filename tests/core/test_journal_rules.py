"""What the journal holds, and how pauses that follow each other merge."""

from tray_valet.core.eviction import is_given_back, must_go
from tray_valet.core.holds import Hold, HoldKind, UserCause
from tray_valet.core.journal import JournalEntry, entry_of, merged
from tray_valet.core.models import LoadedModel


def test_v7_an_entry_keeps_context_ttl_and_sizes() -> None:
    model = LoadedModel(name="qwen:14b", size_bytes=10, vram_bytes=8, context_length=16384, ttl_left_s=120.5)
    assert entry_of("ollama", model) == JournalEntry(
        provider="ollama",
        model="qwen:14b",
        context_length=16384,
        ttl_left_s=120.5,
        size_bytes=10,
        vram_bytes=8,
    )


def test_v7_a_second_pause_keeps_what_the_first_still_owes() -> None:
    owed = (JournalEntry(provider="o", model="a", context_length=8192),)
    seen = (
        JournalEntry(provider="o", model="a", context_length=2048),
        JournalEntry(provider="o", model="b", context_length=4096),
    )
    assert merged(owed, seen) == (owed[0], seen[1])


def test_a_cpu_only_model_goes_for_ram_and_cpu_pressure_only() -> None:
    model = LoadedModel(name="small", needs_gpu=False)
    for kind, expected in (
        (HoldKind.GAME, False), (HoldKind.VRAM, False), (HoldKind.USER, False), (HoldKind.POWER, False),
        (HoldKind.RAM, True), (HoldKind.CPU, True),
    ):  # fmt: skip
        hold = Hold(id="h", kind=kind, owner="valet", cause=UserCause(), since=0.0)
        assert must_go(model, (hold,)) is expected, kind
        assert must_go(LoadedModel(name="big"), (hold,)) is True


def test_memory_proves_an_eviction_only_where_the_models_were_in_what_is_measured() -> None:
    assert is_given_back(before_bytes=500, now_bytes=30, expected_bytes=400) is True
    assert is_given_back(before_bytes=500, now_bytes=480, expected_bytes=400) is False
    assert is_given_back(before_bytes=50, now_bytes=50, expected_bytes=400) is None
    assert is_given_back(before_bytes=0, now_bytes=0, expected_bytes=0) is None
