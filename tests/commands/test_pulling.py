"""pull, rm and downloads: what they ask for, what they show, and how they end."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tray_valet.commands import pulling
from tray_valet.commands.client import Client
from tray_valet.commands.failures import CommandError, WrongUsage

GIB = 2**30


class FakeClient(Client):
    """Answers from a script: each look at /downloads is the next step."""

    def __init__(self, *steps: dict[str, Any]) -> None:
        self.steps = list(steps)
        self.asked: list[tuple[str, str, Any]] = []

    def post(self, path: str, body: Any = None, *, timeout_s: float = 1.0, **query: Any) -> Any:
        self.asked.append(("POST", path, {"body": body, **query}))
        return {"id": "d1", "download": download(state="queued", status=None)}

    def get(self, path: str, **query: Any) -> Any:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return {"downloads": [step] if step else []}

    def delete(self, path: str, *, timeout_s: float = 1.0, **query: Any) -> Any:
        self.asked.append(("DELETE", path, query))
        return {
            "ok": True,
            "model": "x:latest",
            "provider": "ollama",
            "download": download(state="cancelled"),
        }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def download(**changes: Any) -> dict[str, Any]:
    return {
        "id": "d1",
        "model": "x:latest",
        "provider": "ollama",
        "state": "running",
        "status": "pulling abc",
        "completed_bytes": 0,
        "total_bytes": 4 * GIB,
        "percent": 0.0,
        "attempts": 0,
        "error": None,
        **changes,
    }


def at(percent: float, state: str = "running") -> dict[str, Any]:
    return download(percent=percent, completed_bytes=int(4 * GIB * percent / 100), state=state)


def pull(client: Client, out: io.StringIO, *, is_json: bool = False) -> str:
    pulling.pull(client, "x", provider="ollama", is_json=is_json, out=out, sleep=lambda s: None)
    return out.getvalue()


def test_what_a_download_waits_for_is_said() -> None:
    waiting = download(state="queued", status="waiting until ollama answers")
    assert "x:latest: waiting until ollama answers 0%\n" in pull(
        FakeClient(waiting, at(100, "done")), io.StringIO()
    )
    table = pulling.downloads_text({"downloads": [waiting]})
    assert table.endswith("\n\nx:latest: waiting until ollama answers")


def test_a_pipe_gets_a_line_for_every_tenth() -> None:
    client = FakeClient(at(1), at(4), at(11), at(12), at(57), at(100, "done"))
    lines = pull(client, io.StringIO()).splitlines()
    assert lines == [
        "x:latest: waiting for its turn 0%",
        "x:latest: downloading 0%",
        "x:latest: downloading 10%",
        "x:latest: downloading 50%",
        "x:latest: done 100%",
        "x:latest is there (4.0 GB).",
    ]
    assert client.asked == [("POST", "/models/pull", {"body": {"model": "x"}, "provider": "ollama"})]


def test_a_terminal_gets_a_bar_that_is_drawn_over() -> None:
    text = pull(FakeClient(at(25), at(50), at(100, "done")), Terminal())
    drawn = text.split("\r\x1b[2K")[1:]
    assert len(drawn) == 4
    assert ["█" * 6 in line and "█" * 7 not in line for line in drawn][1] is True
    assert " 50% 2.0 GB of 4.0 GB" in drawn[2]
    assert text.endswith("x:latest is there (4.0 GB).\n")


def test_json_is_the_download_at_its_end_and_nothing_else() -> None:
    assert (
        json.loads(pull(FakeClient(at(50), at(100, "done")), io.StringIO(), is_json=True))["state"] == "done"
    )


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (download(state="failed", error="The registry is away."), "The registry is away"),
        (download(state="cancelled"), "cancelled"),
        ({}, "no longer listed"),
    ],
)
def test_an_end_that_is_no_model_is_a_failure(end: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        pull(FakeClient(end), io.StringIO())


@pytest.mark.parametrize("end", [download(state="failed", error="The registry is away."), {}])
def test_a_failure_is_not_told_behind_the_bar(end: dict[str, Any]) -> None:
    out = Terminal()
    with pytest.raises(CommandError):
        pull(FakeClient(at(25), end), out)
    assert out.getvalue().endswith("\n")


def test_a_failure_that_is_tried_again_and_a_game_are_said() -> None:
    waiting = download(state="queued", error="Broken off.", percent=None)
    text = pull(FakeClient(waiting, download(state="paused"), at(100, "done")), io.StringIO())
    assert "trying again soon (Broken off.)" in text
    assert "waiting until the game ends" in text


def test_ctrl_c_leaves_the_download_going_and_says_how_to_cancel(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    client = FakeClient(at(10))
    with pytest.raises(KeyboardInterrupt):
        pulling.pull(client, "x", provider=None, is_json=False, out=io.StringIO(), sleep=interrupt)
    assert "tray-valet downloads --cancel d1" in capsys.readouterr().err
    assert [method for method, _, _ in client.asked] == ["POST"]


@pytest.mark.parametrize("name", ["a b", "../x", "", "x" * 301])
def test_a_name_that_no_model_has_is_wrong_usage(name: str) -> None:
    with pytest.raises(WrongUsage):
        pulling.pull(FakeClient({}), name, provider=None, is_json=False)
    with pytest.raises(WrongUsage):
        pulling.remove(FakeClient({}), name, provider=None, is_sure=True, is_json=False)


@pytest.mark.parametrize("answer", ["", "n", "no", "maybe"])
def test_nothing_is_deleted_without_a_yes(answer: str) -> None:
    client = FakeClient({})
    with pytest.raises(CommandError, match="Nothing was deleted"):
        pulling.remove(client, "x", provider=None, is_sure=False, is_json=False, ask=lambda text: answer)
    assert client.asked == []


def test_ctrl_d_is_no_yes() -> None:
    def end_of_input(question: str) -> str:
        raise EOFError

    client = FakeClient({})
    with pytest.raises(CommandError, match="Nothing was deleted"):
        pulling.remove(client, "x", provider=None, is_sure=False, is_json=False, ask=end_of_input)
    assert client.asked == []


def test_a_deletion_is_asked_for_or_sure(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient({})
    pulling.remove(client, "hf.co/a/b:Q4", provider="o", is_sure=False, is_json=False, ask=lambda text: "y")
    pulling.remove(client, "x", provider=None, is_sure=True, is_json=True)
    assert [path for _, path, _ in client.asked] == ["/models/hf.co/a/b:Q4", "/models/x"]
    assert "was deleted from ollama" in capsys.readouterr().out


def test_the_list_says_what_is_the_matter(capsys: pytest.CaptureFixture[str]) -> None:
    every = [
        at(25),
        download(id="d2", state="failed", error="No such model."),
        download(id="d3", state="paused"),
    ]
    text = pulling.downloads_text({"downloads": every})
    assert "1.0 GB of 4.0 GB" in text
    assert "x:latest: No such model." in text
    assert "wait while a game runs" in text
    assert "tray-valet pull MODEL" in pulling.downloads_text({"downloads": []})
    client = FakeClient({})
    pulling.downloads(client, cancel="d1", is_json=False)
    assert client.asked == [("DELETE", "/downloads/d1", {})]
    assert "is cancelled" in capsys.readouterr().out
