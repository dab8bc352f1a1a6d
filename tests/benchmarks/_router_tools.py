"""The compiled upstream and load generator, and plain nginx: built, started on a core, asked, ended.

Must not: know which figures are wanted, or start the product.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from _servers import free_port

HERE = Path(__file__).resolve().parent
LOAD_CORE, PROXY_CORE = 0, 1
_START_S = 20.0
_LOAD_GRACE_S = 30.0
_NGINX = """
daemon off;
master_process off;
error_log {folder}/nginx.log crit;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  keepalive_requests 1000000000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{whole};
    client_body_buffer_size 8m;
    location / {{ proxy_pass http://engine; }}
  }}
  server {{
    listen 127.0.0.1:{streams};
    location / {{ proxy_pass http://engine; proxy_buffering off; proxy_request_buffering off; }}
  }}
}}
"""


def needed(program: str, package: str) -> str:
    """Where a program is. Exits with the remedy where it is missing."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit(f"{program} is missing. On Debian: apt-get install {package}")
    return found


def compiled(name: str, folder: Path) -> Path:
    """Compile `name`.c from beside this file into `folder`."""
    program = folder / name
    compiler = needed("cc", "gcc libc6-dev")
    built = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(HERE / f"{name}.c")],
        check=False,
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise SystemExit(f"{name}.c does not compile (gcc and libc6-dev are needed):\n{built.stderr[-2000:]}")
    return program


def on_core(core: int | None, argv: Sequence[str]) -> list[str]:
    """The same command on one core; None = on any."""
    if core is None:
        return list(argv)
    return [needed("taskset", "util-linux"), "--cpu-list", str(core), *argv]


class Child:
    """A process on one core (None: on any), from its start to its end."""

    def __init__(
        self,
        argv: Sequence[str],
        core: int | None,
        *,
        environ: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        self._said = output
        self._output = output.open("wb") if output is not None else None
        self.process = subprocess.Popen(
            on_core(core, argv),
            env=None if environ is None else dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=self._output or subprocess.DEVNULL,
            stderr=self._output or subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        """End it, by force when it takes longer than 10 s."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        if self._output is not None:
            self._output.close()

    def wait_until(self, is_there: Callable[[], bool], what: str, timeout_s: float = _START_S) -> None:
        """Wait until it is there. Exits where it ends before, or takes too long."""
        end_s = time.monotonic() + timeout_s
        while not is_there():
            if self.process.poll() is not None:
                said = self._said.read_text(errors="replace")[-1500:] if self._said is not None else ""
                raise SystemExit(f"{what} ended with {self.process.returncode}. {said}")
            if time.monotonic() > end_s:
                raise SystemExit(f"{what} did not answer within {timeout_s:.0f} s")
            time.sleep(0.05)


def get_json(port: int, path: str, headers: Mapping[str, str] | None = None) -> Any:
    """GET it. Raises OSError, ValueError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return json.loads(connection.getresponse().read())
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def answers(port: int, path: str = "/") -> bool:
    """Whether something answers there, whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def move(pid: int, core: int) -> None:
    """Put a process with all its threads on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def cpu_s(pid: int) -> float:
    """CPU time of a process in seconds, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Upstream(Child):
    """The C upstream."""

    def __init__(self, program: Path, core: int) -> None:
        self.port = free_port()
        super().__init__([str(program), str(self.port)], core)
        self.wait_until(lambda: answers(self.port), "the upstream")

    def counters(self) -> dict[str, int]:
        """requests, body_bytes, stream_bytes, open_streams since its start."""
        found: dict[str, int] = get_json(self.port, "/bench/counters")
        return found


class Nginx(Child):
    """nginx as plain reverse proxy: one port that buffers as it does by default, one for streams."""

    def __init__(self, upstream_port: int, folder: Path) -> None:
        program = needed("nginx", "nginx")
        self.whole_port, self.stream_port = free_port(), free_port()
        settings = folder / "nginx.conf"
        settings.write_text(
            _NGINX.format(
                folder=folder, upstream=upstream_port, whole=self.whole_port, streams=self.stream_port
            )
        )
        super().__init__([program, "-p", str(folder), "-c", str(settings)], PROXY_CORE)
        self.wait_until(lambda: answers(self.whole_port), "nginx")


class Series(msgspec.Struct, frozen=True):
    """Times in µs."""

    p50: float
    p99: float
    max: float
    count: int


class Load(msgspec.Struct, frozen=True):
    """What one run of the generator saw; `chunks` are events of streams."""

    answers: int
    errors: int
    reconnects: int
    seconds: float
    per_s: float
    chunks: int
    body_bytes: int
    latency: Series | None = None
    first: Series | None = None
    gap: Series | None = None


class Target(msgspec.Struct, frozen=True):
    """Where requests go, and what they are to say."""

    name: str
    whole_port: int
    stream_port: int
    key: str = "-"
    model: str = "m"


class Generator:
    """Runs the C load generator."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder

    def start(
        self,
        target: Target,
        *,
        seconds: float,
        connections: int = 1,
        prompt_bytes: int = 700,
        is_stream: bool = False,
        fields: Mapping[str, Any] | None = None,
        warm_up: int = 10,
        slow_bytes_s: int = 0,
        count: int = 0,
        core: int = LOAD_CORE,
    ) -> Running:
        """Start a run; `fields` go into the body, before the messages."""
        body = {
            "model": target.model,
            "stream": is_stream,
            "temperature": 0.7,
            "max_tokens": 256,
            **(fields or {}),
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
                {"role": "user", "content": "x" * prompt_bytes},
            ],
        }
        data = json.dumps(body).encode()
        file = self._folder / f"body-{abs(hash(data))}.json"
        if not file.exists():
            file.write_bytes(data)
        port = target.stream_port if is_stream else target.whole_port
        numbers = (connections, seconds, count, target.key, warm_up, slow_bytes_s)
        argv = [str(self._program), str(port), str(file), *(str(number) for number in numbers)]
        return Running(argv, core, seconds, target.name)

    def run(self, target: Target, *, seconds: float, **options: Any) -> Load:
        """Start a run and wait for its end."""
        return self.start(target, seconds=seconds, **options).finish()


class Running:
    """A run of the generator that has been started."""

    def __init__(self, argv: Sequence[str], core: int, seconds: float, name: str) -> None:
        self._name = name
        self._limit_s = seconds + _LOAD_GRACE_S
        self._process = subprocess.Popen(on_core(core, argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self) -> Load:
        """Its figures. Exits where there are none: a benchmark of errors tells nothing."""
        try:
            out, err = self._process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise SystemExit(f"the load on {self._name} did not end") from None
        if self._process.returncode:
            raise SystemExit(f"the load on {self._name} failed: {err.decode(errors='replace')[-1500:]}")
        load = msgspec.json.decode(out, type=Load)
        if load.errors:
            print(f"{self._name}: {load.errors} errors, the first: {err.decode(errors='replace')[:600]}")
        return load
