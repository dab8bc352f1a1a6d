"""Signals that end a program: raised where the work may be cut off, and nowhere else."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tray_valet.commands.interruption import EndingSignals, Interrupted, ending_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there a signal to oneself ends the process")


@pytest.fixture
def signals() -> Iterator[EndingSignals]:
    with ending_signals() as signals:
        yield signals


def _come(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def _interrupted(signals: EndingSignals, work: Callable[[], None]) -> int:
    """Do the work where signals are raised; returns the number of the one that was."""
    with pytest.raises(Interrupted) as raised, signals.raised():
        work()
    return raised.value.number


def test_outside_nothing_is_raised(signals: EndingSignals) -> None:
    _come()
    with signals.held():
        _come()


def test_inside_it_is_raised_once_and_the_clean_up_is_left_alone(signals: EndingSignals) -> None:
    seen = []

    def work() -> None:
        try:
            seen.append("work")
            _come(signal.SIGINT)
            seen.append("more work")
        finally:
            _come(signal.SIGTERM)
            seen.append("clean-up")

    assert _interrupted(signals, work) == signal.SIGINT
    _come()
    assert seen == ["work", "clean-up"]


def test_one_that_came_before_is_raised_at_the_start_and_not_in_the_clean_up(signals: EndingSignals) -> None:
    seen = []
    _come()
    _interrupted(signals, lambda: seen.append("work"))
    _come()
    assert seen == []


def test_what_is_held_back_is_finished_and_then_raised(signals: EndingSignals) -> None:
    seen = []

    def work() -> None:
        with signals.held():
            _come()
            seen.append("made")
        seen.append("more work")

    _interrupted(signals, work)
    _come()
    assert seen == ["made"]


def test_one_that_was_swallowed_is_raised_at_the_end(signals: EndingSignals) -> None:
    def work() -> None:
        with suppress(KeyboardInterrupt):
            _come()

    _interrupted(signals, work)


def test_one_that_became_another_error_is_raised_all_the_same(signals: EndingSignals) -> None:
    def work() -> None:
        try:
            _come()
        except KeyboardInterrupt:
            raise OSError("cut off") from None

    _interrupted(signals, work)


def test_without_a_signal_errors_pass(signals: EndingSignals) -> None:
    with pytest.raises(OSError, match="full"), signals.raised(), signals.held():
        raise OSError("full")


def test_the_handlers_are_given_back_and_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ours = signal.getsignal(signal.SIGTERM)
        with ending_signals() as signals, signals.raised():
            assert signal.getsignal(signal.SIGTERM) is not ours
            _come(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGHUP, before)
