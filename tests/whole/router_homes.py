"""Homes for tests of the router: models that answer with a tool call or with embeddings, and keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.whole.valet_process import ValetProcess, engine_pids, free_first_port
from tray_valet.desktop.paths import directories_of
from tray_valet.engine import tiny_model

# A template that the engine can tell from which marks a tool call has.
TEMPLATE = """\
{%- if tools %}{{- '<|system|>Tools:' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{{- '<|end|>' }}{%- endif %}
{%- for message in messages %}
{{- '<|' + message.role + '|>' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- if message.tool_calls %}{%- for call in message.tool_calls %}
{{- '<tool_call> {"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '} </tool_call>' }}
{%- endfor %}{%- endif %}{{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""
TOOL_NAME = "weather"
TOOL_ARGUMENTS = {"place": "Rome", "days": 3}
_CALL = f'<tool_call> {{"name": "{TOOL_NAME}", "arguments": {json.dumps(TOOL_ARGUMENTS)}}} </tool_call>'
TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["place"],
}


def local(home: Path, tiny: Path, flags: dict[str, list[str]], **fields: Any) -> dict[str, Any]:
    """Settings of a llama-server provider with one tiny model for each name, with its own flags."""
    home.mkdir(parents=True, exist_ok=True)
    models = {}
    for name, own in flags.items():
        shutil.copy(tiny, home / f"{name}.gguf")
        models[name] = {"model_path": str(home / f"{name}.gguf"), "flags": ["--ctx-size", "4096", *own]}
    return {"kind": "llama-server", "first_port": free_first_port(), "models": models, **fields}


def tool_caller(home: Path) -> dict[str, Any]:
    """A model that answers everything with a call of one tool."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "template.jinja").write_text(TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:  # what the model says is made with it
        patch.setattr(tiny_model, "REPLY", _CALL)
        tiny_model.write_tiny_model(home / "caller.gguf")
    flags = ["--ctx-size", "4096", "--jinja", "--chat-template-file", str(home / "template.jinja")]
    return {"model_path": str(home / "caller.gguf"), "flags": flags}


def write_secrets(home: Path, secrets: dict[str, str]) -> dict[str, str]:
    """Put secrets into the file that is asked where there is no keyring; returns the environment for that."""
    file = directories_of({"TRAY_VALET_HOME": str(home)}).secrets_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(secrets))
    file.chmod(0o600)
    return {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}


def router_url(valet: ValetProcess) -> str:
    """The router's address without a slash at its end."""
    return str(valet.router.base_url).rstrip("/")


def pid_of(home: Path, model: str) -> int:
    """The runner of a model of this home; 0 where there is none."""
    for pid in engine_pids(home):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if f"{model}.gguf".encode() in command:
            return pid
    return 0


def metric(valet: ValetProcess, name: str, **labels: str) -> float:
    """The sum of a metric's rows that have these labels."""
    total = 0.0
    for line in valet.router.get("/metrics").text.splitlines():
        head, _, value = line.rpartition(" ")
        if (head == name or head.startswith(f"{name}{{")) and all(
            f'{key}="{wanted}"' in head for key, wanted in labels.items()
        ):
            total += float(value)
    return total


def request_lines(home: Path) -> list[dict[str, Any]]:
    """What the request log says."""
    file = directories_of({"TRAY_VALET_HOME": str(home)}).requests_file
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def ask_runner(valet: ValetProcess, model: str, path: str) -> httpx.Response:
    """Ask a runner itself; its key is in its environment."""
    pid = pid_of(valet.home, model)
    assert pid, f"{model} has no runner"
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    port = int(arguments[arguments.index(b"--port") + 1])
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    keys = [entry.partition(b"=")[2].decode() for entry in entries if entry.startswith(b"LLAMA_API_KEY=")]
    headers = {"authorization": f"Bearer {keys[0]}"} if keys else {}
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=60, trust_env=False)


def busy_slots(valet: ValetProcess, model: str) -> int:
    """How many answers a runner is at."""
    return sum(slot["is_processing"] for slot in ask_runner(valet, model, "/slots").json())
