"""The judgement of settings whose shape is right: values against each other and against the world's rules.

Decides: what is refused although every single value has its type and range, and the sentence that says why.
Must not: look at the machine: no file, no name and no port is tried out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tray_valet.core.addresses import is_host, is_loopback_host, is_origin, is_private_host, split_url
from tray_valet.core.config import GameRuleSettings, Settings
from tray_valet.core.config_providers import (
    CommandSettings,
    GeminiSettings,
    LlamaServerSettings,
    OpenAiSettings,
    ProviderSettings,
)
from tray_valet.core.config_shapes import nearest
from tray_valet.core.config_tree import Node, Origin, SettingsPath, problem, shown
from tray_valet.core.errors import InvalidValue, SettingsProblem
from tray_valet.core.models import check_model_name

_PROVIDER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECRET_REFERENCE = re.compile(r"keyring:[A-Za-z0-9._-]{1,64}")
_DURATION = re.compile(r"-?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*")
_ENV_NAME = re.compile(r"[^=\0]{1,256}")
_MAX_REGEX_CHARS = 1_000
_NAME_RULE = "Use letters, digits and . _ - (64 at most)."


class SettingsCheck:
    """Checks `settings` and says where in `tree` each mistake was made.

    `bad` are paths whose values were unusable already: nothing is said about those again. `changed` are
    the paths of a change that is being judged, so that the field that was changed gets the blame.
    """

    def __init__(
        self, settings: Settings, tree: Node, bad: Iterable[SettingsPath], changed: Iterable[SettingsPath]
    ) -> None:
        self.problems: list[SettingsProblem] = []
        self._settings = settings
        self._tree = tree
        self._bad = frozenset(bad)
        self._changed = frozenset(changed)

    def run(self) -> list[SettingsProblem]:
        """Every mistake found."""
        self._thresholds()
        self._addresses()
        self._secrets()
        self._games()
        self._models()
        for name, provider in (self._settings.providers or {}).items():
            self._provider(name, provider)
        self._pools()
        self._routes()
        return self.problems

    def _report(self, path: SettingsPath, message: str) -> None:
        if not any(path[: len(bad)] == bad for bad in self._bad):
            self.problems.append(problem(self._tree, path, message))

    # -- thresholds ------------------------------------------------------------------------------

    def _thresholds(self) -> None:
        for signal in ("ram", "cpu", "gpu_vram"):
            names = (f"{signal}_pause_pct", f"{signal}_resume_pct")
            pause, resume = (("thresholds", name) for name in names)
            pause_pct, resume_pct = (getattr(self._settings.thresholds, name) for name in names)
            if resume_pct < pause_pct or pause in self._bad or resume in self._bad:
                continue
            if self._blames_resume(pause, resume):
                self._report(resume, f"The resume limit must be below the pause limit, {pause_pct:g}%.")
            else:
                self._report(pause, f"The pause limit must be above the resume limit, {resume_pct:g}%.")

    def _blames_resume(self, pause: SettingsPath, resume: SettingsPath) -> bool:
        if (pause in self._changed) != (resume in self._changed):
            return resume in self._changed
        return self._tree.at(pause) is None and self._tree.at(resume) is not None

    # -- addresses -------------------------------------------------------------------------------

    def _addresses(self) -> None:
        control, router = self._settings.control, self._settings.router
        has_key = {"control": control.api_key is not None, "router": bool(router.api_keys)}
        remedy = {
            "control": "Set control.api_key first, or use 127.0.0.1.",
            "router": "Add a key to router.api_keys first, or use 127.0.0.1.",
        }
        for section, part in (("control", control), ("router", router)):
            if not is_host(part.host):
                self._report((section, "host"), f"{shown(part.host)} is not an address. Use 127.0.0.1.")
            elif not is_loopback_host(part.host) and not has_key[section]:
                self._report(
                    (section, "host"),
                    f"{shown(part.host)} is open to the network, and no key is set. {remedy[section]}",
                )
            self._host_lists(section, part.allowed_hosts, part.cors_origins)
        same = control.port == router.port != 0 and router.enabled
        if same and ("control", "port") not in self._bad:
            blamed = ("control", "port") if self._tree.at(("router", "port")) is None else ("router", "port")
            other = "router" if blamed[0] == "control" else "control"
            self._report(blamed, f"Port {control.port} is the {other} API's already. Use another one.")

    def _host_lists(self, section: str, allowed: Iterable[str], origins: Iterable[str]) -> None:
        for i, host in enumerate(allowed):
            if not is_host(host.strip("[]") if host.startswith("[") else host):
                hint = "Write the name or address alone, such as valet.local."
                self._report((section, "allowed_hosts", i), f"{shown(host)} is not a host name. {hint}")
        for i, origin in enumerate(origins):
            if origin == "*":
                self._report(
                    (section, "cors_origins", i),
                    "“*” would let every web page in. Name the origins, such as http://localhost:3000.",
                )
            elif not is_origin(origin):
                hint = "Write scheme, host and port alone, such as http://localhost:3000."
                self._report((section, "cors_origins", i), f"{shown(origin)} is not an origin. {hint}")

    # -- secrets ---------------------------------------------------------------------------------

    def _secrets(self) -> None:
        self._secret(("control", "api_key"), self._settings.control.api_key)
        for name, value in self._settings.router.api_keys.items():
            path: SettingsPath = ("router", "api_keys", name)
            if not _PROVIDER_NAME.fullmatch(name):
                self._report(path, f"{shown(name)} is not a name for a key. {_NAME_RULE}")
            self._secret(path, value)
        for name, provider in (self._settings.providers or {}).items():
            self._secret(("providers", name, "api_key"), getattr(provider, "api_key", None))

    def _secret(self, path: SettingsPath, value: str | None) -> None:
        if value is None or _SECRET_REFERENCE.fullmatch(value):
            return
        place = self._tree.place_of(path)
        if value.startswith("keyring:") or not value:
            self._report(path, f"This is not the name of a secret. Write keyring:NAME. {_NAME_RULE}")
        elif place.origin not in (Origin.ENVIRONMENT, Origin.COMMAND_LINE):
            variable = "TRAY_VALET_" + "__".join(str(step).upper() for step in path)
            self._report(
                path,
                "A key itself is not kept in the settings. Store it in the keyring and write keyring:NAME "
                f"here, or set it as {variable} in the environment.",
            )

    # -- games and models ------------------------------------------------------------------------

    def _games(self) -> None:
        for i, library in enumerate(self._settings.games.libraries):
            if not library.path.strip() or "\0" in library.path:
                self._report(("games", "libraries", i, "path"), "A folder is missing here.")
        for i, rule in enumerate(self._settings.games.rules):
            self._rule(("games", "rules", i), rule)

    def _rule(self, path: SettingsPath, rule: GameRuleSettings) -> None:
        if any(bad[: len(path)] == path for bad in self._bad):
            return  # what is missing may be what was written wrongly
        matchers = {
            "exe": rule.exe,
            "name": rule.name,
            "appid": rule.appid,
            "root": rule.root,
            "argv_regex": rule.argv_regex,
        }
        given = [key for key, value in matchers.items() if value is not None]
        if not given:
            self._report(path, "A rule needs one of exe, name, appid, root, argv_regex. It has none.")
        for key in given:
            if not str(matchers[key]).strip():
                self._report((*path, key), f"“{key}” is empty. Write what must match, or leave it out.")
        if rule.verdict is None and rule.action is None:
            self._report(
                path, "A rule needs a verdict (game, not, gpu_app, launcher) or an action (on, off, ask)."
            )
        if rule.argv_regex is None:
            return
        if len(rule.argv_regex) > _MAX_REGEX_CHARS:
            self._report(
                (*path, "argv_regex"), f"This is too long. Use {_MAX_REGEX_CHARS} characters at most."
            )
            return
        try:
            re.compile(rule.argv_regex)
        except (re.error, OverflowError, RecursionError) as error:
            self._report(
                (*path, "argv_regex"), f"{shown(rule.argv_regex)} is not a regular expression: {error}."
            )

    def _models(self) -> None:
        models = self._settings.models
        if models.default is not None:
            self._model(("models", "default"), models.default)
        for i, name in enumerate(models.preload):
            if name != "*":
                self._model(("models", "preload", i), name)
        owners: dict[str, str] = {}
        for group_name, group in models.groups.items():
            path: SettingsPath = ("models", "groups", group_name)
            if not _PROVIDER_NAME.fullmatch(group_name):
                self._report(path, f"{shown(group_name)} is not a name for a group. {_NAME_RULE}")
            for i, name in enumerate(group.models):
                self._model((*path, "models", i), name)
                if name in owners:
                    self._report(
                        (*path, "models", i), f"{shown(name)} is in the group “{owners[name]}” already."
                    )
                owners.setdefault(name, group_name)

    def _model(self, path: SettingsPath, name: str) -> None:
        try:
            check_model_name(name)
        except InvalidValue as error:
            self._report(path, f"{shown(name)} is not a model name. {error.remedy}")

    # -- providers, pools, routes ----------------------------------------------------------------

    def _provider(self, name: str, provider: ProviderSettings) -> None:
        path: SettingsPath = ("providers", name)
        if not _PROVIDER_NAME.fullmatch(name):
            self._report(path, f"{shown(name)} is not a name for a provider. {_NAME_RULE}")
        if isinstance(provider, LlamaServerSettings):
            self._llama_server(path, provider)
        elif isinstance(provider, CommandSettings):
            self._command(path, provider)
        else:
            self._url((*path, "url"), provider.url, provider)
            for i, model in enumerate(provider.models):
                self._model((*path, "models", i), model)

    def _url(self, path: SettingsPath, url: str, provider: Any) -> None:
        parts = split_url(url)
        if parts is None:
            self._report(path, f"{shown(url)} is not an address. Write one such as http://127.0.0.1:11434.")
        elif isinstance(provider, OpenAiSettings | GeminiSettings):
            if parts.scheme == "http" and not is_private_host(parts.host):
                self._report(path, f"{shown(url)} is not encrypted. Use https.")
        elif not is_private_host(parts.host):
            self._report(
                path,
                f"{shown(parts.host)} is not on this machine or its network. "
                "Use a loopback, private or .local address.",
            )

    def _llama_server(self, path: SettingsPath, provider: LlamaServerSettings) -> None:
        for key in ("llama_server_path", "base_models_path"):
            value = getattr(provider, key)
            if value is not None and (not value.strip() or "\0" in value):
                self._report((*path, key), "A path is missing here. Write one, or null.")
        for alias, model in provider.models.items():
            self._model((*path, "models", alias), alias)
            if not model.model_path.strip() or "\0" in model.model_path:
                self._report((*path, "models", alias, "model_path"), "The model's file is missing here.")

    def _command(self, path: SettingsPath, provider: CommandSettings) -> None:
        for alias, model in provider.models.items():
            here = (*path, "models", alias)
            self._model(here, alias)
            for key, words in (("command", model.command), ("stop", model.stop)):
                if words is not None and (not words or not words[0]):
                    self._report((*here, key), "A command is missing here. Write [program, argument, …].")
            if not model.health.startswith("/"):
                self._report(
                    (*here, "health"), f"{shown(model.health)} is not a path. Write one such as /health."
                )
            for name in model.env:
                if not _ENV_NAME.fullmatch(name):
                    self._report((*here, "env", name), f"{shown(name)} is not a name for a variable.")

    def _pools(self) -> None:
        known = self._known("providers")
        for name, pool in self._settings.pools.items():
            path: SettingsPath = ("pools", name)
            if not _PROVIDER_NAME.fullmatch(name):
                self._report(path, f"{shown(name)} is not a name for a pool. {_NAME_RULE}")
            if name in (known or ()):
                self._report(path, f"There is already a provider called {name}. Use another name.")
            if not pool.providers:
                self._report((*path, "providers"), "A pool needs at least one provider.")
            for i, member in enumerate(pool.providers):
                self._refers((*path, "providers", i), member, known)
            for i, model in enumerate(pool.models):
                self._model((*path, "models", i), model)

    def _routes(self) -> None:
        providers = self._known("providers")
        known = None if providers is None else providers | (self._known("pools") or frozenset())
        for alias, route in self._settings.routes.items():
            path: SettingsPath = ("routes", alias)
            self._model(path, alias)
            if not route.candidates:
                self._report((*path, "candidates"), "A route needs at least one candidate.")
            for i, candidate in enumerate(route.candidates):
                here = (*path, "candidates", i)
                self._refers((*here, "provider"), candidate.provider, known)
                self._model((*here, "model"), candidate.model)
            if isinstance(route.keep_alive, str) and not _DURATION.fullmatch(route.keep_alive):
                hint = "Use seconds, or a duration such as 5m; -1 is for ever."
                self._report((*path, "keep_alive"), f"{shown(route.keep_alive)} is not a duration. {hint}")

    def _known(self, section: str) -> frozenset[str] | None:
        """The names written in a section, wrong entries included; None without that section."""
        node = self._tree.at((section,))
        return frozenset(node.entries) if node is not None and node.value is not None else None

    def _refers(self, path: SettingsPath, name: str, known: frozenset[str] | None) -> None:
        if known is None or name in known:
            return
        close = nearest(name, known)
        hint = f"Did you mean “{close}”?" if close else f"There are {', '.join(sorted(known)) or 'none'}."
        self._report(path, f"No provider is called {shown(name)}. {hint}")
