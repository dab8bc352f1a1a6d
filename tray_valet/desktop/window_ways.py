"""The ways to show the window on this system: which programs, with which arguments and environment.

Decides: what there is to try, and in which order. Must not: remember anything, or start what nobody sees
(without a display there is no way at all).

Sources: pywebview's guilib (GTK or Qt on Linux); Chromium's --app, --user-data-dir and --password-store
switches: a profile of its own, since --password-store=basic on the user's profile would lose the logins
that its keyring protects; the `webbrowser` module, which starts text browsers where there is no display.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tray_valet.desktop.child_tie import system_child_tie
from tray_valet.desktop.display import is_display_there
from tray_valet.desktop.window_child import WindowChild, start_child
from tray_valet.desktop.window_opener import OpenWindow, Way, WindowFailed, WindowPage, WindowWay
from tray_valet.desktop.window_ticket import address_for_argv

FROZEN_WINDOW_ARGUMENT = "window-child"  # the packaged program's hidden command for tray_valet.window
_SYSTEM_PYTHON = "/usr/bin/python3"
_TOOLKITS = ("gi", "PySide6", "PyQt6", "PyQt5", "PySide2")
_SETTLE_S = 1.5  # a browser that refuses (as root, or with a locked profile) does so within this time
_BROWSER_S = 5.0
_SNAP_DIR = "/snap/bin/"
_LINUX_BROWSERS = (
    f"{_SNAP_DIR}chromium",  # Ubuntu's chromium-browser is a script that starts this one
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "brave-browser",
    "microsoft-edge",
)
_MACOS_BROWSERS = tuple(
    f"/Applications/{name}.app/Contents/MacOS/{name}"
    for name in ("Google Chrome", "Chromium", "Brave Browser", "Microsoft Edge")
)
_WINDOWS_BROWSERS = (
    r"Microsoft\Edge\Application\msedge.exe",
    r"Google\Chrome\Application\chrome.exe",
    r"BraveSoftware\Brave-Browser\Application\brave.exe",
)


def ways_of_this_system(environ: Mapping[str, str], scratch_dir: Path) -> list[Way]:
    """The ways in the order to try them; none without a display that answers."""
    if not is_display_there(environ):
        return []
    ways: list[Way] = []
    if _has_own_toolkit():
        own_environ = _with_modules(child_environ(environ), [str(_package_root())])
        ways.append(WebViewWay(WindowWay.WEB_VIEW, own_command(), own_environ))
    system_python = Path(_SYSTEM_PYTHON)
    if sys.platform.startswith("linux") and system_python.exists():
        command = [str(system_python), "-m", "tray_valet.window"]
        system_environ = _with_modules(child_environ(environ), _module_folders())
        ways.append(WebViewWay(WindowWay.SYSTEM_WEB_VIEW, command, system_environ))
    ways.extend(AppBrowserWay(path, environ, scratch_dir) for path in find_app_browsers(environ)[:2])
    ways.append(BrowserWay(scratch_dir))
    return ways


class WebViewWay:
    """The window's child process, run by some Python."""

    def __init__(self, kind: WindowWay, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.kind = kind
        self._command = command
        self._environ = environ

    async def show(self, page: WindowPage) -> WindowChild:
        """Start the child and wait until the page is drawn. Raises WindowFailed."""
        child = await start_child(self._command, environ=self._environ, cwd=_package_root())
        await child.show(page)
        return child


class AppBrowserWay:
    """Chromium or a relative: the page alone in a window, in a profile that holds nothing else."""

    kind = WindowWay.APP_BROWSER

    def __init__(self, path: str, environ: Mapping[str, str], scratch_dir: Path) -> None:
        self._path = path
        self._environ = child_environ(environ)
        self._profile = _profile_folder(path, environ, scratch_dir)
        self._tie = system_child_tie()

    async def show(self, page: WindowPage) -> OpenWindow | None:
        """Start the browser and see that it stays. Raises WindowFailed."""
        try:
            self._profile.mkdir(mode=0o700, parents=True, exist_ok=True)
            address = address_for_argv(page, self._profile)
        except OSError as error:
            raise WindowFailed(f"{self._profile} cannot be written ({error.strerror})") from error
        argv = [
            self._path,
            f"--app={address}",
            f"--user-data-dir={self._profile}",
            *(["--password-store=basic"] if sys.platform.startswith("linux") else []),
            "--no-first-run",
            "--no-default-browser-check",
        ]
        process = await _start_quietly(self._tie.wrap(argv), self._environ)
        with contextlib.suppress(OSError):
            self._tie.adopt(process.pid)
        window = AppWindow(process)
        if not await window.stays():
            raise WindowFailed(f"{Path(self._path).name} ended at once, with {process.returncode}")
        return window


class AppWindow:
    """A browser's window in a profile of its own, so that its process is the window's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def is_open(self) -> bool:
        return self._process.returncode is None

    async def stays(self) -> bool:
        """Whether the browser is still there after a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self._process.wait()
        return self.is_open

    async def focus(self) -> bool:
        """Always False: browsers take no such order. Who wants it in front closes it and opens it anew."""
        return False

    async def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(2.0):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


class BrowserWay:
    """The user's own browser."""

    kind = WindowWay.BROWSER

    def __init__(self, scratch_dir: Path, *, opens: Callable[[str], bool] | None = None) -> None:
        self._scratch_dir = scratch_dir
        self._opens = opens or _open_in_browser

    async def show(self, page: WindowPage) -> None:
        """Ask the system to open the page. Raises WindowFailed where it says that it did not."""
        try:
            address = address_for_argv(page, self._scratch_dir)
            is_opened = await _in_thread(lambda: self._opens(address))
        except (OSError, TimeoutError) as error:
            raise WindowFailed(f"the browser cannot be started ({error})") from error
        if not is_opened:
            raise WindowFailed("no browser was found")


def own_command() -> list[str]:
    """The child under our own Python, or as the packaged program itself."""
    if getattr(sys, "frozen", False):
        return [sys.executable, FROZEN_WINDOW_ARGUMENT]
    return [sys.executable, "-m", "tray_valet.window"]


def child_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what is meant for us alone.

    A packaged program runs with LD_LIBRARY_PATH set to its own libraries; other programs need the original
    (PyInstaller's manual, “LD_LIBRARY_PATH / LIBPATH considerations”).
    """
    passed = dict(environ)
    if getattr(sys, "frozen", False):
        passed.pop("LD_LIBRARY_PATH", None)
        if "LD_LIBRARY_PATH_ORIG" in environ:
            passed["LD_LIBRARY_PATH"] = environ["LD_LIBRARY_PATH_ORIG"]
    return passed


def find_app_browsers(environ: Mapping[str, str]) -> list[str]:
    """The browsers of Chromium's family that are installed, the likeliest to work first."""
    if sys.platform == "win32":
        roots = [environ.get(name, "") for name in ("ProgramFiles(x86)", "ProgramFiles", "LocalAppData")]
        candidates = [str(Path(root, tail)) for tail in _WINDOWS_BROWSERS for root in roots if root]
    else:
        candidates = list(_MACOS_BROWSERS if sys.platform == "darwin" else _LINUX_BROWSERS)
    found = (shutil.which(each, path=environ.get("PATH")) for each in candidates)
    return list(dict.fromkeys(path for path in found if path))


def _has_own_toolkit() -> bool:
    """On Linux pywebview needs a toolkit beside it; elsewhere it brings the bridge to the system's."""
    if not sys.platform.startswith("linux") or getattr(sys, "frozen", False):
        return True
    return any(importlib.util.find_spec(name) is not None for name in _TOOLKITS)


def _with_modules(environ: Mapping[str, str], folders: Sequence[str]) -> dict[str, str]:
    """The environment of a Python that finds modules in `folders`, and not in whatever folder is current."""
    return {**environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"}


def _module_folders() -> list[str]:
    """Where another Python finds our window and pywebview."""
    folders = [str(_package_root())]
    spec = importlib.util.find_spec("webview")
    if spec is not None and spec.origin:
        folders.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(folders))


def _package_root() -> Path:
    return Path(__file__).resolve().parents[2]


def _profile_folder(browser: str, environ: Mapping[str, str], scratch_dir: Path) -> Path:
    """Where the browser keeps our profile. A snap may not write to hidden folders of the home folder."""
    if browser.startswith(_SNAP_DIR) and environ.get("HOME"):
        return Path(environ["HOME"], "snap", Path(browser).name, "common", "tray-valet-window")
    return scratch_dir / "browser"


async def _start_quietly(argv: Sequence[str], environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    null = asyncio.subprocess.DEVNULL
    try:
        return await asyncio.create_subprocess_exec(
            *argv, stdin=null, stdout=null, stderr=null, env=dict(environ)
        )
    except OSError as error:
        raise WindowFailed(f"{argv[0]} cannot be started ({error.strerror or error})") from error


def _open_in_browser(address: str) -> bool:
    import webbrowser

    return webbrowser.open(address)


async def _in_thread(work: Callable[[], bool]) -> bool:
    """Run in a thread that the end of the loop does not wait for: a browser may run in the foreground."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def run() -> None:
        try:
            result: bool | BaseException = work()
        except Exception as error:  # noqa: BLE001  # a thread's guard: it is raised where it is awaited
            result = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_settle, done, result)

    threading.Thread(target=run, name="browser", daemon=True).start()
    async with asyncio.timeout(_BROWSER_S):
        return await done


def _settle(done: asyncio.Future[bool], result: bool | BaseException) -> None:
    if done.done():
        return
    if isinstance(result, BaseException):
        done.set_exception(OSError(str(result)))
    else:
        done.set_result(result)
