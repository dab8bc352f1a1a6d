"""Valets for the router's benchmark: real `tray-valet` processes whose provider leads to the C upstream.

Must not: measure.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _router_load import Target
from _router_tools import PROXY_CORE, Child, get_json
from _servers import ROOT

KEY = "bench-key"
SERVE = ("serve",)
TRAY: tuple[str, ...] = ()


def settings_for(upstream_port: int, *, is_local: bool = True) -> dict[str, Any]:
    """Keys on, metrics and request log as always; nothing but the user's holds may pause it."""
    return {
        "control": {"port": 0},
        "router": {"port": 0},
        "games": {"enabled": False, "end_debounce_seconds": 0, "grace_seconds": 0},
        "thresholds": {"ram_pause_pct": 100.0, "cpu_pause_pct": 100.0, "cpu_sustained_seconds": 3600},
        "providers": {
            "bench": {
                "kind": "openai",
                "url": f"http://127.0.0.1:{upstream_port}/v1",
                "models": ["m"],
                "local": is_local,
            }
        },
    }


class ValetProcess(Child):
    """A valet in a home of its own, on the proxies' core unless told otherwise."""

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, Any] | None,
        *,
        command: Sequence[str] = SERVE,
        environ: Mapping[str, str] | None = None,
        core: int | None = PROXY_CORE,
    ) -> None:
        """`settings` None: those that lie in the home already."""
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        if settings is not None:
            (home / "config.yaml").write_text(json.dumps(settings, indent=1))
            (home / "config.yaml").chmod(0o600)
        whole = {
            **os.environ,
            "TRAY_VALET_HOME": str(home),
            "TRAY_VALET_ALLOW_ROOT": "1",
            "API_KEY": KEY,  # the router's
            "PYTHONPATH": str(ROOT),
            **(environ or {}),
        }
        super().__init__(
            [sys.executable, "-m", "tray_valet", *command],
            core,
            environ=whole,
            output=home / "output.txt",
        )
        self.wait_until(self._is_up, "the valet")
        places = self._places()
        self.control_port = _port(places["control"]["url"])
        self.router_port = _port(places["router"]["url"])

    def target(self, name: str = "valet", model: str = "m") -> Target:
        return Target(name, self.router_port, self.router_port, KEY, model)

    @property
    def has_uvloop(self) -> bool:
        """Whether uvloop is in the process."""
        return "uvloop" in Path(f"/proc/{self.pid}/maps").read_text()

    def metrics(self) -> str:
        """What /metrics says, for the one who checks that requests were counted."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.router_port}/metrics", headers={"Authorization": f"Bearer {KEY}"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def control(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the control API. Exits where it refuses."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=60)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode(errors='replace')[:400]}")
        return json.loads(text) if text else None

    def _places(self) -> dict[str, Any]:
        try:
            places: dict[str, Any] = json.loads((self._home / "state" / "runtime.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return places if places.get("pid") == self.pid else {}

    def _is_up(self) -> bool:
        places = self._places()
        if not places.get("router"):
            return False
        try:
            get_json(_port(places["control"]["url"]), "/status")
        except (OSError, ValueError):
            return False
        return True


def _port(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])
