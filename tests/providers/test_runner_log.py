"""What is kept of a runner's output."""

from __future__ import annotations

import pytest

from tray_valet.providers.runner_log import RunnerLog, says_port_in_use, telling_line
from tray_valet.providers.runner_process import end_in_words


def test_pieces_become_lines_wherever_they_are_cut() -> None:
    log = RunnerLog()
    for piece in (b"one\ntw", b"o\r\n", b"\xc3", b"\xa4\n", b"rest"):
        log.feed(piece)
    assert log.tail() == ("one", "two", "ä", "rest")
    assert log.line_count == 3


def test_the_last_200_lines_are_kept() -> None:
    log = RunnerLog()
    log.feed(b"".join(b"line %d\n" % number for number in range(1_000)) + b"open end")
    assert len(log.tail()) == 200
    assert log.tail()[-2:] == ("line 999", "open end")
    assert log.line_count == 1_000


def test_a_line_without_end_and_bytes_that_are_no_text_do_no_harm() -> None:
    log = RunnerLog()
    for _ in range(1_000):
        log.feed(b"\xff" * 1_000)
    assert all(len(line) <= 2_000 for line in log.tail())
    assert len(log.tail()) <= 200


@pytest.mark.parametrize(
    ("lines", "telling"),
    [
        (("error: invalid argument: --foo",), "error: invalid argument: --foo"),
        (
            (
                "gguf_init_from_file_impl: failed to read magic",
                "llama_model_load: error loading model: llama_model_loader: failed to load model from x",
                "0.00.004.485 E srv    load_model: failed to load model, 'x'",
                "0.00.004.493 I srv    operator(): operator(): cleaning up before exit...",
            ),
            "llama_model_load: error loading model: llama_model_loader: failed to load model from x",
        ),
        (
            (
                "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
                "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
            ),
            "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
        ),
        (
            ("0.00.002.830 E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1",),
            "srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1",
        ),
        (("loading", "something else"), "something else"),
        ((), ""),
    ],
)
def test_the_line_that_says_why_is_found(lines: tuple[str, ...], telling: str) -> None:
    assert telling_line(lines) == telling


def test_a_taken_port_is_told_from_other_failures() -> None:
    assert says_port_in_use(["srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1"])
    assert not says_port_in_use(["error loading model: x"])


def test_an_end_by_a_signal_is_told_by_the_signals_name() -> None:
    assert "SIGKILL" in end_in_words(-9, ("all is well",))
    assert "memory" in end_in_words(-9, ())
    assert "SIGSEGV" in end_in_words(-11, ())
    assert "signal 99" in end_in_words(-99, ())
    assert end_in_words(1, ("error: invalid argument: -x",)) == "error: invalid argument: -x"
    assert "exit code 3" in end_in_words(3, ())
