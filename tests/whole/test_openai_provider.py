"""A provider that speaks the OpenAI API, in a real valet: elsewhere it serves on, here it is held back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.providers.test_openai import Cloud, cloud
from tests.whole.valet_process import ValetProcess, until
from tray_valet.desktop.paths import directories_of

__all__ = ["cloud"]  # a fixture


def valet_with(home: Path, *, has_key: bool = True, **provider: Any) -> ValetProcess:
    """Its key lies in the file that is asked where there is no keyring."""
    if has_key:
        file = directories_of({"TRAY_VALET_HOME": str(home)}).secrets_file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"cloud": "sk-right"}))
        file.chmod(0o600)
    settings = {"providers": {"cloud": {"kind": "openai", "api_key": "keyring:cloud", **provider}}}
    return ValetProcess(home, settings, environ={"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"})


def conditions(valet: ValetProcess) -> dict[str, str]:
    [provider] = valet.get("/providers")["providers"]
    return {c["type"]: c["reason"] for c in provider["conditions"]}


def test_a_cloud_provider_goes_on_serving_during_a_pause(tmp_path: Path, cloud: Cloud) -> None:
    with valet_with(tmp_path / "home", url=cloud.url, local=False) as valet:
        assert valet.chat("gpt-small").json()["choices"][0]["message"]["content"] == "Hello."
        valet.post("/pause")
        assert valet.state == "paused"
        assert valet.chat("cloud/gpt-small").status_code == 200
        assert conditions(valet) == {}
        assert cloud.looks == 1
        assert valet.activity("model_loaded") == [], "nothing is loaded, so nothing is said of it"


def test_a_server_here_that_cannot_unload_is_held_back_and_does_not_keep_us_from_paused(
    tmp_path: Path, cloud: Cloud
) -> None:
    with valet_with(tmp_path / "home", url=cloud.url) as valet:
        assert valet.chat("gpt-small").status_code == 200
        assert "cannot be told to unload" in conditions(valet)["cannot_unload"]
        valet.post("/pause")
        assert valet.state == "paused"
        refused = valet.chat("gpt-small")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "paused"
        valet.post("/resume")
        until(lambda: valet.chat("gpt-small").status_code == 200, "it serves again")


def test_a_key_that_is_nowhere_is_told_and_never_shown(tmp_path: Path, cloud: Cloud) -> None:
    with valet_with(
        tmp_path / "home", has_key=False, url=cloud.url, local=False, models=["gpt-small"]
    ) as valet:
        until(lambda: "key_missing" in conditions(valet), "the condition", lambda: str(conditions(valet)))
        assert "keyring:cloud" in conditions(valet)["key_missing"]
