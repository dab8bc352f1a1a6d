import argparse

import pytest

from tray_valet.commands import calls, grammar
from tray_valet.commands.failures import WrongUsage


@pytest.mark.parametrize(
    "argv",
    [
        ["--json", "--config", "a.yaml", "-v", "--allow-root", "status"],
        ["status", "--json", "--config", "a.yaml", "-v", "--allow-root"],
        ["--json", "-v", "status", "--config=a.yaml", "--allow-root"],
    ],
)
def test_shared_options_stand_before_and_after_the_command(argv: list[str]) -> None:
    parsed = grammar.parse(argv)
    assert parsed.command == "status"
    assert (parsed.json, parsed.config, parsed.allow_root, parsed.verbose) == (True, "a.yaml", True, 1)


@pytest.mark.parametrize(
    "command",
    ["serve", "demo", "status", "ps", "models", "games", "activity", "explain", "providers", "resume",
     "pause", "unload", "logs", "open", "quit"],
)  # fmt: skip
def test_every_command_has_the_shared_options_with_their_defaults(command: str) -> None:
    parsed = grammar.parse([command])
    assert (parsed.command, parsed.json, parsed.config, parsed.allow_root) == (command, False, None, False)


def test_no_command_is_a_command_line_too() -> None:
    assert grammar.parse([]).command is None


@pytest.mark.parametrize(
    ("argv", "head", "program"),
    [
        (["run", "--", "game", "--json"], ["run"], ["game", "--json"]),
        (["run", "game", "--json", "--", "x"], ["run"], ["game", "--json", "--", "x"]),
        (["--json", "run", "--", "game"], ["--json", "run"], ["game"]),
        (
            ["run", "--json", "--reason", "a b", "--", "game", "-v"],
            ["run", "--json", "--reason", "a b"],
            ["game", "-v"],
        ),
        (["--config", "run", "run", "--", "run", "run"], ["--config", "run", "run"], ["run", "run"]),
        (["run", "--reason=x", "--", "--strange"], ["run", "--reason=x"], ["--strange"]),
        (["run", "--", "--", "x"], ["run"], ["--", "x"]),
        (["run", "--"], ["run"], []),
        (["run"], ["run"], []),
        (["load", "--", "run"], ["load", "--", "run"], []),
        (["load", "run"], ["load", "run"], []),
        ([], [], []),
    ],
)
def test_what_run_starts_is_kept_as_it_was_typed(
    argv: list[str], head: list[str], program: list[str]
) -> None:
    assert grammar.split_off_program(argv) == (head, program)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["stauts"], "“stauts” is not a command. Did you mean status?"),
        (["zzzz"], "“zzzz” is not a command. See: tray-valet --help"),
        (["pause", "--for", "soon"], "“soon” is not a duration"),
        (["pause", "--for", "0"], "out of range"),
        (["pause", "--while", "0"], "“0” is not a whole number of 1 or more"),
        (["pause", "--while", "x"], "“x” is not a whole number"),
        (["pause", "now"], "unrecognized arguments: now"),
        (["load"], "MODEL"),
        (["load", "m", "--num-ctx", "2k"], "“2k” is not a whole number"),
        (["load", "m", "--num", "2048"], "unrecognized arguments: --num"),
        (["run"], "which program"),
        (["run", "--"], "which program"),
        (["run", "--fast", "game"], "unrecognized arguments: --fast"),
        (["config"], "what"),
        (["autostart"], "what"),
        (["autostart", "maybe"], "maybe"),
        (["open", "now"], "unrecognized arguments: now"),
        (["config", "delete"], "delete"),
        (["status", "--config"], "--config"),
        (["pull"], "MODEL"),
        (["rm"], "MODEL"),
        (["downloads", "--cancel"], "--cancel"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_in_words(argv: list[str], says: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        grammar.parse(argv)
    assert says in str(caught.value)


def test_options_of_the_commands_are_read() -> None:
    pause = grammar.parse(["pause", "--force", "--reason", "a film", "--for", "1h30m", "--while", "77"])
    assert (pause.force, pause.reason, pause.for_s, pause.pid) == (True, "a film", 5400, 77)
    load = grammar.parse(["load", "hf.co/a/b:Q4", "--num-ctx", "2048", "--provider", "local", "--override"])
    assert (load.model, load.num_ctx, load.provider, load.override) == ("hf.co/a/b:Q4", 2048, "local", True)
    logs = grammar.parse(["logs", "-f", "local/qwen"])
    assert (logs.follow, logs.runner, grammar.parse(["logs"]).runner) == (True, "local/qwen", None)
    autostart = grammar.parse(["autostart", "on", "--force"])
    assert (autostart.what, autostart.force) == ("on", True)
    run = grammar.parse(["run", "--reason", "race", "--", "game", "--full"])
    assert (run.reason, run.program) == ("race", ["game", "--full"])


def test_help_lists_every_command_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        grammar.parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    listed = {line.split()[0] for line in text.splitlines() if line.startswith("    ") and line[4] != " "}
    commands = set(calls.COMMANDS) - {"(none)"}
    assert listed & commands == commands
    assert not listed - commands - {"-h,", "--version", "--config", "--json", "--allow-root", "-v,"}


def test_a_namespace_is_what_comes_back() -> None:
    assert isinstance(grammar.parse(["status"]), argparse.Namespace)
