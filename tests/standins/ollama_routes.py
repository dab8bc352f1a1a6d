"""The stand-in's routes: Ollama's own API, and the control hooks under /_standin.

Facts: server/routes.go of Ollama.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from ollama_http import HttpError, Reply, Request
from ollama_models import (
    BadRequestError,
    StandinModel,
    default_models,
    go_time,
    keep_alive_ns,
    shortest_name,
)
from ollama_openai import OpenAiRoutes, Tokens, vectors_of
from ollama_scheduler import LoadError, Runner, Scheduler, Settings

VERSION = "0.33.0"
NDJSON = "application/x-ndjson"
_KEPT_CALLS = 1000


class OllamaRoutes:
    """One stand-in server: its disk, its scheduler, and who called."""

    def __init__(self, settings: Settings, models: list[StandinModel] | None = None) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings)
        self.first_models = models if models is not None else default_models()
        self.models = {model.name: model for model in self.first_models}
        self.first_settings = {f.name: getattr(settings, f.name) for f in fields(Settings)}
        self.calls: list[dict[str, Any]] = []
        self.tokens = Tokens(settings)
        openai = OpenAiRoutes(self.models_on_disk, self.find, self.use, self.tokens)
        self.aborted = 0  # requests whose client hung up
        self._pulled: dict[str, int] = {}  # bytes of partial downloads
        self._routes: dict[tuple[str, str], Callable[[Any, Reply], Awaitable[None]]] = {
            ("GET", "/"): self._root,
            ("GET", "/api/version"): self._version,
            ("GET", "/api/ps"): self._ps,
            ("GET", "/api/tags"): self._tags,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/chat"): self._chat,
            ("POST", "/api/embed"): self._embed,
            ("POST", "/api/pull"): self._pull,
            ("DELETE", "/api/delete"): self._delete,
            ("GET", "/v1/models"): openai.models,
            ("POST", "/v1/chat/completions"): openai.chat,
            ("POST", "/v1/embeddings"): openai.embeddings,
            ("GET", "/_standin"): self._state,
            ("POST", "/_standin"): self._control,
            ("GET", "/_standin/calls"): self._told_calls,
        }

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        route = self._routes.get(("GET" if request.method == "HEAD" else request.method, request.path))
        is_openai = request.path.startswith("/v1/")
        try:
            if route is None:
                await reply.whole(404, b"404 page not found", "text/plain")
                return
            body = self._body(request)
            if not request.path.startswith("/_standin"):
                self._note(request, body)
                await self._misbehave(request.path)
            await route(body, reply)
        except HttpError as error:
            await self._error(reply, error.status, error.message, is_openai=is_openai)
        except BadRequestError as error:
            await self._error(reply, 400, str(error), is_openai=is_openai)
        except LoadError as error:
            await self._error(reply, 500, str(error), is_openai=is_openai)
        except asyncio.CancelledError:
            self.aborted += 1
            raise

    # -- before a route -------------------------------------------------------------------------------

    def _note(self, request: Request, body: Any) -> None:
        call = {"method": request.method, "path": request.path, "body": body, "at": time.time()}
        self.calls = [*self.calls[-_KEPT_CALLS:], call]

    async def _misbehave(self, path: str) -> None:
        if path in self.settings.hang:
            await asyncio.Event().wait()
        if path in self.settings.delay_s:
            await asyncio.sleep(self.settings.delay_s[path])
        if path in self.settings.fail:
            raise HttpError(self.settings.fail[path], "the stand-in was told to fail")

    @staticmethod
    def _body(request: Request) -> Any:
        if request.method in ("GET", "HEAD"):
            return None
        if not request.body:
            raise HttpError(400, "missing request body")
        try:
            body = json.loads(request.body)
        except ValueError as error:
            raise HttpError(400, f"invalid character: {error}") from error
        if not isinstance(body, dict):
            raise HttpError(400, "json: cannot unmarshal into Go value")
        return body

    @staticmethod
    async def _error(reply: Reply, status: int, message: str, *, is_openai: bool) -> None:
        if reply.is_started:
            error: Any = {"error": {"message": message}} if is_openai else {"error": message}
            await reply.part(f"data: {json.dumps(error)}\n\n" if is_openai else json.dumps(error) + "\n", "")
            await reply.end()
            return
        kinds = {400: "invalid_request_error", 404: "not_found_error"}
        error = {"message": message, "type": kinds.get(status, "api_error"), "param": None, "code": None}
        await reply.json({"error": error if is_openai else message}, status)

    def models_on_disk(self) -> list[StandinModel]:
        """Every model, in the order it came."""
        return list(self.models.values())

    def find(self, body: dict[str, Any]) -> StandinModel:
        """Find the model, in any case, as `getExistingName` does."""
        asked = body.get("model") or body.get("name") or ""
        wanted = shortest_name(str(asked)).casefold()
        for model in self.models.values():
            if model.name.casefold() == wanted:
                return model
        raise HttpError(404, f"model '{asked}' not found")

    # -- lists ----------------------------------------------------------------------------------------

    async def _root(self, _: Any, reply: Reply) -> None:
        await reply.whole(200, b"Ollama is running", "text/plain; charset=utf-8")

    async def _version(self, _: Any, reply: Reply) -> None:
        await reply.json({"version": VERSION})

    def _time(self, unix_ns: int) -> str:
        return go_time(unix_ns, self.settings.offset_minutes)

    async def _ps(self, _: Any, reply: Reply) -> None:
        runners = sorted(self.scheduler.loaded.values(), key=lambda r: -r.listed_expiry_ns())
        await reply.json({"models": [self._listed_runner(runner) for runner in runners]})

    def _listed_runner(self, runner: Runner) -> dict[str, Any]:
        model = runner.model
        return {
            "name": model.name,
            "model": model.name,
            "size": model.memory_bytes,
            "digest": model.digest,
            "details": model.details(is_listed=False),
            "expires_at": self._time(runner.listed_expiry_ns()),
            "size_vram": int(model.memory_bytes * model.vram_share),
            "context_length": runner.num_ctx,
        }

    async def _tags(self, _: Any, reply: Reply) -> None:
        models = sorted(self.models.values(), key=lambda m: -m.modified_ns)
        await reply.json({"models": [self._listed_model(model) for model in models]})

    def _listed_model(self, model: StandinModel) -> dict[str, Any]:
        told: dict[str, Any] = {"name": model.name, "model": model.name}
        if model.remote_model:
            told |= {"remote_model": model.remote_model, "remote_host": "https://ollama.com:443"}
        told |= {"modified_at": self._time(model.modified_ns), "size": model.memory_bytes or 382}
        told |= {"digest": model.digest, "details": model.details(is_listed=not self.settings.is_old)}
        if not self.settings.is_old:
            told["capabilities"] = list(model.capabilities)
        return told

    async def _show(self, body: dict[str, Any], reply: Reply) -> None:
        asked = body.get("model") or body.get("name")
        if not asked:
            raise HttpError(400, "model is required")
        model = self.find({"model": shortest_name(str(asked))})
        info = {"general.architecture": model.family, f"{model.family}.context_length": model.context_length}
        await reply.json(
            {
                "modelfile": f'# Modelfile generated by "ollama show"\n# FROM {model.name}\n\n'
                f"FROM {model.blob_path}\nTEMPLATE {{{{ .Prompt }}}}\n",
                "template": "{{ .Prompt }}",
                "details": model.details(is_listed=False),
                "model_info": info,
                "capabilities": list(model.capabilities),
                "modified_at": self._time(model.modified_ns),
            }
        )

    # -- running models -------------------------------------------------------------------------------

    async def _generate(self, body: dict[str, Any], reply: Reply) -> None:
        model = self.find(body)
        keep_ns = keep_alive_ns(body.get("keep_alive"))
        prompt = str(body.get("prompt") or "")
        if not prompt and keep_ns == 0:
            self.scheduler.expire(model)
            await reply.json(self._generated(body, "", done_reason="unload"))
            return
        if "completion" not in model.capabilities:
            raise HttpError(400, f'"{body["model"]}" does not support generate')
        async with self.use(model, body, keep_ns) as runner:
            if not prompt:
                await reply.json(self._generated(body, "", done_reason="load"))
                return
            await self._stream_ndjson(runner, body, reply, self._generated)

    async def _chat(self, body: dict[str, Any], reply: Reply) -> None:
        model = self.find(body)
        keep_ns = keep_alive_ns(body.get("keep_alive"))
        messages = body.get("messages") or []
        if not messages and keep_ns == 0:
            self.scheduler.expire(model)
            await reply.json(self._chatted(body, "", done_reason="unload"))
            return
        if "completion" not in model.capabilities:
            raise HttpError(400, f'"{body["model"]}" does not support chat')
        async with self.use(model, body, keep_ns) as runner:
            if not messages:
                await reply.json(self._chatted(body, "", done_reason="load"))
                return
            await self._stream_ndjson(runner, body, reply, self._chatted)

    def use(self, model: StandinModel, body: dict[str, Any], keep_ns: int | None) -> Any:
        if model.remote_model:
            raise HttpError(502, "the stand-in has no cloud")
        num_ctx = (body.get("options") or {}).get("num_ctx")
        return self.scheduler.use(model, num_ctx, keep_ns)

    async def _stream_ndjson(
        self, runner: Runner, body: dict[str, Any], reply: Reply, shape: Callable[..., dict[str, Any]]
    ) -> None:
        limit = (body.get("options") or {}).get("num_predict") or -1
        started_ns, words = time.perf_counter_ns(), []
        is_whole = body.get("stream") is False
        async for word in self.tokens.of(runner, limit):
            words.append(word)
            if not is_whole:
                await reply.part(json.dumps(shape(body, word)) + "\n", NDJSON)
        took_ns = time.perf_counter_ns() - started_ns
        reason = "length" if len(words) == limit else "stop"
        last = shape(body, "".join(words) if is_whole else "", done_reason=reason)
        last |= {"total_duration": took_ns, "load_duration": 1_000_000, "prompt_eval_count": 5}
        last |= {"prompt_eval_duration": 1_000_000, "eval_count": len(words), "eval_duration": took_ns}
        if is_whole:
            await reply.json(last)
        else:
            await reply.part(json.dumps(last) + "\n", NDJSON)
            await reply.end()

    def _generated(self, body: dict[str, Any], text: str, *, done_reason: str = "") -> dict[str, Any]:
        told = {"model": body["model"], "created_at": go_time(time.time_ns()), "response": text}
        return told | self._done(done_reason)

    def _chatted(self, body: dict[str, Any], text: str, *, done_reason: str = "") -> dict[str, Any]:
        told = {"model": body["model"], "created_at": go_time(time.time_ns())}
        return told | {"message": {"role": "assistant", "content": text}} | self._done(done_reason)

    @staticmethod
    def _done(reason: str) -> dict[str, Any]:
        return {"done": True, "done_reason": reason} if reason else {"done": False}

    async def _embed(self, body: dict[str, Any], reply: Reply) -> None:
        model = self.find(body)
        async with self.use(model, body, keep_alive_ns(body.get("keep_alive"))):
            vectors = vectors_of(body.get("input"))
            await reply.json(
                {"model": body["model"], "embeddings": vectors, "prompt_eval_count": len(vectors)}
            )

    # -- the disk -------------------------------------------------------------------------------------

    async def _pull(self, body: dict[str, Any], reply: Reply) -> None:
        name = shortest_name(str(body.get("model") or body.get("name") or ""))
        is_whole = body.get("stream") is False

        async def told(line: dict[str, Any]) -> None:
            if not is_whole:
                await reply.part(json.dumps(line) + "\n", NDJSON)

        await told({"status": "pulling manifest"})
        if name.startswith("no-such"):
            raise HttpError(500, "pull model manifest: file does not exist")
        digest = hashlib.sha256(name.encode()).hexdigest()
        total, steps = 8 * 2**20, 8
        for step in range(self._pulled.get(name, 0) * steps // total, steps + 1):
            self._pulled[name] = total * step // steps
            line = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": total}
            await told(line | ({"completed": self._pulled[name]} if step else {}))
            await asyncio.sleep(self.settings.pull_s / steps)
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            await told({"status": status})
        del self._pulled[name]
        self.models.setdefault(name, StandinModel(name=name))
        await (reply.json({"status": "success"}) if is_whole else reply.end())

    async def _delete(self, body: dict[str, Any], reply: Reply) -> None:
        del self.models[self.find(body).name]
        await reply.whole(200, b"", "text/plain")

    # -- control --------------------------------------------------------------------------------------

    async def _state(self, _: Any, reply: Reply) -> None:
        runners = {r.model.name: r.process.pid for r in self.scheduler.loaded.values()}
        counts = {"generating": self.tokens.generating, "aborted": self.aborted}
        await reply.json({"runners": runners, **counts})

    async def _told_calls(self, _: Any, reply: Reply) -> None:
        await reply.json(self.calls)

    async def _control(self, body: dict[str, Any], reply: Reply) -> None:
        """Change settings; `reset` first, `add_models` and `remove_models` last."""
        if body.pop("reset", False):
            await self._reset()
        added, removed = body.pop("add_models", []), body.pop("remove_models", [])
        unknown = body.keys() - self.first_settings.keys()
        if unknown:
            raise HttpError(400, f"no such settings: {sorted(unknown)}")
        for name, value in body.items():
            setattr(self.settings, name, value)
        for told in added:
            model = StandinModel(**{**told, "capabilities": tuple(told.get("capabilities", ("completion",)))})
            self.models[model.name] = model
        for name in removed:
            del self.models[name]
        await reply.json({})

    async def _reset(self) -> None:
        for name, value in self.first_settings.items():
            setattr(self.settings, name, type(value)(value) if isinstance(value, list | dict) else value)
        self.models = {model.name: model for model in self.first_models}
        self.calls, self.aborted, self._pulled = [], 0, {}
        await self.scheduler.close()
