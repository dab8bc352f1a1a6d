"""A control API that answers what a test tells it, on a real socket, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tray_valet.commands.client import Client, ControlPlace, RuntimeFile


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Told(NamedTuple):
    """An answer; `then` is called after the request was read, before the answer is written."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = MappingProxyType({})
    then: Callable[[], None] = lambda: None


class FakeControlApi:
    """Set `answers["POST /pause"] = Told(...)`; what is not there answers 404 in the API's own form."""

    def __init__(self) -> None:
        self.answers: dict[str, Told] = {}
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def runtime_file(self, pid: int = 1, start_time: int = 1) -> RuntimeFile:
        place = ControlPlace(url=self.url, host="127.0.0.1", port=self._server.server_port)
        return RuntimeFile(pid=pid, start_time=start_time, control=place, token="s3cret")

    def client(self) -> Client:
        return Client(self.runtime_file())

    def requests(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                body = json.loads(raw) if raw else None
                api.asked.append(Asked(self.command, self.path, dict(self.headers), body))
                told = api.answers.get(f"{self.command} {self.path.partition('?')[0]}")
                if told is None:
                    error = {
                        "message": "Not here.",
                        "type": "not_found_error",
                        "param": None,
                        "code": "not_found",
                    }
                    told = Told(404, {"error": error})
                told.then()
                payload = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
                self.send_response(told.status)
                for name, value in told.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = _serve  # noqa: N815  the standard library's names
            do_POST = _serve  # noqa: N815
            do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def control_api() -> Iterator[FakeControlApi]:
    api = FakeControlApi()
    yield api
    api.close()


@pytest.fixture
def told() -> type[Told]:
    return Told
