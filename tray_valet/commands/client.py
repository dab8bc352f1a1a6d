"""The connection to the running valet: where it is, and one request at a time to its control API.

Decides: whether a valet runs (the runtime file, and the process it names), which error an answer is, and
that a command given too soon after the same one waits out those seconds. Must not: print, try anything else
again, or start a valet. Standard library only, because a command should answer at once.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from tray_valet.commands.failures import ApiError, CommandError, NoValet
from tray_valet.core.errors import ErrorCode
from tray_valet.core.processes import ProcessIdentity

READ_TIMEOUT_S = 15.0
# A pause is bounded by the valet itself (drain, kill, confirm: about 20 s by default, settable).
PAUSE_TIMEOUT_S = 180.0
LOAD_TIMEOUT_S = 3600.0  # a model of 100 GB from a slow disk
_LONGEST_COOLDOWN_S = 5.0
_ANSWER_LIMIT_BYTES = 64 * 2**20
_RUNTIME_FILE_LIMIT_BYTES = 65536


class ControlPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The address that the control API listens on."""

    url: str
    host: str = ""
    port: int = 0


class RuntimeFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the running valet tells its own commands; only the user can read the file."""

    pid: int
    start_time: int
    control: ControlPlace
    token: str = ""

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.start_time)


IsAlive = Callable[[ProcessIdentity], bool]


def read_runtime_file(path: Path) -> RuntimeFile | None:
    """What the runtime file says; None where there is none or it is not ours to read or not whole."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_RUNTIME_FILE_LIMIT_BYTES), type=RuntimeFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def find_valet(path: Path, is_alive: IsAlive) -> RuntimeFile:
    """The running valet of this user. Raises NoValet, also when the file is a killed valet's leftover."""
    found = read_runtime_file(path)
    # A killed valet's port may be another program's by now: it must not get our token.
    if found is None or not is_alive(found.identity):
        raise NoValet
    return found


class Client:
    """Requests to one valet's control API. Every method raises ApiError, NoValet or CommandError."""

    def __init__(
        self,
        valet: RuntimeFile,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.valet = valet
        self._read_timeout_s = read_timeout_s
        self._sleep = sleep
        address = urlsplit(valet.control.url)
        self._host = address.hostname or "127.0.0.1"
        self._port = address.port or 80

    def get(self, path: str, **query: Any) -> Any:
        """GET `path`; returns the decoded JSON."""
        return self._exchange("GET", path, timeout_s=self._read_timeout_s, query=query)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = READ_TIMEOUT_S,
        **query: Any,
    ) -> Any:
        """POST a JSON object, or nothing; waits `timeout_s` for the answer and returns its JSON.

        A cooldown of up to 5 s is waited out once: `pause` twice in a script is no stuck key.
        """
        try:
            return self._exchange("POST", path, body=body, timeout_s=timeout_s, query=query)
        except ApiError as error:
            wait_s = _cooldown_left_s(error)
            if wait_s is None:
                raise
        self._sleep(wait_s)
        return self._exchange("POST", path, body=body, timeout_s=timeout_s, query=query)

    def delete(self, path: str, *, timeout_s: float = READ_TIMEOUT_S, **query: Any) -> Any:
        """DELETE `path`; returns the decoded JSON, or None."""
        return self._exchange("DELETE", path, timeout_s=timeout_s, query=query)

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        target = quote(path) + (f"?{urlencode(asked)}" if asked else "")
        headers = {"Accept": "application/json", "Connection": "close"}
        if self.valet.token:
            headers["Authorization"] = f"Bearer {self.valet.token}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        # http.client knows no proxies, which is right: a request for this machine must not leave it.
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, target, body=payload, headers=headers)
            response = connection.getresponse()
            return decode_answer(response.status, response.read(_ANSWER_LIMIT_BYTES))
        except ConnectionRefusedError:
            raise CommandError(
                f"The valet (process {self.valet.pid}) does not answer at {self.valet.control.url}.",
                remedy="If it has only just been started, try again; else end it and start it anew.",
            ) from None
        except TimeoutError:
            raise CommandError(
                f"The valet did not answer within {timeout_s:.0f} s.", remedy="Look at: tray-valet status"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(
                f"The connection to the valet broke off ({error or type(error).__name__})."
            ) from None
        finally:
            connection.close()


def _cooldown_left_s(error: ApiError) -> float | None:
    """Seconds until the same command is taken again; None if that is not what was wrong."""
    left_s = error.error.get("retry_after_seconds")
    is_cooldown = error.status == 429 and error.error.get("code") == ErrorCode.COOLDOWN
    if not is_cooldown or not isinstance(left_s, int | float):
        return None
    return float(left_s) if 0 <= left_s <= _LONGEST_COOLDOWN_S else None


def decode_answer(status: int, payload: bytes) -> Any:
    """The JSON of an answer. Raises ApiError for an error status, CommandError for what is not JSON."""
    try:
        answer = json.loads(payload) if payload.strip() else None
    except (ValueError, RecursionError):
        if status < 400:
            raise CommandError("The valet answered with something that is not JSON.") from None
        answer = None
    if status < 400:
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        raise ApiError(status, error)
    message = f"The valet answered {status}."
    raise ApiError(status, {"message": message, "type": "server_error", "param": None, "code": str(status)})
