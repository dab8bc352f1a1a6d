"""What each command of the command line calls, with which of its arguments.

Decides: that alone. Must not: do a command's work, or import what the command at hand does not need: every
import of more than the grammar's is made when the command is called.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from tray_valet.commands.client import Client

NO_COMMAND = "(none)"


def _tray(arguments: argparse.Namespace) -> int:
    from tray_valet.commands import serving

    return serving.serve_with_tray(
        config_path=arguments.config,
        is_root_allowed=arguments.allow_root,
        is_verbose=arguments.verbose > 0,
        is_json=arguments.json,
    )


def _serve(arguments: argparse.Namespace) -> int:
    from tray_valet.commands import serving

    return serving.serve(
        config_path=arguments.config, is_root_allowed=arguments.allow_root, is_verbose=arguments.verbose > 0
    )


def _demo(arguments: argparse.Namespace) -> int:
    from tray_valet.commands import demo

    return demo.demo(is_json=arguments.json)


def _show(name: str) -> Callable[[argparse.Namespace], int | None]:
    def show(arguments: argparse.Namespace) -> None:
        from tray_valet.commands import showing

        views = {
            "status": showing.status,
            "ps": showing.ps,
            "models": showing.models,
            "explain": showing.explain,
            "providers": showing.providers,
        }
        views[name](_client(), is_json=arguments.json)

    return show


def _activity(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import showing

    showing.activity(_client(), limit=arguments.limit, is_json=arguments.json)


def _ledger(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import ledger

    if arguments.forget is None:
        ledger.show(_client(), is_json=arguments.json)
    else:
        game = arguments.forget if isinstance(arguments.forget, str) else None
        ledger.forget(_client(), game, is_json=arguments.json)


def _games(arguments: argparse.Namespace) -> None:
    if arguments.classify is not None:
        _classify(arguments)
        return
    from tray_valet.commands import showing

    showing.games(_client(), is_json=arguments.json)


def _classify(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    import msgspec

    from tray_valet.commands import classify
    from tray_valet.core.games import GameRule
    from tray_valet.services.settings import SettingsStore

    # The user's own rules count here as they do for the valet.
    store = SettingsStore(_config_file(arguments), os.environ)
    rules = [msgspec.convert(msgspec.to_builtins(rule), GameRule) for rule in store.load().games.rules]
    if store.problem is not None:
        raise store.problem
    verdicts = classify.classify_file(Path(arguments.classify), rules, home=os.path.expanduser("~"))
    print(json.dumps(verdicts, indent=2, ensure_ascii=False))


def _pause(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import holding

    holding.pause(
        _client(),
        is_forced=arguments.force,
        reason=arguments.reason,
        for_s=arguments.for_s,
        pid=arguments.pid,
        is_json=arguments.json,
    )


def _resume(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import holding

    holding.resume(_client(), is_json=arguments.json)


def _run(arguments: argparse.Namespace) -> int:
    from tray_valet.commands import running

    return running.run(arguments.program, reason=arguments.reason, find_client=_client)


def _load(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import holding

    holding.check_load_arguments(arguments.model, arguments.num_ctx)
    holding.load(
        _client(),
        arguments.model,
        num_ctx=arguments.num_ctx,
        provider=arguments.provider,
        override=arguments.override,
        is_json=arguments.json,
    )


def _unload(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import holding

    holding.check_load_arguments(arguments.model, None)
    holding.unload(_client(), arguments.model, provider=arguments.provider, is_json=arguments.json)


def _pull(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import holding, pulling

    holding.check_load_arguments(arguments.model, None)
    pulling.pull(_client(), arguments.model, provider=arguments.provider, is_json=arguments.json)


def _rm(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import holding, pulling

    holding.check_load_arguments(arguments.model, None)
    pulling.remove(
        _client(),
        arguments.model,
        provider=arguments.provider,
        is_sure=arguments.yes,
        is_json=arguments.json,
    )


def _downloads(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import pulling

    pulling.downloads(_client(), cancel=arguments.cancel, is_json=arguments.json)


def _service(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import service

    service.service(
        _client(),
        arguments.action,
        arguments.provider,
        is_forced=arguments.force,
        is_json=arguments.json,
    )


def _doctor(arguments: argparse.Namespace) -> int:
    from tray_valet.commands import doctor

    return doctor.doctor(os.environ, arguments.config, is_json=arguments.json)


def _diagnostics(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import diagnostics

    diagnostics.diagnostics(os.environ, arguments.config, arguments.file, is_json=arguments.json)


def _selftest(arguments: argparse.Namespace) -> int:
    from tray_valet.commands import holding, selftest
    from tray_valet.services.settings import SettingsStore

    holding.check_load_arguments(arguments.model, None)
    return selftest.selftest(
        _client,
        arguments.model,
        default=SettingsStore(_config_file(arguments), os.environ).load().models.default,
        is_offline=arguments.offline,
        is_json=arguments.json,
    )


def _routes(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import routes

    routes.routes(_client(), is_json=arguments.json)


def _config(arguments: argparse.Namespace) -> int:
    from tray_valet.commands import config

    file = _config_file(arguments)
    if arguments.what == "path":
        answer = config.path(file, is_json=arguments.json)
    elif arguments.what == "schema":
        answer = config.schema()
    elif arguments.what == "check":
        answer = config.check(file, os.environ, is_json=arguments.json)
    else:
        answer = config.show(file, os.environ, is_json=arguments.json)
    print(answer.text)
    return answer.exit_code


def _import(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from tray_valet.commands import importing
    from tray_valet.desktop.paths import directories_of
    from tray_valet.desktop.secret_keeper import SecretKeeper

    wish = importing.Wish(
        path=Path(os.path.expanduser(arguments.path)),
        settings_file=_config_file(arguments),
        is_dry_run=arguments.dry_run,
        is_replacing=arguments.replace,
        is_json=arguments.json,
    )
    keeper = SecretKeeper(directories_of(os.environ).secrets_file)
    answer = importing.import_settings(wish, os.environ, keeper)
    print(answer.text)
    return answer.exit_code


def _autostart(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import autostart

    if arguments.what == "status":
        autostart.status(is_json=arguments.json)
    elif arguments.what == "off":
        autostart.turn_off(config_path=arguments.config, is_json=arguments.json)
    else:
        autostart.turn_on(
            config_path=arguments.config,
            is_root_allowed=arguments.allow_root or os.environ.get("TRAY_VALET_ALLOW_ROOT") == "1",
            is_forced=arguments.force,
            is_json=arguments.json,
        )


def _logs(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import logs

    if arguments.runner is not None:
        logs.runner(_client, arguments.runner, is_following=arguments.follow, is_json=arguments.json)
        return
    from tray_valet.desktop.log_files import log_path
    from tray_valet.desktop.paths import directories_of
    from tray_valet.services.settings import SettingsStore

    settings = SettingsStore(_config_file(arguments), os.environ).load()
    file = log_path(directories_of(os.environ).log_file, settings.log.file)
    logs.own(file, is_following=arguments.follow, is_json=arguments.json)


def _open(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import serving

    serving.open_window(_client(), is_json=arguments.json)


def _quit(arguments: argparse.Namespace) -> None:
    from tray_valet.commands import serving

    serving.quit_valet(_client(), is_json=arguments.json)


def _client() -> Client:
    from tray_valet.commands import serving

    return serving.running_valet()


def _config_file(arguments: argparse.Namespace) -> Path:
    from tray_valet.desktop.paths import config_file_of, directories_of

    return config_file_of(directories_of(os.environ), os.environ, arguments.config)


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    NO_COMMAND: _tray,
    "serve": _serve,
    "demo": _demo,
    **{name: _show(name) for name in ("status", "ps", "models", "explain", "providers")},
    "games": _games,
    "activity": _activity,
    "ledger": _ledger,
    "pause": _pause,
    "resume": _resume,
    "run": _run,
    "load": _load,
    "unload": _unload,
    "pull": _pull,
    "rm": _rm,
    "downloads": _downloads,
    "service": _service,
    "routes": _routes,
    "doctor": _doctor,
    "diagnostics": _diagnostics,
    "selftest": _selftest,
    "config": _config,
    "import": _import,
    "logs": _logs,
    "autostart": _autostart,
    "open": _open,
    "quit": _quit,
}
