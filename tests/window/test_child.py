"""The window's process without a web view: its orders, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tray_valet.window.child import NO_WEB_VIEW, read_order

ROOT = Path(__file__).resolve().parents[2]


def run(stdin: bytes, *, modules: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join(str(each) for each in (modules, ROOT) if each)
    return subprocess.run(
        [sys.executable, "-m", "tray_valet.window"],
        input=stdin,
        capture_output=True,
        timeout=90,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        cwd="/",
    )


def test_the_code_goes_into_the_fragment() -> None:
    order = read_order(b'{"url": "http://127.0.0.1:8765/ui/", "code": "abc"}')
    assert order.address == "http://127.0.0.1:8765/ui/#code=abc"
    assert (order.title, order.background) == ("Tray Valet", "#f5f6f8")
    assert read_order(b'{"url": "http://127.0.0.1:8765/ui/"}').address == "http://127.0.0.1:8765/ui/"


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"{}", b'{"url": 1}', b'{"url": "file:///etc/passwd"}', b"\xff"]
)
def test_an_order_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_order(line)
    if line:
        done = run(line + b"\n")
        assert done.returncode == NO_WEB_VIEW
        assert json.loads(done.stdout)["event"] == "no_web_view"


def test_without_an_order_it_ends_at_once() -> None:
    done = run(b"")
    assert (done.returncode, done.stdout) == (0, b"")


def test_without_pywebview_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "webview.py").write_text("raise ImportError('no pywebview here')")
    with subprocess.Popen(
        [sys.executable, "-m", "tray_valet.window"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b'{"url": "http://127.0.0.1:1/ui/"}\n')
        child.stdin.flush()  # and stays open: it ends by itself
        told = json.loads(child.stdout.readline())
        assert child.wait(60) == NO_WEB_VIEW
    assert told == {"event": "no_web_view", "reason": "ImportError: no pywebview here"}


def test_the_end_of_stdin_ends_it_even_while_the_web_view_hangs(tmp_path: Path) -> None:
    (tmp_path / "webview.py").write_text("import time\ntime.sleep(600)")
    done = run(b'{"url": "http://127.0.0.1:1/ui/"}\n', modules=tmp_path)
    assert done.returncode == 0


def test_it_needs_nothing_of_the_product_but_itself() -> None:
    program = "import sys; import tray_valet.window.child; print([m for m in sys.modules if 'msgspec' in m])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == b"[]"
