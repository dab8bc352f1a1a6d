"""Whether a window could be seen: real sockets, as display servers open them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import quiet_port
from tray_valet.desktop.display import is_display_there

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="X11 and Wayland")


@pytest.fixture
def wayland(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "wayland-7"))
        server.listen()
        yield server


def free_x_number() -> int:
    """A display number that nobody has: its TCP port, above the usual ones, is free too."""
    return quiet_port() - 6000


def test_a_wayland_socket_counts_while_somebody_listens(tmp_path: Path, wayland: socket.socket) -> None:
    by_name = {"WAYLAND_DISPLAY": "wayland-7", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert is_display_there(by_name)
    assert is_display_there({"WAYLAND_DISPLAY": str(tmp_path / "wayland-7")})
    wayland.close()  # the file stays, as after a crash of the compositor
    assert not is_display_there(by_name)


def test_a_local_x_display_counts_while_somebody_listens() -> None:
    number = free_x_number()
    assert not is_display_there({"DISPLAY": f":{number}"})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0/tmp/.X11-unix/X{number}")
        server.listen()
        assert is_display_there({"DISPLAY": f":{number}"})
        assert is_display_there({"DISPLAY": f":{number}.0"})
    assert not is_display_there({"DISPLAY": f":{number}"})


def test_one_screen_that_answers_is_enough(tmp_path: Path, wayland: socket.socket) -> None:
    environ = {"DISPLAY": f":{free_x_number()}", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert not is_display_there(environ)
    assert is_display_there({**environ, "WAYLAND_DISPLAY": "wayland-7"})
    assert wayland.fileno() >= 0


@pytest.mark.parametrize(
    ("environ", "is_there"),
    [
        ({}, False),
        ({"DISPLAY": "", "WAYLAND_DISPLAY": ""}, False),
        ({"DISPLAY": "desk.example:0"}, True),
        ({"DISPLAY": "localhost:10.0"}, True),  # ssh -X
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),  # where it is, is not known
        ({"DISPLAY": ":99999"}, False),
        ({"WAYLAND_DISPLAY": "/" + "x" * 200}, False),
    ],
)
def test_what_is_not_known_is_taken_for_a_screen(environ: dict[str, str], is_there: bool) -> None:
    assert is_display_there(environ) is is_there
