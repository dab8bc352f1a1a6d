"""Asks the router in this container how it is, for Docker's HEALTHCHECK.

Decides: exit code 0 while the router answers and a provider answers it, else 1 and a line that says why.
Must not: import the valet (it runs every 30 s), or print a key.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

_TIMEOUT_S = 5.0
_DEFAULT_PORT = 8766
_HEALTHY = 200


def router_key(environ: Mapping[str, str]) -> str | None:
    """The key to show: that of the environment, else `router` from the file of secrets; None without any."""
    if environ.get("API_KEY"):
        return environ["API_KEY"]
    for name in sorted(environ):
        if name.startswith("TRAY_VALET_ROUTER__API_KEYS__") and not environ[name].startswith("keyring:"):
            return environ[name]
    file = Path(environ.get("TRAY_VALET_HOME", "/data")) / "state" / "secrets.json"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    key = stored.get("router") if isinstance(stored, dict) else None
    return key if isinstance(key, str) else None


def router_port(environ: Mapping[str, str]) -> int:
    """Where the router listens, as the running valet has noted it; else as it is set, or by default."""
    file = Path(environ.get("TRAY_VALET_HOME", "/data")) / "state" / "runtime.json"
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        return urlsplit(noted["router"]["url"]).port or _DEFAULT_PORT
    except (OSError, ValueError, KeyError, TypeError):
        return int(environ.get("TRAY_VALET_ROUTER__PORT") or _DEFAULT_PORT)


def look(environ: Mapping[str, str]) -> str | None:
    """Ask `/health` once, for 5 s at most; return what is wrong in one line, None where nothing is."""
    port = router_port(environ)
    key = router_key(environ)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health", headers=headers)
        answer = connection.getresponse()
        told = answer.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"The router does not answer on port {port}: {error}"
    finally:
        connection.close()
    return None if answer.status == _HEALTHY else f"The router answers {answer.status}: {told}"


def main() -> int:
    """Look once; returns the exit code."""
    wrong = look(os.environ)
    if wrong:
        print(wrong, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
