"""A home for the doctor's tests: settings, folders and an environment that belong to one test."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec

from tray_valet.commands.doctor_ground import Ground, lay_ground

NO_PROVIDERS: dict[str, Any] = {"providers": {}}


def ground_of(
    home: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **changes: Any,
) -> Ground:
    """The ground of a home with these settings (None: no file); `changes` replace fields."""
    home.mkdir(exist_ok=True)
    if settings is not None:
        file = home / "config.yaml"
        file.write_text(json.dumps(settings))
        file.chmod(0o600)
    around = {"TRAY_VALET_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home), **(environ or {})}
    ground = lay_ground(around, None)
    return msgspec.structs.replace(ground, home=home, **changes) if changes else ground


@contextmanager
def listener() -> Iterator[int]:
    """A port that this very test listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@contextmanager
def web_server(answers: Mapping[str, Any]) -> Iterator[str]:
    """A real server with JSON at some paths and a web page everywhere else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            payload = b"<html>hello</html>"
            if self.path in answers:
                payload = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
