"""`tray-valet diagnostics [FILE]`: what a report of a fault needs, in one ZIP file that may be shown.

Decides: what goes in, and that all of it passes the redaction. Must not: overwrite a file, send anything
anywhere, or hold prompts, window titles, keys or the token.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import socket
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tray_valet import __version__
from tray_valet.commands.client import Client
from tray_valet.commands.doctor import answer_of, examine
from tray_valet.commands.doctor_ground import Ground, lay_ground
from tray_valet.commands.failures import CommandError
from tray_valet.commands.tables import as_json, plain
from tray_valet.core.config_redaction import public_settings
from tray_valet.core.errors import ValetError
from tray_valet.core.text_redaction import Identity, Redactor

_ASK_S = 5.0
_ASKED = ("/status", "/explain", "/providers", "/activity", "/games", "/holds")
_LOG_LINES = 2000
_LOG_BYTES = 2 * 2**20
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD")
_PACKAGES = ("msgspec", "starlette", "uvicorn", "httpx", "psutil", "xllamacpp", "pystray", "pywebview")


def diagnostics(
    environ: Mapping[str, str], config_path: str | None, file: str | None, *, is_json: bool
) -> None:
    """Write the file and say what is in it. Raises CommandError where it exists or cannot be written."""
    path = Path(os.path.abspath(os.path.expanduser(file))) if file else Path.cwd() / _default_name()
    _check_free(path)
    ground = lay_ground(environ, config_path)
    redactor = Redactor(_identity(ground))
    parts = dict(_parts(ground, redactor))
    _write(path, parts)
    contents = [{"name": name, "bytes": len(content)} for name, content in parts.items()]
    if is_json:
        print(as_json({"path": str(path), "contents": contents}))
        return
    print(f"{plain(path)} holds:")
    for name, content in parts.items():
        print(f"  {name:18} {len(content):8} bytes  {_MEANINGS.get(name, '')}".rstrip())
    print("Keys, names of people and machines, and home folders were taken out; it holds no prompts.")
    print("Look through it before you give it to anybody.")


_MEANINGS = {
    "version.json": "which Tray Valet on which system",
    "settings.json": "the settings in force, without keys",
    "doctor.json": "what `tray-valet doctor` finds",
    "status.json": "what the running valet says of itself",
    "explain.json": "why it does what it does",
    "providers.json": "what runs models",
    "activity.json": "what happened last",
    "games.json": "which games are known and run",
    "holds.json": "who asked the models to step aside",
    "runtime.json": "process and addresses, without the token",
    "log.txt": "the end of the log",
}


def _default_name() -> str:
    return f"tray-valet-diagnostics-{time.strftime('%Y-%m-%d')}.zip"


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise CommandError(
            f"{path} exists already and is left as it is.",
            remedy="Name another file: tray-valet diagnostics FILE",
        )
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder {path.parent}.", remedy="Name a file in one that exists.")


def _identity(ground: Ground) -> Identity:
    """Who this is, and every key that is known here word for word."""
    secrets = [ground.valet.runtime.token] if ground.valet else []
    secrets += [
        value
        for name, value in ground.environ.items()
        if any(word in name.upper() for word in _SECRET_WORDS) and not value.startswith("keyring:")
    ]
    secrets += _stored_secrets(ground)
    user = ""
    with contextlib.suppress(OSError, KeyError, ImportError):  # no such user, as in a container
        user = getpass.getuser()
    home = os.path.expanduser("~")
    return Identity(
        user=user,
        homes=(home, os.path.realpath(home), ground.environ.get("USERPROFILE", "")),
        host=socket.gethostname().partition(".")[0],
        secrets=tuple(secret for secret in secrets if secret),
    )


def _stored_secrets(ground: Ground) -> list[str]:
    """Keys in the settings' file (where none should be) and in the file beside the keyring."""
    found: list[str] = []

    def gather(value: Any, *, is_secret: bool) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                gather(item, is_secret=is_secret or key in ("api_key", "api_keys"))
        elif isinstance(value, list):
            for item in value:
                gather(item, is_secret=is_secret)
        elif is_secret and isinstance(value, str) and not value.startswith("keyring:"):
            found.append(value)

    with contextlib.suppress(OSError, ValueError):
        gather(json.loads(ground.directories.secrets_file.read_text("utf-8")), is_secret=True)
    with contextlib.suppress(OSError, ValueError):
        import yaml

        try:
            gather(yaml.safe_load(ground.settings_file.read_text("utf-8")), is_secret=False)
        except (yaml.YAMLError, RecursionError):
            return found
    return found


def _parts(ground: Ground, redactor: Redactor) -> Iterable[tuple[str, str]]:
    yield "version.json", _json(redactor, _version(ground))
    settings = {
        "file": str(ground.settings_file),
        "exists": ground.settings_exist,
        "problems": list(ground.settings_problems),
        "in_force": public_settings(ground.settings),
    }
    yield "settings.json", _json(redactor, settings)
    yield "doctor.json", _json(redactor, answer_of(examine(ground)))
    if ground.valet is not None:
        client = Client(ground.valet.runtime, read_timeout_s=_ASK_S)
        for path in _ASKED:
            try:
                answer = client.get(path)
            except ValetError as error:
                answer = {"problem": str(error)}
            yield f"{path[1:]}.json", _json(redactor, answer)
        runtime = ground.valet.runtime
        yield "runtime.json", _json(redactor, {"pid": runtime.pid, "control": runtime.control.url})
    yield "log.txt", redactor.text(_log(ground))


def _version(ground: Ground) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "tray_valet": __version__,
        "python": sys.version,
        "is_packaged": bool(getattr(sys, "frozen", False)),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "desktop": ground.environ.get("XDG_CURRENT_DESKTOP"),
        "session": ground.environ.get("XDG_SESSION_TYPE"),
        "packages": packages,
        "is_valet_running": ground.valet is not None,
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _log(ground: Ground) -> str:
    """The end of the valet's own log. The record of requests stays out of it."""
    from tray_valet.desktop.log_files import log_path

    path = log_path(ground.directories.log_file, ground.settings.log.file)
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"There is no log to read ({error.strerror})."
    return "\n".join(lines[-_LOG_LINES:])


def _json(redactor: Redactor, value: Any) -> str:
    return as_json(redactor.value(value))


def _write(path: Path, parts: Mapping[str, str]) -> None:
    """Write it for this user alone; a file that another program has made meanwhile is left as it is."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        _check_free(path)
        raise
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}.", remedy="Name a file in another folder."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in parts.items():
                bundle.writestr(name, content)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
