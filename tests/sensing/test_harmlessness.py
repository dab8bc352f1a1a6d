"""What is never done to another process, and what is never loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tray_valet

PACKAGE = Path(tray_valet.__file__).parent
# psutil's calls that open a process in ways that anti-cheat software watches for on Windows.
FORBIDDEN_CALLS = {"cmdline", "cwd", "environ", "memory_maps", "open_files", "memory_full_info", "as_dict"}
FORBIDDEN_NAMES = {
    "ReadProcessMemory",
    "WriteProcessMemory",
    "NtReadVirtualMemory",
    "CreateRemoteThread",
    "VirtualAllocEx",
    "DebugActiveProcess",
    "SetWindowsHookEx",
    "SetWindowsHookExW",
    "AdjustTokenPrivileges",
    "SeDebugPrivilege",
    "PROCESS_VM_READ",
    "PROCESS_ALL_ACCESS",
}


def trespasses(source: str) -> list[str]:
    """Name every place in a module that would touch another process in a way it must not be."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            is_path = isinstance(of, ast.Name) and of.id == "Path"  # Path.cwd() is our own
            if node.func.attr in FORBIDDEN_CALLS and not is_path:
                found.append(f"{node.lineno}: .{node.func.attr}()")
            if node.func.attr == "process_iter" and (node.args or node.keywords):
                found.append(f"{node.lineno}: process_iter with attributes")
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        found.extend(f"{getattr(node, 'lineno', 0)}: {bad}" for bad in FORBIDDEN_NAMES if bad in (name, text))
    return found


@pytest.mark.parametrize(
    "module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_module_touches_other_processes_in_ways_anti_cheat_watches_for(module: Path) -> None:
    assert trespasses(module.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "psutil.Process(1).cmdline()",
        "p.environ()",
        "p.cwd()",
        "psutil.process_iter(['cmdline'])",
        "kernel32.ReadProcessMemory(h)",
        "getattr(kernel32, 'CreateRemoteThread')",
        "access = PROCESS_VM_READ",
    ],
)
def test_a_trespass_would_be_noticed(source: str) -> None:
    assert trespasses(source)


@pytest.mark.parametrize("source", ["Path.cwd()", "os.environ.get('X')", "p.exe()", "psutil.pids()"])
def test_what_is_harmless_is_left_alone(source: str) -> None:
    assert trespasses(source) == []


def test_only_the_limited_handle_is_ever_asked_for_on_windows() -> None:
    source = (PACKAGE / "sensing" / "windows_processes.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    opened = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "OpenProcess"
    ]
    assert [ast.unparse(call.args[0]) for call in opened] == ["_QUERY_LIMITED_INFORMATION"]
    assert "_QUERY_LIMITED_INFORMATION = 0x1000" in source


def test_every_module_of_sensing_loads_here_and_brings_no_heavy_library() -> None:
    modules = sorted(f"tray_valet.sensing.{path.stem}" for path in (PACKAGE / "sensing").glob("[a-z]*.py"))
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]\n"
        "heavy = {'psutil', 'pynvml', 'numpy', 'vdf', 'winreg'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert done.returncode == 0, done.stderr
