"""The command line: argv in, exit code out.

Decides: that a failure, whatever it is, ends as one line and an exit code.
Must not: do a command's work, or import what the command at hand does not need (`--help` is to be quick).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tray_valet import __version__
from tray_valet.commands import grammar
from tray_valet.commands.calls import COMMANDS, NO_COMMAND

if TYPE_CHECKING:
    import argparse

_DONE, _INTERRUPTED, _BROKEN_PIPE = 0, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line; returns the exit code (see `commands/failures.py`). Raises nothing."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _let_any_text_be_printed()
    try:
        code = _run_reporting(arguments)
        if sys.stdout is not None:  # None: started without a console (pythonw)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has left (`| head`). Python flushes once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


def _run_reporting(arguments: list[str]) -> int:
    options = grammar.split_off_program(arguments)[0]
    try:
        return _dispatch(grammar.parse(arguments))
    except SystemExit as end:  # argparse, after --help
        return end.code if isinstance(end.code, int) else _DONE
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001  the edge: every failure becomes one line and an exit code
        is_verbose = "-v" in options or "--verbose" in options
        return _report(error, is_json="--json" in options, is_verbose=is_verbose)


def _report(error: Exception, *, is_json: bool, is_verbose: bool) -> int:
    """Print a failure as one line on stderr (with --json: an object on stdout); returns the exit code."""
    from tray_valet.commands.failures import exit_code_of, json_of, line_of
    from tray_valet.core.errors import ValetError

    if not isinstance(error, ValetError):
        if is_verbose:
            import traceback

            traceback.print_exception(error)
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        error = ValetError(
            f"Something went wrong ({what}).", remedy="This is a mistake in Tray Valet; -v shows where."
        )
    print(line_of(error), file=sys.stderr)
    if is_json:
        print(json.dumps(json_of(error), indent=2, ensure_ascii=False))
    return int(exit_code_of(error))


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.version:
        print(json.dumps({"version": __version__}) if arguments.json else f"tray-valet {__version__}")
        return _DONE
    code = COMMANDS[arguments.command or NO_COMMAND](arguments)
    return _DONE if code is None else code


def _let_any_text_be_printed() -> None:
    """A terminal that lacks a character shows another one; that is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
