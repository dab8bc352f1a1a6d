"""Routes over models that cannot be loaded, and more requests than there may be models."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.whole.router_homes import local
from tests.whole.valet_process import ValetProcess, engine_pids, until


def test_one_request_tries_each_candidate_once(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    ours = local(home, tiny_model, {"broken": [], "one": []})
    (home / "broken.gguf").write_bytes(b"GGUF" + bytes(1000))
    gone = {"kind": "openai", "url": "http://127.0.0.1:9/v1", "local": False, "models": ["m"]}
    order = (("local", "broken"), ("gone", "m"), ("local", "one"))
    candidates = [{"provider": provider, "model": model} for provider, model in order]
    settings: dict[str, Any] = {
        "games": {"enabled": False},
        "providers": {"local": ours, "gone": gone},
        "routes": {"assistant": {"candidates": candidates}},
    }
    with ValetProcess(home, settings) as valet:
        answer = valet.chat("assistant", max_tokens=2)
        assert (answer.status_code, answer.headers["x-valet-model"]) == (200, "one")
        assert valet.router.get("/v1/models/broken/status").json()["attempts"] == 1


def test_requests_for_many_cold_models_at_once_never_load_more_than_max_concurrent(
    tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "home"
    names = ("one", "two", "three")
    settings: dict[str, Any] = {
        "games": {"enabled": False},
        "models": {"max_concurrent": 1},
        "providers": {"local": local(home, tiny_model, {name: [] for name in names})},
    }
    with ValetProcess(home, settings) as valet, ThreadPoolExecutor(len(names)) as pool:
        answers = [pool.submit(valet.chat, name, max_tokens=2) for name in names]
        most = 0
        while not all(answer.done() for answer in answers):
            most = max(most, len(engine_pids(home)))
            time.sleep(0.01)
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
        assert most == 1


def test_a_model_waits_for_the_place_of_one_that_answers(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings: dict[str, Any] = {
        "games": {"enabled": False},
        "models": {"max_concurrent": 1},
        "providers": {"local": local(home, tiny_model, {"one": [], "two": []})},
    }
    body = {"model": "one", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    endless = {**body, "max_tokens": 500, "ignore_eos": True}
    with ValetProcess(home, settings) as valet, ThreadPoolExecutor(1) as pool:
        with valet.router.stream("POST", "/v1/chat/completions", json=endless) as stream:
            lines = stream.iter_lines()
            next(lines)
            other = pool.submit(valet.chat, "two", max_tokens=2)
            whole = ""
            for line in lines:
                whole = line or whole
                assert len(engine_pids(home)) <= 1
            assert whole == "data: [DONE]", "the answer in progress is not cut"
        assert other.result(60).status_code == 200
        until(
            lambda: len(engine_pids(home)) == 1, "one model is in memory", lambda: json.dumps(valet.loaded())
        )
