"""What tests of several packages share: real models, the real process table, the engines that are here."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tray_valet.core.engines import Engine, EngineKind
from tray_valet.core.ports import ProcessTable
from tray_valet.engine.locate import embedded_engine, is_embedded_installed
from tray_valet.engine.tiny_model import write_large_model, write_tiny_model
from tray_valet.services.clock import SystemClock


def pytest_configure() -> None:
    """Children begin with the usual signals, also where this run began with Ctrl-C or a hang-up ignored.

    A shell's background job and `nohup` begin so, and children inherit it. A handler that does nothing
    ignores the signal here, and is not inherited.
    """
    if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole valets first: files are given out in this order, and theirs take longest."""
    items.sort(key=lambda item: "whole" not in item.path.parts)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of this run are made."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny_model(model_dir: Path) -> Path:
    """A real model of 0.8 MB."""
    path = model_dir / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="session")
def large_model(model_dir: Path) -> Path:
    """A real model of 379 MB."""
    path = model_dir / "large.gguf"
    write_large_model(path)
    return path


@pytest.fixture(scope="session")
def process_table() -> ProcessTable:
    """The table of this system's processes."""
    if sys.platform == "linux":
        from tray_valet.sensing.linux_processes import LinuxProcesses

        return LinuxProcesses()
    from tray_valet.sensing.portable_processes import PortableProcesses

    return PortableProcesses()


@pytest.fixture(scope="session")
def system_clock() -> SystemClock:
    return SystemClock()


def _embedded() -> Engine:
    if not is_embedded_installed():
        pytest.skip("xllamacpp is not installed")
    return embedded_engine(os.environ)


def _llama_server() -> Engine:
    path = shutil.which("llama-server")
    if path is None:
        pytest.skip("no llama-server on PATH")
    return Engine(kind=EngineKind.ON_PATH, argv=(path,), path=path)


_ENGINES: dict[str, Callable[[], Engine]] = {"embedded": _embedded, "llama-server": _llama_server}


@pytest.fixture(params=_ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each real engine in turn; one that is not on this machine is skipped."""
    return _ENGINES[request.param]()
