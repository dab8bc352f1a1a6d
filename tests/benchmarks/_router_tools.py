"""The compiled upstream, plain nginx, and any other process: started on a core, asked, ended.

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

from _servers import free_port

HERE = Path(__file__).resolve().parent
LOAD_CORE, PROXY_CORE = 0, 1
_START_S = 20.0
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


def machine_busy_pct(seconds: float = 1.0) -> float:
    """How busy all cores are on the whole, before anything is started."""

    def idle_and_all() -> tuple[int, int]:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    idle, every = idle_and_all()
    time.sleep(seconds)
    idle_after, every_after = idle_and_all()
    return 100 * (1 - (idle_after - idle) / max(1, every_after - every))


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
