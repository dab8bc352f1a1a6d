"""A peer of the router: LiteLLM's proxy, installed by name from PyPI into an environment of its own.

Must not: touch the environment that the benchmark runs in.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from _router_load import Target
from _router_tools import PROXY_CORE, Child, answers
from _servers import free_port

PEERS = ("litellm",)
_INSTALL_S = 600.0
_START_S = 90.0


def installed_litellm() -> Path:
    """The program, installed once into a folder of the temp directory. Exits where that cannot be done."""
    folder = Path(tempfile.gettempdir()) / "tray-valet-peer-litellm"
    program = folder / "bin" / "litellm"
    if program.exists():
        return program
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is not None:
        steps = [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "litellm[proxy]"],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "litellm[proxy]"],
        ]
    print("installing LiteLLM from PyPI …", file=sys.stderr)
    for step in steps:
        try:
            done = subprocess.run(step, check=False, capture_output=True, text=True, timeout=_INSTALL_S)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"LiteLLM could not be installed within {_INSTALL_S:.0f} s.") from None
        if done.returncode:
            raise SystemExit(f"LiteLLM could not be installed (is PyPI reachable?):\n{done.stderr[-2000:]}")
    return program


class LiteLlm(Child):
    """LiteLLM's proxy with one model, one worker, nothing to log, and a key: it wants one."""

    def __init__(self, program: Path, upstream_port: int, folder: Path) -> None:
        self.port = free_port()
        self._key = f"sk-{secrets.token_hex(32)}"
        settings = {
            "model_list": [
                {
                    "model_name": "m",
                    "litellm_params": {
                        "model": "openai/m",
                        "api_base": f"http://127.0.0.1:{upstream_port}/v1",
                        "api_key": "none",
                    },
                }
            ],
            "litellm_settings": {"telemetry": False, "request_timeout": 60, "num_retries": 0},
        }
        file = folder / "litellm.yaml"
        file.write_text(json.dumps(settings))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "LITELLM_MASTER_KEY": self._key,
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"]
        argv = [str(program), "--config", str(file), *address, "--telemetry", "False"]
        super().__init__(argv, PROXY_CORE, environ=environ, output=folder / "litellm-output.txt")
        self.wait_until(lambda: answers(self.port, "/health/liveliness"), "LiteLLM", _START_S)

    def target(self) -> Target:
        return Target("litellm", self.port, self.port, self._key)
