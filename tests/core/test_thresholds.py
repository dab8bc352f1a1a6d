"""Pressure: raw at its limit and not only our own doing, with hysteresis and windows in seconds."""

from tray_valet.core.config import ThresholdSettings
from tray_valet.core.holds import HoldKind
from tray_valet.core.thresholds import PressureState, Reading, evaluate, fits, rebased

GB = 2**30
LIMITS = ThresholdSettings()


def vram(raw: float, ours: float = 0.0, key: str = "vram:a") -> Reading:
    return Reading(key=key, signal=HoldKind.VRAM, raw_pct=raw, ours_pct=ours, total_bytes=24 * GB)


def ram(raw: float, ours: float = 0.0) -> Reading:
    return Reading(key="ram", signal=HoldKind.RAM, raw_pct=raw, ours_pct=ours, total_bytes=32 * GB)


def cpu(raw: float, ours: float = 0.0) -> Reading:
    return Reading(key="cpu", signal=HoldKind.CPU, raw_pct=raw, ours_pct=ours)


def look(state: PressureState, *readings: Reading, at_s: float = 0.0) -> tuple[PressureState, list[bool]]:
    state, views = evaluate(state, readings, LIMITS, at_s)
    return state, [v.counts for v in views]


def test_v8_our_own_models_filling_the_vram_are_no_pressure_over_forty_looks() -> None:
    state = rebased({}, (vram(91.0, ours=85.0),), has_models=True)
    for tick in range(40):
        state, counts = look(state, vram(91.0 + tick % 3 * 0.1, ours=85.0), at_s=tick * 10.0)
        assert counts == [False]


def test_others_growing_at_the_limit_is_pressure_and_clears_only_below_the_resume_limit() -> None:
    state = rebased({}, (vram(70.0, ours=60.0),), has_models=True)
    state, counts = look(state, vram(90.0, ours=60.0))
    assert counts == [True]
    for value, expected in ((84.0, True), (75.0, True), (74.9, False), (84.0, False)):
        state, counts = look(state, vram(value, ours=0.0))
        assert counts == [expected], value


def test_growth_below_the_limit_is_no_pressure() -> None:
    state = rebased({}, (ram(50.0, ours=20.0),), has_models=True)
    _, counts = look(state, ram(84.9, ours=20.0))
    assert counts == [False]


def test_noise_of_other_programs_is_not_growth() -> None:
    state = rebased({}, (ram(86.0, ours=60.0),), has_models=True)
    _, counts = look(state, ram(86.3, ours=60.0))
    assert counts == [False]


def test_too_little_free_memory_is_pressure_whoever_uses_the_rest() -> None:
    state = rebased({}, (ram(96.0, ours=90.0),), has_models=True)
    _, counts = look(state, ram(98.0, ours=92.0))
    assert counts == [True]


def test_with_nothing_of_ours_loaded_all_use_is_others() -> None:
    _, counts = look({}, ram(85.0))
    assert counts == [True]


def test_v10_the_cpu_window_is_seconds_of_the_clock_and_not_looks() -> None:
    state: PressureState = {}
    for at_s in (0.0, 0.1, 0.2, 0.3, 29.9):
        state, counts = look(state, cpu(95.0), at_s=at_s)
        assert counts == [False], at_s
    state, counts = look(state, cpu(95.0), at_s=30.0)
    assert counts == [True]


def test_a_dip_starts_the_cpu_window_afresh() -> None:
    state, _ = look({}, cpu(95.0), at_s=0.0)
    state, _ = look(state, cpu(50.0), at_s=20.0)
    state, counts = look(state, cpu(95.0), at_s=31.0)
    assert counts == [False]


def test_our_own_answers_keeping_the_cpu_busy_are_no_pressure() -> None:
    state = rebased({}, (cpu(100.0, ours=97.0),), has_models=True)
    for at_s in range(0, 120, 10):
        state, counts = look(state, cpu(100.0, ours=97.0), at_s=float(at_s))
        assert counts == [False]


def test_cpu_busy_while_loading_does_not_hide_later_pressure() -> None:
    state = rebased({}, (cpu(100.0),), has_models=True)  # the load itself, not yet told apart
    state, _ = look(state, cpu(10.0), at_s=10.0)
    state, _ = look(state, cpu(95.0), at_s=20.0)
    state, counts = look(state, cpu(95.0), at_s=50.0)
    assert counts == [True]


def test_v9_every_signal_is_evaluated_at_every_look() -> None:
    state, counts = look({}, cpu(99.0), vram(99.0), ram(99.0))
    assert counts == [False, True, True], "a busy CPU hides nothing"
    _, counts = look(state, cpu(99.0), vram(99.0), ram(99.0), at_s=30.0)
    assert counts == [True, True, True]


def test_v24_every_gpu_is_a_signal_of_its_own() -> None:
    _, counts = look({}, vram(10.0, key="vram:a"), vram(99.0, key="vram:b"))
    assert counts == [False, True]


def test_a_load_in_mid_pressure_does_not_hide_it() -> None:
    state, counts = look({}, ram(90.0))
    assert counts == [True]
    state = rebased(state, (ram(90.0, ours=5.0),), has_models=True)
    _, counts = look(state, ram(90.0, ours=5.0))
    assert counts == [True]


def test_what_fits_leaves_the_reserve() -> None:
    assert fits(needed_bytes=4 * GB, free_bytes=5 * GB, reserve=1 * GB)
    assert not fits(needed_bytes=4 * GB, free_bytes=5 * GB - 1, reserve=1 * GB)
    assert fits(needed_bytes=0, free_bytes=0, reserve=1 * GB), "a size nobody told is tried"
