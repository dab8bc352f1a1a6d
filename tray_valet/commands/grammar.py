"""The grammar of the command line: which commands and options there are, and their help.

Decides: what may be typed. Must not: do anything, or import more than argparse (`--help` is to be quick).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from tray_valet.commands.durations import parse_duration_s

_DESCRIPTION = "Makes a local LLM step aside for a game and brings back exactly what was there."
_EPILOG = """\
exit codes: 0 done, 1 failed, 2 wrong usage, 3 no valet is running

Every command takes --json for programs. `tray-valet COMMAND --help` tells more.
"""
# The options before the command of `run` that take a value of their own; see `split_off_program`.
_OPTIONS_WITH_VALUE = frozenset({"--config", "--reason"})
# argparse's own words; it names every command after these.
_UNKNOWN_COMMAND = re.compile(r"argument COMMAND: invalid choice: '(?P<name>.*?)' \(choose from")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are raised, so that one place words them."""

    def __init__(self, **options: Any) -> None:
        # Abbreviated options would change their meaning whenever an option is added.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        from tray_valet.commands.failures import WrongUsage

        unknown = _UNKNOWN_COMMAND.match(message)
        if unknown:
            raise WrongUsage(
                f"“{unknown['name']}” is not a command.", remedy=_did_you_mean(unknown["name"], message)
            )
        raise WrongUsage(f"{message.rstrip('.')}.", remedy=f"See: {self.prog} --help")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Turn the arguments (without the program's name) into a namespace.

    It always has `command` (None = none was given), `json`, `config`, `allow_root`, `verbose` and
    `version`. Raises WrongUsage; `--help` prints and raises SystemExit(0).
    """
    head, program = split_off_program(argv)
    parsed = _parser().parse_args(head)
    for name, default in (("json", False), ("allow_root", False), ("config", None), ("verbose", 0)):
        if not hasattr(parsed, name):
            setattr(parsed, name, default)
    if parsed.command == "run":
        parsed.program = program
        if not program:
            _parser().error("run: which program? Use: tray-valet run -- PROGRAM [ARGUMENTS]")
    return parsed


def split_off_program(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate `run`'s own options from the program that it runs, which may have options of any name."""
    arguments = list(argv)
    at, is_run = 0, False
    while at < len(arguments):
        word = arguments[at]
        if word == "--":
            return (arguments[:at], arguments[at + 1 :]) if is_run else (arguments, [])
        if word in _OPTIONS_WITH_VALUE:
            at += 2
            continue
        if not word.startswith("-"):
            if is_run:
                return arguments[:at], arguments[at:]
            if word != "run":
                return arguments, []
            is_run = True
        at += 1
    return arguments, []


def _parser() -> Parser:
    shared = _shared_options()
    parser = Parser(
        prog="tray-valet",
        description=_DESCRIPTION + " Without a command: serves, with a tray icon.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)

    def command(name: str, does: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=does, description=does, parents=[shared])

    command("serve", "run the services until they are told to end")
    command("demo", "show the whole story on this machine with made-up models, in a temporary folder")
    _add_views(command)
    _add_holding(command)
    _add_models(command)
    _add_checks(command)
    _add_upkeep(command)
    return parser


def _add_views(command: Any) -> None:
    command("status", "what is so, why, and what comes next")
    command("ps", "the models in memory")
    command("models", "the models that can be loaded")
    games = command("games", "the games that are known and those that run")
    games.add_argument(
        "--classify",
        metavar="FILE",
        help="say for each process described in FILE (JSON) whether it is a game",
    )
    activity = command("activity", "what has happened, newest first")
    activity.add_argument("-n", "--limit", type=_at_least(1), metavar="N", help="the newest N lines only")
    ledger = command("ledger", "how often and how fast the models stepped aside for each game")
    ledger.add_argument(
        "--forget",
        nargs="?",
        const=True,
        metavar="GAME",
        help="forget that game (its name, or its key in --json); without a name: all of them",
    )
    command("explain", "why the models are where they are: every signal, limit and reason")
    command("providers", "the programs that run models, and how they are")


def _add_holding(command: Any) -> None:
    pause = command("pause", "set the models aside until `resume`")
    pause.add_argument("--force", action="store_true", help="at once: answers being written are cut short")
    pause.add_argument("--reason", default="", metavar="TEXT", help="shown as the reason")
    pause.add_argument(
        "--for", dest="for_s", type=_duration, metavar="TIME", help="end by itself after 90s, 5m, 2h, 1h30m"
    )
    pause.add_argument("--while", dest="pid", type=_at_least(1), metavar="PID", help="end with that process")
    command("resume", "bring the models back now, and keep them during the games that run")
    run = command("run", "set the models aside while a program runs, and pass its exit code on")
    run.usage = "tray-valet run [--reason TEXT] [--json] -- PROGRAM [ARGUMENTS]"
    run.add_argument("--reason", default="", metavar="TEXT", help="shown as the reason")


def _add_checks(command: Any) -> None:
    command("routes", "for each alias: who would answer now, and what a pause means for it")
    command("doctor", "look for the likeliest troubles, each with its remedy; changes nothing")
    diagnostics = command("diagnostics", "a ZIP file for a report of a fault, without keys, names or prompts")
    diagnostics.add_argument("file", nargs="?", metavar="FILE", help="without it: a new one in this folder")
    selftest = command("selftest", "one real pause and restore with your own provider and model")
    selftest.add_argument("model", nargs="?", metavar="MODEL", help="without it: the loaded or default one")
    selftest.add_argument(
        "--offline", action="store_true", help="with a valet and a model of its own, in a temporary folder"
    )


def _add_upkeep(command: Any) -> None:
    service = command("service", "start, stop or restart the server behind a provider (Ollama)")
    service.add_argument("action", choices=("start", "stop", "restart"))
    service.add_argument(
        "provider", nargs="?", metavar="P", help="a provider's name; without it: the one with a server"
    )
    service.add_argument("--force", action="store_true", help="stop: its runners are killed first")
    config = command("config", "the settings: where they are, whether they are right, what is in force")
    config.add_argument("what", choices=("path", "check", "schema", "show"))
    importing = command("import", "take over the settings of llm-valet, RouterModelCustom or llama-swap")
    importing.add_argument("path", metavar="PATH", help="its config.yaml or config.json")
    importing.add_argument("--dry-run", action="store_true", help="say what would be taken; write nothing")
    importing.add_argument("--replace", action="store_true", help="also what is set otherwise already")
    logs = command("logs", "the end of the valet's log, or what a model's runner wrote last")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is added, until Ctrl-C")
    logs.add_argument("runner", nargs="?", metavar="RUNNER", help="a model's name: the log of its runner")
    autostart = command("autostart", "whether Tray Valet starts when you sign in")
    autostart.add_argument("what", choices=("on", "off", "status"))
    autostart.add_argument("--force", action="store_true", help="on, even if it was switched off elsewhere")
    command("open", "open the window of the running valet")
    command("quit", "end the running valet")


def _add_models(command: Any) -> None:
    load = command("load", "load a model and wait until it is ready")
    load.add_argument("model", metavar="MODEL")
    load.add_argument("--num-ctx", type=_at_least(1), metavar="N", help="context in tokens, 512 or more")
    load.add_argument("--provider", metavar="P", help="load it there")
    load.add_argument("--override", action="store_true", help="even while a game runs")
    unload = command("unload", "take a model out of memory")
    unload.add_argument("model", nargs="?", metavar="MODEL", help="without it: every model")
    unload.add_argument("--provider", metavar="P", help="only there")
    pull = command("pull", "download a model, with its progress; Ctrl-C leaves the download going")
    pull.add_argument("model", metavar="MODEL")
    pull.add_argument("--provider", metavar="P", help="download it there")
    remove = command("rm", "delete a model from the disk; asks first")
    remove.add_argument("model", metavar="MODEL")
    remove.add_argument("--provider", metavar="P", help="delete it there")
    remove.add_argument("-y", "--yes", action="store_true", help="do not ask")
    downloads = command("downloads", "the downloads: under way, waiting, and the last that ended")
    downloads.add_argument("--cancel", metavar="ID", help="take that one back for good")


def _shared_options() -> Parser:
    # SUPPRESS: given before the command, an option must not be undone by the command's own default.
    shared = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = shared.add_argument_group("options of every command")
    group.add_argument("--config", metavar="PATH", help="the settings file to use")
    group.add_argument("--json", action="store_true", help="print JSON, for programs")
    group.add_argument("--allow-root", action="store_true", help="serve although this is root")
    group.add_argument("-v", "--verbose", action="count", help="say more")
    return shared


def _did_you_mean(name: str, message: str) -> str:
    from difflib import get_close_matches

    known = re.findall(r"[a-z]+", message.rpartition("choose from")[2])
    nearest = get_close_matches(name, known, n=1)
    return f"Did you mean {nearest[0]}?" if nearest else "See: tray-valet --help"


def _duration(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _at_least(least: int) -> Any:
    def parse_number(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
        if number < least:
            raise argparse.ArgumentTypeError(f"“{text}” is not a whole number of {least} or more.")
        return number

    return parse_number
