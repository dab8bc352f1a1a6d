"""How a command can fail, and the exit code that says so.

Decides: the exit codes of `tray-valet` and the one line (or JSON object) that a failure is printed as.
Must not: print.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from tray_valet.core.errors import ErrorCode, SettingsError, ValetError


class ExitCode(IntEnum):
    """What `tray-valet` ends with. Beyond these: 126, 127 and 128 + N as shells use them."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    NO_VALET = 3
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130  # 128 + SIGINT
    BROKEN_PIPE = 141  # 128 + SIGPIPE


class CommandError(ValetError):
    """A command could not be carried out; `exit_code` is what the process ends with."""

    exit_code = ExitCode.FAILED
    name = "failed"  # on the wire, in place of ErrorCode for what only the command line knows


class WrongUsage(CommandError):
    """The command line says something that there is not."""

    exit_code = ExitCode.WRONG_USAGE
    name = "wrong_usage"


class NoValet(CommandError):
    """No valet is running for this user."""

    exit_code = ExitCode.NO_VALET
    name = "no_valet"

    def __init__(self) -> None:
        super().__init__("No valet is running.", remedy="Start one with: tray-valet serve", param=None)


class CannotStart(CommandError):
    """The program after `run --` cannot be started; 127 when there is none, 126 when it may not run."""

    name = "cannot_start"

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ApiError(CommandError):
    """The valet answered with an error; `error` is its object, as the API gave it."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message") or f"The valet answered {status}."))
        self.status = status
        self.error = error


def exit_code_of(error: ValetError) -> ExitCode:
    """The exit code of any failure that was raised on purpose."""
    return error.exit_code if isinstance(error, CommandError) else ExitCode.FAILED


def line_of(error: ValetError) -> str:
    """The one line on stderr."""
    return "tray-valet: " + " ".join(str(error).split())


def json_of(error: ValetError) -> dict[str, Any]:
    """The same as JSON, in the form of the API's errors."""
    if isinstance(error, ApiError):
        return {"error": error.error}
    code = error.name if isinstance(error, CommandError) else str(error.code)
    shape: dict[str, Any] = {
        "message": str(error),
        "type": "invalid_request_error" if exit_code_of(error) is ExitCode.WRONG_USAGE else "command_error",
        "param": error.param,
        "code": code,
    }
    if isinstance(error, SettingsError) and error.code is ErrorCode.SETTINGS_INVALID:
        shape["problems"] = [
            {"path": problem.path, "line": problem.line, "message": problem.message}
            for problem in error.problems
        ]
    return {"error": shape}
