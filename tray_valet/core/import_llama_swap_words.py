"""Why keys of llama-swap are not taken, and what to do instead.

Decides: the words. Must not: decide whether a key is taken.
"""

from __future__ import annotations

_NOTHING = "Nothing is needed here."
_ONLY_SHOWN = "It only describes the model to clients."
_OWN_PAGE = "It is about llama-swap's own page or records."

ABOUT_KEYS: dict[str, tuple[str, str]] = {
    "healthCheckTimeout": ("A model is waited for as long as its load makes progress.", _NOTHING),
    "logRequests": ("Requests are not written to the log.", "“tray-valet activity” tells what happened."),
    "logTimeFormat": ("The log has one form, JSON lines.", _NOTHING),
    "logToStdout": ("The log goes to a file; “tray-valet logs -f” shows it.", _NOTHING),
    "metricsMaxInMemory": (_OWN_PAGE, _NOTHING),
    "captureBuffer": ("Requests and answers are never kept.", _NOTHING),
    "store": (_OWN_PAGE, _NOTHING),
    "ui": (_OWN_PAGE, _NOTHING),
    "performance": (_OWN_PAGE, _NOTHING),
    "sendLoadingState": ("Answers pass through untouched.", _NOTHING),
    "includeAliasesInList": ("Aliases are routes here, and routes are always listed.", _NOTHING),
    "unloadTimeout": (
        "The times of an unload are the same for all models here.",
        "Set eviction.drain_seconds and eviction.kill_after_seconds.",
    ),
    "upstream": ("There is no passing through to a runner's own pages.", _NOTHING),
    "profiles": (
        "There are no sets of routes to switch between.",
        "Write each pin as a route: routes.NAME.candidates.",
    ),
    "selectors": (
        "A route tries its candidates in order; it does not choose by what is loaded.",
        "Write each as a route: routes.NAME.candidates.",
    ),
    "matrix": (
        "Sets of models by expression are not known here.",
        "Write models.groups: swap, exclusive, pinned or together.",
    ),
    "routing.scheduler": (
        "Priorities belong to routes here.",
        "Set routes.NAME.priority: high, normal or low.",
    ),
}

ABOUT_MODEL_KEYS: dict[str, tuple[str, str]] = {
    "name": (_ONLY_SHOWN, _NOTHING),
    "description": (_ONLY_SHOWN, _NOTHING),
    "metadata": (_ONLY_SHOWN, _NOTHING),
    "capabilities": ("What a model can do is asked of its provider.", _NOTHING),
    "unlisted": ("Every model is listed.", _NOTHING),
    "unloadTimeout": ABOUT_KEYS["unloadTimeout"],
    "sendLoadingState": ABOUT_KEYS["sendLoadingState"],
    "healthCheckTimeout": ABOUT_KEYS["healthCheckTimeout"],
    "compat": ("The router passes no websockets on.", _NOTHING),
    "timeouts": (
        "One time limit holds for all requests here.",
        "Set router.request_timeout_seconds.",
    ),
    "concurrencyLimit": (
        "As many requests run at once as the runner has slots; the others wait.",
        "Add --parallel N to the model's flags.",
    ),
    "useModelName": ("The provider is asked for the model by its name here.", _NOTHING),
    "cmdStop": ("A runner is ended by the valet itself.", _NOTHING),
    "checkEndpoint": ("llama-server says itself when it is ready.", _NOTHING),
    "proxy": ("The valet gives each runner its address.", _NOTHING),
}

IDLE_WHY = "One idle time holds for all models here."
IDLE_REMEDY = "Set models.idle_timeout_seconds, or keep_alive in the model's route."
