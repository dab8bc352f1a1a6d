"""The image's files fit the product: pinned, small, not root, with a key; and what they run does run."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from tests.whole.valet_process import ValetProcess, clean_environment
from tray_valet.core.config import Settings
from tray_valet.desktop.paths import HOME_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging" / "docker"
HEALTHCHECK = FOLDER / "healthcheck.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KEY = "a-key-of-this-test"


class Instruction(msgspec.Struct, frozen=True):
    """One instruction of the Dockerfile, continued lines joined."""

    name: str
    text: str


def stages() -> list[list[Instruction]]:
    """The Dockerfile, cut at every FROM."""
    lines = [
        line
        for line in (FOLDER / "Dockerfile").read_text(encoding="utf-8").split("\n")
        if line.strip() and not line.lstrip().startswith("#")
    ]
    found: list[list[Instruction]] = []
    for line in "\n".join(lines).replace("\\\n", " ").split("\n"):
        name, _, text = line.strip().partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Instruction(name, re.sub(r"\s+", " ", text).strip()))
    return found


STAGES = stages()
FINAL = STAGES[-1]
BUILD = next(stage for stage in STAGES if stage[0].text.endswith(" AS build"))


def only(stage: list[Instruction], name: str) -> str:
    [text] = [instruction.text for instruction in stage if instruction.name == name]
    return text


def variables(stage: list[Instruction]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in only(stage, "ENV").split())


def place(stage: list[Instruction], name: str, text: str = "") -> int:
    """Where in its stage the only such instruction stands."""
    [index] = [i for i, found in enumerate(stage) if found.name == name and text in found.text]
    return index


def copied() -> Iterator[str]:
    """What is copied from the checkout."""
    for stage in STAGES:
        for instruction in stage:
            if instruction.name == "COPY" and "--from=" not in instruction.text:
                words = [word for word in instruction.text.split() if not word.startswith("--")]
                yield from words[:-1]


# -- the Dockerfile ----------------------------------------------------------------------------------


def test_every_instruction_is_one_that_docker_knows() -> None:
    known = {"FROM", "COPY", "RUN", "ENV", "WORKDIR", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
    known |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {instruction.name for stage in STAGES for instruction in stage} <= known


def test_images_are_pinned_and_come_from_known_places() -> None:
    names = {stage[0].text.partition(" AS ")[2] for stage in STAGES} - {""}
    for stage in STAGES:
        image = stage[0].text.partition(" AS ")[0]
        assert image in names or re.fullmatch(
            r"(python:3\.\d+(\.\d+)?-slim-[a-z]+|ghcr\.io/astral-sh/uv:\d+\.\d+\.\d+)", image
        ), image
    assert "latest" not in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_the_python_is_one_that_the_product_allows_and_that_it_is_checked_for() -> None:
    [image] = [stage[0].text for stage in STAGES if stage[0].text.startswith("python:")]
    found = re.match(r"python:(\d+\.\d+)", image)
    assert found is not None
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert found[1] == tools["mypy"]["python_version"]
    assert PROJECT["requires-python"] == f">={found[1]}"


def test_uv_is_the_one_of_the_lock_file() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    [version] = [package["version"] for package in lock["package"] if package["name"] == "uv"]
    assert f"ghcr.io/astral-sh/uv:{version}" in [stage[0].text.partition(" AS ")[0] for stage in STAGES]


def test_what_the_lock_file_names_is_installed_with_the_engine_and_without_the_tests_tools() -> None:
    syncs = [i.text for i in BUILD if i.name == "RUN"]
    assert len(syncs) == 2, "what is needed, then our own code"
    for text in syncs:
        assert " uv sync --locked --no-editable " in text
        extras = re.findall(r"--extra (\S+)", text)
        assert "engine" in extras
        assert "dev" not in extras
        assert set(extras) <= set(PROJECT["optional-dependencies"])
        assert "--all-extras" not in text
    assert "--no-install-project" in syncs[0]
    assert f"--reinstall-package {PROJECT['name']}" in syncs[1], "else a wheel of an earlier build is taken"
    assert place(BUILD, "COPY", "uv.lock") < place(BUILD, "RUN", "--no-install-project")
    assert place(BUILD, "RUN", "--no-install-project") < place(BUILD, "COPY", "tray_valet ./tray_valet")


def test_no_cache_is_left_in_the_image() -> None:
    for instruction in BUILD:
        if instruction.name == "RUN":
            assert instruction.text.startswith("--mount=type=cache,target=/root/.cache/uv ")
    apt = only(FINAL, "RUN")
    assert "apt-get install --yes --no-install-recommends" in apt
    assert "rm -rf /var/lib/apt/lists/*" in apt
    assert "--from=build /opt/tray-valet /opt/tray-valet" in [i.text for i in FINAL if i.name == "COPY"]
    assert variables(BUILD)["UV_PROJECT_ENVIRONMENT"] == "/opt/tray-valet"


def test_the_system_library_of_the_engine_is_there() -> None:
    needs = (ROOT / "packaging" / "system_packages.py").read_text(encoding="utf-8")
    assert '"libgomp1"' in needs
    assert " libgomp1 " in only(FINAL, "RUN")


def test_it_runs_as_a_user_who_is_not_root_and_owns_the_volume() -> None:
    uid, gid = only(FINAL, "USER").split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    setup = only(FINAL, "RUN")
    assert f"useradd --uid {uid} " in setup
    assert f"groupadd --gid {gid} " in setup
    assert "install --directory --owner=valet --group=valet --mode=0700 /data" in setup
    privileged = [i for i, found in enumerate(FINAL) if found.name in ("RUN", "COPY")]
    assert max(privileged) < place(FINAL, "USER"), "nothing is installed as the user, nothing runs as root"


def test_everything_that_it_writes_is_in_the_volume() -> None:
    assert only(FINAL, "VOLUME") == "/data"
    assert variables(FINAL)[HOME_VARIABLE] == "/data"
    assert variables(FINAL)["HOME"] == "/data"
    assert place(FINAL, "COPY", "config.yaml") < place(FINAL, "VOLUME"), "later it would be lost"
    settings = FINAL[place(FINAL, "COPY", "config.yaml")].text
    assert settings.split()[-1] == "/data/config.yaml"
    assert f"--chown={only(FINAL, 'USER')} --chmod=0600" in settings


def test_it_serves_and_ends_on_sigterm() -> None:
    [program] = json.loads(only(FINAL, "ENTRYPOINT"))
    assert program in PROJECT["scripts"]
    assert json.loads(only(FINAL, "CMD")) == ["serve"]
    assert only(FINAL, "STOPSIGNAL") == "SIGTERM"
    assert only(FINAL, "EXPOSE") == str(Settings().router.port)
    assert variables(FINAL)["PATH"].startswith("/opt/tray-valet/bin:")


def test_dockers_health_check_runs_the_file_that_was_copied() -> None:
    text = only(FINAL, "HEALTHCHECK")
    command = json.loads(text.partition(" CMD ")[2])
    assert command[0] == "python"
    assert f"packaging/docker/healthcheck.py {command[1]}" in [i.text for i in FINAL if i.name == "COPY"]
    for flag in ("interval", "timeout", "start-period", "retries"):
        assert f"--{flag}=" in text


def test_what_is_copied_exists_and_passes_the_ignore_file_and_nothing_else_does() -> None:
    rules = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*", "all is left out, then a few are let in"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    wanted = set(copied())
    assert wanted == let_in
    assert all((ROOT / name).exists() for name in wanted)
    left_out = [rule for rule in rules[1:] if not rule.startswith("!")]
    assert rules[-len(left_out) :] == left_out, "the last rule that fits decides"
    assert any(fnmatch.fnmatch("tray_valet/core/__pycache__", rule) for rule in left_out)


# -- Compose -----------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    [service] = yaml.safe_load(text)["services"].items()
    assert service[0] in yaml.safe_load((FOLDER / "config.yaml").read_text())["router"]["allowed_hosts"]
    found: dict[str, Any] = service[1]
    return found


def test_compose_builds_this_dockerfile_from_the_checkout() -> None:
    build = compose()["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).resolve() == FOLDER / "Dockerfile"


def test_compose_publishes_the_router_to_this_machine_alone_and_asks_for_a_key() -> None:
    port = Settings().router.port
    assert compose()["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert compose()["environment"]["API_KEY"].startswith("${TRAY_VALET_ROUTER_KEY:?")


def test_compose_keeps_the_volume_and_gives_no_privileges() -> None:
    service = compose()
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    named = [
        mount.split(":")[0] for mount in service["volumes"] if mount.endswith(f":{only(FINAL, 'VOLUME')}")
    ]
    assert named == list(yaml.safe_load(text)["volumes"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service
    assert int(service["stop_grace_period"].removesuffix("s")) > 5, "the valet takes up to 5 s"


# -- the settings, the health check and the README, for real ----------------------------------------------


def check_settings(home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    shutil.copyfile(FOLDER / "config.yaml", home / "config.yaml")
    (home / "config.yaml").chmod(0o600)
    return subprocess.run(
        [sys.executable, "-m", "tray_valet", "config", "check"],
        env={**clean_environment(), HOME_VARIABLE: str(home), **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_settings_are_right_with_the_key_of_the_environment(tmp_path: Path) -> None:
    done = check_settings(tmp_path, API_KEY=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr


def test_the_settings_are_refused_without_a_key(tmp_path: Path) -> None:
    done = check_settings(tmp_path)
    assert done.returncode == 1
    assert "no key is set" in done.stdout + done.stderr


def health(home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEALTHCHECK)],
        env={
            **clean_environment(),
            HOME_VARIABLE: str(home),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_health_check_follows_a_real_valet_with_these_settings(tmp_path: Path) -> None:
    settings = yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))
    settings["router"]["port"] = 0
    with ValetProcess(tmp_path / "home", settings, environ={"API_KEY": KEY}) as valet:
        assert health(valet.home, API_KEY=KEY).returncode == 0
        wrong = health(valet.home, API_KEY="another")
        assert wrong.returncode == 1
        assert "401" in wrong.stderr
        (valet.home / "state" / "secrets.json").write_text(json.dumps({"router": KEY}))
        assert health(valet.home).returncode == 0, "the key is found in the file of secrets"
        for name in settings["router"]["allowed_hosts"]:
            headers = {"Host": f"{name}:8766", "Authorization": f"Bearer {KEY}"}
            assert valet.router.get("/health", headers=headers).status_code == 200
        port = urlsplit(valet.places["router"]["url"]).port
        assert valet.terminate() == 0
        gone = health(valet.home, API_KEY=KEY, TRAY_VALET_ROUTER__PORT=str(port))
        assert gone.returncode == 1
        assert KEY not in gone.stderr


def test_the_files_with_keys_and_models_stay_out_of_git() -> None:
    assert {".env", "models/"} <= set((FOLDER / ".gitignore").read_text(encoding="utf-8").split("\n"))


def test_the_readme_names_every_file_and_says_what_a_container_cannot_do() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file in FOLDER.iterdir():
        if file.name not in ("README.md", ".gitignore", ".env") and file.is_file():
            assert f"`{file.name}`" in text, file.name
    for word in ("See games", "`pid: host`", "proc connector", "tray icon", "keyring"):
        assert word in text.partition("## What a container cannot do")[2], word
