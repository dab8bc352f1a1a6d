"""A process that owns runners, for tests that kill it: loads a model, says so on stdout, waits.

python runner_owner.py STATE_DIR MODEL_FILE load|loading|streaming
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx

from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.models import LoadRequest
from tray_valet.desktop.child_tie import system_child_tie
from tray_valet.engine.locate import embedded_engine
from tray_valet.providers.llama_server import LlamaServerProvider
from tray_valet.providers.runner_records import RunnerRecords
from tray_valet.sensing.linux_processes import LinuxProcesses
from tray_valet.services.clock import SystemClock


async def main(state_dir: Path, model_file: str, what: str) -> None:
    model = LlamaServerModelSettings(model_path=model_file, flags=("-c", "2048", "--load-mode", "none"))
    provider = LlamaServerProvider(
        "local",
        LlamaServerSettings(first_port=18_285, models={"one": model}),
        locate=lambda _path: embedded_engine(os.environ),
        base_dir=state_dir,
        environ=os.environ,
        table=LinuxProcesses(),
        tie=system_child_tie(),
        records=RunnerRecords(state_dir / "runners.json"),
        clock=SystemClock(),
    )
    load = asyncio.create_task(provider.load(LoadRequest(model="one")), name="load")
    if what != "loading":
        await load
    while not await provider.runners():  # noqa: ASYNC110 - a process has no event to wait for
        await asyncio.sleep(0.001)
    if what == "streaming":
        upstream = provider.upstream("one")
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "ignore_eos": True}
        async with (
            httpx.AsyncClient(trust_env=False, headers=upstream.headers, timeout=60) as client,
            client.stream("POST", f"{upstream.base_url}/v1/chat/completions", json=body) as stream,
        ):
            await anext(stream.aiter_lines())
            await say_and_wait(provider)
    await say_and_wait(provider)


async def say_and_wait(provider: LlamaServerProvider) -> None:
    print(*(runner.pid for runner in await provider.runners()), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
