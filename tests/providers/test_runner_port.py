"""Free ports, with real sockets."""

from __future__ import annotations

import socket

import pytest

from tray_valet.core.errors import LoadFailed
from tray_valet.providers.runner_port import PortRange, is_free


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_passed_over(address: str) -> None:
    with socket.socket() as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        assert not is_free(port)
        assert PortRange(port).take() > port


def test_a_port_is_offered_once_until_it_is_released() -> None:
    ports = PortRange(20_000)
    first, second = ports.take(), ports.take()
    assert second > first >= 20_000
    ports.release(first)
    assert ports.take() == first


def test_a_connection_that_lingers_after_its_server_is_no_obstacle() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the server's side closes first, so that it keeps TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    assert is_free(port)


def test_zero_means_any_port() -> None:
    ports = PortRange(0)
    assert len({ports.take() for _ in range(20)}) == 20


def test_no_port_left_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 65_535))
        other.listen()
        with pytest.raises(LoadFailed, match="first_port"):
            PortRange(65_535).take()
